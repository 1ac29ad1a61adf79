"""What the data of a push mean: A-XDR elements in, registers out, in every layout that meters use.

    objects and values  [[class, code, attribute, index], ...], value, ...   ; value n belongs to object n, the list
                        being the value of the first: Landis+Gyr, Iskraemeco, Energomera
    coded               [code, value] or [code, value, [scaler, unit]], each a structure: Aidon, Kaifa, Iskraemeco
    flat                code, value, code, value, [scaler, unit], ...: Kamstrup, Kaifa, Landis+Gyr; null fills gaps
    positional          value, value, ...: only a ``PushList`` says what they are: Kaifa in Norway, Iskraemeco

Codes are OBIS codes of six octets. Flat and coded elements may be mixed; a date-time that stands first without a code
is the clock, a text that stands first the name of the list, a text that stands last the meter's number.

Numbers are scaled exactly. A measured number that came without a unit, and that no ``PushList`` gives one, has the unit
``UNSCALED``: its value is as sent, and nothing may take it for kilowatt hours. Octets that are printable ASCII are
text, others upper-case hex; NULs at the end are dropped. A clock is its ISO 8601 form. Null values are left out, and
so are values that are lists.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Context, Decimal
from functools import lru_cache
from typing import Annotated, Final, NamedTuple, TypeGuard

import msgspec
from msgspec.structs import replace

from meterway.core.config import Table
from meterway.core.obis import Obis
from meterway.core.units import DLMS_UNITS, find_unit, plain
from meterway.meter.axdr import Element, Enum, GrammarError
from meterway.meter.telegram import Register

UNSCALED: Final = "unscaled"
"""Stands where a measured number has no unit: it is none that ``core.units`` knows, so nothing converts it."""

CLOCK: Final = Obis(0, 0, 1, 0, 0)
_LIST_NAME: Final = Obis(1, 1, 0, 2, 129)
_METER_NUMBER: Final = Obis(0, 0, 96, 1, 0)

_EXACT: Final = Context(prec=40)
_OBIS_BYTES: Final = 6
_LAST_MEDIUM: Final = 15
_TIME_BYTES: Final = 12
_PAIR: Final = 2
_WITH_UNIT: Final = 3
_DESCRIPTOR: Final = (4, 5, 6)
"""How many elements a push object definition has, by its version."""

_NO_UNIT: Final = (0, 255)
_COUNTS: Final = frozenset({0, 96, 97, 98, 99})
"""Groups C of numbers that measure nothing: states, counters of events."""
_FINEST_VOLT_DIGITS: Final = 2

_VALUE: Final = 2
_SCALER_UNIT: Final = 3
_CAPTURE_TIME: Final = 5
_SCALED_CLASSES: Final = (3, 4)
"""Register and extended register: attribute 2 is the value, 3 scaler and unit, 5 (of the second) the value's time."""

_NO_DEVIATION: Final = -0x8000
_UNSPECIFIED: Final = 0xFF
_SUMMER: Final = 0x80
_LIMIT_DEVIATION_MIN: Final = 840


class PushList(Table, frozen=True):
    """What a family's meters leave out of their pushes: a part of a family's file."""

    text: str = ""
    """A text of the list (its name, the meter's number) begins so, by which these lists are told from others'."""
    positions: tuple[tuple[str, ...], ...] = ()
    """OBIS codes of the elements, in order, of each list that has no codes: lists are told apart by their length and by
    the kinds of their elements. An empty code: nobody knows what the element is, and it is left out."""
    units: dict[str, tuple[str, int]] = msgspec.field(default_factory=dict)
    """Unit and scaler of what comes without, by the code's groups C and D: ``"31.7" = ["A", -2]``."""
    mains_v: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """The mains' voltage, where some of the family's meters send volts and others tenths or hundredths of them: the
    highest voltage of a push tells which, for the meter lives on it. 0: all send what ``units`` says."""

    def __post_init__(self) -> None:
        for codes in self.positions:
            for code in filter(None, codes):
                Obis.parse(code)
        for groups, (unit, _) in self.units.items():
            if groups.count(".") != 1 or find_unit(unit) is None:
                raise ValueError(f'units are like "1.8" = ["Wh", 0], not "{groups}" = ["{unit}", ...]')


class Data(NamedTuple):
    """What a push says."""

    registers: tuple[Register, ...]
    time: datetime | None
    """The clock among them."""


def read_layout(body: Sequence[Element], count: int, lists: Sequence[PushList], zone: tzinfo) -> Data:
    """Return what the elements in ``body`` mean; ``count`` is how many there should be, where the last are cut off.

    Raises:
        GrammarError: there are numbers of which nothing says what they are.
        BadDataError: an OBIS code is impossible.
    """
    found = _Found(_matching(body, lists), zone)
    positions = _positions(body, count, lists)
    if positions is not None:
        rule, codes = positions
        found.rule = rule
        for code, element in zip(codes, body, strict=False):
            if code:
                found.add(Obis.parse(code), element)
    elif body and _is_object_list(body[0]):
        _described(body, found)
    else:
        _flat(body, found)
    return found.data()


