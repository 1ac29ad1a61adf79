"""Units: spellings, dimensions, exact conversion."""

from decimal import Decimal, getcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.errors import BadDataError
from meterway.core.units import DLMS_UNITS, UNITS, all_spellings, canonical, convert, find_unit, plain, same_dimension

numbers = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**15), max_value=10**15)


@pytest.mark.parametrize(
    ("value", "source", "target", "result"),
    [
        ("12345.678", "kWh", "Wh", "12345678"),
        ("12345678", "Wh", "kWh", "12345.678"),
        ("1500", "Wh", "kWh", "1.500"),
        ("1.5", "kWh", "Wh", "1500"),
        ("2", "MWh", "kWh", "2000"),
        ("3600000", "J", "kWh", "1"),
        ("1", "kWh", "MJ", "3.6"),
        ("1.234", "GJ", "kWh", "342.7777777777777777777777777777778"),
        ("7", "m3", "l", "7000"),
        ("12.5", "l", "m3", "0.0125"),
        ("60", "l/min", "m3/h", "3.6"),
        ("90", "s", "min", "1.5"),
        ("1", "d", "h", "24"),
        ("-0.412", "kW", "W", "-412"),
        ("2.5", "bar", "kPa", "250"),
        ("-0.0", "Wh", "kWh", "-0.0000"),
        ("5", "kWh", "kWh", "5"),
    ],
)
def test_conversion_is_exact(value: str, source: str, target: str, result: str) -> None:
    assert str(convert(Decimal(value), source, target)) == result


def test_forty_digits_survive_a_conversion() -> None:
    assert convert(Decimal("9" * 40), "kWh", "Wh") == Decimal("9" * 40 + "000")
    assert convert(Decimal("9" * 40), "kWh", "J") == int("9" * 40) * 3_600_000


def test_conversion_does_not_depend_on_the_precision_of_its_caller() -> None:
    before = getcontext().prec
    getcontext().prec = 3
    try:
        assert str(convert(Decimal("12345.678"), "kWh", "Wh")) == "12345678"
    finally:
        getcontext().prec = before


@given(numbers, st.sampled_from([("kWh", "Wh"), ("kWh", "J"), ("MWh", "Wh"), ("m3", "l"), ("h", "s"), ("kvar", "var")]))
def test_there_and_back_is_the_same_number(value: Decimal, units: tuple[str, str]) -> None:
    source, target = units
    assert convert(convert(value, source, target), target, source) == value


@given(numbers)
def test_no_result_has_a_positive_exponent(value: Decimal) -> None:
    assert "E+" not in str(convert(value, "GWh", "Wh"))


def test_units_of_different_dimensions_do_not_convert() -> None:
    with pytest.raises(BadDataError, match=r"kWh \(energy\) cannot be converted to kW \(power\)") as caught:
        convert(Decimal(1), "kWh", "kW")
    assert caught.value.reason == "bad-unit"


@pytest.mark.parametrize(("one", "other"), [("W", "var"), ("W", "VA"), ("degreeCelsius", "K"), ("kWh", "kvarh")])
def test_power_kinds_and_temperatures_stay_apart(one: str, other: str) -> None:
    assert not same_dimension(one, other)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(BadDataError, match="'furlong' is no unit that Meterway knows"):
        convert(Decimal(1), "furlong", "m3")
    assert not same_dimension("furlong", "furlong")
    assert find_unit("furlong") is None


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_what_is_not_finite_is_refused(value: str) -> None:
    with pytest.raises(BadDataError, match="cannot be converted from kWh to Wh") as caught:
        convert(Decimal(value), "kWh", "Wh")
    assert caught.value.reason == "bad-number"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("m³", "m3"),
        ("m^3", "m3"),
        ("dm3", "l"),
        ("°C", "degreeCelsius"),
        ("C", "degreeCelsius"),
        ("W*h", "Wh"),
        ("kVArh", "kvarh"),
        ("m3ph", "m3/h"),
        ("imp/kWh", "1/kWh"),
        ("kWh", "kWh"),
    ],
)
def test_an_alias_has_one_canonical_spelling(alias: str, name: str) -> None:
    assert canonical(alias) == name


def test_every_spelling_leads_to_a_canonical_unit() -> None:
    for text, unit in all_spellings():
        assert canonical(text) == unit.name
        assert UNITS[unit.name] is unit


def test_dlms_numbers_are_those_of_the_standard() -> None:
    assert [DLMS_UNITS[code] for code in (27, 28, 29, 30, 31, 32, 33, 35, 44)] == [
        *("W", "VA", "var", "Wh", "VAh", "varh", "A", "V", "Hz"),
    ]
    assert [DLMS_UNITS[code] for code in (8, 9, 13, 14, 15, 25)] == ["deg", "degreeCelsius", "m3", "m3", "m3/h", "J"]
    assert 255 not in DLMS_UNITS
    assert set(DLMS_UNITS.values()) <= set(UNITS)


def test_a_plain_number_has_no_positive_exponent_and_the_same_value() -> None:
    assert str(plain(Decimal("1E+5"))) == "100000"
    assert str(plain(Decimal("-1.20"))) == "-1.20"
    assert str(plain(Decimal("0E+3"))) == "0"
