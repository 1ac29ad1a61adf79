"""In which order stored messages leave the spool: what was taken, what is in memory, what is on the disk. Pure."""

from collections.abc import Callable, Sequence

from meterway.delivery.fresh import Fresh
from meterway.delivery.intervals import Intervals
from meterway.delivery.record import Record

LIMIT_OVERTAKEN = 4096
"""How many stretches of the backlog may be overtaken; beyond, the newest wait in line too."""


class Order:
    """Each durable message is given out once: oldest first, but some of the newest may overtake a backlog.

    A backlog is what lies on the disk between ``cursor`` and what is in memory.
    """

    def __init__(self, cursor: int = 0, end: int = 0) -> None:
        self.cursor = cursor
        """All before it were given out, and none from it on but those that have overtaken."""
        self.end = end
        """The number behind the last durable message."""
        self._fresh = Fresh()
        self._overtaken = Intervals()

    def extend(self, records: Sequence[Record]) -> None:
        """Tell that these are durable now."""
        self._fresh.extend(records, self.cursor)
        self.end = records[-1].number + 1

    def skip(self, end: int) -> None:
        """Tell that there is no message from the last durable one up to ``end``."""
        if self.cursor == self.end:
            self.cursor = end
        self.end = end

    @property
    def has_backlog(self) -> bool:
        """Whether the oldest message must be read from the disk."""
        return not self._overtaken.covers(self.cursor, self._fresh_start)

    def overtaken(self) -> Intervals:
        """Return a copy of what a reader of the backlog is to leave out."""
        return self._overtaken.copy()

    def take(self, limit_items: int, limit_bytes: int) -> list[Record]:
        """Give out the oldest messages while there is no backlog."""
        self._overtaken = Intervals()
        self.cursor = max(self.cursor, self._fresh_start)
        taken = self._fresh.take(limit_items, limit_bytes)
        if taken:
            self.cursor = taken[-1].number + 1
        return taken

    def take_newest(self, limit_items: int, limit_bytes: int, may_overtake: Callable[[str], bool]) -> list[Record]:
        """Give out messages in memory while there is a backlog; those whose topic may not overtake are left in line."""
        if self.cursor >= self._fresh_start or len(self._overtaken) >= LIMIT_OVERTAKEN:
            return []
        taken = []
        for record in self._fresh.take(limit_items, limit_bytes):
            if may_overtake(record.topic) and len(self._overtaken) < LIMIT_OVERTAKEN:
                self._overtaken.add(record.number, record.number + 1)
                taken.append(record)
        return taken

    def read_up_to(self, number: int) -> None:
        """Tell that the messages before ``number`` were read from the disk and given out."""
        self.cursor = max(self.cursor, number)
        self._fresh.forget_before(self.cursor)

    @property
    def _fresh_start(self) -> int:
        """From this number on all are in memory."""
        start = self._fresh.start
        return self.end if start is None else start
