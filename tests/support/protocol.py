"""The delivery protocol, one step at a time: real spools, relays, receipts and decisions; a broker that misbehaves.

Each process has an event loop of its own, which runs only inside a step, and a clock that stands still between steps.
So a process can be killed between any two steps, and the same steps always do the same.
"""

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar
from uuid import UUID

import msgspec

from meterway.cloud.decide import Window, decide, sender_of
from meterway.cloud.store.rows import ArrivedReading
from meterway.concentrator import forward
from meterway.concentrator.forward import Forward, is_retained
from meterway.core import receipts, topics, wire
from meterway.core.errors import TransientError
from meterway.core.identifiers import reading_identifier
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.topics import SpecificTopic
from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.confirm import Confirmer
from meterway.delivery.relay import Relay
from meterway.delivery.spool import Spool

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SPOOL = SpoolConfig(segment_bytes=4096, limit_bytes=16_384, linger_s=0)
RELAY = RelayConfig(in_flight=6, in_flight_bytes=4096, retry_s=30.0, retry_limit_s=600.0)
CONCENTRATOR_ID = "model"
METERS = tuple(str(UUID(int=number)) for number in (1, 2))
BEGIN = datetime(2026, 11, 23, tzinfo=UTC)
WINDOW = Window(past=timedelta(days=365), future=timedelta(days=365))


@dataclass(frozen=True)
class Breakage:
    """What is wrong on purpose."""

    acknowledge_before_disk: bool = False
    """The source is told before the message is on the disk."""
    receipt_before_commit: bool = False
    delete_at_puback: bool = False
    no_unique_key: bool = False
    """The cloud stores whatever arrives."""
    forgotten_numbers: bool = False
    """Sequence numbers begin again when the adapter does."""


class Message(NamedTuple):
    topic: str
    payload: bytes


class _Inline(Executor):
    """Calls at once: in place of a spool's thread, so that nothing happens between steps."""

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
            future.set_exception(error)
        return future


class _Loop(asyncio.SelectorEventLoop):
    now_s = 0.0

    def time(self) -> float:
        return self.now_s


