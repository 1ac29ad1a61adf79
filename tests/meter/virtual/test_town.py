"""Households of a town: physically plausible, exact, and the same again for the same seed."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from meterway.meter.virtual.town import sky
from meterway.meter.virtual.town.dwelling import Dwelling
from meterway.meter.virtual.town.shape import town_names, town_shape
from meterway.meter.virtual.town.shown import ShownElectricity
from meterway.meter.virtual.town.town import Town
from meterway.meter.virtual.town.voices.catalogue import THROUGH, VOICES, Push

VIENNA = ZoneInfo("Europe/Vienna")
HOUR_S, DAY_S = 3600, 86_400
KWH_WS, M3_ML = 3_600_000, 1_000_000


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


JANUARY, NEXT_JANUARY = unix("2025-01-01T00:00:00+01:00"), unix("2026-01-01T00:00:00+01:00")
JUNE = unix("2026-06-17T00:00:00+02:00")


def homes(profile: str, number: int, wanted: Callable[[Dwelling], bool]) -> list[Dwelling]:
    """Return the first so many that are as wanted."""
    shape = town_shape(profile)
    made = (Dwelling("physics", each, shape, VIENNA) for each in range(1000))
    return list(itertools.islice(filter(wanted, made), number))


def in_a_year(counted: Callable[[int], int]) -> int:
    return counted(NEXT_JANUARY) - counted(JANUARY)


def year_kwh(home: Dwelling) -> tuple[int, int, int]:
    """Return what a home took, gave, and got as heat."""
    (first, last) = (home.electricity(JANUARY), home.electricity(NEXT_JANUARY))
    heat_ws = in_a_year(lambda at_s: home.heat(at_s).energy_ws)
    return (
        (last.import_ws - first.import_ws) // KWH_WS,
        (last.export_ws - first.export_ws) // KWH_WS,
        heat_ws // KWH_WS,
    )


@pytest.mark.parametrize("profile", town_names())
def test_every_profile_names_families_that_a_virtual_meter_speaks(profile: str) -> None:
    for medium, weights in town_shape(profile).meters.items():
        assert weights, medium
        assert set(weights) <= {*VOICES, THROUGH}


def test_a_homes_year_of_electricity_is_what_homes_need() -> None:
    for home in homes("village", 12, lambda home: home.building.name != "shop" and not home.peak_kwp):
        taken_kwh, given_kwh, _ = year_kwh(home)
        extra_kwh = (6_500 if home.heating == "heat-pump" else 0) + (4_500 if home.has_ev else 0)
        assert 900 < taken_kwh < 6_500 + extra_kwh, (home.kind.name, home.heating)
        assert given_kwh == 0


def test_a_homes_year_of_water_gas_and_heat_is_what_its_people_and_walls_need() -> None:
    for home in homes("mixed", 12, lambda home: home.building.name != "shop"):
        water_m3 = in_a_year(home.water_ml) / M3_ML
        assert 35 < water_m3 / home.occupants < 60
        _, _, heat_kwh = year_kwh(home)
        assert 40 < heat_kwh / home.floor_area_m2 < 250
        gas_kwh = in_a_year(home.gas_ml) / M3_ML * 10.5
        assert 1.05 < gas_kwh / heat_kwh < 1.13, "a boiler loses some"


def test_a_roofs_year_and_its_nights() -> None:
    (home,) = homes("village", 1, lambda home: home.peak_kwp > 0)
    assert 850 < in_a_year(home.roof_ws) / KWH_WS / home.peak_kwp < 1150
    for day in range(0, 360, 30):
        midnight_s = unix("2026-01-01T00:00:00+00:00") + day * DAY_S - HOUR_S
        by_hour = [
            home.roof_ws(midnight_s + (hour + 1) * HOUR_S) - home.roof_ws(midnight_s + hour * HOUR_S)
            for hour in range(24)
        ]
        assert sum(by_hour[:3]) == sum(by_hour[22:]) == 0
        assert by_hour[12] > 0
        assert max(by_hour) <= home.peak_kwp * 1000 * HOUR_S * 1.2


def test_the_sun_rises_earlier_in_summer_and_stands_higher() -> None:
    winter, summer = sky.clear_day_w_per_kwp(48.2, 355), sky.clear_day_w_per_kwp(48.2, 172)
    daylight_min = [sum(power_w > 0 for power_w in day) for day in (winter, summer)]
    assert 460 < daylight_min[0] < 510
    assert 930 < daylight_min[1] < 970
    assert max(summer) > max(winter) > 300
    assert winter[735] == max(winter)


def test_it_is_warmer_in_july_and_warmest_in_the_afternoon() -> None:
    home = homes("village", 1, lambda home: home.heating == "heat-pump")[0]
    quiet = homes("village", 1, lambda home: home.heating == "gas")[0]

    def kwh(start: str, home: Dwelling) -> float:
        start_s = unix(start)
        return (home.electricity(start_s + 28 * DAY_S).import_ws - home.electricity(start_s).import_ws) / KWH_WS

    assert kwh("2026-01-01T00:00:00+01:00", home) > 2 * kwh("2026-07-01T00:00:00+02:00", home)
    assert quiet.gas_ml(unix("2026-02-01T00:00:00+01:00")) - quiet.gas_ml(unix("2026-01-01T00:00:00+01:00")) > 8 * (
        quiet.gas_ml(unix("2026-08-01T00:00:00+02:00")) - quiet.gas_ml(unix("2026-07-01T00:00:00+02:00"))
    )


def test_a_car_is_charged_in_the_evening_with_eleven_kilowatts() -> None:
    home = homes("village", 1, lambda home: home.has_ev and not home.peak_kwp)[0]
    highest_w = 0
    for day in range(4):
        for second in range(18 * HOUR_S, 24 * HOUR_S, 60):
            highest_w = max(highest_w, home.electricity(JUNE + day * DAY_S + second).import_w)
    assert 9_000 < highest_w < 25_000


def test_all_roofs_lie_under_one_sky() -> None:
    first, second = homes("village", 2, lambda home: home.peak_kwp > 0)

    def yields(home: Dwelling) -> list[float]:
        edges = [home.roof_ws(JUNE + day * DAY_S) / home.peak_kwp for day in range(30)]
        return [round((later - earlier) / KWH_WS, 2) for earlier, later in itertools.pairwise(edges)]

    assert yields(first) == pytest.approx(yields(second), abs=0.02)
    assert len({round(each) for each in yields(first)}) > 2, "some days are cloudy"


@pytest.mark.parametrize("profile", town_names())
def test_registers_are_the_exact_integral_of_the_power(profile: str) -> None:
    home = Dwelling("integral", 0, town_shape(profile), VIENNA)
    start_s = JUNE + 7 * HOUR_S
    before, heat_before = home.electricity(start_s), home.heat(start_s)
    import_ws = export_ws = energy_ws = volume_ml = 0
    for instant_s in range(start_s + 1, start_s + 2 * HOUR_S + 1):
        now, heat = home.electricity(instant_s), home.heat(instant_s)
        assert not (now.import_w and now.export_w)
        import_ws, export_ws = import_ws + now.import_w, export_ws + now.export_w
        energy_ws, volume_ml = energy_ws + heat.power_w, volume_ml + heat.flow_ml_per_s
    assert (now.import_ws - before.import_ws, now.export_ws - before.export_ws) == (import_ws, export_ws)
    assert heat.energy_ws - heat_before.energy_ws == energy_ws
    assert heat.volume_ml - heat_before.volume_ml == volume_ml


def spoken(town: Town, instant_s: int) -> list[bytes]:
    found = []
    for meter in town.push:
        shown = meter.shown(instant_s)
        assert isinstance(shown, ShownElectricity)
        assert isinstance(meter.voice, Push)
        found.append(meter.voice.say(shown).data)
    return found


def test_the_same_seed_gives_the_same_bytes_whenever_it_is_asked() -> None:
    first, again, other = (Town("mixed", 12, seed, VIENNA) for seed in ("a", "a", "b"))
    spoken(again, JUNE + 40 * DAY_S)
    assert spoken(first, JUNE) == spoken(again, JUNE) != spoken(other, JUNE)
    assert [meter.meter_id for meter in first.meters] == [meter.meter_id for meter in again.meters]
    assert not {meter.meter_id for meter in first.meters} & {meter.meter_id for meter in other.meters}
    assert [meter.keys for meter in first.meters] == [meter.keys for meter in again.meters]


def test_a_larger_town_begins_with_the_same_households() -> None:
    small, large = Town("village", 5, "a", VIENNA), Town("village", 50, "a", VIENNA)
    ids = {meter.meter_id for meter in large.meters}
    assert {meter.meter_id for meter in small.meters} <= ids


@pytest.mark.parametrize(("date", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-17", 24)])
def test_a_day_of_a_clock_change_has_23_or_25_hours_of_readings(date: str, hours: int) -> None:
    """Each hour's reading is stated with its own local time, and the energies of the hours make up the day's."""
    midnight = datetime.fromisoformat(date).replace(tzinfo=VIENNA)
    start_s = int(midnight.timestamp())
    end_s = int((midnight + timedelta(days=1)).timestamp())
    instants = range(start_s, end_s, HOUR_S)
    assert len(instants) == hours
    meter = Town("village", 8, "dst", VIENNA).push[0]
    shown = [meter.shown(instant_s) for instant_s in instants]
    assert {each.time.astimezone(VIENNA).date() for each in shown} == {midnight.date()}
    assert len({each.time.astimezone(UTC) for each in shown}) == hours
    assert len({each.time.replace(tzinfo=None) for each in shown}) == min(hours, 24)


def test_neighbours_share_a_segment_and_every_address_is_used_once() -> None:
    town = Town("apartment-block", 60, "a", VIENNA)
    assert 1 < len(town.segments) <= 8
    for segment in town.segments:
        assert 1 <= len(segment) <= 250
        assert len({meter.dwelling.building.name for meter in segment}) == 1
    everyone = [meter.meter_id for meter in town.meters]
    assert len(everyone) == len(set(everyone))
