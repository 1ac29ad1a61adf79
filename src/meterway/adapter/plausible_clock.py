"""Is the meter's clock right? Pure.

Only of telegrams that a meter sends as it makes them: a row of a load profile, a replayed file are old rightly. The
meter's time is held against the moment of arrival. Every reading with a wrong time is marked, for it will count in
the wrong quarter of an hour; the report is made once, and again when the error has changed a lot.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from meterway.adapter.memory import ClockMemory

CLOCK_WRONG: Final = "clock-wrong"

CLOCK_LIMIT_S: Final = 60.0
"""A clock that is off by more is wrong."""
_RIGHT_SHARE: Final = 0.75
"""It counts as right again when it is off by less than this share of the limit."""
_HOUR_S: Final = 3600.0
_MINUTE_S: Final = 60.0
_FIRST_YEAR: Final = 2020
"""A computer that believes it is earlier has a clock that was never set, and cannot judge another."""


class ClockDoubt(NamedTuple):
    sentence: str
    is_news: bool
    """Whether it is to be reported."""


def judge_clock(memory: ClockMemory, clock: datetime, arrival: datetime) -> ClockDoubt | None:
    """Return the doubt of a telegram that says ``clock`` and arrived at ``arrival`` (both aware); None if it is right.

    A meter that says whole minutes only may be a minute behind.
    """
    before, memory.last = memory.last, clock.astimezone(UTC)
    off_s = (clock - arrival).total_seconds()
    if arrival.year < _FIRST_YEAR:
        return None
    lag_s = _MINUTE_S if clock.second == 0 else 0.0
    if -CLOCK_LIMIT_S - lag_s <= off_s <= CLOCK_LIMIT_S:
        if abs(off_s) <= CLOCK_LIMIT_S * _RIGHT_SHARE:
            memory.said_s = None
        return None
    said_s = memory.said_s
    is_news = said_s is None or abs(off_s - said_s) > max(CLOCK_LIMIT_S, abs(said_s) / 2)
    if is_news:
        memory.said_s = off_s
    return ClockDoubt(_sentence(before, clock, off_s), is_news)


def _sentence(before: datetime | None, clock: datetime, off_s: float) -> str:
    direction = "ahead of" if off_s > 0 else "behind"
    said = f"the meter's clock says {clock.isoformat()} and is {abs(off_s):.0f} s {direction} this computer's"
    if abs(abs(off_s) - _HOUR_S) > CLOCK_LIMIT_S:
        return f"{said}; compare both with the true time, and have the wrong one set"
    if clock.replace(fold=0).utcoffset() != clock.replace(fold=1).utcoffset():
        return f"{said}: this hour comes twice as summer time ends, and the meter does not say which it means"
    if before is not None and before - clock.astimezone(UTC) > timedelta(seconds=_HOUR_S - CLOCK_LIMIT_S):
        return f"{said}: it jumped back by an hour; is `timezone` of the meter right, is it on summer time?"
    return f"{said}: an error of summer time; is `timezone` of the meter right, is it on summer time?"