def read_attributes(pairs: Sequence[tuple[bytes, Element]], lists: Sequence[PushList], zone: tzinfo) -> Data:
    """Return what values mean that come each with its class (2 bytes), OBIS code (6) and attribute (1)."""
    found = _Found(_matching([value for _, value in pairs], lists), zone)
    for descriptor, value in pairs:
        if descriptor[-1] != 1:
            found.add(Obis.from_bytes(descriptor[2:8]), value)
    return found.data()


class _Found:
    """The registers found so far."""

    def __init__(self, rule: PushList | None, zone: tzinfo) -> None:
        self.rule = rule
        self.registers: list[Register] = []
        self.time: datetime | None = None
        self.zone = zone
        self._volts: list[tuple[int, Decimal]] = []
        """Place and value of the voltages that came without a unit."""

    def data(self) -> Data:
        """Return all of it."""
        if self._volts and self.rule and self.rule.mains_v:
            self._resolve_volts(self.rule.mains_v)
        return Data(tuple(self.registers), self.time)

    def _resolve_volts(self, mains_v: int) -> None:
        """Scale the voltages by what the highest can only be; beyond that they stay as sent (``UNSCALED``)."""
        highest = max(value for _, value in self._volts)
        digits = next((each for each in range(_FINEST_VOLT_DIGITS + 1) if highest < 2 * mains_v * 10**each), None)
        for place, value in self._volts:
            register = self.registers[place]
            if digits is None:
                self.registers[place] = replace(register, unit=UNSCALED)
            elif digits:
                self.registers[place] = replace(register, value=value.scaleb(-digits, _EXACT))

    def add(self, obis: Obis, value: Element, scaler_unit: Element = None, at: datetime | None = None) -> None:
        """Take a value; ``scaler_unit`` is a list of the two where the meter sent it."""
        if isinstance(value, int | Decimal):
            self.registers.append(self._number(obis, value, scaler_unit, at))
        elif isinstance(value, bytes):
            self._octets(obis, value)
        elif isinstance(value, str):
            self.registers.append(Register(obis, _printable(value.rstrip("\0"))))

    def _number(self, obis: Obis, value: int | Decimal, scaler_unit: Element, at: datetime | None) -> Register:
        if _is_scaler_unit(scaler_unit):
            unit, scaler = _sent(*scaler_unit)
        else:
            unit, scaler = _assumed(obis.c, obis.d, self.rule)
            if unit == "V" and not scaler:
                self._volts.append((len(self.registers), Decimal(value)))
        if not scaler:
            return Register(obis, Decimal(value), unit, at)
        scaled = Decimal(value).scaleb(scaler, _EXACT)
        return Register(obis, scaled if scaler < 0 else plain(scaled), unit, at)

    def _octets(self, obis: Obis, octets: bytes) -> None:
        time = clock(octets, self.zone) if len(octets) == _TIME_BYTES else None
        if time is None:
            self.registers.append(Register(obis, _readable(octets)))
            return
        self.registers.append(Register(obis, time.isoformat(), None, time))
        if self.time is None and obis[2:5] == CLOCK[2:5]:
            self.time = time


def clock(octets: bytes, zone: tzinfo) -> datetime | None:
    """Return the instant in a date-time of 12 octets; None where it is none, or leaves date or time of day open.

    year (2), month, day, weekday, hour, minute, second, hundredths, deviation of UTC from local time in minutes (2),
    status (bit 7: daylight saving). Without deviation the calendar of ``zone`` decides, for meters leave the bit of
    daylight saving unset in summer; only the hour that comes twice is told by it. IEC 62056-6-2, 4.1.6.1.
    """
    if len(octets) != _TIME_BYTES:
        return None
    year = octets[0] << 8 | octets[1]
    second, hundredths = (0 if part == _UNSPECIFIED else part for part in octets[7:9])
    deviation_min = int.from_bytes(octets[9:11], "big", signed=True)
    try:
        local = datetime(year, octets[2], octets[3], octets[5], octets[6], second, hundredths * 10_000, tzinfo=zone)
        if deviation_min == _NO_DEVIATION:
            if octets[11] != _UNSPECIFIED and not octets[11] & _SUMMER:
                local = local.replace(fold=1)
            return local.replace(tzinfo=_offset(local.utcoffset() or timedelta()), fold=0)
        if abs(deviation_min) > _LIMIT_DEVIATION_MIN:
            return None
        return local.replace(tzinfo=_offset(timedelta(minutes=-deviation_min)))
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=64)
def _offset(east: timedelta) -> timezone:
    return timezone(east)


def _described(body: Sequence[Element], found: _Found) -> None:
    """Take objects and values; scaler and unit, and a value's time, may be attributes with a place of their own."""
    objects = body[0] if isinstance(body[0], list) else []
    own: dict[tuple[Element, Element], Element] = {}
    values: list[tuple[bytes, Element]] = []
    for described, value in zip(objects[1:], body[1:], strict=False):
        if not _is_descriptor(described) or not isinstance(described, list) or not isinstance(described[1], bytes):
            continue
        class_id, code, attribute = described[:3]
        if attribute == _VALUE:
            values.append((described[1], value))
        elif class_id in _SCALED_CLASSES and attribute in (_SCALER_UNIT, _CAPTURE_TIME):
            own[described[1], attribute] = value
    for code, value in values:
        time = own.get((code, _CAPTURE_TIME))
        at = clock(time, found.zone) if isinstance(time, bytes) else None
        found.add(Obis.from_bytes(code), value, own.get((code, _SCALER_UNIT)), at)


