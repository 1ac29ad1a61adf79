"""The data lines of an IEC 62056-21 readout: text in, registers out; electricity and heat, all notations at once.

Grammar (IEC 62056-21:2002, 6.5; load profile P.01 and log P.98: VDEW specification 2.0, chapter 4):

    line     = 1*data-set
    data-set = code "(" value ")" *( "(" group ")" )
    value    = number ["*" unit] | number "*" unit 1*( "&" number "*" unit ) | text | ""

What becomes of a data set:

    (number*unit)              a number; a number without unit too, unless the code names a text (``_is_number``)
    (number*unit)(time)        a maximum and when it occurred; a time of zeros is that of none, and left out
    (number*unit&number*unit)  one register each, all of this code (9.4 of heat meters: flow and return)
    (-.--*kW) and ()           the empty text: the meter has the register and says nothing
    (text)                     the text, without the blanks around it
    several other groups       one text, as sent
    P.98(time)...              one text, as sent, with the time of the event
    P.01(time)... and rows     a load profile, see ``ProfileRow``

Codes without group A belong to a heat meter if the readout has heat in 6.8 or a volume in 6.26, else to an
electricity meter (whose 6.8 is reactive energy). A time has one of the forms YYMMDDhhmm[ss], sYYMMDDhhmm[ss] (s is 0
in standard time, 1 in daylight saving time, 2 in UTC), YY-MM-DD hh:mm[:ss] and YYYY-MM-DD&hh:mm:ss.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.core.units import find_unit
from meterway.meter.p1_lines import instant
from meterway.meter.telegram import Register

CODE: Final = r"(?:[0-9]{1,3}-[0-9]{1,3}:|)[0-9CFLP]{1,3}+(?:[.:][0-9F]{1,3}+){0,3}(?:[*&][0-9]{1,3}+|)"
"""The code of a data set as meters write it; ``Obis.parse`` judges it.

``(?:x|)`` is ``(?:x)?``, a quarter faster. No group is possessive: Python before 3.11.5 takes a part of one
(CPython issue 106052).
"""

_NUMBER = r"[+-]?+[0-9]{1,18}+(?:\.[0-9]{1,9}+|)"
_UNIT = r"[A-Za-z0-9°%/^]{1,10}+"

_SET = re.compile(rf"({CODE})\((?: *+({_NUMBER})(?:\*({_UNIT})|)|([^()\r\n]*+))\)((?:\([^()\r\n]*+\))*)|([^\r\n]++)")
"""Code, number, unit, or text, further groups; or the rest of a line that is none. Nothing but line ends is passed."""

_PART = re.compile(rf" *({_NUMBER})\*({_UNIT})")
_NOTHING = re.compile(r"-+(?:\.-+)?(?:\*.*)?")
_PLAIN = re.compile(_NUMBER)
_HEAT = re.compile(r"(?<![0-9.:])6\.(?:26|8)(?:\.0)?\([0-9.]+\*(?:m3|[kMG]?Wh|[kMG]J)\)")
_GROUP = re.compile(r"\(([^()\r\n]*)\)")
_ROW = re.compile(r"(?:\([^()]*+\))+ *")
_STAMP = re.compile(
    r"(?P<season>[012])?(?P<digits>[0-9]{10}(?:[0-9]{2})?)"
    r"|(?:20)?([0-9]{2})-([0-9]{2})-([0-9]{2})[ &]([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?"
)
_TIME_OF_DAY = re.compile(r"[012]?([0-9]{2}):?([0-9]{2}):?([0-9]{2})")
_DATE = re.compile(r"([012])?([0-9]{2})-?([0-9]{2})-?([0-9]{2})")

_ELECTRICITY, _HEAT_MEDIUM = 1, 6
"""Values of group A."""
_PROFILE, _LOG = range(1, 10), range(94, 100)
"""Group D of the codes P.01 ... (load profiles) and P.97 ... (logs); group C is 99."""
_CLOCK: Final = {(0, 9, 1): "time", (0, 9, 2): "date", (0, 9, 4): "both", (9, 36, 0): "both"}
_LIMIT_COLUMNS = 64

_NUMBERS: Final = frozenset({(0, 3), (0, 4), (0, 8), (96, 6), (96, 53)})
"""Groups C and D of numbers among the codes that else hold texts: constants, time on battery, tampering."""
_COUNTERS: Final = frozenset({(0, 1, 0), (96, 2, 0), *((96, 7, e) for e in range(10))})
_EVENTS = (96, 51)
"""C.51.x: with odd E a counter, with even E the time of the last event."""

_UNITS: Final = (
    *("Wh", "kWh", "MWh", "GWh", "W", "kW", "varh", "kvarh", "var", "kvar", "VAh", "kVAh", "VA", "kVA"),
    *("V", "A", "Hz", "m3", "m3/h", "GJ", "h", "d"),
)
_LOWER_UNITS: Final = {unit.lower(): unit for unit in _UNITS} | {
    "m": "min",
    "secs": "s",
    "imp/kwh": "1/kWh",
    "imp/kvarh": "1/kvarh",
}
"""Units in letters of the wrong case, and spellings that only mean this here."""


class ProfileRow(NamedTuple):
    """The values of one period of a load profile.

    ``time`` is the end of the period: the header names that of the first row, each further one is a period later.
    The first register is the profile itself with its status word, as sent; then one a column, in order.
    """

    time: datetime
    registers: tuple[Register, ...]


@dataclass(slots=True)
class Lines:
    """What the lines of one readout say."""

    registers: list[Register] = field(default_factory=list)
    """At least one for each data set outside load profiles, in order."""
    rows: list[ProfileRow] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    """What follows no known form, as sent."""
    time: datetime | None = None
    """The meter's own clock."""
    ends_in_profile: bool = False
    """Whether the last data set is a load profile or a log entry."""


