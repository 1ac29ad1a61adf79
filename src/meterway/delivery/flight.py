"""What is on its way: sent and not yet confirmed, waiting to be sent, due to be sent again.

Pure bookkeeping; the clock is an argument (seconds, monotonic).
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from meterway.delivery.record import Record

PROBE_ITEMS = 16
"""While nothing at all was confirmed since the last repetition, only so many overdue messages are sent again: the
receiver is away, and the broker has the others already."""


@dataclass(slots=True, eq=False)
class Flying:
    """A message on its way."""

    record: Record
    digest: bytes
    sends: int = 0
    due_s: float = 0.0
    """When it is sent again unless confirmed before; meaningful once sent."""
    queued: bool = True
    """Whether it waits to be sent (again)."""


class Flight:
    """Messages by position and by digest; at most ``limit_items``, about ``limit_bytes`` of payload.

    ``on_end`` is told of each that is finished or dropped.
    """

    def __init__(
        self,
        *,
        limit_items: int,
        limit_bytes: int,
        retry_s: float,
        retry_limit_s: float,
        on_end: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self._limit_items = limit_items
        self._limit_bytes = limit_bytes
        self._on_end = on_end
        self._retry_s = retry_s
        self._retry_limit_s = retry_limit_s
        self._by_position: dict[int, Flying] = {}
        self._by_digest: dict[bytes, int | list[int]] = {}
        self._queue: deque[Flying] = deque()
        self._size_bytes = 0
        self._silent = False
        self._confirmed = False

    def __len__(self) -> int:
        return len(self._by_position)

    @property
    def size_bytes(self) -> int:
        """The payload bytes of all messages on their way."""
        return self._size_bytes

    @property
    def room_items(self) -> int:
        return max(0, self._limit_items - len(self._by_position))

    @property
    def room_bytes(self) -> int:
        return max(0, self._limit_bytes - self._size_bytes)

    def add(self, record: Record, digest: bytes) -> None:
        """Take a message that is to be sent; positions rise."""
        flying = Flying(record, digest)
        self._by_position[record.number] = flying
        known = self._by_digest.get(digest)
        if known is None:
            self._by_digest[digest] = record.number
        elif isinstance(known, int):
            self._by_digest[digest] = [known, record.number]
        else:
            known.append(record.number)
        self._size_bytes += len(record.payload)
        self._queue.append(flying)

    def next(self) -> Flying | None:
        """Return the message to send now, oldest first, without taking it; None if nothing waits to be sent."""
        while self._queue:
            flying = self._queue[0]
            if flying.queued and flying.record.number in self._by_position:
                return flying
            self._queue.popleft()
        return None

    def sent(self, flying: Flying, now_s: float) -> None:
        """Tell that what ``next`` returned was handed to the broker."""
        flying.queued = False
        flying.due_s = now_s + min(self._retry_s * 2**flying.sends, self._retry_limit_s)
        flying.sends = min(flying.sends + 1, 30)
        self._queue.popleft()

    def confirm(self, digest: bytes, now_s: float) -> int | None:
        """Take a digest from a receipt; return the position of the oldest message sent that has it, now finished.

        None if there is none: confirmed before, or not sent since this process began (then it is sent and confirmed
        again).
        """
        known = self._by_digest.get(digest)
        if known is None:
            return None
        position = known if isinstance(known, int) else known[0]
        return position if self.finish(position, now_s) else None

    def finish(self, position: int, now_s: float) -> bool:
        """Forget a message that was sent and is safe elsewhere; False if there is none such."""
        flying = self._by_position.get(position)
        if flying is None or not flying.sends:
            return False
        self._remove(flying)
        self._confirmed = True
        if self._silent:
            # The receiver is back: give it the usual time for what it has, before all of that is sent again.
            self._silent = False
            for other in self._by_position.values():
                other.due_s = max(other.due_s, now_s + self._retry_s)
        return True

    def drop(self, flying: Flying) -> None:
        """Forget a message that can never be sent."""
        self._remove(flying)

    def retry(self, now_s: float) -> int:
        """Queue again what was sent, is overdue and unconfirmed; return how many."""
        overdue = [each for each in self._by_position.values() if not each.queued and each.due_s <= now_s]
        if not overdue:
            return 0
        self._silent = not self._confirmed
        self._confirmed = False
        chosen = overdue[:PROBE_ITEMS] if self._silent else overdue
        self._requeue(chosen)
        return len(chosen)

    def retry_all(self) -> None:
        """Queue everything again, oldest first: the connection was lost, and with it perhaps all that was sent."""
        self._queue.clear()
        for flying in self._by_position.values():
            flying.sends = min(flying.sends, 1)
        self._requeue(self._by_position.values())

    def _requeue(self, flyings: Iterable[Flying]) -> None:
        chosen = list(flyings)
        for flying in chosen:
            flying.queued = True
        self._queue.extendleft(reversed(chosen))

    def _remove(self, flying: Flying) -> None:
        position = flying.record.number
        del self._by_position[position]
        self._on_end(flying.record)
        self._size_bytes -= len(flying.record.payload)
        known = self._by_digest[flying.digest]
        if isinstance(known, int):
            del self._by_digest[flying.digest]
            return
        known.remove(position)
        if len(known) == 1:
            self._by_digest[flying.digest] = known[0]
