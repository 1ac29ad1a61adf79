"""Messages that were just stored, kept in memory so that they need not be read from the disk. Pure."""

from collections import deque
from collections.abc import Iterable

from meterway.delivery.record import Record

LIMIT_FRESH_BYTES = 8 << 20
"""The most payload bytes kept; when more waits, it is all forgotten here and read from the disk."""


class Fresh:
    """The newest messages without a gap, up to the last durable one, or nothing."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self._size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._records)

    def extend(self, records: Iterable[Record], start: int) -> None:
        """Put those from number ``start`` on behind the others."""
        for record in records:
            if record.number >= start:
                self._records.append(record)
                self._size_bytes += len(record.payload)
        if self._size_bytes > LIMIT_FRESH_BYTES:
            self._records.clear()
            self._size_bytes = 0

    def take(self, limit_items: int, limit_bytes: int) -> list[Record]:
        """Remove and return the oldest, up to a count and a sum of payload bytes."""
        taken: list[Record] = []
        size_bytes = 0
        while self._records and len(taken) < limit_items and size_bytes < limit_bytes:
            record = self._records.popleft()
            size_bytes += len(record.payload)
            taken.append(record)
        self._size_bytes -= size_bytes
        return taken

    def forget_before(self, start: int) -> None:
        """Remove those below number ``start``: they were read from the disk."""
        while self._records and self._records[0].number < start:
            self._size_bytes -= len(self._records.popleft().payload)
