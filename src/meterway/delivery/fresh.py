"""Messages that were just stored, kept in memory so that they need not be read from the disk. Pure."""

from collections import deque
from collections.abc import Iterable

from meterway.delivery.record import Record

LIMIT_FRESH_BYTES = 8 << 20
"""The most payload bytes kept; beyond, the oldest of them are left to the disk, where all are."""


class Fresh:
    """The newest messages without a gap, up to the last durable one, or nothing."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self._size_bytes = 0

    @property
    def start(self) -> int | None:
        """The number of the oldest; None if there is none."""
        return self._records[0].number if self._records else None

    def extend(self, records: Iterable[Record], start: int) -> None:
        """Put those from number ``start`` on behind the others."""
        for record in records:
            if record.number >= start:
                self._records.append(record)
                self._size_bytes += len(record.payload)
        while self._size_bytes > LIMIT_FRESH_BYTES:
            self._drop()

    def take(self, limit_items: int, limit_bytes: int) -> list[Record]:
        """Remove and return the oldest, up to a count and a sum of payload bytes."""
        taken: list[Record] = []
        end_bytes = self._size_bytes - limit_bytes
        while self._records and len(taken) < limit_items and self._size_bytes > end_bytes:
            taken.append(self._drop())
        return taken

    def forget_before(self, start: int) -> None:
        """Remove those below number ``start``: they were read from the disk."""
        while self._records and self._records[0].number < start:
            self._drop()

    def _drop(self) -> Record:
        record = self._records.popleft()
        self._size_bytes -= len(record.payload)
        return record