@contextmanager
def as_running(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let what is called inside believe that ``loop`` runs; nothing that it puts off is done."""
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


class Broker:
    """Acknowledges everything, delivers in any order and again, and loses what it likes when it is killed."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.receipts: list[Message] = []
        self.buses: list[ModelBus] = []
        self.up = True

    def publish(self, message: Message) -> None:
        (self.receipts if message.topic.startswith("receipt/") else self.waiting).append(message)

    def kill(self, kept: Callable[[int], bool]) -> None:
        """Die and come back with those of the messages that are ``kept``, and without any receipt."""
        self.waiting = [message for at, message in enumerate(self.waiting) if kept(at)]
        self.receipts.clear()
        for bus in self.buses:
            bus.reconnect()


class ModelBus:
    """A ``Bus`` to a ``Broker``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._on_connect: list[Callable[[], None]] = []
        self._acks: list[Callable[[], None]] = []
        broker.buses.append(self)

    @property
    def connected(self) -> bool:
        return True

    async def wait_connected(self) -> None:
        return

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, on_ack: Callable[[], None] | None = None
    ) -> None:
        del retain
        self._broker.publish(Message(topic, payload))
        if on_ack is not None:
            self._acks.append(on_ack)

    def on_connect(self, callback: Callable[[], None]) -> None:
        self._on_connect.append(callback)

    def acknowledge(self) -> None:
        """Deliver the broker's acknowledgements."""
        acks, self._acks = self._acks, []
        for on_ack in acks:
            on_ack()

    def reconnect(self) -> None:
        self._acks.clear()
        for callback in self._on_connect:
            callback()


class Process:
    """A spool, the relay that empties it into ``to``, and what a kill leaves of them: the files."""

    def __init__(self, directory: Path, to: Broker, breakage: Breakage, *, count_topics: bool) -> None:
        self._directory = directory
        self._to = to
        self._confirm: RelayConfig = (
            msgspec.structs.replace(RELAY, confirm="broker") if breakage.delete_at_puback else RELAY
        )
        self._count_topics = count_topics
        self.now_s = 0.0
        self._start()

    def _start(self) -> None:
        self.loop = _Loop()
        self.loop.now_s = self.now_s
        self.spool = Spool(self._directory, SPOOL, count_topics=self._count_topics, clock=lambda: 1e9 + self.now_s)
        self.bus = ModelBus(self._to)
        self.run(self._open())

    async def _open(self) -> None:
        vars(self.spool)["_thread"] = _Inline()
        await self.spool.__aenter__()
        self.relay = Relay(self.spool, self.bus, self._confirm, retain=is_retained if not self._count_topics else None)

    def run(self, step: Coroutine[None, None, Result]) -> Result:
        """Do one step, and let what it began come to its end."""
        result = self.loop.run_until_complete(step)
        self.loop.run_until_complete(self._settle())
        return result

    def append(self, message: Message, mark: bytes = b"") -> int:
        """Append to the spool and do nothing else: the group that is to be written has not begun."""
        with as_running(self.loop):
            return self.spool.append(*message, mark=mark)

    async def _settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def send(self, after_s: float) -> None:
        """One turn of the relay after some time: tell the spool what is done, load, publish.

        In a second, what is done is saved and deleted; what is overdue is sent again.
        """
        self.now_s += after_s
        self.loop.now_s = self.now_s
        self.run(self._send())

    async def _send(self) -> None:
        self.relay._flight.retry(self.now_s)
        self.relay._settle()
        await self.relay._load()
        self.relay._send_turn()

    def kill(self, torn: bytes = b"") -> None:
        """Die now and start again; ``torn`` is what an interrupted write left at the end of the newest segment."""
        self.stop()
        if torn:
            with max(self._directory.glob("*.segment")).open("ab") as file:
                file.write(torn)
        self._start()

    def stop(self) -> None:
        """Die: nothing is written or saved any more."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.spool._reader.close()
        self.spool._log.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        self._to.buses.remove(self.bus)


class Adapter(Process):
    """Numbers readings and acknowledges them to the meter when they are on the disk."""

    def __init__(self, directory: Path, to: Broker, breakage: Breakage) -> None:
        super().__init__(directory, to, breakage, count_topics=True)
        self._breakage = breakage
        self.acknowledged: list[MeterReading] = []
        self.refused = 0
        self._appended: list[MeterReading] = []
        self._numbers: dict[str, itertools.count[int]] = {}
        self._minutes = itertools.count()

    def read(self, meter_id: str) -> None:
        """Append one reading, as ``Outlet`` does."""
        topic = topics.smart_meter_topic(meter_id, SpecificTopic.READINGS)
        number = self.spool.topic_state(topic).appended + 1
        if self._breakage.forgotten_numbers:
            number = next(self._numbers.setdefault(meter_id, itertools.count(1)))
        minute = next(self._minutes)
        time = BEGIN + timedelta(minutes=minute)
        values = (PropertyValue("OBIS_1.8.0", Decimal(minute), unit="kWh"),)
        reading = MeterReading(reading_identifier(meter_id, time, values), meter_id, time, values, number)
        try:
            self.append(Message(topic, wire.encode(reading)), mark=reading.identifier.bytes)
        except TransientError:
            self.refused += 1
            return
        if self._breakage.acknowledge_before_disk:
            self.acknowledged.append(reading)
        self._appended.append(reading)

    @property
    def waits_for_disk(self) -> bool:
        """Whether there are readings that are not acknowledged yet."""
        return bool(self._appended)

    def commit(self) -> None:
        """Wait for the disk, then acknowledge."""
        appended, self._appended = self._appended, []
        if appended:
            self.run(self.spool.commit())
        self.acknowledged += appended

    def kill(self, torn: bytes = b"") -> None:
        self._appended.clear()
        self._numbers.clear()
        super().kill(torn)


@dataclass
class Taken:
    """A message at a receiver."""

    message: Message
    sender_id: str


class Receiver(ABC):
    """Commits, acknowledges, confirms; each is a step of its own. A kill loses what is between them."""

    def __init__(self, source: Broker, breakage: Breakage) -> None:
        self._source = source
        self._breakage = breakage
        self._taken: list[Taken] = []
        self._committed: list[Taken] = []
        self._acknowledged: list[Taken] = []
        self.durable: set[bytes] = set()
        """The digests of all that was ever committed here."""
        self._loop = _Loop()
        with as_running(self._loop):
            self._confirmer = Confirmer(ModelBus(source))

    def stop(self) -> None:
        """End for good."""
        self._loop.close()

    def take(self, message: Message) -> None:
        """Take a message that the broker delivers."""
        taken = Taken(message, self.sender_of(message))
        self._taken.append(taken)
        if self._breakage.receipt_before_commit:
            self._send_receipts([taken])

    def commit(self) -> None:
        """Make all that was taken durable."""
        stored = self.store(self._taken)
        self.durable.update(receipts.digest(*each.message) for each in stored)
        self._committed += stored
        self._taken = []

    def acknowledge(self) -> None:
        """Tell the broker of all that is committed."""
        for each in self._committed:
            if each.message in self._source.waiting:
                self._source.waiting.remove(each.message)
        self._acknowledged += self._committed
        self._committed = []

    def confirm(self) -> None:
        """Tell the senders of all that is acknowledged."""
        self._send_receipts(self._acknowledged)
        self._acknowledged = []

    def forget(self) -> None:
        self._taken, self._committed, self._acknowledged = [], [], []

    def _send_receipts(self, taken: list[Taken]) -> None:
        for each in taken:
            self._confirmer.confirm(each.sender_id, receipts.digest(*each.message))
        self._confirmer.flush()

    @abstractmethod
    def sender_of(self, message: Message) -> str:
        """Return who waits for the receipt."""

    @abstractmethod
    def store(self, taken: list[Taken]) -> list[Taken]:
        """Return those that are durable now."""


class Concentrator(Receiver):
    """From the adapter's broker into its own spool."""

    def __init__(self, directory: Path, source: Broker, to: Broker, breakage: Breakage) -> None:
        super().__init__(source, breakage)
        self.process = Process(directory, to, breakage, count_topics=False)

    def sender_of(self, message: Message) -> str:
        decision = forward.decide(CONCENTRATOR_ID, message.topic, len(message.payload), limit_bytes=1 << 20)
        assert isinstance(decision, Forward)
        return decision.sender_id

    def store(self, taken: list[Taken]) -> list[Taken]:
        stored = []
        for each in taken:
            topic = topics.concentrator_topic(CONCENTRATOR_ID, each.message.topic)
            try:
                self.process.append(Message(topic, each.message.payload))
            except TransientError:  # full: the broker keeps it
                continue
            stored.append(each)
        if stored:
            self.process.run(self.process.spool.commit())
        return stored

    def kill(self, torn: bytes = b"") -> None:
        self.forget()
        self.process.kill(torn)


@dataclass
class Stored:
    """What the cloud has."""

    readings: dict[tuple[str, datetime, UUID], bytes] = field(default_factory=dict)
    """Content by the unique key."""
    numbers: list[tuple[str, int]] = field(default_factory=list)
    """The sequence numbers of all that was stored, by meter."""
    aside: int = 0
    """What would be in quarantine, or a conflict."""


class Cloud(Receiver):
    """Decides as the cloud does; its table has the cloud's unique key."""

    def __init__(self, source: Broker, breakage: Breakage) -> None:
        super().__init__(source, breakage)
        self.stored = Stored()

    def sender_of(self, message: Message) -> str:
        sender_id = sender_of(message.topic)
        assert sender_id is not None
        return sender_id

    def store(self, taken: list[Taken]) -> list[Taken]:
        for each in taken:
            arrived = decide(*each.message, now=BEGIN, window=WINDOW)
            if not isinstance(arrived, ArrivedReading):
                self.stored.aside += 1
                continue
            reading = arrived.reading
            key = (reading.meter_id, reading.reading_time, reading.identifier)
            is_new = key not in self.stored.readings
            known = self.stored.readings.setdefault(key, each.message.payload)
            self.stored.aside += known != each.message.payload
            if is_new or self._breakage.no_unique_key:
                assert reading.sequence_number is not None
                self.stored.numbers.append((reading.meter_id, reading.sequence_number))
        return taken
