"""The delivery ledger in a real database: stretches, whatever the order in which readings come."""

import random
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from meterway.cloud.store import Store
from meterway.cloud.store.ledger import LIMIT_STRETCHES
from meterway.cloud.store.rows import ArrivedReading
from meterway.core.reports import MeterDescription, Status
from support.cloud_http import put, reading, report, series, value

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
Stretches = list[tuple[float, float, int | None, int | None]]


def described(meter_id: str, interval_s: float = 60) -> MeterDescription:
    return MeterDescription(
        meter_individual_id=meter_id,
        physical_meter_class="ELECTRICITY",
        protocol="p1",
        link="tcp",
        family="p1-generic",
        interval_s=interval_s,
    )


async def entered(store: Store) -> list[tuple[date, int, bool, Stretches]]:
    """Return the ledger of the one meter, its times in minutes after START."""
    await store.enter_arrivals()
    rows = await store.fetch("select * from meter_day order by day")
    return [
        (
            row["day"],
            row["stored"],
            row["is_coarse"],
            [
                ((start - START).total_seconds() / 60, (end - START).total_seconds() / 60, first, last)
                for start, end, first, last in zip(
                    row["start_times"], row["end_times"], row["first_numbers"], row["last_numbers"], strict=True
                )
            ],
        )
        for row in rows
    ]


async def test_readings_without_a_pause_are_one_stretch_however_often_they_are_entered(store: Store) -> None:
    readings = series("m1", START, 30)
    await put(store, report("m1", described("m1")))
    for start in range(0, 30, 7):
        await put(store, *readings[start : start + 7])
        await store.enter_arrivals()
    assert await entered(store) == [(START.date(), 30, False, [(0, 29, 1, 30)])]


async def test_a_skipped_number_and_a_pause_each_begin_a_stretch(store: Store) -> None:
    readings = series("m1", START, 10)
    later = [
        reading(
            "m1", START + timedelta(hours=1, minutes=minute), value("OBIS_1.7.0", "1", "kW"), sequence_number=number
        )
        for minute, number in ((0, 11), (1, 12))
    ]
    await put(store, report("m1", described("m1")), *readings[:4], *readings[5:], *later)
    assert await entered(store) == [(START.date(), 11, False, [(0, 3, 1, 4), (5, 9, 6, 10), (60, 61, 11, 12)])]


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_of_arrival_and_repetitions_make_no_difference(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    readings = series("m1", START, 60)
    shuffled = [*readings, *chance.sample(readings, 20)]
    chance.shuffle(shuffled)
    await put(store, report("m1", described("m1")))
    while shuffled:
        await put(store, *[shuffled.pop() for _ in range(min(len(shuffled), chance.randint(1, 15)))])
        if chance.random() < 0.5:
            await store.enter_arrivals()
    assert await entered(store) == [(START.date(), 60, False, [(0, 59, 1, 60)])]


async def test_a_reading_that_comes_again_with_another_number_fills_that_numbers_place(store: Store) -> None:
    readings = series("m1", START, 5)
    again = reading("m1", START + timedelta(minutes=4), value("OBIS_1.7.0", "1.000", "kW"), sequence_number=6)
    same = ArrivedReading(again.topic, again.payload, again.concentrator_id, _numbered(readings[4], 6).reading)
    after = _numbered(series("m1", START, 6)[5], 7)
    await put(store, report("m1", described("m1")), *readings, same, after)
    assert await entered(store) == [(START.date(), 6, False, [(0, 5, 1, 7)])]


async def test_a_day_ends_at_midnight_utc(store: Store) -> None:
    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    await put(store, report("m1", described("m1")), *series("m1", midnight - timedelta(minutes=2), 4))
    assert [(day, stored) for day, stored, _, _ in await entered(store)] == [
        (date(2026, 11, 20), 2),
        (date(2026, 11, 21), 2),
    ]


async def test_more_stretches_than_are_kept_become_coarse_and_are_still_counted(store: Store) -> None:
    count = LIMIT_STRETCHES + 20
    jumping = [
        reading("m1", START + timedelta(seconds=60 * index), value("OBIS_1.7.0", "1", "kW"), sequence_number=2 * index)
        for index in range(count)
    ]
    later = series("m1", START + timedelta(hours=10), 3)
    await put(store, report("m1", described("m1")), *jumping)
    assert await entered(store) == [(START.date(), count, True, [(0, count - 1, None, None)])]
    await put(store, *later)
    assert await entered(store) == [
        (START.date(), count + 3, True, [(0, count - 1, None, None), (600, 602, None, None)])
    ]


async def test_readings_without_numbers_are_judged_by_time(store: Store) -> None:
    readings = [
        reading("m1", START + timedelta(minutes=minute), value("OBIS_1.7.0", "1", "kW")) for minute in (0, 1, 2, 9, 10)
    ]
    await put(store, report("m1", described("m1")), *readings)
    assert await entered(store) == [(START.date(), 5, False, [(0, 2, None, None), (9, 10, None, None)])]


async def test_changes_of_state_are_noted_once_with_the_time_at_which_they_began(store: Store) -> None:
    def at(minute: int) -> datetime:
        return START + timedelta(minutes=minute)

    said = [
        (0, Status(state="waiting", since=at(0))),
        (1, Status(state="online", since=at(1))),
        (2, Status(state="online", since=at(1), counters={"telegrams": 9})),
        (7, Status(state="offline", since=at(0), detail="gone", reason="died")),  # the last will: since it connected
        (9, Status(state="online", since=at(8))),
    ]
    for minute, status in said:
        await put(store, report("m1", status), now=at(minute))
    rows = await store.fetch("select state, change_time, reason from state_change order by state_change_key")
    assert [tuple(row) for row in rows] == [
        ("waiting", at(0), None),
        ("online", at(1), None),
        ("offline", at(7), "died"),
        ("online", at(8), None),
    ]


async def test_what_is_too_old_is_forgotten_but_the_last_change_of_state(store: Store) -> None:
    old = START - timedelta(days=20)
    await put(store, report("m1", Status(state="waiting", since=old - timedelta(days=1))), now=old)
    await put(store, report("m1", Status(state="online", since=old)), now=old)
    await put(store, *series("m1", old, 3), *series("m1", START, 2))
    await store.enter_arrivals()
    await store.forget_ledger(START.date() - timedelta(days=1))
    assert [day for day, *_ in await entered(store)] == [START.date()]
    assert [row["state"] for row in await store.fetch("select state from state_change")] == ["online"]


def _numbered(arrived: ArrivedReading, number: int) -> ArrivedReading:
    changed = msgspec.structs.replace(arrived.reading, sequence_number=number)
    return msgspec.structs.replace(arrived, reading=changed)
