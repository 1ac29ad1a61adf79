"""Is this value possible at all, whatever was before it? Pure."""

from decimal import Decimal
from typing import Final, NamedTuple

from meterway.core.properties import Kind, Medium, OperationalProperty
from meterway.core.reading import PropertyValue
from meterway.core.units import find_unit

VALUE_OUT_OF_RANGE: Final = "value-out-of-range"
POWER_TOO_HIGH: Final = "power-too-high"


class Range(NamedTuple):
    low: Decimal
    high: Decimal


_UNCONNECTED: Final = Range(Decimal(0), Decimal(10))

RANGES: Final[dict[str, tuple[Range, ...]]] = {
    "V": (
        Range(Decimal(80), Decimal(300)),
        _UNCONNECTED,
        Range(Decimal(50), Decimal(70)),
        Range(Decimal(3000), Decimal(60000)),
    ),
    "Hz": (Range(Decimal(40), Decimal(70)),),
}
"""By unit, for electricity. Of voltages also: up to 10 V is a phase that is not connected; 50 to 70 V is the secondary
side of a voltage transformer, 3 to 60 kV its primary side, as meters of large customers measure and state them."""
_POWER_FACTOR: Final = Range(Decimal(-1), Decimal(1))
_POWER_FACTORS: Final = frozenset(f"OBIS_{group}.7.0" for group in (13, 33, 53, 73))
_POWERS: Final = frozenset(("power", "reactive power", "apparent power"))
_ENERGIES: Final = frozenset(("energy", "reactive energy", "apparent energy"))
_NET_GROUPS: Final = frozenset(("16", "36", "56", "76"))
"""Group C of import less export, which may be negative and fall (EN 62056-6-1, table "active power")."""
_ONE_WAY: Final = frozenset(f"OBIS_{group}.7.0" for group in (1, 2, 21, 22, 41, 42, 61, 62))
"""Powers of one direction: the other direction has a property of its own."""


def is_net(definition: OperationalProperty) -> bool:
    """Return whether it is a difference, hence may be negative and a register of it may fall."""
    return definition.property_id.removeprefix("OBIS_").partition(".")[0] in _NET_GROUPS


def dimension(unit: str | None) -> str:
    """Return what a unit measures; empty for none."""
    found = find_unit(unit) if unit else None
    return found.dimension if found else ""


def is_energy(definition: OperationalProperty) -> bool:
    return dimension(definition.unit) in _ENERGIES


def out_of_range(definition: OperationalProperty, value: PropertyValue) -> str | None:
    """Return what was expected of a value that cannot be; None if it can."""
    number = value.numerical_value
    if number is None:
        return None
    if definition.property_id in _POWER_FACTORS:
        ranges: tuple[Range, ...] = (_POWER_FACTOR,)
    elif definition.medium is Medium.ELECTRICITY and definition.kind is Kind.INSTANTANEOUS:
        ranges = RANGES.get(value.unit or "", ())
    else:
        ranges = ()
    if ranges and not any(low <= number <= high for low, high in ranges):
        return f"{ranges[0].low} to {ranges[0].high} {value.unit or ''}".rstrip()
    cannot_be_negative = definition.kind is Kind.REGISTER or definition.property_id in _ONE_WAY
    if number < 0 and cannot_be_negative and not is_net(definition):
        return "0 or more"
    return None


def too_powerful(definition: OperationalProperty, value: PropertyValue, maximum_power_w: int | None) -> str | None:
    """Return what was expected of a power that the connection cannot carry; None if it can, or that is not known."""
    number = value.numerical_value
    measured = definition.kind in (Kind.INSTANTANEOUS, Kind.DEMAND, Kind.MAXIMUM)
    if maximum_power_w is None or number is None or not measured or dimension(value.unit) not in _POWERS:
        return None
    most = in_unit(maximum_power_w, value.unit)
    return f"at most {most} {value.unit}" if abs(number) > most else None


def in_unit(base: int, unit: str | None) -> Decimal:
    """Return a power of ``base`` W, var or VA (or what it makes in an hour) in ``unit`` (of power, or of energy)."""
    found = find_unit(unit) if unit else None
    if found is None:
        return Decimal(base)
    per_hour = 3600 if found.dimension == "energy" else 1
    return Decimal(base) * per_hour * found.denominator / found.numerator
