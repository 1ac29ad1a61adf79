"""Households: exact, repeatable, plausible."""

import itertools
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.errors import SetupError
from meterway.meter.virtual.calendar import calendar_of
from meterway.meter.virtual.profile import Household

VIENNA = ZoneInfo("Europe/Vienna")
DAY_S = 86_400


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


JUNE = unix("2026-06-17T00:00:00+02:00")
instants = st.integers(unix("2020-01-02T00:00:00+00:00"), unix("2032-01-01T00:00:00+00:00"))
seeds = st.integers(0, 30).map(lambda number: f"street/{number}")


def test_the_registers_are_the_exact_integral_of_the_power_through_a_whole_day() -> None:
    house = Household("sunny", VIENNA, pv=True)
    before = house.electricity(JUNE)
    import_ws = export_ws = 0
    for instant_s in range(JUNE + 1, JUNE + DAY_S + 1):
        now = house.electricity(instant_s)
        import_ws += now.import_w
        export_ws += now.export_w
    assert now.import_ws - before.import_ws == import_ws > 0
    assert now.export_ws - before.export_ws == export_ws > 0


@given(seeds, instants, st.integers(0, 400 * DAY_S))
@settings(max_examples=60, deadline=None)
def test_a_house_looked_at_again_goes_on_exactly_where_it_was(seed: str, start_s: int, later_s: int) -> None:
    running = Household(seed, VIENNA)
    running.electricity(start_s)
    running.gas_ml(start_s)
    started_later = Household(seed, VIENNA)
    assert running.electricity(start_s + later_s) == started_later.electricity(start_s + later_s)
    assert running.gas_ml(start_s + later_s) == started_later.gas_ml(start_s + later_s)
    assert running.electricity(start_s) == Household(seed, VIENNA).electricity(start_s)


@given(seeds, instants, st.lists(st.integers(0, 3 * DAY_S), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_registers_never_fall_and_flows_have_one_direction(seed: str, start_s: int, offsets_s: list[int]) -> None:
    house = Household(seed, VIENNA)
    moments = sorted(start_s + offset for offset in offsets_s)
    seen = [house.electricity(instant_s) for instant_s in moments]
    for earlier, later in itertools.pairwise(seen):
        assert later.import_low_ws >= earlier.import_low_ws
        assert later.import_normal_ws >= earlier.import_normal_ws
        assert later.export_low_ws >= earlier.export_low_ws
        assert later.export_normal_ws >= earlier.export_normal_ws
    for now in seen:
        assert not (now.import_w and now.export_w)
        assert 0 <= now.import_w < 30_000
        assert 0 <= now.export_w < 30_000
    for counted in (house.gas_ml, house.water_ml):
        registers = [counted(instant_s) for instant_s in moments]
        assert registers == sorted(registers)
        assert registers[0] > 0


def test_only_the_register_of_the_tariff_that_holds_counts() -> None:
    house = Household("tariffs", VIENNA)
    wednesday_7h = JUNE + 7 * 3600
    assert not house.normal_tariff(wednesday_7h - 1)
    assert house.normal_tariff(wednesday_7h)
    night, morning, noon = (house.electricity(wednesday_7h + seconds) for seconds in (-3600, 0, 5 * 3600))
    assert morning.import_low_ws > night.import_low_ws
    assert morning.import_normal_ws == night.import_normal_ws
    assert noon.import_low_ws == morning.import_low_ws
    assert not house.normal_tariff(unix("2026-06-20T12:00:00+02:00"))


def test_a_roof_gives_more_in_summer_than_in_winter_and_nothing_at_night() -> None:
    house = Household("roof", VIENNA, pv=True)
    assert house.peak_kwp > 0
    summer, winter = (
        house.electricity(unix(f"2026-{month}-28T00:00:00+01:00")).export_ws
        - house.electricity(unix(f"2026-{month}-01T00:00:00+01:00")).export_ws
        for month in ("06", "12")
    )
    assert summer > 3 * winter
    midnights = [house.electricity(JUNE + day * DAY_S) for day in range(30)]
    assert not any(now.export_w for now in midnights)


def test_a_house_without_a_roof_never_exports() -> None:
    house = Household("flat", VIENNA, pv=False)
    assert house.peak_kwp == 0
    assert house.electricity(JUNE).export_ws == 0


def test_a_year_is_that_of_a_real_house() -> None:
    start_s, end_s = unix("2025-01-01T00:00:00+01:00"), unix("2026-01-01T00:00:00+01:00")
    for number in range(12):
        house = Household(f"real/{number}", VIENNA)
        used_kwh = (house.electricity(end_s).import_ws - house.electricity(start_s).import_ws) / 3.6e6
        gas_m3 = (house.gas_ml(end_s) - house.gas_ml(start_s)) / 1e6
        water_m3 = (house.water_ml(end_s) - house.water_ml(start_s)) / 1e6
        assert 500 < used_kwh < 12_000
        assert 600 < gas_m3 < 3_000
        assert 40 < water_m3 < 160


def test_different_seeds_are_different_houses() -> None:
    registers = {Household(f"many/{number}", VIENNA).electricity(JUNE).import_ws for number in range(50)}
    assert len(registers) == 50


def test_the_seed_means_the_same_on_every_machine() -> None:
    now = Household("fixed", VIENNA, pv=True).electricity(JUNE + 12 * 3600)
    assert (now.import_low_ws, now.import_normal_ws) == (18_223_368_680, 17_654_710_777)
    assert (now.export_low_ws, now.export_normal_ws) == (26_985_628_674, 75_752_945_050)
    assert (now.import_w, now.export_w) == (0, 85)


def test_before_2020_there_are_no_virtual_meters() -> None:
    with pytest.raises(SetupError, match="from 2020-01-01"):
        Household("old", UTC).electricity(unix("2019-12-31T12:00:00+00:00"))


def test_a_profile_day_has_86400_seconds_even_when_the_clock_changes() -> None:
    calendar = calendar_of(VIENNA)
    day, second = calendar.split(unix("2026-03-29T00:00:00+01:00"))
    assert second == 0
    assert calendar.split(unix("2026-03-29T23:59:59+02:00")) == (day, DAY_S - 3601)
    assert calendar.day_type(day).ahead_h == 1
    assert calendar.day_type(day - 1).ahead_h == 0
    assert calendar.day_type(day).weekend
