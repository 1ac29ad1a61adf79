"""One visit to one Modbus unit: a procedure asks, this sends, waits in bounds, repeats, and answers it.

A procedure is a generator. It yields what is handed on (a telegram, an error), or a ``Span`` that it wants to read, and
then gets the ``Reply``; when it returns, the visit is over.

On a serial line an answer does not say to which question it belongs. So after a question that had to be repeated
because nothing came, the line is listened to for as long as an answer may take, and what comes is dropped: an answer to
the first try that comes after all would else pass for one to the next question. On TCP the transaction tells.
"""

from collections.abc import Generator
from typing import Final, NamedTuple

from meterway.core.errors import MeterwayError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.master import Deadline, Done, Send, Steps, Wait
from meterway.meter.modbus_frames import FUNCTION_CODES, Answer, Listener, Question, encode_question
from meterway.meter.modbus_map import Framing, Span
from meterway.meter.telegram import Telegram

REPEATS: Final = 3
"""How often a question is repeated."""
VISIT_LIMIT_S: Final = 60.0
"""A visit that takes longer is given up: a hostile meter must not keep the line from the others."""

_BITS_PER_BYTE: Final = 11
_SILENT_BYTES: Final = 3.5
"""Between two frames on a serial line (MODBUS over Serial Line V1.02, 2.5.1.1)."""
_QUESTION_BYTES: Final = 8
_ENVELOPE_BYTES: Final = 5
_LATER: Final = frozenset({5, 6, 11})
"""Exceptions of a meter that needs time: acknowledged, busy; and of a gateway whose meter did not answer."""
_LATER_S: Final = 0.25


class Wish(NamedTuple):
    """Registers that a procedure wants to read."""

    span: Span
    repeats: int = REPEATS


class Reply(NamedTuple):
    """What came of a wish and its repeats."""

    answer: Answer | None
    problem: str = ""
    """Why there is no answer."""


Procedure = Generator[Wish | Telegram | CodecError, Reply | None, MeterwayError | None]
"""Returns why it failed; None if it did not."""


class Timing(NamedTuple):
    """How long things take."""

    baud: int
    """Of the serial line, which may be behind a gateway."""
    answer_s: float
    pause_s: float
    link_delay_s: float
    """What the link takes to carry a question and an answer."""

    def pause_s_before(self, framing: Framing) -> float:
        """Return the silence before a question, in seconds."""
        return max(self.pause_s, _SILENT_BYTES * _BITS_PER_BYTE / self.baud) if framing == "rtu" else 0.0

    def longest_s(self, count: int, framing: Framing) -> float:
        """Return the longest time from a question for so many registers to the end of its answer."""
        line_bytes = _QUESTION_BYTES + _ENVELOPE_BYTES + 2 * count if framing == "rtu" else 0
        return line_bytes * _BITS_PER_BYTE / self.baud + self.answer_s + self.link_delay_s


class Session:
    """Runs one procedure; a ``meter.master.Master``.

    ``transaction`` is the first that is used on TCP; None: made of the time, so that what is left from an earlier visit
    on the same connection is told from this one's.
    """

    def __init__(
        self, procedure: Procedure, *, unit_id: int, framing: Framing, timing: Timing, transaction: int | None = None
    ) -> None:
        self.asked = 0
        """Questions sent so far, repeats included."""
        self._procedure = procedure
        self._unit_id = unit_id
        self._framing = framing
        self._timing = timing
        self._transaction = transaction
        self._earlier: set[int] = set()
        self._wish: Wish | None = None
        self._listener: Listener | None = None
        self._tries = 0
        self._silent = False
        self._over_at = 0.0
        self._given_up_at = 0.0

    def start(self, now: float) -> Steps:
        """See ``Master``."""
        if self._transaction is None:
            self._transaction = int(now * 1000)
        self._given_up_at = now + VISIT_LIMIT_S
        return self._resume(None, now)

    def feed(self, data: bytes, now: float) -> Steps:
        """See ``Master``. Bytes that answer no question are dropped."""
        if self._wish is None or not data:
            return []
        if self._listener is not None:
            answer = self._listener.feed(data)
            if answer is not None:
                return self._answered(answer, now)
        return self.on_timeout(now) if now >= self._over_at else []

    def on_timeout(self, now: float) -> Steps:
        """See ``Master``."""
        if self._wish is None:
            return []
        if self._listener is None:
            return self._send(self._wish, now)
        error = self._listener.explain(self._earlier)
        self._silent = self._silent or error is None
        steps: Steps = [] if error is None else [error]
        if self._tries <= self._wish.repeats:
            return steps + self._send(self._wish, now)
        return steps + self._resume(Reply(None, str(error) if error else ""), now)

    def _answered(self, answer: Answer, now: float) -> Steps:
        if self._wish and answer.refusal in _LATER and self._tries <= self._wish.repeats:
            return self._send(self._wish, now, _LATER_S)
        return self._resume(Reply(answer), now)

    def _resume(self, reply: Reply | None, now: float) -> Steps:
        """Let the procedure go on to its next question, or to its end."""
        steps: Steps = []
        try:
            wish = self._procedure.send(reply)
            while not isinstance(wish, Wish):
                steps.append(wish)
                wish = self._procedure.send(None)
        except StopIteration as end:
            self._wish = None
            return [*steps, Done(end.value)]
        settles = self._silent and self._framing == "rtu"
        self._wish, self._tries, self._silent = wish, 0, False
        if not settles:
            return steps + self._send(wish, now)
        self._listener = None
        self._over_at = now + self._timing.answer_s + self._timing.link_delay_s
        return [*steps, Deadline(self._over_at - now)]

    def _send(self, wish: Wish, now: float, later_s: float = 0.0) -> Steps:
        if now > self._given_up_at:
            self._procedure.close()
            self._wish = None
            return [Done(TransientError(f"the visit to Modbus unit {self._unit_id} was given up: it takes too long"))]
        span = wish.span
        transaction = ((self._transaction or 0) + self.asked) & 0xFFFF
        question = Question(self._unit_id, FUNCTION_CODES[span.function], span.address, span.registers, transaction)
        self._earlier.add(transaction)
        self.asked += 1
        self._tries += 1
        self._listener = Listener(question, self._framing)
        pause_s = later_s + self._timing.pause_s_before(self._framing)
        longest_s = self._timing.longest_s(span.registers, self._framing)
        self._over_at = now + pause_s + longest_s
        waits: Steps = [Wait(pause_s)] if pause_s else []
        return [*waits, Send(encode_question(question, self._framing)), Deadline(longest_s)]
