"""Modbus frames: questions and answers to bytes and back. The only file that knows pymodbus.

Functions 3 and 4 (read holding registers, read input registers) in both framings. pymodbus makes and opens the frames;
which bytes are a frame is found here, because in what comes back from a line there are echoes, noise, and answers of
others. pymodbus takes 0.1 s and 12 MB to import, 0.02 s where asyncio and ssl are there already: it is imported with
the first frame, so a process without Modbus meters does not pay for it.

Source: MODBUS Application Protocol Specification V1.1b3, 6.3, 6.4 and 7; MODBUS over Serial Line V1.02, 2.5.1; MODBUS
Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from meterway.meter.codec import CodecError
from meterway.meter.modbus_map import Framing, Function

if TYPE_CHECKING:
    from pymodbus.framer import FramerBase
    from pymodbus.pdu import ModbusPDU

FUNCTION_CODES: Final[dict[Function, int]] = {"holding": 3, "input": 4}
LIMIT_BYTES: Final = 512
"""So much of what comes back for one question is kept, twice the longest frame; then nothing more is heard."""

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
NO_GATEWAY_ANSWER: Final = 11

_REFUSED: Final = 0x80
_QUESTION_BYTES: Final = 8
_REFUSAL_BYTES: Final = 5
_ENVELOPE_BYTES: Final = 5
"""What an answer on a serial line has beside its registers: unit id, function, length, CRC."""
_HEADER_BYTES: Final = 7
"""Of TCP: transaction, protocol, length, unit id."""
_LONGEST_BYTES: Final = 254


@dataclass(frozen=True, slots=True)
class Question:
    """Asks a unit for ``count`` registers from ``address``."""

    unit_id: int
    function: int
    address: int
    count: int
    transaction: int = 0
    """Of 16 bits; on a serial line it is not sent."""


class Answer(NamedTuple):
    """What a unit says to a question."""

    registers: tuple[int, ...]
    refusal: int
    """The exception code; 0: it is no refusal."""
    raw: bytes


@cache
def _framer(framing: Framing) -> "FramerBase":
    from pymodbus.framer import FramerRTU, FramerSocket
    from pymodbus.pdu import DecodePDU

    return (FramerRTU if framing == "rtu" else FramerSocket)(DecodePDU(is_server=False))


def encode_question(question: Question, framing: Framing) -> bytes:
    """Return the frame of a question."""
    from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

    holding = question.function == FUNCTION_CODES["holding"]
    kind = ReadHoldingRegistersRequest if holding else ReadInputRegistersRequest
    return _frame(kind(address=question.address, count=question.count), question, framing)


def encode_answer(question: Question, framing: Framing, registers: tuple[int, ...]) -> bytes:
    """Return the frame of the answer with ``registers``."""
    from pymodbus.pdu.register_message import ReadHoldingRegistersResponse, ReadInputRegistersResponse

    holding = question.function == FUNCTION_CODES["holding"]
    kind = ReadHoldingRegistersResponse if holding else ReadInputRegistersResponse
    return _frame(kind(registers=list(registers)), question, framing)


def encode_refusal(question: Question, framing: Framing, code: int) -> bytes:
    """Return the frame of an answer with an exception code."""
    from pymodbus.pdu import ExceptionResponse

    return _frame(ExceptionResponse(question.function & ~_REFUSED, code), question, framing)


def _frame(message: "ModbusPDU", question: Question, framing: Framing) -> bytes:
    message.dev_id = question.unit_id
    message.transaction_id = question.transaction
    return _framer(framing).buildFrame(message)


def open_frame(frame: bytes, framing: Framing) -> bytes:
    """Return function and data of one whole frame; empty where the CRC is wrong."""
    if framing == "rtu":
        from pymodbus.framer import FramerRTU

        whole = FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big"))
        return frame[1:-2] if whole else b""
    return _framer(framing).decode(frame)[3]


class Listener:
    """Finds the answer to one question in what comes back; tells, where there is none, what came instead.

    Its work is bounded: it keeps ``LIMIT_BYTES``, and tries each place in them once.
    """

    def __init__(self, question: Question, framing: Framing) -> None:
        self._question = question
        self._framing = framing
        self._echo = encode_question(question, framing) if framing == "rtu" else b""
        """What an adapter to RS-485 may send back before the answer."""
        self._heard = bytearray()
        self._deaf = False
        self._damaged = False
        unit, function, length = question.unit_id, question.function, 2 * question.count
        answer, refusal = bytes((unit, function, length)), bytes((unit, function | _REFUSED))
        if framing == "tcp":
            start = question.transaction.to_bytes(2, "big") + b"\0\0"
            answer = start + (length + 3).to_bytes(2, "big") + answer
            refusal = start + b"\0\3" + refusal
        envelope = _ENVELOPE_BYTES if framing == "rtu" else _HEADER_BYTES + 2
        self._looks = [
            _Look(answer, length + envelope),
            _Look(refusal, _REFUSAL_BYTES if framing == "rtu" else _HEADER_BYTES + 2),
        ]

    def feed(self, data: bytes) -> Answer | None:
        """Take what came; return the answer once it is there."""
        room = LIMIT_BYTES - len(self._heard)
        self._deaf = self._deaf or len(data) > room
        self._heard += data[:room]
        if self._echo and self._heard.startswith(self._echo):
            del self._heard[: len(self._echo)]
            self._echo, self._damaged = b"", False
            for look in self._looks:
                look.restart()
        for look in self._looks:
            for frame in look.candidates(self._heard):
                message = _message(frame, self._framing)
                if message is not None:
                    return Answer(tuple(message.registers), message.exception_code, frame)
                self._damaged = True
        return None

    def explain(self, earlier: Collection[int] = ()) -> CodecError | None:
        """Return what came instead of an answer; None: nothing came.

        ``earlier`` are the transactions of questions that were asked before.
        """
        heard = bytes(self._heard)
        if not heard:
            return None
        reason, words = self._reason(heard, earlier)
        return CodecError(words, reason=reason, data=heard)

    def _reason(self, heard: bytes, earlier: Collection[int]) -> tuple[str, str]:
        asked = f"Modbus unit {self._question.unit_id}"
        if self._damaged:
            return "bad-checksum", f"an answer of {asked} is damaged: its CRC is wrong"
        if other := next(_frames(heard, self._framing), None):
            return self._stray(other, earlier)
        wrong: Framing = "rtu" if self._framing == "tcp" else "tcp"
        if any(_frames(heard, wrong)):
            return "bad-syntax", f"{asked} answers in another framing; set `framing` to {wrong}"
        if self._deaf:
            return "too-long", f"what comes for {asked} has no end: more than {LIMIT_BYTES} bytes without an answer"
        if any(look.began(heard) for look in self._looks):
            return "truncated", f"an answer of {asked} breaks off"
        return "bad-syntax", f"{len(heard)} bytes that are no Modbus frame; check baud rate, parity and wiring"

    def _stray(self, other: "_Other", earlier: Collection[int]) -> tuple[str, str]:
        question = self._question
        if other.unit_id != question.unit_id:
            return "foreign", f"Modbus unit {other.unit_id} answers, and not {question.unit_id}, which was asked"
        who = f"Modbus unit {question.unit_id}"
        if other.transaction is not None and other.transaction != question.transaction:
            if other.transaction in earlier:
                return "late", f"{who} answers late, to transaction {other.transaction}, which is over"
            return "foreign", f"{who} answers to transaction {other.transaction}, which was never begun"
        return "late", (
            f"{who} answers function {other.function} with {other.data_bytes} bytes, as if to another question; "
            f"asked were {question.count} registers by function {question.function}"
        )


class _Look:
    """Looks for frames that begin with ``head`` and are so long; each place is looked at once."""

    def __init__(self, head: bytes, length_bytes: int) -> None:
        self._head = head
        self._length_bytes = length_bytes
        self._from = 0

    def restart(self) -> None:
        self._from = 0

    def candidates(self, heard: bytearray) -> Iterator[bytes]:
        while (at := heard.find(self._head, self._from)) >= 0 and len(heard) - at >= self._length_bytes:
            self._from = at + 1
            yield bytes(heard[at : at + self._length_bytes])

    def began(self, heard: bytes) -> bool:
        return heard.find(self._head, self._from) >= 0


class _Other(NamedTuple):
    """A whole frame that is not what was asked for."""

    unit_id: int
    function: int
    data_bytes: int
    transaction: int | None


def _message(frame: bytes, framing: Framing) -> "ModbusPDU | None":
    """Return what an answer says whose length was found to be right; None: its CRC is wrong."""
    opened = open_frame(frame, framing)
    return _framer(framing).decoder.decode(opened) if opened else None


def _frames(heard: bytes, framing: Framing) -> Iterator[_Other]:
    return _serial_frames(heard) if framing == "rtu" else _tcp_frames(heard)


def _serial_frames(heard: bytes) -> Iterator[_Other]:
    """Yield the answers with a right CRC, wherever they begin."""
    for at in range(len(heard) - _REFUSAL_BYTES + 1):
        length = _serial_length(heard[at : at + 3])
        frame = heard[at : at + length]
        if length and len(frame) == length and open_frame(frame, "rtu"):
            yield _Other(frame[0], frame[1], length - _ENVELOPE_BYTES, None)


def _serial_length(head: bytes) -> int:
    """Return how long the answer is that begins so; 0: it is none."""
    if len(head) >= 2 and head[1] & _REFUSED:  # noqa: PLR2004 - unit id and function
        return _REFUSAL_BYTES
    is_answer = len(head) == 3 and head[1] in FUNCTION_CODES.values() and head[2] and not head[2] % 2  # noqa: PLR2004
    return head[2] + _ENVELOPE_BYTES if is_answer else 0


def _tcp_frames(heard: bytes) -> Iterator[_Other]:
    """Yield the frames that follow each other from the first byte on."""
    at = 0
    while length := _tcp_length(heard[at:]):
        frame = heard[at : at + length]
        if len(frame) < length:
            return
        yield _Other(frame[6], frame[7], length - _HEADER_BYTES - 2, int.from_bytes(frame[:2], "big"))
        at += length


def _tcp_length(head: bytes) -> int:
    """Return how long the frame is that begins so; 0: it is none."""
    length = int.from_bytes(head[4:6], "big")
    is_frame = len(head) > _HEADER_BYTES and head[2:4] == b"\0\0" and 2 < length <= _LONGEST_BYTES  # noqa: PLR2004
    return length + 6 if is_frame else 0


def split_answers(data: bytes) -> tuple[Framing, list[bytes]]:
    """Return the framing of answers that follow each other without a gap, and each of them; damaged ends are left."""
    framing: Framing = "tcp" if _tcp_length(data) else "rtu"
    found = []
    while length := _tcp_length(data) if framing == "tcp" else _serial_length(data[:3]):
        found.append(data[:length])
        data = data[length:]
    return framing, found


class QuestionReader:
    """Finds the questions in what a master sends, as a meter does."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._heard = bytearray()

    def feed(self, data: bytes) -> list[Question]:
        """Take what came; return the questions in it."""
        self._heard += data
        found = []
        while self._heard:
            length = _QUESTION_BYTES if self._framing == "rtu" else _tcp_length(bytes(self._heard)) or 1
            if len(self._heard) < length or (self._framing == "tcp" and len(self._heard) <= _HEADER_BYTES):
                break
            question = self._question(bytes(self._heard[:length]))
            del self._heard[: length if question else 1]
            found += [question] if question else []
        return found

    def idle(self) -> None:
        """Tell that the master paused: what it began is forgotten."""
        self._heard.clear()

    def _question(self, frame: bytes) -> Question | None:
        opened = open_frame(frame, self._framing) if len(frame) >= _QUESTION_BYTES else b""
        if len(opened) != _QUESTION_BYTES - 3:
            return None
        is_tcp = self._framing == "tcp"
        return Question(
            unit_id=frame[6 if is_tcp else 0],
            function=opened[0],
            address=int.from_bytes(opened[1:3], "big"),
            count=int.from_bytes(opened[3:5], "big"),
            transaction=int.from_bytes(frame[:2], "big") if is_tcp else 0,
        )