class _Code(NamedTuple):
    obis: Obis
    is_number: bool
    clock: str
    """What part of the meter's clock this is; empty: none."""


class _Profile(NamedTuple):
    """The header of a load profile."""

    obis: Obis
    time: datetime
    status: str
    period: timedelta
    columns: tuple[tuple[Obis, str | None], ...]


def read_lines(text: str, zone: tzinfo, *, strict: bool) -> Lines:
    """Return what the lines in ``text`` say; ``zone`` is that of the meter's clock.

    ``strict`` is for readouts without checksum: a text where a number belongs, and what is not printable, is odd.
    """
    lines = Lines()
    default_a = _HEAT_MEDIUM if _is_heat(text) else _ELECTRICITY
    reader = _Reader(lines, zone, default_a, strict=strict)
    append = lines.registers.append
    for code, number, unit, value, groups, rest in _SET.findall(text):
        known = _code(code, default_a) if code else None
        if known is None:
            reader.other(code, value, groups, rest, number, unit)
        elif groups or known.clock or reader.in_profile:
            reader.data_set(known, code, number, unit, value, groups)
        elif unit and (name := _unit(unit)):
            append(Register(known.obis, Decimal(number), name))
        elif number and not unit:
            append(Register(known.obis, Decimal(number) if known.is_number else number))
        elif value.isalnum() and value.isascii() and not known.is_number:
            append(Register(known.obis, value))
        else:
            reader.data_set(known, code, number, unit, value, groups)
    reader.finish()
    return lines


def _is_heat(text: str) -> bool:
    may_be = "6.26(" in text or "6.8(" in text or "6.26.0(" in text or "6.8.0(" in text
    return may_be and _HEAT.search(text) is not None


