"""Messages on their way to the disk, and which did not reach it."""

import asyncio
from dataclasses import dataclass, field

from meterway.core.errors import TransientError
from meterway.delivery.intervals import Intervals
from meterway.delivery.record import Record
from meterway.delivery.tally import TopicState

LIMIT_GROUP_BYTES = 4 << 20
"""The most bytes behind one ``fdatasync``; more makes several groups."""

LIMIT_FAILURES = 4096
"""How many failed stretches are remembered; an older position counts as failed."""


@dataclass(slots=True)
class Group:
    """Messages that become durable together."""

    first: int
    settled: asyncio.Future[None]
    """Done when the group is durable or has failed."""
    records: list[Record] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    states: dict[str, TopicState] = field(default_factory=dict)
    """Of the topics in the group, after its last message."""
    size_bytes: int = 0
    closed: bool = False
    """Whether it is being written and takes no more."""

    @property
    def end(self) -> int:
        """The number behind its last message."""
        return self.first + len(self.records)

    @property
    def full(self) -> bool:
        return self.closed or self.size_bytes > LIMIT_GROUP_BYTES

    def add(self, record: Record, data: bytes) -> None:
        """Take a message and its encoded record."""
        self.records.append(record)
        self.data.append(data)
        self.size_bytes += len(data)


class Failures:
    """The positions that were given out and could not be stored. Such numbers are never used again."""

    def __init__(self) -> None:
        self._intervals = Intervals()
        self._forgotten_end = 0
        self._reason = ""

    def add(self, first: int, end: int, reason: str) -> None:
        self._intervals.add(first, end)
        self._forgotten_end = max(self._forgotten_end, self._intervals.keep_last(LIMIT_FAILURES))
        self._reason = reason

    def check(self, position: int) -> None:
        """Do nothing if the message at ``position`` was stored.

        Raises:
            TransientError: it was not, or that was so long ago that it is not known.
        """
        if position < self._forgotten_end or position in self._intervals:
            raise TransientError(self._reason)
