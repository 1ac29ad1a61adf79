"""The lines of a P1 telegram: text in, registers out. Every dialect at once; nothing is told apart by country.

Grammar (DSMR P1 companion standard 5.0.2, 5.2 and 6.12, which is IEC 62056-21 mode D):

    line   = obis 1*("(" group ")")
    group  = number | number "*" unit | time | text
    time   = YYMMDDhhmmss ["S" | "W"]

What becomes of a line:

    (number*unit)          a number; a number without unit too, unless the code names a text (below)
    (time)(number*unit)    a number with the time at which it held: gas, water, heat; the month's highest power
    (time)                 the text as sent, and the instant in ``time``
    (text)                 a text; see ``_readable`` for octet strings
    several groups         one text, as sent: event logs (99.97.0), history (98.1.0), pairs of limits (31.4.0)
    24.3.0 of DSMR 2 and 3 the gas value stands on the next line; the register bears the code that the line names
                           (0-1:24.2.1), with the value's time
    ()                     the empty text: the meter has the register and says nothing

A time that does not exist (a clock that was never set sends 000000000000W, a gas meter that was never heard
632525252525S) makes the whole line a text, so that its number cannot be taken for a value of now.
"""

import re
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.core.units import find_unit
from meterway.meter.telegram import Register

CLOCK: Final = Obis(0, 0, 1, 0, 0)
"""The meter's clock."""

VERSIONS: Final = frozenset({Obis(1, 3, 0, 2, 8), Obis(0, 0, 96, 1, 4)})
"""Version of the P1 output, Dutch and Belgian; meters that send one send a checksum."""

_NUMBER = r"-?[0-9]{1,18}+(?:\.[0-9]{1,9}+|)"
_CODE = r"[0-9]{1,3}+-[0-9]{1,3}+:[0-9][0-9.:*]*+"
_UNIT = r"[^()\r\n*]++"

_LINE = re.compile(
    rf"^({_CODE})\((?:({_NUMBER})(?:\*({_UNIT})|)|([0-9]{{12}}[SW])\)\(({_NUMBER})(?:\*({_UNIT})|))\)\r?$|^(.+)$",
    re.MULTILINE,
)
"""Code, number, unit; or code, time, number, unit; or a line of any other kind.

This is half the work, hence possessive, and ``(?:x|)`` where others write ``(?:x)?``.
"""

_OTHER = re.compile(rf"({_CODE})\((.*)\)")
_CONTINUED = re.compile(r"\r?\n(?=\()")
_TIME = re.compile(r"[0-9]{12}[SW]?")
_PLAIN = re.compile(_NUMBER)
_OCTETS = re.compile(r"(?:[0-9A-Fa-f]{2})+")

_TEXTS: Final = frozenset({(0, 2), (24, 4), (96, 3), (96, 14)})
"""Groups C and D of texts that may look like numbers: version, valve and switch states, the tariff as written."""

_OCTET_STRINGS: Final = frozenset({(0, 0), (42, 0), (96, 1), (96, 13)})
"""Groups C and D of equipment numbers and messages."""

_GAS_GROUPS: Final = 7
"""Time, status, minutes of an interval, number of values, code, unit, value (DSMR 2.2, M-Bus device line)."""

_EPOCH_YEAR: Final = 70
"""Clocks that were never set start in 1970: two-digit years from here on belong to the last century."""

_P1_UNITS: Final = (
    *("Wh", "kWh", "W", "kW", "varh", "kvarh", "var", "kvar", "VAh", "kVAh", "VA", "kVA"),
    *("V", "A", "Hz", "m3", "GJ", "s"),
)
_LOWER_UNITS: Final = {unit.lower(): unit for unit in _P1_UNITS}
"""Some meters send units in letters of the wrong case."""


class _Kind(Enum):
    """What an unadorned group is to be taken for."""

    NUMBER = 1
    TEXT = 2
    OCTETS = 3
    TIME = 4


class _Code(NamedTuple):
    obis: Obis
    kind: _Kind


class Lines(NamedTuple):
    """What the lines of one telegram say."""

    registers: tuple[Register, ...]
    """One for each line, in order."""
    odd: tuple[str, ...]
    """The lines that follow no known form, as sent."""
    time: datetime | None
    """The meter's own clock."""


def read_lines(text: str, zone: tzinfo, *, strict: bool) -> Lines:
    """Return what the lines in ``text`` say.

    ``strict`` is for telegrams without checksum: free text is odd but in equipment numbers and messages.
    """
    registers: list[Register] = []
    odd: list[str] = []
    if "\n(" in text:
        text = _CONTINUED.sub("", text)
    for code, number, unit, time, timed_number, timed_unit, other in _LINE.findall(text):
        if number:
            found = _number(code, number, unit, zone)
        elif time:
            found = _timed(code, time, timed_number, timed_unit, zone)
        elif other == "\r":
            continue
        else:
            found = _other(other.rstrip("\r"), zone, strict=strict)
        if found is None:
            groups = f"({time}){_group(timed_number, timed_unit)}" if time else _group(number, unit)
            odd.append(other.rstrip("\r") or code + groups)
        else:
            registers.append(found)
    clock = next((register.time for register in registers if register.time and register.obis == CLOCK), None)
    return Lines(tuple(registers), tuple(odd), clock)