def _flat(body: Sequence[Element], found: _Found) -> None:
    """Take codes and values that stand side by side, and such as have a structure of their own."""
    at = 0
    while at < len(body):
        element = body[at]
        after = body[at + 1] if at + 1 < len(body) else None
        if _is_code(element) and at + 1 < len(body):
            unit = body[at + 2] if at + 2 < len(body) and _is_scaler_unit(body[at + 2]) else None
            found.add(Obis.from_bytes(element), after, unit)
            at += _PAIR if unit is None else _WITH_UNIT
            continue
        if isinstance(element, list):
            _coded(element, found)
        elif isinstance(element, bytes | str):
            _unnamed(element, found, is_first=at == 0, is_last=at == len(body) - 1)
        elif element is not None:
            raise GrammarError("values come without OBIS codes; the family of the meter must say what they are")
        at += 1


def _coded(element: list[Element], found: _Found) -> None:
    if len(element) in (_PAIR, _WITH_UNIT) and _is_code(element[0]):
        found.add(Obis.from_bytes(element[0]), element[1], element[2] if len(element) == _WITH_UNIT else None)


def _unnamed(element: bytes | str, found: _Found, *, is_first: bool, is_last: bool) -> None:
    if is_first and isinstance(element, bytes) and clock(element, found.zone):
        found.add(CLOCK, element)
    elif is_first:
        found.add(_LIST_NAME, element)
    elif is_last:
        found.add(_METER_NUMBER, element)


def _is_code(element: Element) -> TypeGuard[bytes]:
    """Return whether these may be the six octets of an OBIS code; a text of six letters cannot."""
    return isinstance(element, bytes) and len(element) == _OBIS_BYTES and element[0] <= _LAST_MEDIUM


def _is_scaler_unit(element: Element) -> TypeGuard[list[int]]:
    return (
        isinstance(element, list)
        and len(element) == _PAIR
        and isinstance(element[0], int)
        and isinstance(element[1], Enum)
    )


def _is_descriptor(element: Element) -> bool:
    return (
        isinstance(element, list)
        and len(element) in _DESCRIPTOR
        and isinstance(element[0], int)
        and _is_code(element[1])
    )


def _is_object_list(element: Element) -> bool:
    return isinstance(element, list) and bool(element) and all(_is_descriptor(each) for each in element)


def _texts(body: Sequence[Element]) -> list[str]:
    found = []
    for element in body:
        parts = element if isinstance(element, list) else (element,)
        found += [part for part in parts if isinstance(part, str)]
        found += [part.decode("ascii", "replace") for part in parts if isinstance(part, bytes)]
    return found


def _matching(body: Sequence[Element], lists: Sequence[PushList]) -> PushList | None:
    """Return the rule for units of a list with codes: one whose text is there, else one that asks for none."""
    if not lists:
        return None
    texts = _texts(body) if any(rule.text for rule in lists) else []
    for rule in lists:
        if rule.text and any(text.startswith(rule.text) for text in texts):
            return rule
    return next((rule for rule in lists if not rule.text and not rule.positions), None)


def _positions(
    body: Sequence[Element], count: int, lists: Sequence[PushList]
) -> tuple[PushList, tuple[str, ...]] | None:
    for rule in lists:
        for codes in rule.positions:
            if len(codes) == count and all(_fits(rule, code, value) for code, value in zip(codes, body, strict=False)):
                return rule, codes
    return None


def _fits(rule: PushList, code: str, value: Element) -> bool:
    """Return whether a value can be what stands in its place: measured, it is a number; else octets or a state."""
    if not code or value in (None, b""):
        return True
    obis = Obis.parse(code)
    measured = f"{obis.c}.{obis.d}" in rule.units
    return isinstance(value, int if measured else bytes | str | Enum)


@lru_cache(maxsize=1024)
def _sent(scaler: int, code: int) -> tuple[str | None, int]:
    """Return unit and scaler from what the meter sent for them."""
    if not -128 <= scaler <= 127:  # noqa: PLR2004 - an Integer8
        raise GrammarError(f"a scaler is an Integer8, not {scaler}")
    return (None if code in _NO_UNIT else DLMS_UNITS.get(code) or f"dlms-{code}"), scaler


def _assumed(c: int, d: int, rule: PushList | None) -> tuple[str | None, int]:
    """Return unit and scaler of a number that came with neither."""
    if rule is not None:
        known = rule.units.get(f"{c}.{d}")
        if known is not None:
            return known
    return (None if c in _COUNTS else UNSCALED), 0


def _readable(octets: bytes) -> str:
    text = octets.rstrip(b"\0")
    if text.isascii() and (spelled := text.decode()).isprintable() and (spelled or not octets):
        return spelled
    return octets.hex().upper()


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode().hex().upper()
