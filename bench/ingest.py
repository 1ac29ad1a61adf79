"""Ingest: readings a second from a broker into PostgreSQL, durable, beside what people usually write.

    python -m bench.ingest [--readings 40000] [--meters 1000] [--rounds 3]

A reading is 13 values, in our shape (1.5 KB of JSON) or in the flat one of the public reference implementation (1 KB,
no identifier: we derive it). The messages wait in the broker (embedded NATS, JetStream on disk); measured is from the
subscription to the last stored message, with PostgreSQL's durable defaults, and the CPU time of the process that
ingests. Peers, on the same database, with messages of our shape: paho-mqtt 2 in threads with a batch of 500 by
``executemany`` of asyncpg, commit then acknowledge; and an insert for each message. Both keep the same row with the
same primary key. One contestant of ours works beyond this machine's loopback: over TLS, as a user that the broker lets
in and limits by asking us. Contestants take turns; printed is the median of the rounds.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from statistics import median
from uuid import UUID

import asyncpg
import msgspec
import paho.mqtt.client as paho
import uvloop
from paho.mqtt.enums import CallbackAPIVersion

from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig
from meterway.bus.directory import Device
from meterway.bus.mqtt import MqttBus
from meterway.cli.output import spare_garbage_collection
from meterway.cloud.config import IngestConfig
from meterway.cloud.ingest import Ingest
from meterway.cloud.postgres import EmbeddedPostgres
from meterway.cloud.store import Store
from meterway.core import wire
from meterway.core.errors import TransientError
from meterway.core.grants import Grant
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.topics import CONCENTRATOR_FILTER
from meterway.delivery.confirm import Confirmer
from meterway.durable_file import write_private

UNITS = {
    "OBIS_1.8.0": "kWh",
    "OBIS_1.8.1": "kWh",
    "OBIS_1.8.2": "kWh",
    "OBIS_2.8.0": "kWh",
    "OBIS_1.7.0": "kW",
    "OBIS_2.7.0": "kW",
    "OBIS_16.7.0": "kW",
    "OBIS_32.7.0": "V",
    "OBIS_52.7.0": "V",
    "OBIS_72.7.0": "V",
    "OBIS_31.7.0": "A",
    "OBIS_51.7.0": "A",
    "OBIS_71.7.0": "A",
}
WAIT_S = 300.0
USER = "bench"
SUBSCRIBER, PUBLISHER = f"{USER}:cloud", f"{USER}:publisher"

Message = tuple[str, bytes]


@dataclass(frozen=True)
class Round:
    """One contestant, once."""

    readings: int
    seconds: float
    cpu_seconds: float

    @property
    def readings_per_s(self) -> float:
        return self.readings / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of the measured process, for each reading."""
        return self.cpu_seconds / self.readings * 1e6


class Stopwatch:
    """Measures wall and CPU time from its making on."""

    def __init__(self, readings: int) -> None:
        self._readings = readings
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> Round:
        seconds, cpu_seconds = self._started
        return Round(self._readings, time.perf_counter() - seconds, time.process_time() - cpu_seconds)


def in_our_shape(meter_id: str, moment: datetime, number: int, numbers: Sequence[Decimal]) -> bytes:
    """Return a reading as our adapters send it."""
    values = tuple(
        PropertyValue(name, value, None, unit) for (name, unit), value in zip(UNITS.items(), numbers, strict=True)
    )
    identifier = wire.reading_identifier(meter_id, moment, values)
    return wire.encode(MeterReading(identifier, meter_id, moment, values, number))


def in_flat_shape(meter_id: str, moment: datetime, _: int, numbers: Sequence[Decimal]) -> bytes:
    """Return a reading as the public reference implementation sends it."""
    values = [
        {"propertyName": name.removeprefix("OBIS_"), "numericalValue": str(value), "unit": unit}
        for (name, unit), value in zip(UNITS.items(), numbers, strict=True)
    ]
    return json.dumps({"readingTime": moment.isoformat(), "meterId": meter_id, "propertyValues": values}).encode()


Shape = Callable[[str, datetime, int, Sequence[Decimal]], bytes]


