"""The cloud as a process: starts in any order, serves, waits for what is away, ends cleanly."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import pytest

from meterway.bus.mqtt import MqttBus
from meterway.cloud.config import CloudConfig
from meterway.cloud.service import run
from meterway.core import wire
from meterway.core.errors import SetupError
from meterway.core.reading import MeterReading, PropertyValue
from support.brokers import RunningBroker, free_port
from support.postgres import Server, create_database, drop_database

METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
WITHIN_S = 60.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user may pass through, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="mwpg-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def configuration(broker: RunningBroker, **tables: object) -> CloudConfig:
    return msgspec.convert(
        {"broker": {"url": broker.url}, "http": {"port": free_port(), "open": True}, **tables},
        CloudConfig,
        dec_hook=_path,
    )


def _path(_: type, value: object) -> Path:
    return Path(str(value))


@asynccontextmanager
async def running(config: CloudConfig, *, wait: bool = True) -> AsyncIterator[asyncio.Event]:
    ready = asyncio.Event()
    task = asyncio.create_task(run(config, ready=ready.set))
    try:
        if wait:
            await until_ready(ready, task)
        yield ready
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_ready(ready: asyncio.Event, task: "asyncio.Task[None] | None" = None) -> None:
    waiting = asyncio.create_task(ready.wait())
    done, _ = await asyncio.wait(
        [each for each in (waiting, task) if each], timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED
    )
    if task in done and task is not None:
        waiting.cancel()
        await task
    assert ready.is_set()


async def publish_reading(broker: RunningBroker, number: int) -> None:
    moment = datetime.now(UTC)
    values = (PropertyValue("OBIS_1.8.0", Decimal("12345.678"), None, "kWh"),)
    reading = MeterReading(wire.reading_identifier(METER, moment, values), METER, moment, values, number)
    acknowledged = asyncio.Event()
    async with MqttBus(broker.config, "c1") as bus:
        await bus.wait_connected()
        topic = f"concentrator/c1/smartMeterMessage/{METER}/readings"
        bus.publish(topic, wire.encode(reading), on_ack=acknowledged.set)
        async with asyncio.timeout(WITHIN_S):
            await acknowledged.wait()


async def stored_sequence_number(config: CloudConfig, number: int) -> None:
    """Wait until the API shows the meter with this number as its newest."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{config.http.port}") as client:
        async with asyncio.timeout(WITHIN_S):
            while f'"sequenceNumber":{number}' not in (await client.post("/v1/meterReadings", json={})).text.replace(
                " ", ""
            ):
                await asyncio.sleep(0.05)


async def test_one_process_with_its_own_database_stores_and_answers(folder: Path, nats: RunningBroker) -> None:
    config = configuration(nats, database={"embedded": str(folder / "data")})
    async with running(config):
        await publish_reading(nats, 7)
        await stored_sequence_number(config, 7)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{config.http.port}") as client:
            assert (await client.get("/readyz")).status_code == 200
            async with asyncio.timeout(WITHIN_S):
                while "meterway_ingest_stored_total 1" not in (metrics := (await client.get("/metrics")).text):
                    await asyncio.sleep(0.05)
        assert METER not in metrics
        numbers = dict(line.split(" ") for line in metrics.splitlines() if not line.startswith("#") and "{" not in line)
        assert numbers["meterway_ingest_pending"] == "0"
        assert numbers["meterway_ingest_pending_limit"] == "20000"
        assert numbers["meterway_broker_connected"] == "1"
        assert int(numbers["meterway_database_connections"]) >= 1
        assert "meterway_ledger_waiting_batches" in numbers


async def test_research_is_answered_from_as_many_households_as_the_configuration_says(
    postgres_server: Server, nats: RunningBroker, folder: Path
) -> None:
    dsn = await create_database(postgres_server)
    (folder / "dsn").write_text(dsn)
    config = configuration(nats, database={"dsn_file": str(folder / "dsn")}, role="api", privacy={"k": 77})
    query = {"propertyName": "OBIS_1.8.0", "fromTime": "2026-11-01T00:00:00Z", "untilTime": "2026-11-02T00:00:00Z"}
    async with running(config), httpx.AsyncClient(base_url=f"http://127.0.0.1:{config.http.port}") as client:
        answer = await client.post("/v1/research", json=query)
        assert "fewer than 77 households" in answer.json()["detail"]
    await drop_database(postgres_server, dsn)


def test_a_cloud_without_a_provider_to_sign_in_with_loads_no_http_client() -> None:
    program = "import sys, meterway.cloud.service; sys.exit('httpx' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_second_worker_joins_the_embedded_database_and_the_api_may_stand_alone(
    folder: Path, nats: RunningBroker
) -> None:
    database = {"embedded": str(folder / "data")}
    api = configuration(nats, database=database, role="api")
    async with running(api, wait=False) as api_ready, running(configuration(nats, database=database)):
        await until_ready(api_ready)
        async with running(configuration(nats, database=database, role="ingest", worker="second")):
            await publish_reading(nats, 3)
            await stored_sequence_number(api, 3)


async def test_a_broker_that_is_away_at_the_start_is_waited_for(
    postgres_server: Server, nats: RunningBroker, folder: Path
) -> None:
    dsn = await create_database(postgres_server)
    (folder / "dsn").write_text(dsn)
    nats.kill()
    config = configuration(nats, database={"dsn_file": str(folder / "dsn")})
    async with running(config, wait=False) as ready:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{config.http.port}") as client:
            async with asyncio.timeout(WITHIN_S):
                while True:
                    try:
                        answer = await client.get("/readyz")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
        assert answer.status_code == 503
        assert "The broker is away" in answer.text
        assert not ready.is_set()
        nats.start()
        await until_ready(ready)
        await publish_reading(nats, 1)
        await stored_sequence_number(config, 1)
    await drop_database(postgres_server, dsn)


async def test_a_database_that_is_away_at_the_start_is_waited_for(
    nats: RunningBroker, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "dsn").write_text(f"postgresql://meterway:secret@127.0.0.1:{free_port()}/none")
    config = configuration(nats, database={"dsn_file": str(folder / "dsn")})
    async with running(config, wait=False) as ready, asyncio.timeout(WITHIN_S):
        while "waiting for the database: the database is away" not in caplog.text:
            await asyncio.sleep(0.05)
        assert not ready.is_set()
    assert "secret" not in caplog.text


async def test_a_port_that_is_taken_is_a_sentence(postgres_server: Server, nats: RunningBroker, folder: Path) -> None:
    dsn = await create_database(postgres_server)
    (folder / "dsn").write_text(dsn)
    config = configuration(nats, database={"dsn_file": str(folder / "dsn")}, http={"port": nats.port})
    with pytest.raises(SetupError, match=rf"\[http\] 127.0.0.1:{nats.port} cannot be used .*: choose another port"):
        await run(config, ready=lambda: None)
    await drop_database(postgres_server, dsn)
