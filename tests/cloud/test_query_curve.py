"""The curve's decider: local days, which line to draw, and what a gap or a changed meter looks like."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from meterway.cloud.answers import Row
from meterway.cloud.curve import Source, choose_sources, curve_answer, local_day, total_answer
from meterway.core.errors import BadDataError

BERLIN = "Europe/Berlin"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-23", 24)])
def test_a_local_day_is_as_long_as_its_clocks_say(day: str, hours: int) -> None:
    local = local_day(day, BERLIN, NOON)
    assert local.end - local.start == timedelta(hours=hours)
    assert local.start.astimezone(ZoneInfo(BERLIN)).hour == 0


def test_today_is_today_in_the_zone() -> None:
    late = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)
    assert str(local_day(None, BERLIN, late).day) == "2026-11-24"
    assert str(local_day(None, "UTC", late).day) == "2026-11-23"


@pytest.mark.parametrize("zone", ["", "Mars/Base", "../../etc/passwd", "/etc/localtime", "Europe", "a" * 99, "a\0b"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(BadDataError, match="is not an IANA zone such as Europe/Berlin"):
        local_day(None, zone, NOON)


@pytest.mark.parametrize("day", ["today", "2026-02-30", "9999-12-31", "0001-01-01", "2026-11-23T00:00"])
def test_a_day_that_is_none_is_refused(day: str) -> None:
    with pytest.raises(BadDataError, match="is not a day; write it as 2026-11-23"):
        local_day(day, "Asia/Tokyo", NOON)


@pytest.mark.parametrize(
    ("property_ids", "units", "expected"),
    [
        (["OBIS_1.7.0", "OBIS_2.7.0", "OBIS_16.7.0"], ["kW"] * 3, [("OBIS_1.7.0", "power"), ("OBIS_2.7.0", "power")]),
        (["OBIS_1.7.0", "OBIS_16.7.0"], ["W", "W"], [("OBIS_16.7.0", "signed power"), ("OBIS_16.7.0", "signed power")]),
        (["OBIS_1.8.0", "OBIS_1.7.0"], ["kWh", "kW"], [("OBIS_1.7.0", "power")]),
        (["OBIS_1.8.0", "OBIS_2.8.0"], ["kWh", "kWh"], [("OBIS_1.8.0", "register"), ("OBIS_2.8.0", "register")]),
        (["OBIS_0.2.0", "GAS_volume"], ["degreeCelsius", "m3"], [("GAS_volume", "register")]),
        (["HEAT_volume", "HEAT_energy"], ["m3", "GJ"], [("HEAT_energy", "register")]),
        (["OBIS_1.8.1", "OBIS_1.8.2"], ["kWh"] * 2, [("OBIS_1.8.1", "register"), ("OBIS_1.8.2", "register")]),
        (["TEXT"], [""], []),
    ],
)
def test_power_is_preferred_to_registers(property_ids: list[str], units: list[str], expected: list[object]) -> None:
    assert [(source.property_id, source.kind) for source in choose_sources(property_ids, units)] == expected


def row(name: str, minute: int, value: str, unit: str) -> Row:
    at = local_day("2026-11-23", "UTC", NOON).start + timedelta(minutes=minute)
    return {"property_id": name, "step": minute, "unit": unit, "value_time": at, "value": Decimal(value)}


def test_a_pause_is_a_gap_and_units_are_brought_together() -> None:
    day = local_day("2026-11-23", "UTC", NOON)
    rows = [row("OBIS_1.7.0", minute, "500", "W") for minute in (0, 1, 2)] + [row("OBIS_1.7.0", 60, "1.5", "kW")]
    curve = curve_answer("m", day, [Source("OBIS_1.7.0", "import", "power")], rows, [])
    start = int(day.start.timestamp())
    assert curve.unit == "kW"
    assert curve.times == (start, start + 60, start + 120, start + 180, start + 3600)
    assert curve.lines[0].values == (Decimal("0.5"), Decimal("0.5"), Decimal("0.5"), None, Decimal("1.5"))


def test_a_signed_power_becomes_two_lines() -> None:
    day = local_day("2026-11-23", "UTC", NOON)
    rows = [row("OBIS_16.7.0", 0, "300", "W"), row("OBIS_16.7.0", 1, "-200", "W")]
    curve = curve_answer("m", day, choose_sources(["OBIS_16.7.0"], ["W"]), rows, [])
    assert [line.direction for line in curve.lines] == ["import", "export"]
    assert curve.lines[0].values == (Decimal("0.3"), Decimal(0))
    assert curve.lines[1].values == (Decimal(0), Decimal("0.2"))


def test_a_register_becomes_its_growth_an_hour_and_never_across_another_meter() -> None:
    day = local_day("2026-11-23", "UTC", NOON)
    values = ["100.00", "100.25", "3.00", "3.10"]
    rows = [row("OBIS_1.8.0", 15 * index, value, "kWh") for index, value in enumerate(values)]
    curve = curve_answer("m", day, choose_sources(["OBIS_1.8.0"], ["kWh"]), rows, [])
    assert curve.source == "register"
    assert curve.lines[0].values == (Decimal("1.0000"), None, Decimal("0.4000"), Decimal("0.4000"))


def test_a_volume_flows_in_cubic_metres_an_hour() -> None:
    day = local_day("2026-11-23", "UTC", NOON)
    rows = [row("V", 0, "10", "m3"), row("V", 30, "11500", "l")]
    curve = curve_answer("m", day, [Source("V", "import", "register")], rows, [])
    assert curve.unit == "m3/h"
    assert curve.lines[0].values[0] == 3


def test_nothing_to_draw_is_said_so() -> None:
    day = local_day("2026-11-23", "UTC", NOON)
    curve = curve_answer("m", day, [], [], [])
    assert (curve.source, curve.unit, curve.times, curve.lines) == ("none", None, (), ())
    assert total_answer(day, []).source == "none"


def test_the_registers_of_tariffs_are_one_line() -> None:
    day = local_day("2026-11-23", "UTC", NOON)
    names = ["OBIS_1.8.1", "OBIS_1.8.2"]
    rows = [row(names[0], 15 * index, f"{index * 0.25}", "kWh") for index in range(3)]
    rows += [row(names[1], 15 * index, f"{index * 0.5}", "kWh") for index in range(3)]
    curve = curve_answer("m", day, choose_sources(names, ["kWh", "kWh"]), rows, [])
    assert curve.lines[0].property_names == ("OBIS_1.8.1", "OBIS_1.8.2")
    assert curve.lines[0].values == (Decimal(3), Decimal(3), Decimal(3))
