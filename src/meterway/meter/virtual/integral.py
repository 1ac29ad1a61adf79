"""Registers that are exact integrals: whole Ws or ml, handed down from days to minutes to seconds.

Each day has a total that depends on its type and chance only. The total is shared out among the day's minutes by
weights, and a minute's among its seconds, so that all shares are whole numbers and add up exactly. The register at
any second is therefore known without walking through the seconds before it, a meter that is started again goes on
exactly where it was, and the power in a second *is* the difference of two registers.
"""

from array import array
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, Protocol

from meterway.meter.virtual.calendar import FIRST_DAY, Calendar, DayType
from meterway.meter.virtual.chance import chance_bytes

MINUTES = 1440
_CHUNK_DAYS = 1024
_PATTERNS = 16
_SKY = 3
_BUSY = 12


class DayClass(NamedTuple):
    """A day's type, and its luck: a number from 0 to 15, for how sunny or cold and how busy it is."""

    type: DayType
    luck: int

    @property
    def sky(self) -> int:
        """How sunny it is, 0 to 3."""
        return self.luck & _SKY

    @property
    def busy(self) -> int:
        """How much is done, 0 to 3."""
        return self.luck >> 2


class Source(Protocol):
    """Something that is metered, by one or several registers."""

    seed: str
    """Names the source; decides how busy its days are."""
    weather_seed: str
    """Decides how sunny and cold its days are: the same for all that lie under one sky."""

    def day_totals(self, day: DayClass) -> tuple[int, ...]:
        """Return what each register counts in a day of this class, in thousandths of ``share``."""

    @property
    def share_permille(self) -> int:
        """How much of ``day_totals`` this very source takes: sources of one kind differ by it."""

    def minute_weights(self, index: int, day: DayClass) -> tuple[list[int], ...]:
        """Return for each register 1440 weights; not all 0 where ``day_totals`` is not 0."""


@dataclass(frozen=True, slots=True)
class _Day:
    index: int
    start_s: int
    bases: tuple[int, ...]
    totals: tuple[int, ...]
    weights: tuple["array[int]", ...]
    """Cumulative: 1441 numbers a register."""
    patterns: bytes
    """Which pattern of seconds each minute follows."""


@dataclass(frozen=True, slots=True)
class _Minute:
    start_s: int
    bases: tuple[int, ...]
    counting: tuple[tuple[int, int], ...]
    """Register and share of those that count in this minute."""
    pattern: list[int]


class Integral:
    """The registers of one source, at any second from 2020 on.

    Time running forward costs a microsecond a second, a millisecond a day; a jump costs a millisecond for each
    few years since 2020. Memory: one day.
    """

    def __init__(self, source: Source, calendar: Calendar) -> None:
        self._source = source
        self._calendar = calendar
        self._chunk = (-1, b"")
        self._counted = (FIRST_DAY, _zeros(source))
        self._day: _Day | None = None
        self._minute = _Minute(-60, (), (), [])

    def at(self, instant_s: int) -> tuple[int, ...]:
        """Return the registers at a Unix time: everything counted in the seconds before it.

        Raises:
            SetupError: before 2020.
        """
        minute = self._minute
        second = instant_s - minute.start_s
        if not 0 <= second < 60:  # noqa: PLR2004 - seconds of a minute
            minute = self._minute = self._enter_minute(instant_s)
            second = instant_s - minute.start_s
        if not minute.counting:
            return minute.bases
        registers = list(minute.bases)
        for register, share in minute.counting:
            registers[register] += share * minute.pattern[second] // minute.pattern[60]
        return tuple(registers)

    def _enter_minute(self, instant_s: int) -> _Minute:
        index, second = self._calendar.split(instant_s)
        day = self._day
        if day is None or day.index != index:
            day = self._day = self._enter_day(index)
        number = second // 60
        edges = [
            (total * weights[number] // weights[-1], total * weights[number + 1] // weights[-1]) if total else (0, 0)
            for total, weights in zip(day.totals, day.weights, strict=True)
        ]
        return _Minute(
            start_s=day.start_s + number * 60,
            bases=tuple(base + low for base, (low, _) in zip(day.bases, edges, strict=True)),
            counting=tuple((register, high - low) for register, (low, high) in enumerate(edges) if high > low),
            pattern=_second_patterns()[day.patterns[number] % _PATTERNS],
        )

    def _enter_day(self, index: int) -> _Day:
        day_class = self._class(index)
        before = self._count_until(index)
        after = tuple(map(sum, zip(before, self._source.day_totals(day_class), strict=True)))
        share = self._source.share_permille
        bases = tuple(total * share // 1000 for total in before)
        weights = self._source.minute_weights(index, day_class)
        return _Day(
            index=index,
            start_s=self._calendar.start_s(index),
            bases=bases,
            totals=tuple(total * share // 1000 - base for total, base in zip(after, bases, strict=True)),
            weights=tuple(array("q", accumulate(each, initial=0)) for each in weights),
            patterns=chance_bytes(MINUTES, self._source.seed, "seconds", index),
        )

    def _count_until(self, index: int) -> tuple[int, ...]:
        """Return the sum of ``day_totals`` of all days before ``index``."""
        day, totals = self._counted
        if day > index:
            day, totals = FIRST_DAY, _zeros(self._source)
        types = self._calendar.day_types(index)[day - FIRST_DAY :]
        classes = Counter(zip(types, self._luck(day, index), strict=True))
        for (day_type, number), days in classes.items():
            each = self._source.day_totals(DayClass(day_type, number))
            totals = tuple(total + days * one for total, one in zip(totals, each, strict=True))
        self._counted = (index, totals)
        return totals

    def _class(self, index: int) -> DayClass:
        return DayClass(self._calendar.day_type(index), self._luck(index, index + 1)[0])

    def _luck(self, first: int, end: int) -> bytes:
        """Return the luck of the days from ``first`` up to and without ``end``."""
        found = b""
        day = first
        while day < end:
            number, offset = divmod(day, _CHUNK_DAYS)
            if self._chunk[0] != number:
                skies, days = (
                    chance_bytes(_CHUNK_DAYS, seed, "days", number)
                    for seed in (self._source.weather_seed, self._source.seed)
                )
                luck = bytes(sky & _SKY | day & _BUSY for sky, day in zip(skies, days, strict=True))
                self._chunk = (number, luck)
            part = self._chunk[1][offset : offset + end - day]
            found += part
            day += len(part)
        return found


def _zeros(source: Source) -> tuple[int, ...]:
    return (0,) * len(source.day_totals(DayClass(DayType(1, weekend=False, ahead_h=0), 0)))


@lru_cache(maxsize=1)
def _second_patterns() -> list[list[int]]:
    """Return cumulative weights of the 60 seconds of a minute, 80 to 120 each: consumption is never quite even."""
    return [
        list(accumulate((80 + byte * 41 // 256 for byte in chance_bytes(60, "pattern", number)), initial=0))
        for number in range(_PATTERNS)
    ]
