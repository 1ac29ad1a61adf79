"""Ingest: readings a second from a broker into PostgreSQL, durable, beside what people usually write.

    python -m bench.ingest [--readings 60000] [--meters 1000]

A reading is 13 values in 1 KB of JSON. The messages wait in the broker (embedded NATS, JetStream on disk); measured is
from the subscription to the last acknowledged message, with PostgreSQL's durable defaults. Peers, on the same broker,
database and messages: paho-mqtt 2 in threads with a batch of 500 by ``executemany`` of asyncpg, commit then
acknowledge; and an insert for each message. Both keep the same row with the same primary key.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import asyncpg
import paho.mqtt.client as paho
import uvloop
from paho.mqtt.enums import CallbackAPIVersion

from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import MqttBus
from meterway.cloud.config import IngestConfig
from meterway.cloud.ingest import Ingest
from meterway.cloud.postgres import EmbeddedPostgres
from meterway.cloud.service import spare_garbage_collection
from meterway.cloud.store import Store
from meterway.core import wire
from meterway.core.errors import TransientError
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.topics import CONCENTRATOR_FILTER
from meterway.delivery.confirm import Confirmer

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

Message = tuple[str, bytes]


@dataclass(frozen=True)
class Result:
    """One contestant."""

    name: str
    readings: int
    seconds: float

    @property
    def readings_per_s(self) -> float:
        return self.readings / self.seconds


def messages(count: int, meters: int, seed: int) -> list[Message]:
    """Return readings of ``meters`` meters in the order of their time."""
    chance = random.Random(seed)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
    made = []
    for number in range(count):
        meter_id = str(UUID(int=(seed << 100) + number % meters))
        moment = start + timedelta(seconds=number // meters)
        values = tuple(
            PropertyValue(name, Decimal(chance.randrange(10**8)).scaleb(-3), None, unit) for name, unit in UNITS.items()
        )
        identifier = wire.reading_identifier(meter_id, moment, values)
        payload = wire.encode(MeterReading(identifier, meter_id, moment, values, number // meters + 1))
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

    async with MqttBus(broker, "bench-publisher") as publisher:
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


async def meterway_ingest(broker: BrokerConfig, dsn: str, batch: Sequence[Message]) -> float:
    """Return how many seconds our ingest took."""
    await fill(broker, "meterway-cloud-bench", batch)
    async with await Store.connect(dsn) as store:
        ingest = Ingest(store, IngestConfig(), clock=lambda: datetime.now(UTC))
        spare_garbage_collection()
        started, started_cpu = time.perf_counter(), time.process_time()
        async with MqttBus(broker, "meterway-cloud-bench", {CONCENTRATOR_FILTER: ingest.receive}) as bus:
            running = asyncio.create_task(ingest.run(Confirmer(bus).confirm))
            await until(lambda: ingest.counters.stored >= len(batch))
            seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        counters = ingest.counters
        commit_ms = counters.commit_seconds.sum_s / counters.batches * 1000
        cpu_us = cpu / len(batch) * 1e6
        print(f"  {counters.batches} batches, {commit_ms:.0f} ms a commit, {cpu_us:.0f} us of our own CPU a reading")
    return seconds


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


def peer(limit: int) -> Callable[[BrokerConfig, str, Sequence[Message]], Awaitable[float]]:
    """Return a contestant that stores batches of ``limit``."""

    async def contest(broker: BrokerConfig, dsn: str, batch: Sequence[Message]) -> float:
        client_id = f"peer-{limit}"
        await fill(broker, client_id, batch)
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute("drop table if exists peer")
            await connection.execute(_PEER_TABLE)
            started = time.perf_counter()
            await PahoPeer(broker, client_id, limit).store(connection, len(batch))
            return time.perf_counter() - started
        finally:
            await connection.close()

    return contest


async def run(readings: int, meters: int) -> list[Result]:
    """Run all contestants, one after the other, on one database and a fresh broker each."""
    contestants: list[tuple[str, int, Callable[[BrokerConfig, str, Sequence[Message]], Awaitable[float]]]] = [
        ("meterway ingest, one worker", readings, meterway_ingest),
        ("paho-mqtt + asyncpg executemany, 500 a batch", max(readings // 3, 1), peer(500)),
        ("paho-mqtt + asyncpg, an insert each", max(readings // 20, 1), peer(1)),
    ]
    results = []
    with tempfile.TemporaryDirectory(prefix="mwbench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with EmbeddedPostgres(folder / "pg") as database:
            async with await Store.connect(database.dsn) as store:
                await store.migrate(now=datetime.now(UTC))
            for number, (title, count, contest) in enumerate(contestants):
                batch = messages(count, meters, number + 1)
                async with EmbeddedBroker(folder / f"nats-{number}") as broker:
                    seconds = await contest(broker.config(), database.dsn, batch)
                results.append(Result(title, count, seconds))
                print(f"{title}: {count / seconds:,.0f} readings/s ({count:,} in {seconds:.1f} s)", flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    """Run and print; loopback only, stops by itself."""
    parser = argparse.ArgumentParser(prog="bench.ingest")
    parser.add_argument("--readings", type=int, default=60_000)
    parser.add_argument("--meters", type=int, default=1000)
    chosen = parser.parse_args(arguments)
    size = len(messages(1, 1, 1)[0][1])
    print(f"ingest: {chosen.readings:,} readings of {chosen.meters:,} meters, {len(UNITS)} values, {size} bytes each")
    results = uvloop.run(run(chosen.readings, chosen.meters))
    ours = results[0]
    for other in results[1:]:
        print(f"x {ours.readings_per_s / other.readings_per_s:.1f} of {other.name}")
    return results


if __name__ == "__main__":
    main()
