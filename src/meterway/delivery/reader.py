"""Reads the backlog from the segments, once, in order. Synchronous; in the thread that writes the log."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from meterway.delivery.intervals import Intervals
from meterway.delivery.log import SegmentLog
from meterway.delivery.record import MESSAGE, Damage, Record, Scanner
from meterway.delivery.segment import Segment, keep_damage, read_chunk


@dataclass(slots=True)
class Batch:
    """What one call of ``Reader.read`` found."""

    records: list[Record]
    next_number: int
    """Where the next call goes on."""
    lost: Intervals = field(default_factory=Intervals)
    """Messages that were stored and are unreadable."""
    absent: Intervals = field(default_factory=Intervals)
    """Numbers that no message ever had: their write failed and was reported as failed."""


class Reader:
    """Walks through the durable part of a log; holds one open file and at most one chunk of parsed records."""

    def __init__(self, log: SegmentLog) -> None:
        self._log = log
        self._segment: Segment | None = None
        self._file: int | None = None
        self._offset = 0
        self._scanner = Scanner(0)
        self._found: deque[Record | Damage] = deque()
        self._damaged = False
        self._next = 0

    def close(self) -> None:
        """Close the file that is being read."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._segment = None

    def read(self, start: int, limit_items: int, limit_bytes: int, skip: Sequence[Intervals]) -> Batch:
        """Return messages from number ``start`` on that are in none of ``skip``, up to a count and a payload size.

        Raises:
            OSError: a segment is there and cannot be opened now; the same call may succeed later.
        """
        if self._segment is None or start != self._next:
            self._seek(start)
        batch = Batch([], start)
        size_bytes = 0
        while len(batch.records) < limit_items and size_bytes < limit_bytes:
            if not self._found and not self._load(batch):
                break
            found = self._found.popleft()
            if isinstance(found, Damage):
                self._meet_damage(found)
            elif found.kind == MESSAGE and found.number >= self._next:
                (batch.lost if self._damaged else batch.absent).add(self._next, found.number)
                self._damaged = False
                self._next = found.number + 1
                if not any(found.number in each for each in skip):
                    batch.records.append(found)
                    size_bytes += len(found.payload)
        batch.next_number = self._next
        return batch

    def _seek(self, start: int) -> None:
        segments = self._log.segments
        at = max((at for at, segment in enumerate(segments) if segment.base <= start), default=0)
        self._enter(segments[at], start)

    def _enter(self, segment: Segment, start: int) -> None:
        try:
            file = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # Somebody has taken it away: at its end the messages are missing and are counted as lost.
            file = None
        self.close()
        self._segment = segment
        self._file = file
        self._next = start
        self._scanner = Scanner(segment.seed)
        self._offset = 0
        self._found.clear()
        self._damaged = False

    def _load(self, batch: Batch) -> bool:
        """Parse the next chunk, of the next segment at the end of this one; tell whether there was one."""
        segment = self._segment
        while segment is not None:
            chunk = b"" if self._file is None else read_chunk(self._file, self._offset, segment.size_bytes)
            if chunk:
                self._offset += len(chunk)
                self._found.extend(self._scanner.feed(chunk))
                if self._found:
                    return True
                continue
            following = next((other for other in self._log.segments if other.base > segment.base), None)
            if following is None:
                return False
            self._found.extend(self._scanner.finish())
            if self._found:
                return True
            lost_from = self._next
            self._enter(following, max(lost_from, following.base))
            batch.lost.add(lost_from, following.base)
            segment = following
        return False

    def _meet_damage(self, damage: Damage) -> None:
        self._damaged = True
        if self._segment is not None:
            keep_damage(self._segment, damage)
