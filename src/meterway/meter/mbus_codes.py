"""OBIS codes for the records of an M-Bus meter.

Where EN 13757-1 (heat, cooling, gas, water, cost allocators) or EN 62056-6-1 (electricity) has a code for a quantity,
that is the record's. Every other record has a code of our own in the range that the standards leave to makers
(B from 128 to 199), so that it is kept, shown, and can be mapped like any other:

    A  what the meter measures, as in all codes; 15 for what has no group of its own
    B  128 + 4 * subunit + table (0 primary VIF, 1 FB, 2 FD, 3 the rest); subunits above 17 count as 17
    C  the first VIF of the run, so that it does not depend on power of ten and unit; or a sum of a plain text
    D  0; 1 + n for the maker's VIFE n; 128 + n for the orthogonal VIFE n; a hash where there are several
    E  function (0 instantaneous, 1 maximum, 2 minimum, 3 in a state of error) + 4 * tariff, at most 63
    F  storage number: 255 for 0, the present value; else the number itself, at most 254

F is the storage number in all codes. 97.97.0 are error flags, 97.97.1 is the status byte, 96.1.0 the fabrication
number, 0-0:1.0.0 the meter's clock and 0-0:0.9.2 a date, whatever is measured.
"""

from binascii import crc32
from collections.abc import Mapping
from typing import Final, NamedTuple

from meterway.core.obis import CURRENT, Obis

INSTANTANEOUS: Final = 0
MAXIMUM: Final = 1
MINIMUM: Final = 2
ERROR_STATE: Final = 3
"""Functions, as the DIF has them."""

TABLE_PRIMARY: Final = 0
TABLE_FB: Final = 1
TABLE_FD: Final = 2
TABLE_OTHER: Final = 3

_MAKER: Final = 0x7F

GROUP_A: Final[Mapping[int, int]] = {
    0x02: 1,
    0x03: 7,
    0x04: 6,
    0x06: 9,
    0x07: 8,
    0x08: 4,
    0x0A: 5,
    0x0B: 5,
    0x0C: 6,
    0x0D: 6,
    0x15: 9,
    0x16: 8,
    0x17: 8,
    0x28: 8,
}
"""Group A by device type (EN 13757-7)."""

OTHER_MEDIUM: Final = 15


class Place(NamedTuple):
    """What a record says about itself beside its quantity."""

    a: int
    """Group A."""
    function: int
    storage: int
    tariff: int
    subunit: int

    @property
    def f(self) -> int:
        """Group F."""
        return min(self.storage, 254) if self.storage else CURRENT


class Variant(NamedTuple):
    """What VIFEs make of a quantity."""

    marks: bytes = b""
    """The VIFEs that change the meaning, without extension bits; those after FC with it."""
    phase: int = 0
    """1 to 3; 4 neutral; 0 none."""
    direction: int = 0
    """1 import or forward, -1 export or backward, 0 not said."""
    gas_state: int = -1
    """0 as measured, 2 at base conditions; -1 not said."""
    other: bool = False
    """Whether a mark says more than phase, direction and state."""


_PLAIN: Final = Variant()

_THERMAL: Final = {
    "energy": 1,
    "volume": 2,
    "mass": 3,
    "power": 8,
    "volume flow": 9,
    "flow temperature": 10,
    "return temperature": 11,
    "temperature difference": 12,
}
_WATER: Final = {"volume": 1, "volume flow": 2, "flow temperature": 3}
_GAS: Final = {"volume": 3, "volume flow": 43}
_GAS_STATE: Final = {"flow temperature": 41, "pressure": 42}
_ALLOCATOR: Final = {"units for heat cost allocation": 1}
_EXTREMES: Final = {INSTANTANEOUS: 0, MAXIMUM: 5, MINIMUM: 4}
"""Group D of EN 13757-1."""

