"""The live stream on a real server: what changes is told to everybody, and nobody can hold it up."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from meterway.cloud import live
from meterway.cloud.access.viewer import EVERYBODY
from meterway.cloud.api import create_app
from meterway.cloud.live import LIMIT_CLIENTS, LIMIT_WAITING, Client
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from support.cloud_http import client_of, put, reading, rejected, value
from support.postgres import Server, create_database, running_server

DEADLINE_S = 60


@asynccontextmanager
async def events(client: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[dict[str, list[dict[str, object]]]]]:
    """Open the stream; yields its events."""
    async with client.stream("GET", "/v1/live") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")

        async def decoded() -> AsyncIterator[dict[str, list[dict[str, object]]]]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

        yield decoded()


async def next_about(stream: AsyncIterator[dict[str, list[dict[str, object]]]], meter_id: str) -> dict[str, object]:
    async with asyncio.timeout(DEADLINE_S):
        async for event in stream:
            for meter in event["meters"]:
                if meter["meterId"] == meter_id:
                    return meter
    raise AssertionError("the stream ended")


async def put_until(store: Store, done: asyncio.Future[Any], meter_id: str = "m1") -> None:
    """Store readings until somebody heard of them: the listener may just be starting."""
    turn = 0
    while not done.done():
        turn += 1
        await put(store, reading(meter_id, datetime.now(UTC), value("OBIS_1.7.0", f"0.{turn:03}", "kW")))
        await asyncio.wait([done], timeout=0.05)


async def test_several_clients_of_several_servers_hear_of_a_stored_reading(store: Store) -> None:
    async with (
        client_of(create_app(store)) as one,
        client_of(create_app(store)) as other,
        events(one) as first,
        events(one) as second,
        events(other) as third,
    ):
        heard = asyncio.gather(*(next_about(stream, "m1") for stream in (first, second, third)))
        await put_until(store, heard)
        meters = await heard
    for meter in meters:
        assert meter["state"] == "online"
        assert meter["lastReading"]["propertyValues"][0]["propertyName"] == "OBIS_1.7.0"  # type: ignore[index]


async def test_changes_are_put_together_and_the_last_value_is_told(store: Store) -> None:
    async with client_of(create_app(store)) as client, events(client) as stream:
        heard = asyncio.ensure_future(next_about(stream, "m1"))
        await put_until(store, heard)
        start = datetime.now(UTC) + timedelta(seconds=1)
        before = live_events = 0
        for number in range(100):
            await put(store, reading("m1", start + timedelta(seconds=number), value("OBIS_1.8.0", f"{number}", "kWh")))
        async with asyncio.timeout(DEADLINE_S):
            async for event in stream:
                live_events += 1
                values = [meter["lastReading"]["propertyValues"][0] for meter in event["meters"]]  # type: ignore[index]
                before = max([before, *(each.get("numericalValue", 0) for each in values)])
                if before == 99:
                    break
    assert live_events < 100


async def test_counters_follow_the_quarantine(store: Store) -> None:
    async with client_of(create_app(store)) as client, events(client) as stream:
        await put(store, rejected(b"bad"), rejected(b"worse"))
        async with asyncio.timeout(DEADLINE_S):
            async for event in stream:
                counters = event["counters"]
                if counters and counters["quarantined"] == 2:  # type: ignore[call-overload]
                    break


async def test_a_claim_is_told_to_other_pages(store: Store) -> None:
    async with client_of(create_app(store)) as client, events(client) as stream:
        heard = asyncio.ensure_future(next_about(stream, "m1"))
        await put_until(store, heard)
        await client.patch("/v1/meters/m1", json={"claimed": True, "name": "Flat 3"})
        async with asyncio.timeout(DEADLINE_S):
            while (await next_about(stream, "m1"))["name"] != "Flat 3":
                pass


async def test_a_stream_ends_when_the_server_stops(store: Store) -> None:
    async with httpx.AsyncClient() as client, AsyncExitStack() as stack:
        async with serving(create_app(store)) as url:
            answer = await stack.enter_async_context(client.stream("GET", f"{url}/v1/live"))
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("retry: ")
        async with asyncio.timeout(DEADLINE_S):
            assert all([not line.startswith("retry: ") async for line in lines])


async def test_one_client_too_many_gets_a_problem(store: Store) -> None:
    app = create_app(store)
    async with client_of(app) as client:
        clients = [app.state.live.connect(EVERYBODY) for _ in range(LIMIT_CLIENTS)]
        answer = await client.get("/v1/live")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "already serves 200 live streams" in answer.json()["detail"]
        app.state.live.disconnect(clients[0])
        async with events(client):
            pass


def test_a_client_that_does_not_read_is_dropped() -> None:
    slow = Client(EVERYBODY)
    assert all(slow.put(b"event") for _ in range(LIMIT_WAITING))
    assert not slow.put(b"one too many")
    assert not slow.open
    assert slow.waiting.get_nowait() is None


async def test_a_client_that_left_is_forgotten(store: Store) -> None:
    app = create_app(store)
    async with client_of(app) as client:
        async with events(client):
            assert app.state.live.clients == 1
        async with asyncio.timeout(DEADLINE_S):
            while app.state.live.clients:
                await asyncio.sleep(0.01)


async def test_the_stream_goes_on_after_the_database_was_away() -> None:
    with running_server() as server:
        dsn = await create_database(server)
        async with await Store.connect(dsn) as store:
            await store.migrate(now=datetime.now(UTC))
            async with client_of(create_app(store)) as client, events(client) as stream:
                heard = asyncio.ensure_future(next_about(stream, "before"))
                await put_until(store, heard, "before")
                await asyncio.to_thread(_restart, server)
                heard = asyncio.ensure_future(next_about(stream, "after"))
                # One reading while nobody listens: it is told when the listener is back.
                async with asyncio.timeout(DEADLINE_S):
                    await put(store, reading("after", datetime.now(UTC), value("OBIS_1.7.0", "1", "kW")))
                    assert (await heard)["meterId"] == "after"


def _restart(server: Server) -> None:
    server.stop()
    server.start()


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert (live.TICK_S, live.LIMIT_CLIENTS) == (0.25, 200)
