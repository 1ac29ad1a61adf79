"""Units: one spelling each, exact conversion, and the unit numbers of DLMS and SML.

Numbers are ``Decimal`` throughout; nothing here is ever a float.
"""

from collections.abc import Mapping
from decimal import MAX_PREC, ROUND_HALF_EVEN, Context, Decimal, Inexact
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError


class Unit(NamedTuple):
    """A value in this unit times ``numerator / denominator`` is the value in the base unit of its dimension."""

    name: str
    """The canonical spelling."""
    dimension: str
    """What it measures; only units of one dimension convert into each other."""
    numerator: int = 1
    denominator: int = 1


_TABLE: Final = (
    Unit("J", "energy"),
    Unit("kJ", "energy", 10**3),
    Unit("MJ", "energy", 10**6),
    Unit("GJ", "energy", 10**9),
    Unit("Wh", "energy", 3600),
    Unit("kWh", "energy", 3600 * 10**3),
    Unit("MWh", "energy", 3600 * 10**6),
    Unit("GWh", "energy", 3600 * 10**9),
    Unit("W", "power"),
    Unit("kW", "power", 10**3),
    Unit("MW", "power", 10**6),
    Unit("J/h", "power", 1, 3600),
    Unit("MJ/h", "power", 10**6, 3600),
    Unit("GJ/h", "power", 10**9, 3600),
    Unit("varh", "reactive energy"),
    Unit("kvarh", "reactive energy", 10**3),
    Unit("Mvarh", "reactive energy", 10**6),
    Unit("var", "reactive power"),
    Unit("kvar", "reactive power", 10**3),
    Unit("Mvar", "reactive power", 10**6),
    Unit("VAh", "apparent energy"),
    Unit("kVAh", "apparent energy", 10**3),
    Unit("MVAh", "apparent energy", 10**6),
    Unit("VA", "apparent power"),
    Unit("kVA", "apparent power", 10**3),
    Unit("MVA", "apparent power", 10**6),
    Unit("mV", "voltage", 1, 10**3),
    Unit("V", "voltage"),
    Unit("kV", "voltage", 10**3),
    Unit("mA", "current", 1, 10**3),
    Unit("A", "current"),
    Unit("kA", "current", 10**3),
    Unit("Ah", "electric charge"),
    Unit("mHz", "frequency", 1, 10**3),
    Unit("Hz", "frequency"),
    Unit("kHz", "frequency", 10**3),
    Unit("deg", "angle"),
    Unit("ml", "volume", 1, 10**6),
    Unit("l", "volume", 1, 10**3),
    Unit("m3", "volume"),
    Unit("l/h", "volume flow", 1, 10**3),
    Unit("l/min", "volume flow", 60, 10**3),
    Unit("m3/h", "volume flow"),
    Unit("m3/min", "volume flow", 60),
    Unit("m3/s", "volume flow", 3600),
    Unit("kg", "mass"),
    Unit("t", "mass", 10**3),
    Unit("kg/h", "mass flow"),
    Unit("t/h", "mass flow", 10**3),
    Unit("degreeCelsius", "temperature"),
    Unit("K", "temperature difference"),
    Unit("Pa", "pressure"),
    Unit("hPa", "pressure", 10**2),
    Unit("kPa", "pressure", 10**3),
    Unit("mbar", "pressure", 10**2),
    Unit("bar", "pressure", 10**5),
    Unit("MJ/m3", "calorific value", 10**6),
    Unit("kWh/m3", "calorific value", 3600 * 10**3),
    Unit("s", "time"),
    Unit("min", "time", 60),
    Unit("h", "time", 3600),
    Unit("d", "time", 86400),
    Unit("%", "ratio"),
    Unit("m2", "area"),
    Unit("1/kWh", "pulses per active energy"),
    Unit("1/kvarh", "pulses per reactive energy"),
    Unit("1/m3", "pulses per volume"),
    Unit("dBm", "signal strength"),
)

UNITS: Final[Mapping[str, Unit]] = MappingProxyType({unit.name: unit for unit in _TABLE})
"""All units by their canonical spelling. Kelvin is here for differences only; temperatures are degreeCelsius."""

_ALIASES: Final[Mapping[str, str]] = {
    "W*h": "Wh",
    "W.h": "Wh",
    "var*h": "varh",
    "VAr": "var",
    "VArh": "varh",
    "kVAr": "kvar",
    "kVArh": "kvarh",
    "kVar": "kvar",
    "kVarh": "kvarh",
    "VA*h": "VAh",
    "A*h": "Ah",
    "dm3": "l",
    "dm³": "l",
    "L": "l",
    "litre": "l",
    "m³": "m3",
    "m^3": "m3",
    "Nm3": "m3",
    "Nm³": "m3",
    "Sm3": "m3",
    "Sm³": "m3",
    "cbm": "m3",
    "dm3/h": "l/h",
    "dm³/h": "l/h",
    "L/h": "l/h",
    "L/min": "l/min",
    "m³/h": "m3/h",
    "m^3/h": "m3/h",
    "m3ph": "m3/h",
    "°C": "degreeCelsius",
    "ºC": "degreeCelsius",
    "C": "degreeCelsius",
    "degC": "degreeCelsius",
    "Celsius": "degreeCelsius",
    "MJ/m³": "MJ/m3",
    "kWh/m³": "kWh/m3",
    "°": "deg",
    "degree": "deg",
    "percent": "%",
    "sec": "s",
    "hours": "h",
    "m²": "m2",
    "imp/kWh": "1/kWh",
    "imp/kvarh": "1/kvarh",
    "imp/m3": "1/m3",
}
"""Other spellings, as meters and the programs around them write them."""

