"""A set of numbers kept as intervals: what is done, what has failed. Pure."""

import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from meterway.core.errors import BadDataError

_PAIR = struct.Struct("<QQ")
_CRC_BYTES = 4


class Intervals:
    """Half-open intervals ``[start, end)``, disjoint, sorted and merged where they touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        """Return how many intervals there are, not how many numbers."""
        return len(self._starts)

    @property
    def end(self) -> int:
        """The first number above all of them; 0 for the empty set."""
        return self._ends[-1] if self._ends else 0

    def add(self, start: int, end: int) -> int:
        """Put in ``[start, end)``; return how many of its numbers were new."""
        if end <= start:
            return 0
        # The intervals that overlap or touch the new one are replaced by their union with it.
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end, lo=first)
        if last - first == 1 and start >= self._starts[first]:
            new = max(0, end - self._ends[first])
            self._ends[first] += new
            return new
        known = sum(
            min(end, self._ends[at]) - max(start, self._starts[at])
            for at in range(first, last)
            if min(end, self._ends[at]) > max(start, self._starts[at])
        )
        if first < last:
            low, high = min(start, self._starts[first]), max(end, self._ends[last - 1])
        else:
            low, high = start, end
        self._starts[first:last] = [low]
        self._ends[first:last] = [high]
        return end - start - known

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all of ``[start, end)`` is in the set."""
        at = bisect_right(self._starts, start) - 1
        return start >= end or (at >= 0 and end <= self._ends[at])

    def first_missing(self, start: int) -> int:
        """Return the first number from ``start`` on that is not in the set."""
        at = bisect_right(self._starts, start) - 1
        return max(start, self._ends[at]) if at >= 0 else start

    def keep_last(self, limit: int) -> int:
        """Forget all but the last ``limit`` intervals; return the end of the last forgotten one, else 0."""
        surplus = len(self._starts) - limit
        if surplus <= 0:
            return 0
        end = self._ends[surplus - 1]
        del self._starts[:surplus], self._ends[:surplus]
        return end

    def copy(self) -> "Intervals":
        """Return an independent copy."""
        other = Intervals()
        other._starts, other._ends = self._starts.copy(), self._ends.copy()
        return other

    def encode(self, limit: int) -> bytes:
        """Return at most the first ``limit`` intervals as bytes, with a CRC."""
        body = b"".join(_PAIR.pack(*pair) for pair, _ in zip(self, range(limit), strict=False))
        return zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body


def decode(data: bytes) -> Intervals:
    """Return the intervals in ``data``.

    Raises:
        BadDataError: cut, altered or empty.
    """
    crc, body = data[:_CRC_BYTES], data[_CRC_BYTES:]
    if len(crc) < _CRC_BYTES or len(body) % _PAIR.size or zlib.crc32(body) != int.from_bytes(crc, "little"):
        raise BadDataError("the record of what is done is cut or altered", reason="bad-checksum")
    intervals = Intervals()
    for start, end in _PAIR.iter_unpack(body):
        intervals.add(start, end)
    return intervals
