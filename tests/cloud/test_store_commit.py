"""The write path: each reading once, conflicts aside, nothing lost to one bad value, all bounded."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from msgspec.structs import replace

from meterway.cloud.store import ArrivedFault, ArrivedReading, ArrivedReport, Bounds, Rejected, Store
from meterway.core.columns import ReadingColumns
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.reports import Fault
from meterway.core.topics import SpecificTopic

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"


def reading(
    number: int, meter_id: str = METER, *, time: datetime | None = None, value: str = "12345.678"
) -> MeterReading:
    return MeterReading(
        identifier=UUID(int=(7 << 76) + number),
        meter_id=meter_id,
        reading_time=time or NOW - timedelta(seconds=3600 - number),
        property_values=(
            PropertyValue("OBIS_1.8.0", numerical_value=Decimal(value), unit="kWh"),
            PropertyValue("OBIS_1.7.0", numerical_value=Decimal("1.2300"), unit="kW"),
        ),
        sequence_number=number,
    )


def arrived(each: MeterReading, *, payload: bytes = b"") -> ArrivedReading:
    topic = f"concentrator/c1/smartMeterMessage/{each.meter_id}/readings"
    return ArrivedReading(topic, payload or repr(each).encode(), "c1", ReadingColumns.of(each))


async def count(store: Store, table: str) -> int:
    return int((await store.fetch(f"select count(*) from {table}"))[0][0])


async def test_what_is_stored_is_exact(store: Store) -> None:
    told = timezone(timedelta(hours=1))
    sent = MeterReading(
        identifier=UUID("0191a0c0-0000-7000-8000-000000000001"),
        meter_id=METER,
        reading_time=datetime(2026, 11, 23, 10, 15, tzinfo=told),
        sequence_number=4711,
        fault_code='E\\1 "x"',
        property_values=(
            PropertyValue("OBIS_1.8.0", numerical_value=Decimal("12345.678"), unit="kWh"),
            PropertyValue("OBIS_1.7.0", numerical_value=Decimal("1.2300"), unit="kW"),
            PropertyValue("TEXT", text_value='a "quoted", {braced}\\ NULL \t\n€'),
            PropertyValue("EMPTY", text_value=""),
            PropertyValue(
                "GAS", numerical_value=Decimal("-0.10"), unit="m3", date=datetime(2026, 11, 23, 10, tzinfo=told)
            ),
        ),
    )
    result = await store.commit_batch([arrived(sent)], now=NOW)
    assert (result.stored, result.rejected) == (1, [])
    (row,) = await store.fetch(
        "select r.*, p.property_ids, p.units, m.meter_id from reading r join property_set p using (property_set_key) "
        "join meter m using (meter_key)"
    )
    assert row["meter_id"] == METER
    assert row["reading_identifier"] == sent.identifier
    assert row["reading_time"] == sent.reading_time
    assert (row["sequence_number"], row["fault_code"]) == (4711, 'E\\1 "x"')
    assert row["property_ids"] == ["OBIS_1.8.0", "OBIS_1.7.0", "TEXT", "EMPTY", "GAS"]
    assert row["units"] == ["kWh", "kW", None, None, "m3"]
    assert [str(value) for value in row["numerical_values"]] == ["12345.678", "1.2300", "None", "None", "-0.10"]
    assert row["text_values"] == [None, None, 'a "quoted", {braced}\\ NULL \t\n€', "", None]
    assert row["dates"] == [None, None, None, None, datetime(2026, 11, 23, 9, tzinfo=UTC)]


async def test_the_same_batch_again_stores_nothing_in_any_order(store: Store) -> None:
    batch = [arrived(reading(number)) for number in range(200)]
    half = batch[:100]
    assert (await store.commit_batch(half, now=NOW)).stored == 100
    random.Random(7).shuffle(batch)
    result = await store.commit_batch(batch, now=NOW)
    assert (result.stored, result.duplicate, result.conflict) == (100, 100, 0)
    again = await store.commit_batch(batch + batch, now=NOW)
    assert (again.stored, again.duplicate, again.conflict) == (0, 400, 0)
    assert await count(store, "reading") == 200


async def test_the_same_identifier_with_other_content_is_kept_aside(store: Store) -> None:
    first, other = arrived(reading(1)), arrived(reading(1, value="99999.999"))
    await store.commit_batch([first], now=NOW)
    result = await store.commit_batch([other, arrived(reading(2))], now=NOW)
    assert (result.stored, result.duplicate, result.conflict) == (1, 0, 1)
    (kept,) = await store.fetch("select * from conflict")
    assert (kept["meter_id"], kept["reading_identifier"], kept["payload"]) == (
        METER,
        first.reading.identifier,
        other.payload,
    )
    (row,) = await store.fetch("select numerical_values from reading where sequence_number = 1")
    assert row["numerical_values"][0] == Decimal("12345.678")
    assert (await store.commit_batch([other], now=NOW)).duplicate == 1


FULL = replace(
    reading(1, value="100.50"),
    property_values=(
        PropertyValue("OBIS_1.8.0", numerical_value=Decimal("100.50"), unit="kWh"),
        PropertyValue("OBIS_2.8.0", numerical_value=Decimal("0.00"), unit="kWh"),
        PropertyValue("OBIS_96.13.0", text_value='a "text", {braced}\\'),
        PropertyValue("GAS_volume", numerical_value=Decimal(7), unit="m3", date=NOW),
    ),
    fault_code="F1",
)


def changed(position: int, **changes: object) -> MeterReading:
    values = list(FULL.property_values)
    values[position] = replace(values[position], **changes)
    return replace(FULL, property_values=tuple(values))


SAME = {
    "another sequence number": replace(FULL, sequence_number=99),
    "no sequence number": replace(FULL, sequence_number=None),
    "zeros at the end": changed(0, numerical_value=Decimal("100.5000")),
    "minus before zero": changed(1, numerical_value=Decimal("-0.0")),
    "another order": replace(FULL, property_values=FULL.property_values[::-1]),
    "another offset": changed(3, date=NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    "another order, number and offset": replace(
        changed(0, numerical_value=Decimal("100.5")),
        property_values=changed(0, numerical_value=Decimal("100.5")).property_values[::-1],
        sequence_number=5,
        reading_time=FULL.reading_time.astimezone(timezone(timedelta(hours=-3))),
    ),
}

OTHER = {
    "a last digit": changed(0, numerical_value=Decimal("100.500000000000000000001")),
    "a text": changed(2, text_value="other"),
    "a text for a number": changed(0, numerical_value=None, text_value="100.50", unit=None),
    "a date": changed(3, date=NOW + timedelta(microseconds=1)),
    "no date": changed(3, date=None),
    "a unit": changed(0, unit="Wh"),
    "a property": changed(1, property_id="OBIS_2.8.1"),
    "a property less": replace(FULL, property_values=FULL.property_values[1:]),
    "a fault code": replace(FULL, fault_code="F2"),
    "no fault code": replace(FULL, fault_code=None),
}


async def test_the_same_content_said_otherwise_is_a_duplicate(store: Store) -> None:
    await store.commit_batch([arrived(FULL)], now=NOW)
    for name, same in SAME.items():
        result = await store.commit_batch([arrived(same)], now=NOW)
        assert (result.stored, result.duplicate, result.conflict) == (0, 1, 0), name
    result = await store.commit_batch([arrived(each) for each in (FULL, *SAME.values())], now=NOW)
    assert (result.stored, result.duplicate, result.conflict) == (0, len(SAME) + 1, 0)
    (row,) = await store.fetch("select sequence_number, numerical_values from reading")
    assert (row["sequence_number"], str(row["numerical_values"][0])) == (1, "100.50")


async def test_any_other_content_is_a_conflict(store: Store) -> None:
    await store.commit_batch([arrived(FULL)], now=NOW)
    for name, other in OTHER.items():
        result = await store.commit_batch([arrived(other)], now=NOW)
        assert (result.stored, result.duplicate, result.conflict) == (0, 0, 1), name
    assert await count(store, "reading") == 1
    assert await count(store, "conflict") == len(OTHER)


async def test_a_re_read_reading_in_the_same_batch_is_a_duplicate(store: Store) -> None:
    batch = [arrived(each) for each in (FULL, replace(FULL, sequence_number=2), OTHER["a text"])]
    result = await store.commit_batch(batch, now=NOW)
    assert (result.stored, result.duplicate, result.conflict) == (1, 1, 1)


async def test_a_conflict_inside_one_batch_keeps_the_first_and_shows_the_second(store: Store) -> None:
    result = await store.commit_batch([arrived(reading(1)), arrived(reading(1, value="2"))], now=NOW)
    assert (result.stored, result.conflict) == (1, 1)
    (row,) = await store.fetch("select last_numerical_values from meter")
    assert row[0][0] == Decimal("12345.678")


async def test_the_newest_reading_of_a_meter_is_the_newest_by_its_time(store: Store) -> None:
    await store.commit_batch([arrived(reading(3)), arrived(reading(5, value="5.50")), arrived(reading(4))], now=NOW)
    await store.commit_batch([arrived(reading(1))], now=NOW)
    (row,) = await store.fetch("select * from meter")
    assert (row["last_sequence_number"], row["last_reading_time"]) == (5, reading(5).reading_time)
    assert [str(value) for value in row["last_numerical_values"]] == ["5.50", "1.2300"]
    assert (row["claimed"], row["concentrator_id"]) == (False, "c1")


async def test_readings_at_the_edge_of_a_month_go_to_the_partition_of_utc(store: Store) -> None:
    east = timezone(timedelta(hours=2))
    times = [
        datetime(2026, 10, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 1, 1, 59, 59, tzinfo=east),
        datetime(2019, 3, 1, tzinfo=UTC),
    ]
    batch = [arrived(reading(number, time=time)) for number, time in enumerate(times)]
    assert (await store.commit_batch(batch, now=NOW)).stored == 4
    rows = await store.fetch("select tableoid::regclass::text as name, sequence_number from reading order by 2")
    assert [row["name"] for row in rows] == ["reading_2026_10", "reading_2026_11", "reading_2026_10", "reading_2019_03"]


async def test_a_value_that_the_database_refuses_is_quarantined_alone(store: Store) -> None:
    batch = [arrived(reading(number)) for number in range(100)]
    huge = replace(reading(500), property_values=(PropertyValue("X", numerical_value=Decimal("1e200000")),))
    nul = replace(reading(501), property_values=(PropertyValue("X", text_value="a\0b"),))
    half = replace(reading(502), fault_code="\ud800")
    batch[17:17] = [arrived(each, payload=f"bad {number}".encode()) for number, each in enumerate((huge, nul, half))]
    result = await store.commit_batch(batch, now=NOW)
    assert result.stored == 100
    assert [each.payload for each in result.rejected] == [b"bad 0", b"bad 1", b"bad 2"]
    rows = await store.fetch("select payload, reason from quarantine order by payload")
    assert [tuple(row) for row in rows] == [(f"bad {n}".encode(), "refused-by-database") for n in range(3)]


async def test_a_meter_that_was_removed_registers_again(store: Store) -> None:
    await store.commit_batch([arrived(reading(1))], now=NOW)
    await store.fetch("delete from meter")
    assert (await store.commit_batch([arrived(reading(2))], now=NOW)).stored == 1
    assert await count(store, "reading join meter using (meter_key)") == 1


async def test_keys_that_belong_to_other_meters_in_a_restored_database_are_not_trusted(store: Store) -> None:
    await store.commit_batch([arrived(reading(1, meter_id="m1")), arrived(reading(1, meter_id="m2"))], now=NOW)
    for old, new in (("m1", "m3"), ("m2", "m1"), ("m3", "m2")):
        await store.fetch("update meter set meter_id = $2 where meter_id = $1", old, new)
    await store.commit_batch([arrived(reading(2, meter_id="m1"))], now=NOW)
    rows = await store.fetch(
        "select m.meter_id, r.sequence_number from reading r join meter m using (meter_key) order by 2, 1"
    )
    assert [tuple(row) for row in rows][-1] == ("m1", 2)


async def test_a_partition_that_was_removed_is_made_again(store: Store) -> None:
    await store.commit_batch([arrived(reading(1))], now=NOW)
    await store.fetch("drop table reading_2026_11")
    assert (await store.commit_batch([arrived(reading(2))], now=NOW)).stored == 1


async def test_two_workers_with_the_same_readings_store_each_once(store: Store, database_dsn: str) -> None:
    meters = [f"meter-{number}" for number in range(20)]
    messages = [arrived(reading(number, meters[number % 20])) for number in range(1000)]

    async def work(seed: int) -> int:
        mine = messages[:]
        random.Random(seed).shuffle(mine)
        async with await Store.connect(database_dsn) as worker:
            return sum([(await worker.commit_batch(mine[at : at + 100], now=NOW)).stored for at in range(0, 1000, 100)])

    stored = await asyncio.gather(*(work(seed) for seed in range(4)))
    assert sum(stored) == 1000
    assert await count(store, "reading") == 1000
    assert await count(store, "meter") == 20


async def test_a_strict_store_takes_claimed_meters_only(database_dsn: str) -> None:
    async with await Store.connect(database_dsn, strict=True) as store:
        await store.migrate(now=NOW)
        await store.fetch("insert into meter (meter_id, claimed) values ('mine', true), ('seen', false)")
        batch = [arrived(reading(1, meter_id)) for meter_id in ("mine", "seen", "unknown")]
        result = await store.commit_batch(batch, now=NOW)
        assert result.stored == 1
        assert {each.reason for each in result.rejected} == {"unclaimed-meter"}
        assert await count(store, "meter") == 2
        await store.fetch("update meter set claimed = not claimed")
        result = await store.commit_batch([arrived(reading(2, meter_id)) for meter_id in ("mine", "seen")], now=NOW)
        assert [each.topic for each in result.rejected] == [batch[0].topic]


async def test_unclaimed_meters_are_bounded(database_dsn: str) -> None:
    async with await Store.connect(database_dsn, limit_unclaimed_meters=3) as store:
        await store.migrate(now=NOW)
        result = await store.commit_batch([arrived(reading(1, f"m{number}")) for number in range(5)], now=NOW)
        assert result.stored == 3
        assert [each.reason for each in result.rejected] == ["too-many-meters"] * 2
        assert "raise [ingest] limit_unclaimed_meters" in result.rejected[0].message


@pytest.fixture
async def bounded(database_dsn: str) -> AsyncIterator[Store]:
    async with await Store.connect(database_dsn, bounds=Bounds(rows=50, bytes=100_000)) as store:
        await store.migrate(now=NOW)
        yield store


async def test_the_quarantine_keeps_the_newest_within_its_bounds(bounded: Store) -> None:
    removed = 0
    for number in range(200):
        bad = Rejected("t", b"%d" % number, "bad-json", "not JSON")
        removed += (await bounded.commit_batch([bad], now=NOW)).removed
    rows = await bounded.fetch("select payload from quarantine order by quarantine_key")
    assert [row["payload"] for row in rows] == [b"%d" % number for number in range(150, 200)]
    assert removed == 150
    removed = (await bounded.commit_batch([Rejected("t", bytes(60_000), "x", "y")], now=NOW)).removed
    removed += (await bounded.commit_batch([Rejected("t", b"\1" + bytes(60_000), "x", "y")], now=NOW)).removed
    assert await count(bounded, "quarantine") == 1
    assert removed == 51


async def test_the_same_bad_message_is_one_row_and_counted(store: Store) -> None:
    bad = Rejected("a/\0topic", b"x" * 2_000_000, "bad-json", "has a \0")
    await store.commit_batch([bad, bad], now=NOW)
    await store.commit_batch([bad], now=NOW)
    (row,) = await store.fetch("select * from quarantine")
    assert (row["topic"], row["seen_count"], row["size_bytes"]) == ("a/\ufffdtopic", 3, 2_000_000)
    assert len(row["payload"]) == 1024 * 1024


async def test_the_last_report_of_each_is_kept_and_an_empty_one_clears_it(store: Store) -> None:
    def report(kind: SpecificTopic, payload: bytes, meter_id: str | None = METER) -> ArrivedReport:
        return ArrivedReport("t", payload, "c1", meter_id, kind)

    await store.commit_batch(
        [
            report(SpecificTopic.STATUS, b'{"state": "waiting"}'),
            report(SpecificTopic.STATUS, b'{"state": "online"}'),
            report(SpecificTopic.METER, b'{"protocol": "p1"}'),
            report(SpecificTopic.STATUS, b'{"state": "online"}', None),
        ],
        now=NOW,
    )
    (row,) = await store.fetch("select status->>'state' as s, status_time, description->>'protocol' as p from meter")
    assert tuple(row) == ("online", NOW, "p1")
    (row,) = await store.fetch("select concentrator_id, status->>'state', last_seen_time from concentrator")
    assert tuple(row) == ("c1", "online", NOW)
    await store.commit_batch([report(SpecificTopic.STATUS, b"")], now=NOW)
    (row,) = await store.fetch("select status, description->>'protocol' from meter")
    assert tuple(row) == (None, "p1")


async def test_faults_are_kept_once(store: Store) -> None:
    fault = Fault(time=NOW, reason="bad-checksum", message="the checksum is wrong", data=b"\0\1")
    item = ArrivedFault("t", b"payload", "c1", METER, fault)
    result = await store.commit_batch([item], now=NOW)
    assert (result.faults, (await store.commit_batch([item], now=NOW)).faults) == (1, 0)
    (row,) = await store.fetch("select concentrator_id, meter_id, fault_time, reason, message, data from fault")
    assert tuple(row) == ("c1", METER, NOW, "bad-checksum", "the checksum is wrong", b"\0\1")


async def test_stored_readings_are_notified_by_meter_key_and_duplicates_are_not(store: Store) -> None:
    heard = store.listen("reading_stored")
    first = asyncio.ensure_future(anext(heard))
    while not first.done():
        await store.fetch("select pg_notify('reading_stored', 'probe')")
        await asyncio.wait([first], timeout=0.05)
    batch = [arrived(reading(1, "a")), arrived(reading(2, "b"))]
    await store.commit_batch(batch, now=NOW)
    await store.commit_batch(batch, now=NOW)
    await store.commit_batch([arrived(reading(9, f"meter-{number}")) for number in range(2000)], now=NOW)
    keys = {
        row["meter_id"]: str(row["meter_key"]) for row in await store.fetch("select meter_id, meter_key from meter")
    }
    told = []
    while "*" not in told:
        told.append(await anext(heard))
    assert [each for each in told if each != "probe"] == [",".join(sorted((keys["a"], keys["b"]), key=int)), "*"]
    await heard.aclose()  # type: ignore[attr-defined]