def messages(count: int, meters: int, seed: int, shape: Shape = in_our_shape) -> list[Message]:
    """Return readings of ``meters`` meters in the order of their time."""
    chance = random.Random(seed)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
    made = []
    for number in range(count):
        meter_id = str(UUID(int=(seed << 100) + number % meters))
        moment = start + timedelta(seconds=number // meters)
        numbers = [Decimal(chance.randrange(10**8)).scaleb(-3) for _ in UNITS]
        payload = shape(meter_id, moment, number // meters + 1, numbers)
        made.append((f"concentrator/c{number % 20}/smartMeterMessage/{meter_id}/readings", payload))
    return made


async def fill(broker: BrokerConfig, client_id: str, batch: Sequence[Message]) -> None:
    """Subscribe as ``client_id``, leave, and let the broker hold all of ``batch`` for it."""
    async with MqttBus(broker, client_id, {CONCENTRATOR_FILTER: lambda _: None}) as subscriber:
        await subscriber.wait_connected()
    acknowledged = 0

    def note() -> None:
        nonlocal acknowledged
        acknowledged += 1

    async with MqttBus(broker, PUBLISHER) as publisher:
        await publisher.wait_connected()
        for topic, payload in batch:
            while True:
                try:
                    publisher.publish(topic, payload, on_ack=note)
                    break
                except TransientError:
                    await asyncio.sleep(0.001)
        await until(lambda: acknowledged >= len(batch))


async def until(done: Callable[[], bool]) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not come within ``WAIT_S``.
    """
    async with asyncio.timeout(WAIT_S):
        while not done():
            await asyncio.sleep(0.005)


async def meterway_ingest(broker: BrokerConfig, dsn: str, batch: Sequence[Message]) -> Round:
    """Ingest with one worker."""
    await fill(broker, SUBSCRIBER, batch)
    async with await Store.connect(dsn) as store:
        ingest = Ingest(store, IngestConfig(), clock=lambda: datetime.now(UTC))
        spare_garbage_collection()
        watch = Stopwatch(len(batch))
        async with MqttBus(broker, SUBSCRIBER, {CONCENTRATOR_FILTER: ingest.receive}) as bus:
            running = asyncio.create_task(ingest.run(Confirmer(bus).confirm))
            await until(lambda: ingest.counters.stored >= len(batch))
            result = watch.stop()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    return result


class PahoPeer:
    """paho-mqtt with its own thread; batches of ``limit`` go to asyncpg; acknowledged after the commit."""

    def __init__(self, broker: BrokerConfig, client_id: str, limit: int) -> None:
        host, _, port = broker.url.removeprefix("mqtt://").partition(":")
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[paho.MQTTMessage] = asyncio.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, manual_ack=True
        )
        if broker.username is not None and broker.password_file is not None:
            self._client.username_pw_set(broker.username, broker.password_file.read_text().strip())
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe(CONCENTRATOR_FILTER, qos=1)
        self._client.connect(host, int(port))

    def _take(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    async def store(self, connection: "asyncpg.Connection[asyncpg.Record]", count: int) -> None:
        """Store ``count`` readings."""
        self._client.loop_start()
        stored = 0
        while stored < count:
            batch = [await self._queue.get()]
            while len(batch) < self._limit and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            rows = [_peer_row(bytes(message.payload)) for message in batch]
            if self._limit == 1:
                await connection.execute(_PEER_INSERT, *rows[0])
            else:
                await connection.executemany(_PEER_INSERT, rows)
            for message in batch:
                self._client.ack(message.mid, message.qos)
            stored += len(batch)
        self._client.disconnect()
        self._client.loop_stop()


_PEER_TABLE = """
create table peer (meter_id text, reading_time timestamptz, reading_identifier uuid, sequence_number bigint,
                   property_ids text[], numerical_values numeric[],
                   primary key (meter_id, reading_time, reading_identifier))
"""
_PEER_INSERT = "insert into peer values ($1, $2, $3, $4, $5, $6) on conflict do nothing"


def _peer_row(payload: bytes) -> tuple[object, ...]:
    reading = json.loads(payload, parse_float=Decimal)
    values = reading["propertyValues"]
    return (
        reading["meterIndividual"]["meterIndividualId"],
        datetime.fromisoformat(reading["readingTime"]),
        UUID(reading["meterReadingIdentifier"]),
        reading["sequenceNumber"],
        [value["operationalPropertyDefinition"]["propertyId"] for value in values],
        [value["numericalValue"] for value in values],
    )


Contest = Callable[[BrokerConfig, str, Sequence[Message]], Awaitable[Round]]


def peer(limit: int) -> Contest:
    """Return a contestant that stores batches of ``limit``."""

    async def contest(broker: BrokerConfig, dsn: str, batch: Sequence[Message]) -> Round:
        client_id = f"peer-{limit}"
        await fill(broker, client_id, batch)
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute("drop table if exists peer")
            await connection.execute(_PEER_TABLE)
            watch = Stopwatch(len(batch))
            await PahoPeer(broker, client_id, limit).store(connection, len(batch))
            return watch.stop()
        finally:
            await connection.close()

    return contest


@asynccontextmanager
async def plain(folder: Path) -> AsyncIterator[BrokerConfig]:
    """Run a broker on loopback, without TLS, for one user who may do everything."""
    async with EmbeddedBroker(folder) as broker:
        yield broker.config()


class OnlyUs:
    """A directory of one device."""

    def __init__(self, password: str) -> None:
        grant = Grant(publish=("concentrator/#", "receipt/+"), read=("concentrator/#",))
        self._device = Device(USER, sha256(password.encode()).digest(), grant)

    def find(self, username: str) -> Device | None:
        return self._device if username == USER else None


@asynccontextmanager
async def secured(folder: Path) -> AsyncIterator[BrokerConfig]:
    """Run a broker that speaks TLS only, for a user with permissions."""
    password = secrets.token_urlsafe(32)
    folder.mkdir()
    write_private(folder / "bench.password", password)
    async with EmbeddedBroker(folder, host="0.0.0.0", names=("localhost",), directory=OnlyUs(password)) as broker:
        yield msgspec.structs.replace(broker.config(), username=USER, password_file=folder / "bench.password")


@dataclass(frozen=True)
class Contestant:
    name: str
    contest: Contest
    share: float
    """Which part of the readings it gets, so that the slow ones do not take all the time."""
    shape: Shape = in_our_shape
    broker: Callable[[Path], AbstractAsyncContextManager[BrokerConfig]] = plain


CONTESTANTS = (
    Contestant("meterway ingest, one worker, our shape", meterway_ingest, 1),
    Contestant("the same over TLS and with permissions", meterway_ingest, 1, broker=secured),
    Contestant("meterway ingest, one worker, flat shape", meterway_ingest, 1, in_flat_shape),
    Contestant("paho-mqtt + asyncpg executemany, 500 a batch", peer(500), 0.5),
    Contestant("paho-mqtt + asyncpg, an insert each", peer(1), 0.05),
)


async def run(readings: int, meters: int, rounds: int) -> dict[str, list[Round]]:
    """Run all contestants in turn, on one database and a fresh broker each."""
    results: dict[str, list[Round]] = {each.name: [] for each in CONTESTANTS}
    with tempfile.TemporaryDirectory(prefix="mwbench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with EmbeddedPostgres(folder / "pg") as database:
            async with await Store.connect(database.dsn) as store:
                await store.migrate(now=datetime.now(UTC))
            for number in range(rounds * len(CONTESTANTS)):
                each = CONTESTANTS[number % len(CONTESTANTS)]
                batch = messages(max(int(readings * each.share), 1), meters, number + 1, each.shape)
                async with each.broker(folder / f"nats-{number}") as broker:
                    results[each.name].append(await each.contest(broker, database.dsn, batch))
    return results


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Round]]:
    """Run and print; loopback only, stops by itself."""
    parser = argparse.ArgumentParser(prog="bench.ingest")
    parser.add_argument("--readings", type=int, default=40_000)
    parser.add_argument("--meters", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    sizes = [len(messages(1, 1, 1, shape)[0][1]) for shape in (in_our_shape, in_flat_shape)]
    print(
        f"ingest: {chosen.readings:,} readings of {chosen.meters:,} meters, {len(UNITS)} values; "
        f"{sizes[0]} bytes in our shape, {sizes[1]} in the flat one; median of {chosen.rounds} rounds"
    )
    print(f"load average before: {_load()} on {os.cpu_count()} cores", flush=True)
    results = uvloop.run(run(chosen.readings, chosen.meters, chosen.rounds))
    ours = _speed(results[CONTESTANTS[0].name])
    for name, rounds in results.items():
        speeds = [each.readings_per_s for each in rounds]
        print(
            f"{name}: {_speed(rounds):,.0f} readings/s ({min(speeds):,.0f} to {max(speeds):,.0f}), "
            f"{median(each.cpu_us for each in rounds):.0f} us of its own CPU a reading; "
            f"our shape is x {ours / _speed(rounds):.1f}"
        )
    print(f"load average after: {_load()}")
    return results


def _speed(rounds: Sequence[Round]) -> float:
    return median(each.readings_per_s for each in rounds)


def _load() -> str:
    return " ".join(f"{each:.1f}" for each in os.getloadavg())


if __name__ == "__main__":
    main()
