"""Is this value possible at all, whatever was before it? Pure."""

from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from meterway.core.properties import Kind, Medium, catalogue
from meterway.core.units import Unit, find_unit

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
_MEASURED: Final = frozenset((Kind.INSTANTANEOUS, Kind.DEMAND, Kind.MAXIMUM))
_SECONDS_PER_HOUR: Final = 3600
_ENERGIES: Final = frozenset(("energy", "reactive energy", "apparent energy"))
_NET_GROUPS: Final = frozenset(("16", "36", "56", "76"))
"""Group C of import less export, which may be negative and fall (EN 62056-6-1, table "active power")."""
_ONE_WAY: Final = frozenset(f"OBIS_{group}.7.0" for group in (1, 2, 21, 22, 41, 42, 61, 62))
"""Powers of one direction: the other direction has a property of its own."""


class Limits(NamedTuple):
    """What a value of one property can be."""

    is_register: bool
    is_net: bool
    """Whether it is a difference, hence may be negative and a register of it may fall."""
    may_be_negative: bool
    ranges: tuple[Range, ...]
    """Empty: not known."""
    most_power: Decimal | None
    """Of a power: the most that the connection carries, in the value's unit."""
    most_per_hour: Decimal | None
    """Of a register of energy: how much it can rise in an hour, in the value's unit."""
    unit: str

    def wrong(self, number: Decimal) -> tuple[str, str] | None:
        """Return the fault code of a finite number that cannot be, and what was expected; None if it can."""
        if self.ranges and not any(low <= number <= high for low, high in self.ranges):
            low, high = self.ranges[0]
            return VALUE_OUT_OF_RANGE, f"{low} to {high} {self.unit}".rstrip()
        if number < 0 and not self.may_be_negative:
            return VALUE_OUT_OF_RANGE, "0 or more"
        if self.most_power is not None and abs(number) > self.most_power:
            return POWER_TOO_HIGH, f"at most {self.most_power} {self.unit}"
        return None


@lru_cache(maxsize=4096)
def limits_of(property_id: str, unit: str | None, maximum_power_w: int | None) -> Limits:
    """Return the limits of a property of the catalogue; ``maximum_power_w`` is that of the connection, if known."""
    definition = catalogue().require(property_id)
    found = find_unit(unit) if unit else None
    dimension = found.dimension if found else ""
    is_register = definition.kind is Kind.REGISTER
    is_net = property_id.removeprefix("OBIS_").partition(".")[0] in _NET_GROUPS
    is_power = definition.kind in _MEASURED and dimension in _POWERS
    most = None if maximum_power_w is None or found is None else _in_unit(maximum_power_w, found)
    ranges: tuple[Range, ...] = ()
    if property_id in _POWER_FACTORS:
        ranges = (_POWER_FACTOR,)
    elif definition.medium is Medium.ELECTRICITY and definition.kind is Kind.INSTANTANEOUS:
        ranges = RANGES.get(unit or "", ())
    return Limits(
        is_register=is_register,
        is_net=is_net,
        may_be_negative=is_net or not (is_register or property_id in _ONE_WAY),
        ranges=ranges,
        most_power=most if is_power else None,
        most_per_hour=most if is_register and dimension in _ENERGIES else None,
        unit=unit or "",
    )


def _in_unit(base: int, unit: Unit) -> Decimal:
    """Return ``base`` W, var or VA, or what it makes in an hour, in a unit of power or of energy."""
    per_hour = _SECONDS_PER_HOUR if unit.dimension == "energy" else 1
    return Decimal(base) * per_hour * unit.denominator / unit.numerator
