"""Ingest from a real broker into a real PostgreSQL: each reading once, whatever comes beside it and whatever dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.cloud.config import IngestConfig
from meterway.cloud.ingest import Ingest
from meterway.cloud.postgres import Cluster
from meterway.cloud.store import Store
from meterway.core import receipts, reports, wire
from meterway.core.errors import TransientError
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.reports import Fault, Status
from meterway.core.topics import CONCENTRATOR_FILTER
from meterway.delivery.confirm import Confirmer
from support.brokers import RunningBroker
from support.postgres import running_server, wait_for_rows

METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
TOPIC = f"concentrator/c1/smartMeterMessage/{METER}/readings"


def utc_now() -> datetime:
    return datetime.now(UTC)


START = utc_now() - timedelta(hours=1)


def reading(number: int, meter_id: str = METER, *, time: datetime | None = None) -> MeterReading:
    values = (
        PropertyValue("OBIS_1.8.0", Decimal("12345.678") + number, None, "kWh"),
        PropertyValue("OBIS_1.7.0", Decimal("0.412"), None, "kW"),
    )
    moment = time or START + timedelta(seconds=number)
    identifier = wire.reading_identifier(meter_id, moment, values)
    return MeterReading(identifier, meter_id, moment, values, number)


def payload(number: int, **changes: object) -> bytes:
    """Return a reading on the wire, with some of its fields changed."""
    table = msgspec.json.decode(wire.encode(reading(number)))
    return msgspec.json.encode(table | changes)


@asynccontextmanager
async def ingesting(store: Store, broker: RunningBroker, worker: str = "a", **config: object) -> AsyncIterator[Ingest]:
    ingest = Ingest(store, msgspec.convert(config, IngestConfig), clock=utc_now)
    async with MqttBus(broker.config, f"meterway-cloud-{worker}", {CONCENTRATOR_FILTER: ingest.receive}) as bus:
        task = asyncio.create_task(ingest.run(Confirmer(bus).confirm))
        await bus.wait_connected()
        try:
            yield ingest
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Concentrator:
    """Publishes as one does: repeats what has no receipt."""

    bus: MqttBus

    def __init__(self) -> None:
        self._receipts: set[bytes] = set()
        self._waiting: dict[bytes, tuple[str, bytes]] = {}

    def take_receipt(self, delivery: Delivery) -> None:
        self._receipts.update(receipts.decode(delivery.payload))
        delivery.ack()

    def publish(self, payload: bytes, topic: str = TOPIC, *, retain: bool = False) -> None:
        self._waiting[receipts.digest(topic, payload)] = (topic, payload)
        self.bus.publish(topic, payload, retain=retain)

    async def wait_confirmed(self, *, repeat_every_s: float = 10.0, seconds: float = 90.0) -> None:
        """Wait until there is a receipt for everything that was published."""
        loop = asyncio.get_running_loop()
        next_repeat = loop.time() + repeat_every_s
        async with asyncio.timeout(seconds):
            while missing := self._waiting.keys() - self._receipts:
                await asyncio.sleep(0.01)
                if loop.time() < next_repeat:
                    continue
                next_repeat = loop.time() + repeat_every_s
                for digest in missing:
                    try:
                        self.bus.publish(*self._waiting[digest])
                    except TransientError:
                        break


@asynccontextmanager
async def a_concentrator(broker: RunningBroker) -> AsyncIterator[Concentrator]:
    sender = Concentrator()
    async with MqttBus(broker.config, "c1", {"receipt/c1": sender.take_receipt}) as sender.bus:
        await sender.bus.wait_connected()
        yield sender


async def rows_of(store: Store, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await store.fetch(sql)]


async def test_a_reading_is_stored_exactly_acknowledged_and_confirmed(store: Store, broker: RunningBroker) -> None:
    async with ingesting(store, broker) as ingest, a_concentrator(broker) as sender:
        sender.publish(wire.encode(reading(1)))
        await sender.wait_confirmed()
    rows = await rows_of(
        store,
        "select meter_id, reading_identifier, reading_time, sequence_number from reading join meter using (meter_key)",
    )
    assert rows == [(METER, reading(1).identifier, reading(1).reading_time, 1)]
    counters = ingest.counters
    assert (counters.received, counters.stored, counters.batches) == (1, 1, 1)
    assert sum(counters.commit_seconds.counts) == 1
    assert counters.totals()["ingest_stored"] == 1


async def test_what_was_not_acknowledged_comes_again_and_is_stored_once(store: Store, broker: RunningBroker) -> None:
    async with a_concentrator(broker) as sender:
        held: list[object] = []
        async with MqttBus(broker.config, "meterway-cloud-a", {CONCENTRATOR_FILTER: held.append}) as bus:
            await bus.wait_connected()
            for number in range(300):
                sender.publish(wire.encode(reading(number)))
            async with asyncio.timeout(60):
                while not held:
                    await asyncio.sleep(0.01)
        async with ingesting(store, broker):
            await sender.wait_confirmed()
    assert await rows_of(store, "select count(*), count(distinct reading_identifier) from reading") == [(300, 300)]


BAD = [
    ("garbage", TOPIC, b"\x00\xff\x13garbage", "not-utf8"),
    ("half a telegram", TOPIC, payload(1)[:100], "not-json"),
    ("not UTF-8", TOPIC, payload(1).replace(b"kWh", b"k\xffh"), "not-utf8"),
    ("an unknown property", TOPIC, payload(1).replace(b"OBIS_1.7.0", b"OBIS_99.99.9"), "unknown-property"),
    ("a naive time", TOPIC, payload(1, readingTime="2026-11-23T10:15:00"), "naive-time"),
    ("NaN", TOPIC, payload(1).replace(b"0.412", b"NaN"), "bad-number"),
    ("an absurd date", TOPIC, payload(1, readingTime="1970-01-01T00:00:00Z"), "absurd-time"),
    ("an old date", TOPIC, payload(1, readingTime="2001-01-01T00:00:00Z"), "past-time"),
    ("the future", TOPIC, payload(1, readingTime=(utc_now() + timedelta(days=3)).isoformat()), "future-time"),
    ("another meter", TOPIC, payload(1, meterIndividual={"meterIndividualId": "other"}), "meter-mismatch"),
    ("an id with a point", "concentrator/c1/smartMeterMessage/a.b/readings", payload(1), "bad-identifier"),
    ("an unknown topic", f"concentrator/c1/smartMeterMessage/{METER}/other", payload(1), "bad-topic"),
    ("a deeper topic", "concentrator/c1/x", payload(1), "bad-topic"),
    ("NUL in a text", TOPIC, payload(1, faultCode="a\0b"), "bad-text"),
    ("half a surrogate pair", TOPIC, payload(1).replace(b'"faultCode":null', b'"faultCode":"\\ud800"'), "not-json"),
    ("too long", TOPIC, b" " * 400_000 + payload(1), "too-large"),
    ("a bad status", f"concentrator/c1/smartMeterMessage/{METER}/status", b'{"state": "sleepy"}', "bad-report"),
    ("a long fault", f"concentrator/c1/smartMeterMessage/{METER}/faults", b" " * 70_000, "too-large"),
    ("nothing", TOPIC, b"", "not-json"),
]


async def test_bad_input_is_quarantined_with_its_reason_and_the_good_around_it_is_stored(
    store: Store, broker: RunningBroker
) -> None:
    async with ingesting(store, broker) as ingest, a_concentrator(broker) as sender:
        for number, (_, topic, bad, _) in enumerate(BAD):
            sender.publish(wire.encode(reading(100 + number)))
            sender.publish(bad, topic)
        await sender.wait_confirmed()
    assert await rows_of(store, "select count(*) from reading") == [(len(BAD),)]
    found = {(row[0], row[1]): row[2] for row in await rows_of(store, "select topic, payload, reason from quarantine")}
    assert {name: found.get((topic, bad)) for name, topic, bad, _ in BAD} == {
        name: reason for name, _, _, reason in BAD
    }
    assert ingest.counters.quarantined == len(BAD)


async def test_ten_megabytes_are_cut_and_do_not_stop_the_rest(store: Store, mosquitto: RunningBroker) -> None:
    import paho.mqtt.publish as paho

    async with ingesting(store, mosquitto), a_concentrator(mosquitto) as sender:
        await asyncio.to_thread(paho.single, TOPIC, b"x" * 10_000_000, qos=1, hostname="127.0.0.1", port=mosquitto.port)
        sender.publish(wire.encode(reading(1)))
        await sender.wait_confirmed()
        await wait_for_rows(store, "select count(*) from quarantine", 1)
    rows = await rows_of(store, "select reason, size_bytes, length(payload) from quarantine")
    assert rows == [("too-large", 10_000_000, 1024 * 1024)]


async def test_the_flat_shape_of_the_reference_implementation_is_stored(store: Store, broker: RunningBroker) -> None:
    flat = msgspec.json.encode(
        {
            "readingTime": START.isoformat(),
            "meterId": METER,
            "propertyValues": [{"propertyName": "1.7.0", "numericalValue": "133", "unit": "kW"}],
        }
    )
    async with ingesting(store, broker), a_concentrator(broker) as sender:
        sender.publish(flat)
        await sender.wait_confirmed()
    assert await rows_of(
        store, "select property_ids, numerical_values from reading join property_set using (property_set_key)"
    ) == [(["OBIS_1.7.0"], [Decimal(133)])]


async def test_units_of_foreign_senders_are_stored_as_the_catalogue_has_them(
    store: Store, broker: RunningBroker
) -> None:
    async with ingesting(store, broker) as ingest, a_concentrator(broker) as sender:
        for number, unit in (("1500", "Wh"), ("1.5", "kWh"), ("0.0015", "MWh")):
            value = {"propertyName": "1.8.0", "numericalValue": number, "unit": unit}
            flat = {"readingTime": START.isoformat(), "meterId": METER, "propertyValues": [value]}
            sender.publish(msgspec.json.encode(flat))
        await sender.wait_confirmed()
    rows = await rows_of(
        store, "select units, numerical_values from reading join property_set using (property_set_key)"
    )
    assert rows == [(["kWh"], [Decimal("1.5")])]
    assert (ingest.counters.stored, ingest.counters.duplicate, ingest.counters.conflict) == (1, 2, 0)


async def test_reports_and_faults_find_their_rows(store: Store, broker: RunningBroker) -> None:
    status = reports.encode(Status(state="online", since=START))
    fault = reports.encode(Fault(time=START, reason="bad-checksum", message="wrong", data=b"\1", size_bytes=1))
    async with ingesting(store, broker), a_concentrator(broker) as sender:
        sender.publish(status, f"concentrator/c1/smartMeterMessage/{METER}/status", retain=True)
        sender.publish(status, "concentrator/c1/status", retain=True)
        sender.publish(fault, f"concentrator/c1/smartMeterMessage/{METER}/faults")
        sender.publish(fault, "concentrator/c1/faults")
        await sender.wait_confirmed()
    assert await rows_of(store, "select meter_id, status->>'state' from meter") == [(METER, "online")]
    assert await rows_of(store, "select concentrator_id, status->>'state' from concentrator") == [("c1", "online")]
    assert await rows_of(store, "select meter_id, reason from fault order by 1") == [
        (METER, "bad-checksum"),
        (None, "bad-checksum"),
    ]


async def test_two_workers_on_the_same_readings_store_each_once(
    store: Store, database_dsn: str, nats: RunningBroker
) -> None:
    async with (
        await Store.connect(database_dsn) as other,
        ingesting(store, nats, "a") as a,
        ingesting(other, nats, "b") as b,
        a_concentrator(nats) as sender,
    ):
        for number in range(2000):
            sender.publish(wire.encode(reading(number)))
        await sender.wait_confirmed()
        async with asyncio.timeout(60):
            while a.counters.stored + a.counters.duplicate + b.counters.stored + b.counters.duplicate < 4000:
                await asyncio.sleep(0.01)
    assert a.counters.stored + b.counters.stored == 2000
    assert await rows_of(store, "select count(*) from reading") == [(2000,)]


async def test_a_replay_stores_what_is_now_understood_and_keeps_the_rest(store: Store, nats: RunningBroker) -> None:
    strict = await _strict_copy(store)
    async with ingesting(strict, nats, strict=True) as ingest, a_concentrator(nats) as sender:
        for number in range(50):
            sender.publish(wire.encode(reading(number)))
        sender.publish(b"never a reading")
        await sender.wait_confirmed()
        assert await rows_of(store, "select reason, count(*) from quarantine group by 1 order by 1") == [
            ("not-json", 1),
            ("unclaimed-meter", 50),
        ]
        keys = [int(row[0]) for row in await store.fetch("select quarantine_key from quarantine")]
        assert await ingest.replay(keys) == (0, 51)
        await store.fetch("insert into meter (meter_id, claimed) values ($1, true)", METER)
        both = await asyncio.gather(ingest.replay(keys), ingest.replay(keys))
        assert max(both) == (50, 1)
        assert await ingest.replay(keys) == (0, 1)
    await strict.close()
    assert await rows_of(store, "select count(*) from reading") == [(50,)]
    assert await rows_of(store, "select reason, seen_count from quarantine") == [("not-json", 1)]


async def _strict_copy(store: Store) -> Store:
    (row,) = await store.fetch("select current_database() as name, current_setting('unix_socket_directories') as dir")
    dsn = Cluster(Path(row["dir"]).parent).dsn.replace("@/meterway?", f"@/{row['name']}?")
    return await Store.connect(dsn, strict=True)


async def test_more_than_may_wait_is_neither_kept_nor_acknowledged(store: Store, nats: RunningBroker) -> None:
    async with a_concentrator(nats) as sender, ingesting(store, nats, pending_limit=10) as ingest:
        for number in range(100):
            sender.publish(wire.encode(reading(number)))
        await sender.wait_confirmed(repeat_every_s=0.2)
    assert ingest.counters.refused > 0
    assert await rows_of(store, "select count(*), count(distinct reading_identifier) from reading") == [(100, 100)]


@pytest.mark.faults
async def test_a_database_killed_under_load_loses_and_doubles_nothing(nats: RunningBroker) -> None:
    with running_server(settings={}) as server:
        async with await Store.connect(server.dsn) as store:
            await store.migrate(now=utc_now())
            async with ingesting(store, nats, batch_limit=200) as ingest, a_concentrator(nats) as sender:

                async def publish() -> None:
                    for number in range(4000):
                        sender.publish(wire.encode(reading(number)))
                        if number % 50 == 0:
                            await asyncio.sleep(0.005)

                publishing = asyncio.create_task(publish())
                for stored in (500, 1500):
                    async with asyncio.timeout(60):
                        while ingest.counters.stored < stored:
                            await asyncio.sleep(0.01)
                    server.kill()
                    async with asyncio.timeout(60):
                        while ingest.trouble is None:
                            await asyncio.sleep(0.01)
                    await asyncio.to_thread(server.start)
                await publishing
                await sender.wait_confirmed()
            rows = await rows_of(store, "select sequence_number, reading_identifier from reading order by 1")
    assert rows == [(number, reading(number).identifier) for number in range(4000)]
    assert ingest.counters.retries > 0
    assert ingest.trouble is None