_SPELLINGS: Final = {**{name: name for name in UNITS}, **_ALIASES}

DLMS_UNITS: Final[Mapping[int, str]] = MappingProxyType(
    {
        4: "d",
        5: "h",
        6: "min",
        7: "s",
        8: "deg",
        9: "degreeCelsius",
        13: "m3",
        14: "m3",
        15: "m3/h",
        16: "m3/h",
        19: "l",
        20: "kg",
        23: "Pa",
        24: "bar",
        25: "J",
        27: "W",
        28: "VA",
        29: "var",
        30: "Wh",
        31: "VAh",
        32: "varh",
        33: "A",
        35: "V",
        44: "Hz",
        52: "K",
        56: "%",
        57: "Ah",
        70: "dBm",
    }
)
"""Unit numbers of DLMS and SML (IEC 62056-6-2, table "enumerated values for physical units").

14 and 16 are volume and flow corrected to base conditions: a difference of the property, not of the unit. 255 is no
unit. Numbers that are missing here belong to quantities that the catalogue does not have.
"""


def find_unit(text: str) -> Unit | None:
    """Return the unit with this spelling or alias; None if there is none."""
    name = _SPELLINGS.get(text)
    return None if name is None else UNITS[name]


def all_spellings() -> list[tuple[str, Unit]]:
    """Return every spelling, canonical or alias, with its unit."""
    return [(text, UNITS[name]) for text, name in _SPELLINGS.items()]


def canonical(text: str) -> str:
    """Return the one spelling of a unit: ``m3`` for ``m³``.

    Raises:
        BadDataError: no such unit (reason ``bad-unit``).
    """
    return _require(text).name


def same_dimension(one: str, other: str) -> bool:
    """Return whether two units measure the same; False if either is unknown."""
    first, second = find_unit(one), find_unit(other)
    return first is not None and second is not None and first.dimension == second.dimension


def convert(value: Decimal, source: str, target: str) -> Decimal:
    """Return ``value``, given in unit ``source``, in unit ``target``.

    Exact where the result has finitely many decimals; else rounded half to even at 34 significant digits (as J to
    kWh). A factor that is a power of ten only moves the point, so 1500 Wh is 1.500 kWh. Never returns an exponent
    above 0: 1.5 kWh is 1500 Wh, not 1.5E+3.

    Raises:
        BadDataError: an unknown unit, two units of different dimensions, or ``value`` is not finite
            (reason ``bad-unit``, ``bad-number``).
    """
    if not value.is_finite():
        raise BadDataError(f"{value} cannot be converted from {source} to {target}", reason="bad-number")
    ratio = _ratio(source, target)
    if ratio.zeros is not None:
        return plain(value.scaleb(ratio.zeros, _POINT_MOVED))
    return plain(_scaled(value, ratio))


def digits(value: Decimal) -> str:
    """Return a number as decimal digits with a point, and without exponent."""
    text = str(value)
    return format(value, "f") if "E" in text else text


def plain(value: Decimal) -> Decimal:
    """Return the same number with an exponent of at most 0: 1E+5 becomes 100000."""
    if "E+" not in str(value):  # asking the number for its exponent takes ten times as long
        return value
    return value.quantize(Decimal(1), context=Context(prec=value.adjusted() + 2))


class _Ratio(NamedTuple):
    numerator: int
    denominator: int
    zeros: int | None
    """By how many places the point moves, to the right; None where the ratio is no power of ten."""


_LARGEST_DIGITS = 60
"""More than any exact conversion of a number that ``wire`` accepts needs."""
_ROUNDED_DIGITS = 34
_POINT_MOVED = Context(prec=MAX_PREC, traps=[Inexact])


@lru_cache(maxsize=1024)
def _ratio(source: str, target: str) -> _Ratio:
    """Return what a value in ``source`` is multiplied with to be one in ``target``.

    Raises:
        BadDataError: as ``convert``.
    """
    first, second = _require(source), _require(target)
    if first.dimension != second.dimension:
        raise BadDataError(
            f"{first.name} ({first.dimension}) cannot be converted to {second.name} ({second.dimension})",
            reason="bad-unit",
        )
    numerator = first.numerator * second.denominator
    denominator = first.denominator * second.numerator
    return _Ratio(numerator, denominator, _zeros(numerator, denominator))


def _zeros(numerator: int, denominator: int) -> int | None:
    for large, small, sign in ((numerator, denominator, 1), (denominator, numerator, -1)):
        quotient, rest = divmod(large, small)
        digits = str(quotient)
        if not rest and digits.rstrip("0") == "1":
            return sign * (len(digits) - 1)
    return None


def _scaled(value: Decimal, ratio: _Ratio) -> Decimal:
    exact = Context(prec=len(value.as_tuple().digits) + _LARGEST_DIGITS, rounding=ROUND_HALF_EVEN, traps=[Inexact])
    product = exact.multiply(value, Decimal(ratio.numerator))
    try:
        return exact.divide(product, Decimal(ratio.denominator))
    except Inexact:
        return Context(prec=_ROUNDED_DIGITS, rounding=ROUND_HALF_EVEN).divide(product, Decimal(ratio.denominator))


def _require(text: str) -> Unit:
    unit = find_unit(text)
    if unit is None:
        raise BadDataError(f"{text[:40]!r} is no unit that Meterway knows", reason="bad-unit")
    return unit
