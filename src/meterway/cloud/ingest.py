"""Ingest: what concentrators publish is decided, committed in micro-batches, acknowledged, and confirmed.

A message is acknowledged and its receipt sent only after the transaction that holds it, or that quarantined it. While
the database is away the batch is kept and committed again; the broker holds the rest.

Decoding happens as messages arrive, while the transaction before is under way in the database.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import NamedTuple

from meterway.bus.bus import Delivery
from meterway.cloud.config import IngestConfig
from meterway.cloud.decide import Window, decide, sender_of
from meterway.cloud.store import Arrived, Committed, Rejected, Store
from meterway.core.errors import TransientError
from meterway.core.receipts import digest

_log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0

Confirm = Callable[[str, bytes], None]
"""Tells a sender that the message with this digest is safe here (``Confirmer.confirm``)."""


REPLAY_MESSAGES = 32
"""So many quarantined messages, of at most one MiB each, are in memory at once while they are replayed; one replay
runs at a time."""


@dataclass(slots=True)
class Histogram:
    """Durations, counted by upper bound in seconds."""

    bounds_s: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
    counts: list[int] = field(default_factory=lambda: [0] * 12)
    """One more than bounds: the last is what took longer."""
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds


@dataclass(slots=True)
class Counters:
    """What was counted since the process began."""

    received: int = 0
    """Messages taken from the broker."""
    stored: int = 0
    """Readings that were new."""
    duplicate: int = 0
    """Readings and faults that were there already."""
    conflict: int = 0
    """Readings whose identifier was there with other content: kept aside."""
    erased: int = 0
    """Readings and faults of a time that was erased: acknowledged, not stored."""
    reports: int = 0
    faults: int = 0
    quarantined: int = 0
    """Messages that went to quarantine."""
    removed: int = 0
    """Rows of quarantine, conflicts or faults that were removed at a bound."""
    refused: int = 0
    """Messages not taken because too many waited for the database; the broker or the sender repeats them."""
    batches: int = 0
    retries: int = 0
    """Transactions that were tried again because the database was away."""
    commit_seconds: Histogram = field(default_factory=Histogram)

    def add(self, committed: Committed) -> None:
        """Count what became of a batch."""
        self.stored += committed.stored
        self.duplicate += committed.duplicate
        self.conflict += committed.conflict
        self.erased += committed.erased
        self.reports += committed.reports
        self.faults += committed.faults
        self.quarantined += len(committed.rejected)
        self.removed += committed.removed

    def totals(self) -> Mapping[str, int]:
        """Return the counters by name, ``ingest_`` before each."""
        numbers = {each.name: getattr(self, each.name) for each in fields(self)}
        return {f"ingest_{name}": value for name, value in numbers.items() if isinstance(value, int)}


class _Waiting(NamedTuple):
    delivery: Delivery
    arrived: Arrived


class Ingest:
    """One worker. ``receive`` is the handler of the bus, ``run`` commits what it took.

    Bounds: ``pending_limit`` messages and ``pending_limit_bytes`` bytes wait; see ``IngestConfig``.
    """

    def __init__(self, store: Store, config: IngestConfig, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._config = config
        self._batch_limit = min(config.batch_limit, config.pending_limit)
        self._clock = clock
        self._pending: list[_Waiting] = []
        self._replaying = asyncio.Lock()
        self._pending_bytes = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._window = Window(
            past=timedelta(days=config.past_limit_days), future=timedelta(seconds=config.future_limit_s)
        )
        self.counters = Counters()
        self.trouble: str | None = None
        """Why nothing can be stored now, as a sentence; None when all is well."""

    def gauges(self) -> dict[str, float]:
        """Return what waits for the database and how much may, by the names of metrics."""
        return {
            "ingest_pending": len(self._pending),
            "ingest_pending_bytes": self._pending_bytes,
            "ingest_pending_limit": self._config.pending_limit,
            "ingest_pending_limit_bytes": self._config.pending_limit_bytes,
            "ingest_waiting": self.trouble is not None,
        }

    def receive(self, delivery: Delivery) -> None:
        """Take a message; it is acknowledged when it is stored or in quarantine."""
        topic, payload = delivery.topic, delivery.payload
        config = self._config
        waiting = len(self._pending)
        if waiting >= config.pending_limit or (waiting and self._pending_bytes >= config.pending_limit_bytes):
            self.counters.refused += 1
            return
        arrived = decide(topic, payload, now=self._clock(), window=self._window)
        self._pending.append(_Waiting(delivery, arrived))
        self._pending_bytes += len(payload)
        if not waiting:
            self._some.set()
        elif waiting + 1 >= self._batch_limit:
            self._enough.set()

    async def run(self, confirm: Confirm) -> None:
        """Commit what was received, until cancelled.

        Raises:
            SetupError: the database refuses us in a way that waiting does not mend.
        """
        while True:
            await self._some.wait()
            await self._linger()
            batch = self._take()
            await self._commit([each.arrived for each in batch])
            for delivery, arrived in batch:
                delivery.ack()
                sender_id = sender_of(arrived.topic)
                if sender_id is not None:
                    confirm(sender_id, digest(arrived.topic, arrived.payload))

    async def replay(self, quarantine_keys: Sequence[int]) -> tuple[int, int]:
        """Decide quarantined messages anew; return how many left the quarantine and how many are still there.

        What is stored leaves the quarantine (also if it was there already, or is now a conflict), and is stored once
        even if the replay is repeated or killed in between. The others stay, with the reason of this time.

        Raises:
            TransientError: the database is away; replay again.
        """
        left = still = 0
        async with self._replaying:
            for start in range(0, len(quarantine_keys), REPLAY_MESSAGES):
                released, held = await self._replay_some(quarantine_keys[start : start + REPLAY_MESSAGES])
                left, still = left + released, still + held
        return left, still

    async def _replay_some(self, quarantine_keys: Sequence[int]) -> tuple[int, int]:
        rows = await self._store.quarantined(quarantine_keys)
        now = self._clock()
        decided = [self._decide_again(row["topic"], row["payload"], row["size_bytes"], now) for row in rows]
        good = [each for each in decided if not isinstance(each, Rejected)]
        committed = await self._store.commit_batch(good, now=now)
        self.counters.add(committed)
        rejected = {(each.topic, each.payload): each for each in committed.rejected}
        released, held = [], []
        for row, each in zip(rows, decided, strict=True):
            bad = each if isinstance(each, Rejected) else rejected.get((each.topic, each.payload))
            if bad is None:
                released.append(row["quarantine_key"])
            else:
                held.append((row["quarantine_key"], bad))
        await self._store.release(released)
        await self._store.hold(held)
        return len(released), len(held)

    async def _linger(self) -> None:
        """Wait until the batch is full, at most ``linger_s``."""
        if len(self._pending) < self._batch_limit:
            try:
                async with asyncio.timeout(self._config.linger_s):
                    await self._enough.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting]:
        limit = self._batch_limit
        batch, self._pending = self._pending[:limit], self._pending[limit:]
        self._pending_bytes = sum(len(each.delivery.payload) for each in self._pending)
        if not self._pending:
            self._some.clear()
        if len(self._pending) < limit:
            self._enough.clear()
        self.counters.received += len(batch)
        return batch

    async def _commit(self, batch: Sequence[Arrived]) -> None:
        """Commit; while the database is away, again and again."""
        delay_s = FIRST_DELAY_S
        while True:
            started_s = time.perf_counter()
            try:
                committed = await self._store.commit_batch(batch, now=self._clock())
            except TransientError as error:
                self.counters.retries += 1
                if self.trouble is None:
                    _log.warning("! readings wait: %s", error)
                self.trouble = f"Readings wait: {error}"
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, LONGEST_DELAY_S)
                continue
            if self.trouble is not None:
                _log.info("readings are stored again")
                self.trouble = None
            self.counters.commit_seconds.add(time.perf_counter() - started_s)
            self.counters.batches += 1
            self.counters.add(committed)
            return

    def _decide_again(self, topic: str, payload: bytes, size_bytes: int, now: datetime) -> Arrived:
        if size_bytes > len(payload):
            message = f"of {size_bytes} bytes only the first {len(payload)} were kept: send it again"
            return Rejected(topic, payload, "too-large", message)
        return decide(topic, payload, now=now, window=self._window)
