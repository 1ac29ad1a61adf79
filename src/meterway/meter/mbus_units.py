"""What a value information field means: the tables of EN 13757-3 as data.

A VIF is a first byte, or FB or FD and a second one; each table below has a row for every run of codes:

    first code, how many, quantity, unit, power of ten of the first code

Within a run the power rises by one with each code. Where the unit is a tuple, the units follow one another instead
(s, min, h, d). The units are the basic ones (Wh, not kWh), in the spelling of ``core.units`` where it has them.
Source: EN 13757-3:2018, 6.4.2 (primary), 6.4.3 (FD), 6.4.4 (FB), 6.4.5 (orthogonal), and what meters of the time of
EN 1434-3 send under codes that were reserved later.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class Coding(Enum):
    """How the data field of a quantity is read."""

    NUMBER = "number"
    """As the data field says; integers are signed (type B)."""
    FLAGS = "flags"
    """Integers are bits, or numbers without a sign (types C and D)."""
    NAME = "name"
    """Digits that are a name: kept with leading zeros."""
    MANUFACTURER = "manufacturer"
    """Three letters in two bytes."""
    DATE = "date"
    """Types G, F, I, J, by the length of the field."""


class Quantity(NamedTuple):
    """One code of a table."""

    name: str
    unit: str | None
    exponent: int
    """The value is the number times ten to this."""
    coding: Coding
    first: int
    """The first code of its run: the same for all powers of ten and all units."""


_TIME: Final = ("s", "min", "h", "d")
_LONG_TIME: Final = ("h", "d", "month", "year")

_Row = tuple[int, int, str, str | tuple[str, ...] | None, int]

_PRIMARY: Final[tuple[_Row, ...]] = (
    (0x00, 8, "energy", "Wh", -3),
    (0x08, 8, "energy", "J", 0),
    (0x10, 8, "volume", "m3", -6),
    (0x18, 8, "mass", "kg", -3),
    (0x20, 4, "on time", _TIME, 0),
    (0x24, 4, "operating time", _TIME, 0),
    (0x28, 8, "power", "W", -3),
    (0x30, 8, "power", "J/h", 0),
    (0x38, 8, "volume flow", "m3/h", -6),
    (0x40, 8, "volume flow", "m3/min", -7),
    (0x48, 8, "volume flow", "m3/s", -9),
    (0x50, 8, "mass flow", "kg/h", -3),
    (0x58, 4, "flow temperature", "degreeCelsius", -3),
    (0x5C, 4, "return temperature", "degreeCelsius", -3),
    (0x60, 4, "temperature difference", "K", -3),
    (0x64, 4, "external temperature", "degreeCelsius", -3),
    (0x68, 4, "pressure", "bar", -3),
    (0x6C, 1, "date", None, 0),
    (0x6D, 1, "date and time", None, 0),
    (0x6E, 1, "units for heat cost allocation", None, 0),
    (0x70, 4, "averaging duration", _TIME, 0),
    (0x74, 4, "actuality duration", _TIME, 0),
    (0x78, 1, "fabrication number", None, 0),
    (0x79, 1, "enhanced identification", None, 0),
    (0x7A, 1, "bus address", None, 0),
    (0x7E, 1, "any quantity", None, 0),
    (0x7F, 1, "manufacturer specific", None, 0),
)

_FB: Final[tuple[_Row, ...]] = (
    (0x00, 2, "energy", "Wh", 5),
    (0x02, 2, "reactive energy", "varh", 3),
    (0x04, 2, "apparent energy", "VAh", 3),
    (0x08, 2, "energy", "J", 8),
    (0x0C, 4, "energy", "cal", 5),
    (0x10, 2, "volume", "m3", 2),
    (0x14, 4, "reactive power", "var", 0),
    (0x18, 2, "mass", "kg", 5),
    (0x1A, 2, "relative humidity", "%", -1),
    (0x20, 1, "volume", "ft3", 0),
    (0x21, 1, "volume", "ft3", -1),
    (0x22, 2, "volume", "gal", -1),
    (0x24, 1, "volume flow", "gal/min", -3),
    (0x25, 1, "volume flow", "gal/min", 0),
    (0x26, 1, "volume flow", "gal/h", 0),
    (0x28, 2, "power", "W", 5),
    (0x2A, 1, "phase angle of voltages", "deg", -1),
    (0x2B, 1, "phase angle of voltage and current", "deg", -1),
    (0x2C, 4, "frequency", "Hz", -3),
    (0x30, 2, "power", "J/h", 8),
    (0x34, 4, "apparent power", "VA", 0),
    (0x58, 4, "flow temperature", "degreeFahrenheit", -3),
    (0x5C, 4, "return temperature", "degreeFahrenheit", -3),
    (0x60, 4, "temperature difference", "degreeFahrenheit", -3),
    (0x64, 4, "external temperature", "degreeFahrenheit", -3),
    (0x70, 4, "temperature limit", "degreeFahrenheit", -3),
    (0x74, 4, "temperature limit", "degreeCelsius", -3),
    (0x78, 8, "cumulated maximum power", "W", -3),
)

_FD: Final[tuple[_Row, ...]] = (
    (0x00, 4, "credit", "currency", -3),
    (0x04, 4, "debit", "currency", -3),
    (0x08, 1, "access number", None, 0),
    (0x09, 1, "device type", None, 0),
    (0x0A, 1, "manufacturer", None, 0),
    (0x0B, 1, "parameter set", None, 0),
    (0x0C, 1, "model or version", None, 0),
    (0x0D, 1, "hardware version", None, 0),
    (0x0E, 1, "firmware version", None, 0),
    (0x0F, 1, "software version", None, 0),
    (0x10, 1, "customer location", None, 0),
    (0x11, 1, "customer", None, 0),
    (0x12, 1, "access code of the user", None, 0),
    (0x13, 1, "access code of the operator", None, 0),
    (0x14, 1, "access code of the system operator", None, 0),
    (0x15, 1, "access code of the developer", None, 0),
    (0x16, 1, "password", None, 0),
    (0x17, 1, "error flags", None, 0),
    (0x18, 1, "error mask", None, 0),
    (0x19, 1, "security key", None, 0),
    (0x1A, 1, "digital output", None, 0),
    (0x1B, 1, "digital input", None, 0),
    (0x1C, 1, "baud rate", None, 0),
    (0x1D, 1, "response delay in bit times", None, 0),
    (0x1E, 1, "retry", None, 0),
    (0x1F, 1, "remote control", None, 0),
    (0x20, 1, "first cyclic storage number", None, 0),
    (0x21, 1, "last cyclic storage number", None, 0),
    (0x22, 1, "size of storage block", None, 0),
    (0x23, 1, "descriptor of tariff and subunit", None, 0),
    (0x24, 4, "storage interval", _TIME, 0),
    (0x28, 2, "storage interval", ("month", "year"), 0),
    (0x2A, 1, "operator specific data", None, 0),
    (0x2B, 1, "second of the time point", "s", 0),
    (0x2C, 4, "duration since last readout", _TIME, 0),
    (0x30, 1, "start of tariff", None, 0),
    (0x31, 3, "duration of tariff", ("min", "h", "d"), 0),
    (0x34, 4, "period of tariff", _TIME, 0),
    (0x38, 2, "period of tariff", ("month", "year"), 0),
    (0x3A, 1, "pure number", None, 0),
    (0x3B, 1, "data container", None, 0),
    (0x3C, 4, "transmission period", _TIME, 0),
    (0x40, 16, "voltage", "V", -9),
    (0x50, 16, "current", "A", -12),
    (0x60, 1, "reset counter", None, 0),
    (0x61, 1, "cumulation counter", None, 0),
    (0x62, 1, "control signal", None, 0),
    (0x63, 1, "day of week", None, 0),
    (0x64, 1, "week number", None, 0),
    (0x65, 1, "time of day change", None, 0),
    (0x66, 1, "state of parameter activation", None, 0),
    (0x67, 1, "special supplier information", None, 0),
    (0x68, 4, "duration since last cumulation", _LONG_TIME, 0),
    (0x6C, 4, "operating time of battery", _LONG_TIME, 0),
    (0x70, 1, "date of battery change", None, 0),
    (0x71, 1, "radio level", "dBm", 0),
    (0x72, 1, "daylight saving", None, 0),
    (0x73, 1, "listening window", None, 0),
    (0x74, 1, "remaining battery life", "d", 0),
    (0x75, 1, "number of stops", None, 0),
    (0x76, 1, "manufacturer data container", None, 0),
)

_CODINGS: Final[Mapping[str, Coding]] = {
    "date": Coding.DATE,
    "date and time": Coding.DATE,
    "start of tariff": Coding.DATE,
    "date of battery change": Coding.DATE,
    "fabrication number": Coding.NAME,
    "enhanced identification": Coding.NAME,
    "customer location": Coding.NAME,
    "customer": Coding.NAME,
    "parameter set": Coding.NAME,
    "manufacturer": Coding.MANUFACTURER,
    "bus address": Coding.FLAGS,
    "access number": Coding.FLAGS,
    "device type": Coding.FLAGS,
    "error flags": Coding.FLAGS,
    "error mask": Coding.FLAGS,
    "digital output": Coding.FLAGS,
    "digital input": Coding.FLAGS,
    "remote control": Coding.FLAGS,
    "control signal": Coding.FLAGS,
    "baud rate": Coding.FLAGS,
}

_SECRET: Final = frozenset(range(0x12, 0x17)) | {0x19}
"""Codes of FD whose values are access codes, passwords and keys: never handed on."""


def _table(rows: tuple[_Row, ...]) -> Mapping[int, Quantity]:
    found = {}
    for first, count, name, unit, exponent in rows:
        coding = _CODINGS.get(name, Coding.NUMBER)
        for step in range(count):
            if isinstance(unit, tuple):
                found[first + step] = Quantity(name, unit[step], 0, coding, first)
            else:
                found[first + step] = Quantity(name, unit, exponent + step, coding, first)
    return MappingProxyType(found)


PRIMARY: Final = _table(_PRIMARY)
"""One byte."""
FB: Final = _table(_FB)
"""FB and a byte."""
FD: Final = _table(_FD)
"""FD and a byte."""


def is_secret(quantity: Quantity) -> bool:
    """Return whether the value of a quantity of ``FD`` must not be handed on."""
    return quantity.first in _SECRET


class Effect(NamedTuple):
    """What an orthogonal VIFE does to a value."""

    name: str = ""
    """What is said after the quantity; empty if nothing of the meaning changes."""
    exponent: int = 0
    """Added to the power of ten."""
    per: str = ""
    """Appended to the unit."""
    phase: int = 0
    """1 to 3, 4 for the neutral conductor; 0 if none is named."""
    direction: int = 0
    """1 forward or import, -1 backward or export; 0 if none is named."""
    problem: str = ""
    """Why there is no value; else empty."""


def _effects() -> dict[int, Effect]:
    found = {
        0x12: Effect("average"),
        0x39: Effect("start date of"),
        0x3A: Effect("uncorrected"),
        0x3B: Effect("forward", direction=1),
        0x3C: Effect("backward", direction=-1),
        0x3E: Effect("at base conditions"),
        0x40: Effect("lower limit"),
        0x41: Effect("number of falls below the lower limit"),
        0x48: Effect("upper limit"),
        0x49: Effect("number of rises above the upper limit"),
        0x69: Effect("leakage"),
        0x7D: Effect(exponent=3),
        0x7E: Effect("future"),
    }
    units = ("l", "m3", "kg", "K", "kWh", "GJ", "kW", "(K*l)", "V", "A")
    found |= {0x2C + step: Effect(f"per {unit}", per=f"/{unit}") for step, unit in enumerate(units)}
    times = ("s", "min", "h", "d", "week", "month", "year", "revolution")
    found |= {0x20 + step: Effect(f"per {unit}", per=f"/{unit}") for step, unit in enumerate(times)}
    products = ("*s", "*s/V", "*s/A")
    found |= {0x36 + step: Effect(f"times {unit[1:]}", per=unit) for step, unit in enumerate(products)}
    pulses = ("input channel 0", "input channel 1", "output channel 0", "output channel 1")
    found |= {0x28 + step: Effect(f"per pulse of {where}") for step, where in enumerate(pulses)}
    found |= {0x70 + step: Effect(exponent=step - 6) for step in range(8)}
    found |= {0x78 + step: Effect(f"with 1E{step - 3} to be added") for step in range(4)}
    return found | {code: Effect(problem=text) for code, text in RECORD_ERRORS.items()}


RECORD_ERRORS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x01: "too many DIFE",
        0x02: "storage number not implemented",
        0x03: "unit number not implemented",
        0x04: "tariff number not implemented",
        0x05: "function not implemented",
        0x06: "data class not implemented",
        0x07: "data size not implemented",
        0x0B: "too many VIFE",
        0x0C: "illegal VIF group",
        0x0D: "illegal VIF exponent",
        0x0E: "VIF does not fit DIF",
        0x0F: "action not implemented",
        0x15: "no data available",
        0x16: "data overflow",
        0x17: "data underflow",
        0x18: "data error",
        0x1C: "premature end of record",
    }
)
"""Orthogonal VIFEs that say why a record has no value (EN 13757-3:2018, 6.4.6)."""

ORTHOGONAL: Final[Mapping[int, Effect]] = MappingProxyType(_effects())
"""By VIFE without its extension bit. What is missing only makes another quantity of it."""

ORTHOGONAL_FC: Final[Mapping[int, Effect]] = MappingProxyType(
    {
        0x01: Effect("phase L1", phase=1),
        0x02: Effect("phase L2", phase=2),
        0x03: Effect("phase L3", phase=3),
        0x04: Effect("neutral", phase=4),
        0x05: Effect("between L1 and L2"),
        0x06: Effect("between L2 and L3"),
        0x07: Effect("between L3 and L1"),
        0x08: Effect("quadrant 1"),
        0x09: Effect("quadrant 2"),
        0x0A: Effect("quadrant 3"),
        0x0B: Effect("quadrant 4"),
        0x0C: Effect("import less export"),
        0x10: Effect("both directions added up"),
    }
)
"""The same for the VIFE after FC."""

_FIXED_UNITS: Final = (
    *((unit, name, exponent) for unit, name in (("Wh", "energy"),) for exponent in range(9)),
    *(("J", "energy", exponent) for exponent in range(3, 12)),
    *(("W", "power", exponent) for exponent in range(9)),
    *(("J/h", "power", exponent) for exponent in range(3, 12)),
    *(("m3", "volume", exponent) for exponent in range(-6, 3)),
    *(("m3/h", "volume flow", exponent) for exponent in range(-6, 3)),
    ("degreeCelsius", "flow temperature", -3),
    (None, "units for heat cost allocation", 0),
)

FIXED: Final[Mapping[int, Quantity]] = MappingProxyType(
    {
        code: Quantity(name, unit, exponent, Coding.NUMBER, code)
        for code, (unit, name, exponent) in enumerate(_FIXED_UNITS, start=2)
    }
)
"""The counters of the fixed data structure by their six bits of unit (EN 1434-3:1997, table of physical units)."""

FIXED_MEDIA: Final = (0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0F, 0x03, 0x04, 0x06, 0x07, 0x08, 0x0F)
"""The device type (EN 13757-7) for the four bits of medium of the fixed data structure."""
