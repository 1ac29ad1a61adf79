"""How complete a meter's readings are, day by day, and where they pause. Pure.

What it does: takes the ledger's days of one meter (stretches of readings without a pause or a skipped number) and says
where readings are missing, by time and by number. What it does not do: say why (``causes``), or look at readings. What
you must do: give it the last day before the range and the first after it too, if there are any.

A pause is a time gap of more than one and a half intervals, or skipped sequence numbers, or both. Days are days of UTC.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from meterway.cloud.meters import LATE_INTERVALS, LATE_LEAST_S

PAUSE_INTERVALS = 1.5
"""As the ledger is entered (``store/ledger.py``)."""

_DAY = timedelta(days=1)
_SLIP = 1e-6
"""Of an interval: instants that are equal but for rounding are equal."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Readings that followed each other: first and last time, first and last number (None: not judged)."""

    start: datetime
    end: datetime
    first_number: int | None
    last_number: int | None


@dataclass(frozen=True, slots=True)
class MeterDay:
    """What the ledger says of one meter and day."""

    day: date
    stored: int
    interval_s: float | None
    is_coarse: bool
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The days that are asked for, and the moment of asking."""

    first: date
    last: date
    now: datetime

    @property
    def start(self) -> datetime:
        return start_of(self.first)

    @property
    def end(self) -> datetime:
        """Not after now."""
        return min(start_of(self.last + _DAY), self.now)

    def days(self) -> list[date]:
        """Return the days up to today."""
        return [self.first + _DAY * count for count in range((min(self.last, self.now.date()) - self.first).days + 1)]


@dataclass(frozen=True, slots=True)
class Pause:
    """Readings are missing between two others; or since the last one (``is_open``)."""

    start: datetime
    """The reading before."""
    end: datetime
    """The reading after; the end of the span if none came."""
    interval_s: float | None
    skipped: range = range(0)
    """The numbers that are missing."""
    is_late: bool = True
    """Whether time is missing; else only numbers are."""
    is_open: bool = False
    restarted: bool = False
    """The numbers began again from below."""

    @property
    def missed(self) -> int:
        """How many readings are missing by time."""
        if not self.is_late or self.interval_s is None:
            return 0
        count = (self.end - self.start).total_seconds() / self.interval_s
        return int(count + _SLIP) if self.is_open else max(1, round(count) - 1)


def start_of(day: date) -> datetime:
    """Return the first moment of a day of UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def late_after_s(interval_s: float) -> float:
    """Return after how many seconds without a reading something is missing already, though one may still come."""
    return max(LATE_LEAST_S, LATE_INTERVALS * interval_s)


def pauses(days: Sequence[MeterDay], span: Span) -> list[Pause]:
    """Return the pauses that touch the span; ``days`` are in order, with the one before it and the one after."""
    found = [each for each in _between(days) if each.end > span.start and each.start < span.end]
    last = last_end(days)
    if last is not None and last < span.end:
        interval_s = days[-1].interval_s
        limit_s = (
            late_after_s(interval_s) if interval_s and span.end == span.now else (interval_s or 0) * PAUSE_INTERVALS
        )
        if interval_s and (span.end - last).total_seconds() > limit_s:
            found.append(Pause(last, span.end, interval_s, is_open=True))
    return found


def _between(days: Sequence[MeterDay]) -> Iterator[Pause]:
    end: datetime | None = None
    number: int | None = None
    for day in days:
        for each in day.stretches:
            if end is not None and (pause := _pause(end, number, each, day.interval_s)):
                yield pause
            end = each.end if end is None else max(end, each.end)
            number = each.last_number


def _pause(end: datetime, number: int | None, following: Stretch, interval_s: float | None) -> Pause | None:
    gap_s = (following.start - end).total_seconds()
    is_late = interval_s is not None and gap_s > PAUSE_INTERVALS * interval_s
    skipped, restarted = range(0), False
    if number is not None and following.first_number is not None:
        restarted = following.first_number <= number and gap_s > 0
        skipped = range(1 if restarted else number + 1, following.first_number)
    if not is_late and not skipped:
        return None
    start, stop = sorted((end, following.start))
    return Pause(start, stop, interval_s, skipped, is_late=is_late, restarted=restarted)


def expected(day: date, first: datetime, last: datetime, span: Span, interval_s: float) -> int:
    """Return how many readings of the meter there should be of a day, from its first one ever until now.

    ``first`` and ``last`` are those that are known. On the day of asking only what is certain to be late counts: the
    last reading may be followed by another at once.
    """
    start, end = max(start_of(day), first), min(start_of(day + _DAY), span.end)
    if end == span.now and (end - last).total_seconds() <= late_after_s(interval_s):
        end = last
        extra = 1
    else:
        extra = int(start == first)
    if end < start:
        return 0
    return int((end - start).total_seconds() / interval_s + (_SLIP if extra == 0 or end == last else -_SLIP)) + extra


def last_end(days: Sequence[MeterDay]) -> datetime | None:
    """Return the time of the last reading, if there is one."""
    return max((each.end for day in days for each in day.stretches), default=None)
