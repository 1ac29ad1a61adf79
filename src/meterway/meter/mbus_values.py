"""What the bytes of a data field mean: numbers, texts, dates (EN 13757-3:2018, annex A).

All take the bytes with the lowest first. A value that the meter marks as invalid, or that is none (a BCD digit above
9, a float that is not finite), is a text that begins with ``INVALID``: never a number.
"""

from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Context, Decimal
from functools import lru_cache
from math import isfinite
from struct import Struct
from typing import Final

from meterway.core.units import plain

INVALID: Final = "invalid "
"""Followed by the digits as sent, the highest first."""

_EXACT: Final = Context(prec=700)
"""More digits than the longest number of a data field has."""

_FLOAT = Struct("<f")
_FLOAT_DIGITS: Final = range(6, 10)
"""Nine significant digits tell all numbers of 32 bits apart; most need fewer."""

_EVERY_MONTH: Final = 15
_CENTURY_TURN: Final = 81
"""Two-digit years below it are of this century (EN 13757-3, annex A, types F and G)."""


def scaled(number: int, exponent: int) -> Decimal:
    """Return ``number`` times ten to ``exponent``, with exactly its digits and no exponent above 0."""
    if exponent > 0:
        return Decimal(number * 10**exponent)
    return _EXACT.scaleb(Decimal(number), exponent) if exponent else Decimal(number)


def integer(data: bytes, exponent: int) -> Decimal | str:
    """Type B: an integer with sign; the most negative one is invalid."""
    number = int.from_bytes(data, "little", signed=True)
    if number < 0 and number == -1 << 8 * len(data) - 1:
        return INVALID + data[::-1].hex().upper()
    return scaled(number, exponent)


def unsigned(data: bytes, exponent: int) -> Decimal:
    """Types C and D: an integer without sign, or bits."""
    return scaled(int.from_bytes(data, "little"), exponent)


def bcd(data: bytes, exponent: int) -> Decimal | str:
    """Type A: digits; the highest may be F, which is a minus sign."""
    digits = data[::-1].hex()
    if digits.isdecimal():
        return scaled(int(digits), exponent)
    if digits[:1] == "f" and digits[1:].isdecimal():
        return scaled(-int(digits[1:]), exponent)
    return INVALID + digits.upper()


def digits(data: bytes) -> str:
    """Return the digits of a number that is a name, with their leading zeros; hex digits are kept as such."""
    return data[::-1].hex().upper()


def real(data: bytes, exponent: int) -> Decimal | str:
    """Type H: a float of 32 bits, as the shortest decimal number that means the same float."""
    [number] = _FLOAT.unpack(data)
    if not isfinite(number):
        return INVALID + data[::-1].hex().upper()
    for precision in _FLOAT_DIGITS:
        written = f"{number:.{precision}g}"
        if _FLOAT.pack(float(written)) == data:
            break
    value = Decimal(written)
    if exponent:
        value = _EXACT.scaleb(value, exponent)
    return plain(value) if exponent > 0 or "e" in written else value


def text(data: bytes) -> str:
    """Return characters, which are sent last first; as hex digits if they cannot be printed."""
    found = data[::-1].strip(b"\x00 ").decode("latin-1")
    return found if found.isprintable() else data[::-1].hex().upper()


def manufacturer(data: bytes) -> str:
    """Return the three letters of a maker: five bits each (FLAG code, EN 62056-21)."""
    number = int.from_bytes(data, "little")
    letters = "".join(chr((number >> shift & 0x1F) + 64) for shift in (10, 5, 0))
    return letters if letters.isalpha() else f"{number:04X}"


@lru_cache(maxsize=4096)
def date(data: bytes, zone: tzinfo) -> tuple[str, datetime | None]:
    """Return a date or time as text, and the instant if it is a whole one.

    By length: 2 type G (date), 3 type J (time of day), 4 type F (date, hour, minute), 6 type I (with second). A text
    such as ``--12-31`` leaves out what the meter says to be any. The summer-time bit chooses the offset: without it
    the clock shows the zone's standard time, in summer too, as that of most heat and water meters does.
    """
    read = {2: _date_g, 3: _time_j, 4: _time_f, 6: _time_i}.get(len(data))
    found = read(data, zone) if read else None
    return found or (INVALID + data[::-1].hex().upper(), None)


_Found = tuple[str, datetime | None] | None


def _date_g(data: bytes, _zone: tzinfo) -> _Found:
    return (written, None) if (written := _day(data[0], data[1], 0)) else None


def _time_j(data: bytes, _zone: tzinfo) -> _Found:
    second, minute, hour = data[0] & 0x3F, data[1] & 0x3F, data[2] & 0x1F
    if hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004
        return None
    return f"{hour:02}:{minute:02}:{second:02}", None


def _time_f(data: bytes, zone: tzinfo) -> _Found:
    if data[0] & 0x80:
        return None
    return _moment(data[2:4], data[1] >> 5 & 3, data[1] & 0x1F, data[0] & 0x3F, 0, bool(data[1] & 0x80), zone)


def _time_i(data: bytes, zone: tzinfo) -> _Found:
    if data[1] & 0x80:
        return None
    summer = bool(data[0] & 0x40)
    return _moment(data[3:5], 1, data[2] & 0x1F, data[1] & 0x3F, data[0] & 0x3F, summer, zone)


def _moment(  # noqa: PLR0917 - the fields of a time
    day: bytes,
    century: int,
    hour: int,
    minute: int,
    second: int,
    summer: bool,  # noqa: FBT001
    zone: tzinfo,
) -> _Found:
    written = _day(day[0], day[1], century)
    if not written or hour > 31 or minute > 63 or second > 59:  # noqa: PLR2004
        return None
    if hour > 23 or minute > 59 or written[0] == "-" or len(written) < len("2026-01-01"):  # noqa: PLR2004
        return f"{written}T{_part(hour, 23)}:{_part(minute, 59)}", None
    local = datetime.fromisoformat(written).replace(hour=hour, minute=minute, second=second)
    instant = local.replace(tzinfo=timezone(_offset(local, zone, summer=summer)))
    return instant.isoformat(), instant


def _part(number: int, last: int) -> str:
    return f"{number:02}" if number <= last else "--"


def _offset(local: datetime, zone: tzinfo, *, summer: bool) -> timedelta:
    there = local.replace(tzinfo=zone)
    shift = zone.dst(there) or timedelta()
    standard = (zone.utcoffset(there) or timedelta()) - shift
    return standard + timedelta(hours=1) if summer else standard


def _day(low: int, high: int, century: int) -> str:
    """Return an ISO date; parts that are any are dashes; empty if there is no such date."""
    day, month, year = low & 0x1F, high & 0x0F, low >> 5 | high >> 1 & 0x78
    if month == 0 or 12 < month < _EVERY_MONTH or (99 < year < 127):  # noqa: PLR2004
        return ""
    written_year = "-" if year == 127 else f"{_full_year(year, century)}"  # noqa: PLR2004
    written_month = "--" if month == _EVERY_MONTH else f"{month:02}"
    if day == 0 or "-" in (written_year, written_month[:1]):
        return f"{written_year}-{written_month}-{day:02}" if day else f"{written_year}-{written_month}---"
    written = f"{written_year}-{written_month}-{day:02}"
    try:
        datetime.fromisoformat(written)
    except ValueError:
        return ""
    return written


def _full_year(year: int, century: int) -> int:
    if century == 0:
        return 2000 + year if year < _CENTURY_TURN else 1900 + year
    return 1900 + 100 * century + year
