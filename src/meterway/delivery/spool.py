"""The spool: messages that are safe on this device until the other side has confirmed them.

A face for the event loop over the segment log: ``append`` buffers, one thread writes groups of messages with one
``fdatasync`` each, ``commit`` waits for the group. See docs/delivery.md and docs/adr/0001-segment-log.md.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from meterway.core.errors import BadDataError, TransientError
from meterway.delivery.ages import Ages
from meterway.delivery.config import SpoolConfig
from meterway.delivery.group import Failures, Group
from meterway.delivery.intervals import Intervals
from meterway.delivery.log import LIMIT_SAVED_INTERVALS, SegmentLog
from meterway.delivery.order import Order
from meterway.delivery.reader import Reader
from meterway.delivery.record import LIMIT_MARK_BYTES, LIMIT_PAYLOAD_BYTES, LIMIT_TOPIC_BYTES, Record, encode
from meterway.delivery.segment import Segment
from meterway.delivery.stats import SpoolStats
from meterway.delivery.tally import TopicState

_log = logging.getLogger(__name__)

LIMIT_UNWRITTEN_BYTES = 32 << 20
"""What may wait for the disk; ``append`` raises TransientError beyond."""

_KEEP_INTERVAL_S = 1.0
_LINGER_SLICES = 4

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Spool:
    """Messages in order, kept until they are done. Use as ``async with Spool(directory) as spool``.

    One process and one event loop at a time. With ``count_topics`` it also keeps, for at most 10,000 topics, how
    many messages were ever appended and the last ``mark``, atomically with the messages.
    """

    def __init__(
        self,
        directory: Path,
        config: SpoolConfig | None = None,
        *,
        count_topics: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._config = config or SpoolConfig()
        self._counted = count_topics
        self._clock = clock
        self._log = SegmentLog(directory, segment_bytes=self._config.segment_bytes, counted=count_topics)
        self._reader = Reader(self._log)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meterway-spool")
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._broken = ""
        self._wake = asyncio.Event()
        self._groups: deque[Group] = deque()
        self._failures = Failures()
        self._done = Intervals()
        self._done_saved = True
        self._ages = Ages()
        self._order = Order()
        self._next = 0
        self._disk_bytes = 0
        self._unwritten_bytes = 0
        self._listener: Callable[[], None] | None = None
        self._overdue = False
        self._full = False
        self._pending = self._count_appended = self._count_done = self._count_groups = 0
        self._count_refused = self._count_failed = self._count_lost = 0

    async def __aenter__(self) -> Self:
        """Open the directory, which is made if it is not there.

        Raises:
            SetupError: another process has it, it cannot be written, or the topic counts are unreadable.
            TransientError: it is new and the disk is full.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self._thread.shutdown)
            await self._in_thread(self._log.open, int(self._clock()))
            stack.push_async_callback(self._in_thread, self._log.close)
            stack.push_async_callback(self._in_thread, self._reader.close)
            self._take_over()
            stack.push_async_callback(self._save_done, durable=False)
            stack.push_async_callback(self._end_tasks)
            for job, name in ((self._write_groups(), "write"), (self._keep(), "keep")):
                task = asyncio.create_task(job, name=f"meterway.delivery.spool.{name}")
                task.add_done_callback(self._on_task_end)
                self._tasks.append(task)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what was appended, save what is done, close the files."""
        await self._stack.__aexit__(kind, error, trace)

    @property
    def pending(self) -> int:
        """How many messages were appended and are not done."""
        return self._pending

    def append(self, topic: str, payload: bytes, mark: bytes = b"") -> int:
        """Put a message behind the others; return its position. It is durable after ``commit(position)``.

        Raises:
            TransientError: the spool is full, or the disk is far behind; nothing was appended.
            BadDataError: topic, payload or mark is longer than a record may hold.
            SetupError: the topic is one more than can be counted.
        """
        self._check(topic, payload, mark)
        number = self._next
        count = self._log.tally.append(topic, mark) if self._counted else 0
        record = Record(number, topic, payload, int(self._clock()), mark, count)
        data = encode(record, self._log.seed)
        group = self._collecting(number)
        group.add(record, data)
        if self._counted:
            group.states[topic] = TopicState(count, mark)
        self._next += 1
        self._pending += 1
        self._unwritten_bytes += len(data)
        self._count_appended += 1
        self._wake.set()
        return number

    async def commit(self, position: int | None = None) -> None:
        """Return when the message at ``position`` (default: the last appended) and those before it are on the disk.

        Raises:
            TransientError: the message at ``position`` could not be stored (disk full or failing) and is not in the
                spool; all that were appended after it before the failure share its fate.
        """
        position = self._next - 1 if position is None else position
        for group in self._groups:
            if position < group.end:
                await asyncio.shield(group.settled)
                break
        self._failures.check(position)

    def topic_state(self, topic: str) -> TopicState:
        """Return how many messages of ``topic`` were ever appended and the last mark, with those not yet durable.

        A message whose commit fails is not counted: its count is given to the next one.
        """
        return self._log.tally[topic]

    def on_durable(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever there is something new to ``take``."""
        self._listener = callback

    async def take(self, limit_items: int, limit_bytes: int) -> list[Record]:
        """Return the next durable messages, oldest first, each once in the life of this object; may be empty.

        Stops at ``limit_items``, and at the message whose payload passes ``limit_bytes``. For one caller at a time.

        Raises:
            TransientError: a segment cannot be opened now (too many open files, rights).
        """
        order = self._order
        if not order.has_backlog:
            return order.take(limit_items, limit_bytes)
        skip = (self._done.copy(), order.overtaken())
        try:
            batch = await self._in_thread(self._reader.read, order.cursor, limit_items, limit_bytes, skip)
        except OSError as error:
            raise TransientError(f"the spool in {self._directory} cannot be read: {error.strerror}") from error
        order.read_up_to(batch.next_number)
        self._pending -= sum(self._done.add(start, end) for start, end in batch.absent)
        lost = sum(self._done.add(start, end) for start, end in batch.lost)
        if lost:
            self._pending -= lost
            self._count_lost += lost
            _log.error("! %d messages in %s are unreadable; the bytes are in *.corrupt files", lost, self._directory)
        return batch.records

    def take_newest(self, limit_items: int, limit_bytes: int, may_overtake: Callable[[str], bool]) -> list[Record]:
        """Return messages that were stored just now while older ones wait on the disk; ``take`` leaves them out then.

        Without a backlog there are none: then ``take`` returns all in order. ``may_overtake`` tells by the topic; what
        may not, waits in line. Bounds as with ``take``.
        """
        return self._order.take_newest(limit_items, limit_bytes, may_overtake)

    def done(self, positions: Iterable[int]) -> None:
        """Tell that the messages at ``positions`` are delivered; they are deleted with their segment."""
        new = sum(self._done.add(position, position + 1) for position in positions)
        self._pending -= new
        self._count_done += new
        self._done_saved = self._done_saved and not new

    def stats(self) -> SpoolStats:
        """Return what the spool holds and has done."""
        age_s = self._oldest_age_s()
        return SpoolStats(
            pending=self._pending,
            size_bytes=self._disk_bytes,
            oldest_age_s=age_s,
            overdue=age_s > self._config.alarm_age_s,
            appended=self._count_appended,
            done=self._count_done,
            groups=self._count_groups,
            refused=self._count_refused,
            failed=self._count_failed,
            lost=self._count_lost,
            torn_bytes=self._log.torn_bytes,
        )

    async def _in_thread(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Run ``call`` in the one thread that touches the files; always to its end, also when cancelled."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *args, **kwargs))
        return await asyncio.shield(running)

    def _take_over(self) -> None:
        """Begin where the log ends."""
        log = self._log
        first = log.segments[0].base
        self._done = log.done
        self._done.add(0, first)
        self._next = log.next_number
        self._order = Order(self._done.first_missing(first), self._next)
        self._pending = self._next - sum(min(end, self._next) - start for start, end in self._done)
        self._disk_bytes = log.size_bytes
        self._count_lost = log.lost
        for segment in log.segments:
            self._ages.mark(segment.base, segment.begun_s)
        if log.lost or log.torn_bytes:
            _log.warning(
                "! %s: %d messages unreadable, %d bytes of an interrupted write cut off",
                self._directory,
                log.lost,
                log.torn_bytes,
            )

    def _check(self, topic: str, payload: bytes, mark: bytes) -> None:
        if len(payload) > LIMIT_PAYLOAD_BYTES or len(topic) * 4 > LIMIT_TOPIC_BYTES or len(mark) > LIMIT_MARK_BYTES:
            raise BadDataError(
                f"a message on {topic[:80]!r} with {len(payload)} bytes and a mark of {len(mark)} bytes is too long: "
                f"a spool takes {LIMIT_PAYLOAD_BYTES}, {LIMIT_MARK_BYTES} and a topic of {LIMIT_TOPIC_BYTES // 4}",
                reason="too-long",
            )
        if self._broken:
            raise TransientError(self._broken)
        size_bytes = len(payload) + len(topic) + len(mark)
        # The newest segment stays, however much of it is delivered, until one more message begins the next.
        used_bytes = self._disk_bytes + self._unwritten_bytes
        if self._pending and used_bytes + size_bytes > self._config.limit_bytes:
            self._count_refused += 1
            raise TransientError(
                f"spool full: {self._pending} messages wait in {self._directory}, limit_bytes = "
                f"{self._config.limit_bytes}; it goes on by itself when messages are delivered"
            )
        if self._unwritten_bytes + size_bytes > LIMIT_UNWRITTEN_BYTES:
            self._count_refused += 1
            raise TransientError(
                f"spool behind: {self._unwritten_bytes} bytes wait for the disk of {self._directory}; await commit()"
            )

    def _collecting(self, number: int) -> Group:
        """Return the group that takes the next message."""
        if not self._groups or self._groups[-1].full:
            self._groups.append(Group(number, asyncio.get_running_loop().create_future()))
        return self._groups[-1]

    async def _write_groups(self) -> None:
        """Write group after group until the spool is closed and nothing is left.

        Messages that came while the disk was busy are a sign of more to come: then a group lingers.
        """
        crowded = False
        while self._groups or not self._closing:
            self._wake.clear()
            if not self._groups:
                await self._wake.wait()
                continue
            group = self._groups[0]
            if crowded:
                await self._linger(group)
            group.closed = True
            try:
                await self._in_thread(self._log.write, b"".join(group.data), group.first, group.records[0].time_s)
            except TransientError as error:
                self._fail(error)
            else:
                self._settle(group)
            self._disk_bytes = self._log.size_bytes
            crowded = bool(self._groups)

    async def _linger(self, group: Group) -> None:
        """Wait for company while it comes."""
        for _ in range(_LINGER_SLICES):
            before = len(group.records)
            if self._closing or len(self._groups) > 1:
                return
            await asyncio.sleep(self._config.linger_s / _LINGER_SLICES)
            if len(group.records) == before:
                return

    def _settle(self, group: Group) -> None:
        """A group is on the disk."""
        self._groups.popleft()
        self._unwritten_bytes -= group.size_bytes
        self._count_groups += 1
        for topic, state in group.states.items():
            self._log.tally.settle(topic, state)
        self._ages.mark(group.first, group.records[0].time_s)
        if self._full:
            self._full = False
            _log.warning("the spool in %s can be written again", self._directory)
        self._order.extend(group.records)
        group.settled.set_result(None)
        if self._listener:
            self._listener()

    def _fail(self, error: TransientError) -> None:
        """Nothing that is not yet durable will be: each group builds on the counts of the one before."""
        first = self._groups[0].first
        groups, self._groups = self._groups, deque()
        self._unwritten_bytes = 0
        self._failures.add(first, self._next, str(error))
        self._order.skip(self._next)
        self._pending -= self._done.add(first, self._next)
        self._done_saved = False
        self._count_failed += self._next - first
        self._log.tally.forget_pending()
        if not self._full:
            self._full = True
            _log.warning("! %s", error)
        for group in groups:
            group.settled.set_result(None)

    async def _end_tasks(self) -> None:
        """Let the writer come to its end and stop the keeper."""
        self._closing = True
        self._wake.set()
        writer, keeper = self._tasks
        keeper.cancel()
        await asyncio.wait([writer, keeper])

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        """A task ended that should not have: accept nothing more, rather than what would never be written."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._broken = f"the spool in {self._directory} has stopped: {error!r}"
        _log.error("! %s", self._broken, exc_info=error)
        if self._groups:
            self._fail(TransientError(self._broken))

    async def _keep(self) -> None:
        """Once a second: save what is done, delete delivered segments, watch the age."""
        while True:
            await asyncio.sleep(_KEEP_INTERVAL_S)
            delivered = self._delivered()
            await self._save_done(durable=bool(delivered))
            if delivered:
                try:
                    await self._in_thread(self._log.unlink, delivered)
                except TransientError as error:
                    _log.warning("! %s", error)
                self._disk_bytes = self._log.size_bytes
            overdue = self._oldest_age_s() > self._config.alarm_age_s
            if overdue and not self._overdue:
                _log.warning("! messages in %s have waited for %.0f s", self._directory, self._oldest_age_s())
            self._overdue = overdue

    def _delivered(self) -> list[Segment]:
        segments = self._log.segments.copy()
        return [segment for segment, following in pairwise(segments) if self._done.covers(segment.base, following.base)]

    async def _save_done(self, *, durable: bool) -> None:
        """Save the done-set; a failure only means that messages are sent again after a crash."""
        if self._done_saved:
            return
        self._done_saved = True
        try:
            await self._in_thread(self._log.save_done, self._done.encode(LIMIT_SAVED_INTERVALS), durable=durable)
        except TransientError as error:
            self._done_saved = False
            _log.debug("! what is done is not saved: %s", error)

    def _oldest_age_s(self) -> float:
        if not self._pending:
            return 0.0
        oldest_s = self._ages.oldest_s(self._done.first_missing(0))
        return 0.0 if oldest_s is None else max(0.0, self._clock() - oldest_s)
