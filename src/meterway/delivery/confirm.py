"""The receiving side of a hop: tells the senders what is committed here."""

import asyncio
from collections.abc import Callable

from meterway.bus.bus import Bus
from meterway.core import receipts, topics
from meterway.core.errors import TransientError

LIMIT_DIGESTS = 100_000
"""How many digests may wait for the broker (1.6 MB); beyond, those of the sender with the most are dropped."""

BATCH_DIGESTS = 512
"""So many digests of one sender are sent without waiting for more."""

LINGER_S = 0.005
"""How long a digest waits for others of the same sender."""

_RETRY_S = 0.5


class Confirmer:
    """Collects digests and publishes them on ``receipt/[senderId]``.

    Confirm a message only when it is committed. A lost receipt does no harm: the sender sends the message again and
    it is confirmed again. Needs a running event loop and no task; what it has not published when the process ends is
    lost in that sense.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_digests = 0
        self.confirmed = 0
        """Digests published."""
        self.dropped = 0
        """Digests given up because the broker was away for too long."""
        bus.on_connect(self.flush)

    def confirm(self, sender_id: str, digest: bytes) -> None:
        """Tell ``sender_id`` (soon) that the message with ``digest`` is committed here.

        Raises:
            BadDataError: ``sender_id`` cannot stand in a topic.
        """
        waiting = self._waiting.get(sender_id)
        if waiting is None:
            topics.receipt_topic(sender_id)
            waiting = self._waiting.setdefault(sender_id, [])
        waiting.append(digest)
        self._waiting_digests += 1
        if self._waiting_digests > LIMIT_DIGESTS:
            self._drop_longest()
        if len(waiting) == BATCH_DIGESTS:
            self._later(0, self.flush)
        elif self._timer is None:
            self._later(LINGER_S, self.flush)

    def flush(self) -> None:
        """Publish what waits, as far as the broker takes it now."""
        self._cancel_timer()
        for sender_id in list(self._waiting):
            digests = self._waiting[sender_id]
            try:
                for payload in receipts.encode(digests):
                    self._bus.publish(topics.receipt_topic(sender_id), payload)
            except TransientError:
                self._later(_RETRY_S, self.flush)
                return
            del self._waiting[sender_id]
            self._waiting_digests -= len(digests)
            self.confirmed += len(digests)

    def _drop_longest(self) -> None:
        sender_id = max(self._waiting, key=lambda each: len(self._waiting[each]))
        digests = self._waiting.pop(sender_id)
        self._waiting_digests -= len(digests)
        self.dropped += len(digests)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay_s, call)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
