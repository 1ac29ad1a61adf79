"""The meter's side of IEC 62056-21 in modes A, B and C, with programming mode: answers, and never begins.

Sans-I/O like a master, and driven the same way: it says what to send and when to change the baud rate
(``meter.master``). Source: IEC 62056-21:2002, 6.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from meterway.meter import iec62056_21_frames as frames
from meterway.meter.family import Line
from meterway.meter.iec62056_21_access import FIRST_LINE
from meterway.meter.master import Effect, Send, SetLine, Wait
from meterway.meter.virtual.encode_iec62056_21 import encode_block

_WAKING_BYTES: Final = 40
_LIMIT_BYTES: Final = 1024
"""The most that is kept of what the reader sends; more is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSide:
    """What a virtual meter is and does, right and wrong."""

    identification: str
    """The fourth character chooses mode and baud rate: ``MWY5VIRTUAL`` is mode C with 9600 baud."""
    lines: tuple[str, ...] = ()
    """The readout, without end mark."""
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What is read in programming mode: the data after the command, in blocks."""
    address: str = ""
    """Another device address in a request gets no answer; none always gets one."""
    password: str | None = None
    """None: programming mode is open."""
    reaction_s: float = 0.02
    sleeps: bool = False
    """Whether it must be woken by zero bytes first."""
    damaged_blocks: int = 0
    """So many blocks leave with a turned bit."""
    silent_requests: int = 0
    """So many requests are not heard."""


class AnsweringMeter:
    """A virtual meter on a line; keeps where the conversation is."""

    def __init__(self, side: MeterSide, *, line: Line = FIRST_LINE) -> None:
        self._side = side
        self._line = line
        self._baud = line.baud
        self._buffer = bytearray()
        self._is_awake = not side.sleeps
        self._is_programming = False
        self._is_open = side.password is None
        self._last = b""
        """The block that NAK asks for again."""
        self._blocks: list[str] = []
        """Those that follow once the last one is acknowledged."""
        self.commands: list[str] = []
        """What it was told in programming mode, passwords left out."""

    def feed(self, data: bytes) -> list[Effect]:
        """Take what the reader sent, 7 bits a byte; return what to do, in order."""
        self._buffer += data
        self._is_awake = self._is_awake or self._buffer.count(0) >= _WAKING_BYTES
        del self._buffer[:-_LIMIT_BYTES]
        effects: list[Effect] = []
        while (step := self._step()) is not None:
            effects += step
        return effects

    def idle(self) -> list[Effect]:
        """Tell that nothing was heard for a second and a half: forget the session, back to the first baud rate."""
        self._buffer.clear()
        self._is_programming, self._is_open = False, self._side.password is None
        return self._set_baud(self._line.baud)

    def _step(self) -> list[Effect] | None:
        """Return what the first whole message makes it do; None where there is none."""
        heard = bytes(self._buffer)
        if found := frames.find_request(heard):
            return self._greet(found[0])
        if option := frames.find_option(heard):
            del self._buffer[: option.end]
            return self._choose(option)
        if heard.startswith(frames.ACK + b"0") and len(heard) < 6:  # noqa: PLR2004 - an option select on its way
            return None
        if message := frames.find_message(heard):
            del self._buffer[: message.end]
            return self._obey(message)
        return None

    def _greet(self, address: str) -> list[Effect]:
        side = self._side
        back = self.idle()
        if side.silent_requests or not self._is_awake or address not in ("", side.address):
            self._side = replace(side, silent_requests=max(side.silent_requests - 1, 0))
            return back
        greeting = f"/{side.identification}\r\n".encode("ascii")
        effects = [*back, Wait(side.reaction_s), Send(greeting)]
        character = side.identification[3]
        if character in frames.MODE_C_BAUD:
            return effects
        effects += self._set_baud(frames.MODE_B_BAUD.get(character, self._line.baud))
        self._last = encode_block(side.lines)
        return [*effects, Wait(side.reaction_s), *self._send_block()]

    def _choose(self, option: frames.Option) -> list[Effect]:
        effects: list[Effect] = [
            *self._set_baud(frames.MODE_C_BAUD[option.baud_character]),
            Wait(self._side.reaction_s),
        ]
        if option.choice == frames.READOUT:
            self._last = encode_block(self._side.lines)
        else:
            self._is_programming = True
            self._last = frames.command("P0", "(4D57)")
        return effects + self._send_block()

    def _obey(self, message: frames.Message) -> list[Effect]:
        wait = Wait(self._side.reaction_s)
        if message.command == "NAK":
            return [wait, *self._send_block()]
        if message.command == "ACK":
            return [wait, *self._next_block()]
        if not self._is_programming:
            return []
        if not message.is_right:
            return [wait, Send(frames.NAK)]
        self.commands.append(message.command)
        return self._execute(message, wait)

    def _execute(self, message: frames.Message, wait: Wait) -> list[Effect]:
        if message.command == "B0":
            self._is_programming = False
            return self._set_baud(self._line.baud)
        if message.command == "P1":
            return [wait, *self._admit(message.data)]
        found = self._side.answers.get(message.data) if self._is_open else None
        self._blocks = list(found) if found else ["(ER01)"]
        return [wait, *self._next_block()]

    def _admit(self, password: str) -> list[Effect]:
        if password == f"({self._side.password})":
            self._is_open = True
            return [Send(frames.ACK)]
        return [Send(frames.command("B0"))]

    def _next_block(self) -> list[Effect]:
        if not self._blocks:
            return []
        data = self._blocks.pop(0)
        self._last = frames.answer(data, ending=frames.EOT if self._blocks else frames.ETX)
        return self._send_block()

    def _send_block(self) -> list[Effect]:
        block = self._last
        if self._side.damaged_blocks:
            self._side = replace(self._side, damaged_blocks=self._side.damaged_blocks - 1)
            middle = len(block) // 2
            block = block[:middle] + bytes((block[middle] ^ 1,)) + block[middle + 1 :]
        return [Send(block)]

    def _set_baud(self, baud: int) -> list[Effect]:
        if baud == self._baud:
            return []
        self._baud = baud
        return [SetLine(msgspec.structs.replace(self._line, baud=baud))]
