"""When which meters of one segment are asked, so that they never speak at once. Pure: time is an argument."""

from collections.abc import Mapping
from typing import Final

FIRST_RETRY_S: Final = 30.0
"""After a failure a meter is asked again so soon, then after twice, four times, ... as long."""
LONGEST_RETRY_INTERVALS: Final = 8
"""A dead meter is asked once in so many of its intervals, so that it does not take the segment from the living."""


class Schedule:
    """The turns of meters, by id. Each has an interval; turns that were missed are left out, not made up for."""

    def __init__(self, intervals_s: Mapping[str, float], now: float) -> None:
        """All are due at once."""
        self._intervals_s = dict(intervals_s)
        self._due_at = dict.fromkeys(intervals_s, now)
        self._failed = dict.fromkeys(intervals_s, 0)

    def due(self, now: float) -> list[str]:
        """Return the meters of the next round, in the order in which they were named; empty: wait."""
        return [meter for meter, due_at in self._due_at.items() if due_at <= now]

    def wait_s(self, now: float) -> float:
        """Return how long there is nothing to do; infinite without meters."""
        return max(0.0, min(self._due_at.values(), default=float("inf")) - now)

    def finished(self, meter: str, now: float) -> None:
        """Tell that a meter was read."""
        self._failed[meter] = 0
        interval_s = self._intervals_s[meter]
        late_s = max(0.0, now - self._due_at[meter])
        self._due_at[meter] = now + interval_s - late_s % interval_s

    def failed(self, meter: str, now: float, *, pause_s: float = 0.0) -> float:
        """Tell that a meter could not be read; return how long it is left alone, at least ``pause_s``."""
        longest_s = LONGEST_RETRY_INTERVALS * self._intervals_s[meter]
        retry_s = min(FIRST_RETRY_S * 2.0 ** min(self._failed[meter], 30), longest_s)
        self._failed[meter] += 1
        wait_s = max(retry_s, pause_s)
        self._due_at[meter] = now + wait_s
        return wait_s