_ENERGY: Final = {"energy": (1, 2), "reactive energy": (3, 4), "apparent energy": (9, 10)}
_POWER: Final = {"power": (1, 2, 16), "reactive power": (3, 4, 3), "apparent power": (9, 10, 9)}
"""Group C for import, export, and where no direction is said: then active power has a sign, and its maximum none."""
_PHASE_STEP: Final = 20
_NEUTRAL: Final = 4
_STATE: Final = {"voltage": 12, "current": 11, "frequency": 14}
_LAST_PHASE: Final = {"voltage": 3, "current": _NEUTRAL, "frequency": 0}
_ELECTRIC_D: Final = {INSTANTANEOUS: 7, MAXIMUM: 6, MINIMUM: 3}
_ELECTRICITY: Final = 1
_GAS_GROUP: Final = 7
_GROUPS: Final[Mapping[int, Mapping[str, int]]] = {4: _ALLOCATOR, 8: _WATER, 9: _WATER, 5: _THERMAL, 6: _THERMAL}


def standard_code(name: str, place: Place, variant: Variant) -> Obis | None:
    """Return the code that a standard gives to a quantity; None if there is none."""
    if place.subunit or variant.other or place.function == ERROR_STATE or place.tariff > CURRENT:
        return None
    common = _common(name, place, variant)
    if common:
        return common
    if place.a == _ELECTRICITY:
        found = _electric(name, place, variant)
    elif place.a == _GAS_GROUP:
        found = _gas(name, place, variant)
    else:
        found = _metered(name, place, variant)
    return found and Obis(place.a, 0, found[0], found[1], place.tariff, place.f)


def private_code(place: Place, table: int, first: int, variant: Variant = _PLAIN) -> Obis:
    """Return a code of our own (see the module)."""
    b = 128 + 4 * min(place.subunit, 17) + table
    e = place.function + 4 * min(place.tariff, 63)
    return Obis(place.a, b, first & 0xFF, _marked(variant.marks), e, place.f)


def _marked(marks: bytes) -> int:
    if not marks:
        return 0
    if len(marks) == 1 and marks[0] < _MAKER:
        return 128 + marks[0]
    if len(marks) == 2 and marks[0] == _MAKER > marks[1]:  # noqa: PLR2004
        return 1 + marks[1]
    return crc32(marks) % 255 + 1


def _common(name: str, place: Place, variant: Variant) -> Obis | None:
    if variant.marks or place.function != INSTANTANEOUS or place.tariff:
        return None
    if name == "error flags":
        return Obis(place.a, 0, 97, 97, 0, place.f)
    if name == "fabrication number":
        return Obis(place.a, 0, 96, 1, 0, place.f)
    if name == "date and time":
        return Obis(0, 0, 1, 0, 0, place.f)
    return Obis(0, 0, 0, 9, 2, place.f) if name == "date" else None


def _metered(name: str, place: Place, variant: Variant) -> tuple[int, int] | None:
    c = _GROUPS.get(place.a, {}).get(name)
    if c is None or variant.phase or variant.gas_state > 0 or variant.direction < 0:
        return None
    return c, _EXTREMES[place.function]


def _gas(name: str, place: Place, variant: Variant) -> tuple[int, int] | None:
    if place.function != INSTANTANEOUS or variant.phase or variant.direction < 0:
        return None
    if name in _GAS:
        return _GAS[name], max(variant.gas_state, 0)
    return (_GAS_STATE[name], 0) if name in _GAS_STATE and variant.gas_state < 0 else None


def _electric(name: str, place: Place, variant: Variant) -> tuple[int, int] | None:
    offset, function = _PHASE_STEP * variant.phase, place.function
    neutral = variant.phase == _NEUTRAL
    if variant.gas_state >= 0 or (place.tariff and name not in _ENERGY):
        return None
    if name in _STATE and not variant.direction and variant.phase <= _LAST_PHASE[name]:
        return _STATE[name] + offset, _ELECTRIC_D[function]
    if name in _ENERGY and function == INSTANTANEOUS and not neutral:
        return _ENERGY[name][variant.direction < 0] + offset, 8
    if name in _POWER and not neutral:
        upward, downward, unsaid = _POWER[name]
        if function == MAXIMUM:
            unsaid = upward
        return {1: upward, -1: downward, 0: unsaid}[variant.direction] + offset, _ELECTRIC_D[function]
    return None
