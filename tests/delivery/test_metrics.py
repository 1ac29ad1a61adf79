"""The numbers of an adapter or concentrator, asked for over a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from meterway.core.errors import SetupError
from meterway.delivery.metrics import (
    LIMIT_CONNECTIONS,
    Metrics,
    MetricsConfig,
    render,
    sending_metrics,
    serving_metrics,
)
from meterway.delivery.stats import RelayStats, SpoolStats

STORED = SpoolStats(
    pending=3,
    size_bytes=4096,
    oldest_age_s=1.5,
    overdue=True,
    appended=10,
    done=7,
    groups=4,
    refused=1,
    failed=0,
    lost=0,
    torn_bytes=0,
)
SENT = RelayStats(
    in_flight=2, in_flight_bytes=200, sent=9, resent=2, confirmed=7, unknown=0, bad_receipts=0, undeliverable=0
)
NUMBERS = sending_metrics(STORED, SENT, limit_bytes=8192)


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    async with serving_metrics(MetricsConfig(port=port), lambda: NUMBERS):
        yield port


def test_what_prometheus_reads_is_what_was_counted() -> None:
    lines = render(NUMBERS).splitlines()
    assert sorted(lines) == sorted(
        [
            "# TYPE meterway_spool_pending gauge",
            "meterway_spool_pending 3",
            "# TYPE meterway_spool_size_bytes gauge",
            "meterway_spool_size_bytes 4096",
            "# TYPE meterway_spool_limit_bytes gauge",
            "meterway_spool_limit_bytes 8192",
            "# TYPE meterway_spool_oldest_age_s gauge",
            "meterway_spool_oldest_age_s 1.5",
            "# TYPE meterway_spool_overdue gauge",
            "meterway_spool_overdue 1",
            "# TYPE meterway_spool_appended_total counter",
            "meterway_spool_appended_total 10",
            "# TYPE meterway_spool_done_total counter",
            "meterway_spool_done_total 7",
            "# TYPE meterway_spool_groups_total counter",
            "meterway_spool_groups_total 4",
            "# TYPE meterway_spool_refused_total counter",
            "meterway_spool_refused_total 1",
            "# TYPE meterway_spool_failed_total counter",
            "meterway_spool_failed_total 0",
            "# TYPE meterway_spool_lost_total counter",
            "meterway_spool_lost_total 0",
            "# TYPE meterway_spool_torn_bytes_total counter",
            "meterway_spool_torn_bytes_total 0",
            "# TYPE meterway_relay_in_flight gauge",
            "meterway_relay_in_flight 2",
            "# TYPE meterway_relay_in_flight_bytes gauge",
            "meterway_relay_in_flight_bytes 200",
            "# TYPE meterway_relay_sent_total counter",
            "meterway_relay_sent_total 9",
            "# TYPE meterway_relay_resent_total counter",
            "meterway_relay_resent_total 2",
            "# TYPE meterway_relay_confirmed_total counter",
            "meterway_relay_confirmed_total 7",
            "# TYPE meterway_relay_unknown_total counter",
            "meterway_relay_unknown_total 0",
            "# TYPE meterway_relay_bad_receipts_total counter",
            "meterway_relay_bad_receipts_total 0",
            "# TYPE meterway_relay_undeliverable_total counter",
            "meterway_relay_undeliverable_total 0",
        ]
    )
    assert render(NUMBERS).endswith("\n")


async def test_only_metrics_are_answered() -> None:
    async with serving() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        answer = await client.get("/metrics")
        assert (answer.status_code, answer.text) == (200, render(NUMBERS))
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await client.head("/metrics")).text == ""
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 404


async def test_who_asks_badly_or_too_often_is_let_go_and_the_next_is_served() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /" + b"x" * 20_000)
        async with asyncio.timeout(60):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        writer.close()
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(LIMIT_CONNECTIONS + 1)]
        async with asyncio.timeout(60):
            assert await idle[-1][0].read() == b""
        for _, each in idle:
            each.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client, asyncio.timeout(60):
            while True:
                try:
                    assert (await client.get("/metrics")).status_code == 200
                except httpx.TransportError:  # hung up on, before or after it had asked
                    continue
                break


async def test_a_port_in_use_is_said() -> None:
    async with serving() as port:
        with pytest.raises(SetupError, match=rf"\[metrics\] port {port} cannot be used: .*choose another"):
            async with serving_metrics(MetricsConfig(port=port), lambda: Metrics({}, {})):
                pass


async def test_without_a_port_nothing_listens() -> None:
    async with serving_metrics(MetricsConfig(), lambda: Metrics({}, {})):
        pass
