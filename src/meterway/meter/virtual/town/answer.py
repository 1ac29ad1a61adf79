"""Meters that are asked: conversations with one of them, and with all on an M-Bus segment. No I/O.

hear(data)   what to do about bytes of the reader
sent()       all of that has been done: what was said goes into the books
forget()     the line was quiet: the session is over
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from meterway.meter.iec62056_21_access import FIRST_LINE
from meterway.meter.master import Effect, Send
from meterway.meter.mbus_frames import FRAME_COUNT_BIT, REQ_UD2, Frame
from meterway.meter.virtual.encode_mbus import Header
from meterway.meter.virtual.ledger import LedgerLine
from meterway.meter.virtual.mbus_slave import MbusSegment, MbusSlave
from meterway.meter.virtual.town.faults import FaultKind, meets
from meterway.meter.virtual.town.meter import TownMeter
from meterway.meter.virtual.town.record import Books, State, fault_names
from meterway.meter.virtual.town.shown import Answer, Session
from meterway.meter.virtual.town.voices.catalogue import Asked, OnSegment

Clock = Callable[[], int]
"""Returns the meters' time, as Unix time."""

_SEGMENT_BAUD: Final = 2400


class Conversation(Protocol):
    """The meters' side of a line on which they are asked."""

    baud: int
    """With which a session begins."""

    def hear(self, data: bytes) -> list[Effect]:
        """Return what to do about bytes of the reader."""

    def sent(self) -> None:
        """Tell that all of it has been done: what was said goes into the books."""

    def forget(self) -> list[Effect]:
        """Tell that the line was quiet: the session is over."""


class MeterConversation:
    """A meter alone on its line; what it says in a session is what it shows when that begins."""

    baud = FIRST_LINE.baud

    def __init__(self, meter: TownMeter, clock: Clock, books: Books) -> None:
        assert isinstance(meter.voice, Asked)  # noqa: S101 - the town's list of such meters
        self._meter = meter
        self._begin = meter.voice.begin
        self._clock = clock
        self._books = books
        self._session: Session | None = None
        self._line: LedgerLine | None = None
        """Of this session, until it is in the books."""
        self._size_bytes = 0

    def hear(self, data: bytes) -> list[Effect]:
        if self._session is None:
            self._session = self._begin_session()
        effects = self._session.feed(data)
        if self._line is not None and self._line.state == "silent":
            if effects:
                self._close(self._line)
            return []
        self._size_bytes += sum(len(effect.data) for effect in effects if isinstance(effect, Send))
        return effects

    def _begin_session(self) -> Session:
        meter, instant_s = self._meter, self._clock()
        begun = self._begin(meter.shown(instant_s))
        lost = meets(meter.faults, FaultKind.LOSS, instant_s, meter.meter_id)
        state: State = "silent" if lost or meter.has(FaultKind.SILENCE, instant_s) else "whole"
        fault = fault_names(meter, instant_s, *([FaultKind.LOSS] if lost else []))
        self._line = self._books.line(meter, instant_s, begun.values, state=state, fault=fault)
        self._size_bytes = 0
        return begun.session

    def sent(self) -> None:
        session = self._session
        if session is None:
            return
        if session.is_told and self._line is not None:
            self._books.sent(self._line, self._size_bytes)
            self._line = None
        if session.is_over:
            self._session = None

    def _close(self, line: LedgerLine) -> None:
        self._books.sent(line, 0)
        self._session = self._line = None

    def forget(self) -> list[Effect]:
        effects = self._session.idle() if self._session else []
        self._session = self._line = None
        return effects


class SegmentConversation:
    """All meters of an M-Bus segment, at the primary addresses from 1 on."""

    baud = _SEGMENT_BAUD

    def __init__(self, meters: Sequence[TownMeter], clock: Clock, books: Books) -> None:
        self._books = books
        self._done: list[LedgerLine] = []
        self._size_bytes = 0
        self._segment = MbusSegment(
            _Slave(meter, address, clock, books, self._done) for address, meter in enumerate(meters, 1)
        )

    def hear(self, data: bytes) -> list[Effect]:
        answer = self._segment.feed(data, _SEGMENT_BAUD)
        self._size_bytes = len(answer)
        return [Send(answer)] if answer else []

    def sent(self) -> None:
        for line in self._done:
            self._books.sent(line, 0 if line.state == "silent" else self._size_bytes)
        self._done.clear()

    def forget(self) -> list[Effect]:
        self._segment.idle()
        return []


class _Slave(MbusSlave):
    """A meter of the town on the segment."""

    def __init__(self, meter: TownMeter, address: int, clock: Clock, books: Books, done: list[LedgerLine]) -> None:
        assert isinstance(meter.voice, OnSegment)  # noqa: S101 - the town's list of such meters
        self._meter = meter
        self._voice = meter.voice
        self._clock = clock
        self._books = books
        self._done = done
        instant_s = clock()
        answer = self._voice.say(meter.shown(instant_s))
        header = Header(f"{meter.serial(instant_s):08d}", answer.maker, answer.version, answer.device_type)
        super().__init__(header, address, self._records, baud=_SEGMENT_BAUD)

    def hear(self, frame: Frame) -> bytes:
        meter, instant_s = self._meter, self._clock()
        lost = meets(meter.faults, FaultKind.LOSS, instant_s, meter.meter_id)
        silent = meter.has(FaultKind.SILENCE, instant_s)
        is_asked = frame.control & ~FRAME_COUNT_BIT == REQ_UD2
        if is_asked and frame.address == self.address and (lost or silent):
            self._note("silent", instant_s, *([FaultKind.LOSS] if lost else []))
        if silent or (lost and is_asked):
            return b""
        self.header = self.header._replace(number=f"{meter.serial(instant_s):08d}")
        return super().hear(frame)

    def _records(self) -> list[Sequence[bytes]]:
        return [self._note("whole", self._clock()).records]

    def _note(self, state: State, instant_s: int, *hit: FaultKind) -> Answer:
        """Return what it says, and keep the line of it until it has left."""
        answer = self._voice.say(self._meter.shown(instant_s))
        fault = fault_names(self._meter, instant_s, *hit)
        self._done.append(self._books.line(self._meter, instant_s, answer.values, state=state, fault=fault))
        return answer
