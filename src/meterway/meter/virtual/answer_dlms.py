"""The meter's side of DLMS/COSEM: a server with objects, security and load profiles; answers, and never begins.

Sans-I/O like a master, and driven the same way: it says what to send and when to change the baud rate
(``meter.master``). It speaks HDLC, with or without the sign-on of an optical head, or the wrapper of TCP.
"""

from typing import Final

import msgspec

from meterway.meter import iec62056_21_frames as iec
from meterway.meter.dlms_line import HEADER_BYTES, wrap
from meterway.meter.family import Line
from meterway.meter.iec62056_21_access import FIRST_LINE
from meterway.meter.master import Effect, Send, SetLine, Wait
from meterway.meter.virtual.dlms_session import ServerSession
from meterway.meter.virtual.dlms_side import DlmsSide
from meterway.meter.virtual.hdlc_secondary import Secondary

_LIMIT_BYTES: Final = 65_536
"""The most that is kept of what a client sends; more is noise."""


class AnsweringDlmsMeter:
    """A virtual meter on a line; keeps where the conversation is."""

    def __init__(self, side: DlmsSide, *, line: Line = FIRST_LINE) -> None:
        self._side = side
        self._line = line
        self._baud = line.baud
        self.session = ServerSession(side)
        self._is_signed_on = not side.identification
        self._buffer = bytearray()
        self._sent = self._heard = 0
        self._secondary = Secondary(side.address, self.session.answer, self.session.begin, most_bytes=side.frame_bytes)

    def feed(self, data: bytes) -> list[Effect]:
        """Take what the client sent; return what to do, in order."""
        number, self._heard = self._heard, self._heard + 1
        if number in self._side.unheard:
            return []
        if not self._is_signed_on:
            return self._sign_on(data)
        if self._side.transport == "hdlc":
            return [effect for frame in self._secondary.feed(data) for effect in self._send(frame)]
        self._buffer += data
        del self._buffer[:-_LIMIT_BYTES]
        return [effect for answer in self._unwrapped() for effect in self._send(answer)]

    def idle(self) -> list[Effect]:
        """Tell that nothing was heard for long: forget the session, back to the first baud rate."""
        self._buffer.clear()
        self._secondary.idle()
        self.session.forget()
        self._is_signed_on = not self._side.identification
        if self._is_signed_on or self._baud == self._line.baud:
            return []
        self._baud = self._line.baud
        return [SetLine(self._line)]

    def _sign_on(self, data: bytes) -> list[Effect]:
        self._buffer += data
        del self._buffer[:-_LIMIT_BYTES]
        heard = bytes(self._buffer)
        if found := iec.find_request(heard):
            del self._buffer[: found[1]]
            return self._send(f"/{self._side.identification}\r\n".encode("ascii"))
        at = heard.find(iec.ACK + b"2")
        if at < 0 or len(heard) < at + 6:
            return []
        option = heard[at : at + 6]
        self._buffer.clear()
        self._is_signed_on = True
        self._baud = iec.MODE_C_BAUD.get(chr(option[2]), self._line.baud)
        fast = msgspec.structs.replace(self._line, baud=self._baud)
        binary = msgspec.structs.replace(fast, data_bits=8, parity="N")
        return [SetLine(fast), *self._send(option), SetLine(binary)]

    def _unwrapped(self) -> list[bytes]:
        answers = []
        while len(self._buffer) >= HEADER_BYTES:
            source, destination, length = (int.from_bytes(self._buffer[at : at + 2], "big") for at in (2, 4, 6))
            end = HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            apdu = bytes(self._buffer[HEADER_BYTES:end])
            del self._buffer[:end]
            answer = self.session.answer(source, apdu) if destination == self._side.port else b""
            if answer:
                answers.append(wrap(answer, source=destination, destination=source))
        return answers

    def _send(self, message: bytes) -> list[Effect]:
        number, self._sent = self._sent, self._sent + 1
        if number in self._side.lost:
            return []
        if number in self._side.damaged:
            middle = len(message) // 2
            message = message[:middle] + bytes((message[middle] ^ 1,)) + message[middle + 1 :]
        return [Wait(self._side.reaction_s), Send(message)]
