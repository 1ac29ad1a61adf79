"""Whose turn it is on a segment: intervals are kept, and the dead do not take the turns of the living."""

import pytest

from meterway.adapter.schedule import FIRST_RETRY_S, LONGEST_RETRY_INTERVALS, Schedule


def test_each_meter_has_its_interval_and_a_dead_one_is_asked_seldom() -> None:
    schedule = Schedule({"fast": 60, "slow": 600, "dead": 60}, 0.0)
    asked_at: dict[str, list[float]] = {"fast": [], "slow": [], "dead": []}
    now = 0.0
    while now < 7200:
        for meter in schedule.due(now):
            asked_at[meter].append(now)
            now += 1
            schedule.failed(meter, now) if meter == "dead" else schedule.finished(meter, now)
        now += max(0.1, schedule.wait_s(now))
    assert len(asked_at["fast"]) in (119, 120, 121)
    assert len(asked_at["slow"]) in (12, 13)
    assert len(asked_at["dead"]) < 20
    assert asked_at["dead"][-1] - asked_at["dead"][-2] >= LONGEST_RETRY_INTERVALS * 60


def test_turns_that_were_missed_are_left_out() -> None:
    schedule = Schedule({"m": 10}, 0.0)
    schedule.finished("m", 34.0)
    assert schedule.wait_s(34.0) == pytest.approx(6.0)


def test_failures_double_the_pause_and_success_forgets_them() -> None:
    schedule = Schedule({"m": 900}, 0.0)
    assert [schedule.failed("m", 0.0) for _ in range(3)] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    schedule.finished("m", 0.0)
    assert schedule.failed("m", 0.0) == FIRST_RETRY_S
    for _ in range(2000):
        longest_s = schedule.failed("m", 0.0)
    assert longest_s == LONGEST_RETRY_INTERVALS * 900


def test_a_pause_is_kept_even_where_the_interval_is_short() -> None:
    schedule = Schedule({"m": 1}, 0.0)
    assert schedule.failed("m", 0.0) == LONGEST_RETRY_INTERVALS
    assert schedule.failed("m", 0.0, pause_s=3600.0) == 3600.0
    assert schedule.due(3599.0) == []
    assert schedule.due(3600.0) == ["m"]


def test_without_meters_there_is_nothing_to_wait_for() -> None:
    assert Schedule({}, 0.0).wait_s(0.0) == float("inf")