class _Reader:
    """What is remembered from one data set to the next."""

    def __init__(self, lines: Lines, zone: tzinfo, default_a: int, *, strict: bool) -> None:
        self._lines = lines
        self._zone = zone
        self._default_a = default_a
        self._strict = strict
        self._clock: dict[str, str] = {}
        self._profile: _Profile | None = None
        self._cells: list[str] = []

    @property
    def in_profile(self) -> bool:
        """Whether rows of a load profile may come next."""
        return self._profile is not None

    def data_set(self, known: _Code, code: str, number: str, unit: str, value: str, groups: str) -> None:  # noqa: PLR0917
        """Take a data set of any form."""
        self._end_profile()
        sent = _written(number, unit) if number else value
        found = self._registers(known, number, unit, value, groups)
        if found is None:
            self._lines.odd.append(f"{code}({sent}){groups}")
            return
        if known.clock and not groups:
            self._clock.setdefault(known.clock, sent)
        self._lines.registers += found

    def other(self, code: str, value: str, groups: str, rest: str, number: str, unit: str) -> None:  # noqa: PLR0917
        """Take what is no data set: a row of a load profile, or damage."""
        if self._profile is not None and _ROW.fullmatch(rest):
            self._cells += _GROUP.findall(rest)
            return
        self._end_profile()
        if rest.strip() or code:
            self._lines.odd.append(rest or f"{code}({_written(number, unit) or value}){groups}")

    def finish(self) -> None:
        """Take the end."""
        self._lines.ends_in_profile = self._profile is not None or (
            bool(self._lines.registers) and _is_log(self._lines.registers[-1].obis)
        )
        self._end_profile()
        self._lines.time = _clock_time(self._clock, self._zone)

    def _registers(self, known: _Code, number: str, unit: str, value: str, groups: str) -> list[Register] | None:
        """Return what a data set says; None if it is odd."""
        obis = known.obis
        if obis.c == 99 and obis.d in _PROFILE and groups:  # noqa: PLR2004 - letter P
            return self._open_profile(obis, number or value, groups)
        if not _printable(value + groups):
            return None
        if groups:
            return self._several(known, number, unit, value, groups)
        if not number:
            return self._text(known, value)
        name = _unit(unit) if unit else None
        if unit:
            return None if name is None else [Register(obis, Decimal(number), name)]
        return [Register(obis, Decimal(number) if known.is_number else number)]

    def _text(self, known: _Code, value: str) -> list[Register] | None:
        if not value.strip() or _NOTHING.fullmatch(value):
            return [Register(known.obis, "")]
        if "&" in value and "*" in value:
            return _composite(known.obis, value)
        is_damage = "*" in value or (self._strict and known.is_number)
        return None if is_damage else [Register(known.obis, value.strip())]

    def _several(self, known: _Code, number: str, unit: str, value: str, groups: str) -> list[Register] | None:
        name = _unit(unit) if unit else None
        if unit and name is None:
            return None
        sent = f"({_written(number, unit) or value}){groups}"
        if _is_log(known.obis):
            return [Register(known.obis, sent, None, _stamp(number or value, self._zone))]
        stamp = groups[1:-1]
        if number and (unit or known.is_number) and (found := _STAMP.fullmatch(stamp)):
            at = _instant(found, self._zone)
            if at is None and self._strict and any(digit in stamp for digit in "123456789"):
                return None
            return [Register(known.obis, Decimal(number), name, at)]
        return [Register(known.obis, sent)]

    def _open_profile(self, obis: Obis, time: str, groups: str) -> list[Register] | None:
        at = _stamp(time, self._zone)
        cells = _GROUP.findall(groups)
        if at is None or len(cells) < 3 or not (cells[1] + cells[2]).isdecimal():  # noqa: PLR2004 - status, period, count
            return None
        status, period_min, count = cells[0], int(cells[1]), int(cells[2])
        columns = []
        for code, unit in zip(cells[3::2], cells[4::2], strict=False):
            known = _code(code, self._default_a)
            name = _unit(unit) if unit else None
            if known is None or (unit and name is None):
                return None
            columns.append((known.obis, name))
        if not 0 < count <= _LIMIT_COLUMNS or len(cells) != 3 + 2 * count or not 0 < period_min < 100_000:  # noqa: PLR2004
            return None
        self._profile = _Profile(obis, at, status, timedelta(minutes=period_min), tuple(columns))
        return []

    def _end_profile(self) -> None:
        profile, cells = self._profile, self._cells
        if profile is None:
            return
        self._profile, self._cells = None, []
        width = len(profile.columns)
        for index in range(len(cells) // width):
            row = cells[index * width : (index + 1) * width]
            registers = [Register(profile.obis, profile.status)]
            for (obis, unit), cell in zip(profile.columns, row, strict=True):
                if _PLAIN.fullmatch(cell):
                    registers.append(Register(obis, Decimal(cell), unit))
                elif not cell or _NOTHING.fullmatch(cell):
                    registers.append(Register(obis, ""))
                else:
                    self._lines.odd.append(f"({cell})")
                    return
            self._lines.rows.append(ProfileRow(profile.time + index * profile.period, tuple(registers)))
        if left := len(cells) % width:
            self._lines.odd.append("".join(f"({cell})" for cell in cells[-left:]))


def _written(number: str, unit: str) -> str:
    return f"{number}*{unit}" if unit else number


def _printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _composite(obis: Obis, value: str) -> list[Register] | None:
    registers = []
    for part in value.split("&"):
        found = _PART.fullmatch(part)
        name = _unit(found[2]) if found else None
        if found is None or name is None:
            return None
        registers.append(Register(obis, Decimal(found[1]), name))
    return registers


def _is_log(obis: Obis) -> bool:
    return obis.c == 99 and obis.d in _LOG  # noqa: PLR2004 - letter P


@lru_cache(maxsize=1024)
def _code(text: str, default_a: int) -> _Code | None:
    try:
        obis = Obis.parse(text, a=default_a)
    except BadDataError:
        return None
    return _Code(obis, _is_number(obis), _CLOCK.get(obis[2:5], ""))


def _is_number(obis: Obis) -> bool:
    """Return whether bare digits are a number, not a text (serial number, state, date) that looks like one."""
    if obis.a == _HEAT_MEDIUM and obis.c in (6, 9):
        return obis.c == 6 and obis.d != 36  # noqa: PLR2004 - 6.36 is a date
    if (obis.c, obis.d) == _EVENTS:
        return obis.e % 2 == 1
    return 0 < obis.c < 94 or (obis.c, obis.d) in _NUMBERS or obis[2:5] in _COUNTERS  # noqa: PLR2004 - from C = 94 on


@lru_cache(maxsize=256)
def _unit(text: str) -> str | None:
    unit = find_unit(text)
    return unit.name if unit else _LOWER_UNITS.get(text.lower())


def _stamp(text: str, zone: tzinfo) -> datetime | None:
    found = _STAMP.fullmatch(text)
    return _instant(found, zone) if found else None


def _instant(found: re.Match[str], zone: tzinfo) -> datetime | None:
    season, digits, *parts = found.groups()
    if digits is None:
        digits = "".join(part or "00" for part in parts)
    return _seasonal(digits.ljust(12, "0"), season, zone)


@lru_cache(maxsize=1024)
def _seasonal(digits: str, season: str | None, zone: tzinfo) -> datetime | None:
    """Return the instant YYMMDDhhmmss; ``season`` as the module says, None: the calendar decides."""
    if season == "2":
        return instant(digits, UTC)
    return instant(digits + {"0": "W", "1": "S"}.get(season or "", ""), zone)


def _clock_time(clock: dict[str, str], zone: tzinfo) -> datetime | None:
    """Return the instant that 0.9.1 and 0.9.2, or 0.9.4 or 9.36, make; None if they make none."""
    if "both" in clock:
        return _stamp(clock["both"], zone)
    time, date = _TIME_OF_DAY.fullmatch(clock.get("time", "")), _DATE.fullmatch(clock.get("date", ""))
    if not time or not date:
        return None
    season, *day = date.groups()
    return _seasonal("".join((*day, *time.groups())), season, zone)