@lru_cache(maxsize=1024)
def instant(digits: str, zone: tzinfo) -> datetime | None:
    """Return the instant ``YYMMDDhhmmss`` with ``S`` (daylight saving) or ``W`` (not); None if there is no such time.

    The letter decides, in the hour that comes twice and against the calendar of ``zone`` alike. Without letter the
    calendar decides, and the hour that comes twice is taken for its first. The result has a fixed offset.
    """
    year, month, day, hour, minute, second = (int(digits[place : place + 2]) for place in range(0, 12, 2))
    century = 1900 if year >= _EPOCH_YEAR else 2000
    try:
        local = datetime(century + year, month, day, hour, minute, second, tzinfo=zone)
        if len(digits) == 12:  # noqa: PLR2004 - digits without letter
            return _fixed(local, local.utcoffset())
        return _flagged(local, summer=digits[12] == "S")
    except (ValueError, OverflowError):
        return None


def _flagged(local: datetime, *, summer: bool) -> datetime:
    if bool(local.dst()) == summer:
        return _fixed(local, local.utcoffset())
    second = local.replace(fold=1)
    if bool(second.dst()) == summer:
        return _fixed(second, second.utcoffset())
    standard = (local.utcoffset() or timedelta()) - (local.dst() or timedelta())
    return _fixed(local, standard + timedelta(hours=summer))


def _fixed(local: datetime, offset: timedelta | None) -> datetime:
    return local.replace(tzinfo=_offset_zone(offset or timedelta()), fold=0)


@lru_cache(maxsize=64)
def _offset_zone(offset: timedelta) -> timezone:
    return timezone(offset)


def _number(code: str, number: str, unit: str, zone: tzinfo) -> Register | None:
    known = _code(code)
    if known is None:
        return None
    if unit:
        name = _unit(unit)
        return None if name is None else Register(known.obis, Decimal(number), name)
    if known.kind is _Kind.NUMBER:
        return Register(known.obis, Decimal(number))
    if known.kind is _Kind.TIME:
        return Register(known.obis, number, None, instant(number, zone) if _TIME.fullmatch(number) else None)
    return Register(known.obis, _readable(number) if known.kind is _Kind.OCTETS else number)


def _timed(code: str, time: str, number: str, unit: str, zone: tzinfo) -> Register | None:
    known = _code(code)
    name = _unit(unit) if unit else None
    if known is None or (unit and name is None):
        return None
    at = instant(time, zone)
    if at is None or known.kind is not _Kind.NUMBER:
        return Register(known.obis, f"({time}){_group(number, unit)}")
    return Register(known.obis, Decimal(number), name, at)


def _other(line: str, zone: tzinfo, *, strict: bool) -> Register | None:
    found = _OTHER.fullmatch(line)
    known = _code(found[1]) if found else None
    if found is None or known is None or (strict and not (line.isascii() and line.isprintable())):
        return None
    inner = found[2]
    if known.kind is _Kind.OCTETS:
        return Register(known.obis, _readable(inner))
    if ")(" in inner:
        return _several(known.obis, inner, zone, strict=strict)
    if _TIME.fullmatch(inner):
        return Register(known.obis, inner, None, instant(inner, zone))
    return None if inner and (strict or "*" in inner) else Register(known.obis, inner)


def _several(obis: Obis, inner: str, zone: tzinfo, *, strict: bool) -> Register | None:
    groups = inner.split(")(")
    if (obis.c, obis.d) == (24, 3) and len(groups) == _GAS_GROUPS:
        return _gas(groups, zone)
    if strict and (obis.c, obis.d) == (24, 3):
        return None
    return Register(obis, f"({inner})")


def _gas(groups: list[str], zone: tzinfo) -> Register | None:
    time, _status, _minutes, _count, code, unit, number = groups
    known = _code(code)
    name = _unit(unit)
    at = instant(time, zone) if _TIME.fullmatch(time) else None
    if known is None or name is None or at is None or not _PLAIN.fullmatch(number):
        return None
    return Register(known.obis, Decimal(number), name, at)


def _group(number: str, unit: str) -> str:
    return f"({number}*{unit})" if unit else f"({number})"


def _readable(text: str) -> str:
    """Return an octet string (equipment number 96.1.x or 42.0.0, message 96.13.x) as people read it.

    It comes as hexadecimal digits: where these spell printable ASCII it is the text they spell, else the digits in
    upper case. What is not hexadecimal stays as sent.
    """
    if not _OCTETS.fullmatch(text):
        return text
    octets = bytes.fromhex(text)
    if octets.isascii() and (spelled := octets.decode("ascii")).isprintable():
        return spelled
    return text.upper()


@lru_cache(maxsize=1024)
def _code(text: str) -> _Code | None:
    """Return the code and what it holds; a colon in place of a point (DSMR 4.0 meters: ``72:32.0``) is read as one."""
    channel, _, rest = text.partition(":")
    try:
        obis = Obis.parse(f"{channel}:{rest.replace(':', '.')}")
    except BadDataError:
        return None
    return _Code(obis, _kind(obis))


def _kind(obis: Obis) -> _Kind:
    if obis == CLOCK:
        return _Kind.TIME
    if obis in VERSIONS or obis.c in (98, 99) or (obis.c, obis.d) in _TEXTS:
        return _Kind.TEXT
    if (obis.c, obis.d) in _OCTET_STRINGS:
        return _Kind.OCTETS
    return _Kind.NUMBER


@lru_cache(maxsize=256)
def _unit(text: str) -> str | None:
    unit = find_unit(text)
    return unit.name if unit else _LOWER_UNITS.get(text.lower())
