"""One conversation on an M-Bus segment: a procedure asks, this sends, waits in bounds, repeats, and answers it.

A procedure is a generator. It yields what its driver shall do or hand on (``SetLine``, ``Wait``, telegrams, errors),
or an ``Ask``, and then gets the ``Answer`` to it; when it returns, the session is over. So procedures read from top to
bottom, and time, repeats and echo are dealt with in one place.

Times are those of EN 13757-2:2018, 5.5: an answer begins within 330 bit times and 50 ms, and has no gap in it; to them
comes the delay of the link. A session never hangs: each question is over after ``Timing.longest_s`` whatever arrives.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from meterway.core.errors import MeterwayError
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.master import Deadline, Done, Effect, Send, SetLine, Steps, Wait
from meterway.meter.mbus_frames import ACK, ADDRESS_ANY, ADDRESS_SELECTED, LIMIT_BYTES, Frame, Framer
from meterway.meter.telegram import Telegram

_BITS_PER_BYTE: Final = 11
_ANSWER_BITS: Final = 330
_ANSWER_S: Final = 0.05
_IDLE_BITS: Final = 33
"""The line is left alone for so long after a damaged answer (EN 13757-2:2018, 5.5.4)."""


class Wants(Enum):
    """What answers a question."""

    ACK = "ack"
    DATA = "data"


class Ask(NamedTuple):
    """A question to one address."""

    frame: bytes
    address: int
    wants: Wants
    repeats: int


class Answer(NamedTuple):
    """What came of a question and its repeats."""

    frame: Frame | None
    """The acknowledgement, or the data, of the address that was asked."""
    heard: bool
    """Whether anything came at all: without a frame, several meters spoke at once, or the line is bad."""


Procedure = Generator[Ask | SetLine | Wait | Telegram | CodecError, Answer | None, MeterwayError | None]
"""Returns why it failed; None if it did not."""


def mbus_line(baud: int) -> Line:
    """Return the line settings of M-Bus: 8E1."""
    return Line(baud=baud, data_bits=8, parity="E", stop_bits=1)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait at ``baud`` over a link that delays by up to ``link_delay_s`` in both directions together."""

    baud: int
    link_delay_s: float

    @property
    def first_byte_s(self) -> float:
        """The longest silence before an answer, its question (of up to 32 bytes) included."""
        return (_ANSWER_BITS + 32 * _BITS_PER_BYTE) / self.baud + _ANSWER_S + self.link_delay_s

    @property
    def gap_s(self) -> float:
        """The longest silence within an answer."""
        return _IDLE_BITS / self.baud + self.link_delay_s

    @property
    def longest_s(self) -> float:
        """The longest time from a question to the end of its answer."""
        return self.first_byte_s + self.gap_s + LIMIT_BYTES * _BITS_PER_BYTE / self.baud

    @property
    def idle_s(self) -> float:
        """The pause before a repeat."""
        return _IDLE_BITS / self.baud


class Session:
    """Runs one procedure; a ``meter.master.Master``.

    ``baud`` is what the line is set to when the session starts; it is set back at its end. ``questions`` bounds the
    frames that are sent, repeats included: past it, the procedure is closed and ``too_many`` is the reason of
    ``Done``.
    """

    def __init__(
        self, procedure: Procedure, *, baud: int, link_delay_s: float, questions: int, too_many: MeterwayError
    ) -> None:
        self.asked = 0
        """Frames sent so far."""
        self._procedure = procedure
        self._baud = self._first_baud = baud
        self._link_delay_s = link_delay_s
        self._questions = questions
        self._too_many = too_many
        self._ask: Ask | None = None
        self._tries = 0
        self._heard = False
        self._over_at = 0.0
        self._framer = Framer()

    @property
    def _timing(self) -> Timing:
        return Timing(self._baud, self._link_delay_s)

    def start(self, now: float) -> Steps:
        """See ``Master``."""
        return self._resume(None, now)

    def feed(self, data: bytes, now: float) -> Steps:
        """See ``Master``. Bytes that answer no question are dropped."""
        if self._ask is None or not data:
            return []
        self._heard = True
        for item in self._framer.feed(data):
            if isinstance(item, Frame) and _answers(item, self._ask):
                return self._resume(Answer(item, heard=True), now)
        if now >= self._over_at:
            return self.on_timeout(now)
        return [Deadline(min(self._timing.gap_s, self._over_at - now))]

    def on_timeout(self, now: float) -> Steps:
        """See ``Master``."""
        if self._ask is None:
            return []
        for item in self._framer.flush():
            if isinstance(item, Frame) and _answers(item, self._ask):
                return self._resume(Answer(item, heard=True), now)
        if self._tries > self._ask.repeats:
            return self._resume(Answer(None, self._heard), now)
        return [Wait(self._timing.idle_s), *self._send(self._ask, now)]

    def _resume(self, answer: Answer | None, now: float) -> Steps:
        """Let the procedure go on to its next question, or to its end."""
        self._ask = None
        steps: Steps = []
        try:
            while True:
                wish = self._procedure.send(answer)
                answer = None
                if isinstance(wish, Ask):
                    self._tries, self._heard = 0, False
                    return steps + self._send(wish, now)
                if isinstance(wish, SetLine):
                    if wish.line.baud == self._baud:
                        continue
                    self._baud = wish.line.baud
                steps.append(wish)
        except StopIteration as end:
            return steps + self._end(end.value)

    def _send(self, ask: Ask, now: float) -> Steps:
        if self.asked >= self._questions:
            self._procedure.close()
            self._ask = None
            return self._end(self._too_many)
        self.asked += 1
        self._ask = ask
        self._tries += 1
        self._framer = Framer()
        self._over_at = now + self._timing.longest_s
        return [Send(ask.frame), Deadline(self._timing.first_byte_s)]

    def _end(self, error: MeterwayError | None) -> Steps:
        back: list[Effect] = [SetLine(mbus_line(self._first_baud))] if self._baud != self._first_baud else []
        return [*back, Done(error)]


def _answers(frame: Frame, ask: Ask) -> bool:
    """Return whether a frame answers; an echo of the question, and late words of another meter, do not."""
    if ask.wants is Wants.ACK:
        return frame.control == ACK
    return frame.is_answer and (ask.address in {ADDRESS_SELECTED, ADDRESS_ANY} or frame.address == ask.address)
