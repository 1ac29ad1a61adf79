r"""SML transport protocol, version 1: where in a stream of bytes an SML file begins and ends.

    frame   ::= start *( byte / literal ) end
    start   ::= 1b1b1b1b 01010101
    literal ::= 1b1b1b1b 1b1b1b1b               ; four bytes 1b of the file
    end     ::= 1b1b1b1b 1a padding crc16       ; padding: how many 00 stand before the end, to a multiple of 4

Source: SML specification 1.04, 8 (also BSI TR-03109-1, LMN interface, part b). What meters do otherwise, and is
accepted: 4 bytes of padding where 0 would do; an escape sequence that does not exist is taken as data; the CRC-16 is
X.25 with the low byte first or (Holley DTZ541) Kermit with the high byte first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_kermit, crc16_x25

LIMIT_BYTES: Final = 8192
"""The longest frame, and the most bytes outside of a frame, that are kept; ten times what meters push."""

_ESCAPE: Final = b"\x1b" * 4
_START: Final = _ESCAPE + b"\x01" * 4
_TOKEN_BYTES: Final = 8
_END: Final = 0x1A
_MESSAGE: Final = 0x76
"""How an SML message begins: a list of six."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame whose checksum holds."""

    raw: bytes
    """As received."""
    payload: bytes
    """The SML file: without start and end, literals undone; padding still at its end."""
    kermit: bool
    """The checksum was a Kermit one, a second chance for a broken frame: the messages' own checksums must agree."""


class Framer:
    """Cuts a stream into frames, what lies outside of them, and errors, in order.

    Nothing is lost: a frame that is cut, too long or wrong gives an error and is then searched, from behind its
    start, for another start; what holds none comes as ``bytes``.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._in_frame = False
        self._scanned = 0
        """Within a frame: no token of the transport protocol begins before this offset."""

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait: at most ``LIMIT_BYTES`` between two calls."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame | bytes | CodecError]:
        """Take the next bytes; yield what they completed."""
        view = memoryview(data)
        for offset in range(0, len(data), LIMIT_BYTES):
            self._buffer += view[offset : offset + LIMIT_BYTES]
            yield from self._items()

    def flush(self) -> Iterator[Frame | bytes | CodecError]:
        """Give up what waits; yield it as an error or as bytes outside of a frame."""
        while self._in_frame:
            yield self._give_up("truncated", "ends before its end sequence", len(self._buffer))
            yield from self._items()
        if self._buffer:
            yield self._take(len(self._buffer))

    def _items(self) -> Iterator[Frame | bytes | CodecError]:
        while True:
            item = self._inside() if self._in_frame else self._outside()
            if item is None:
                return
            yield item

    def _outside(self) -> Frame | bytes | CodecError | None:
        start = self._buffer.find(_START)
        if start == 0:
            self._in_frame = True
            self._scanned = _TOKEN_BYTES
            return self._inside()
        if start > 0:
            return self._take(start)
        undecided = len(self._buffer) - len(_START) + 1
        message = self._buffer.find(_MESSAGE, 0, max(undecided, 0))
        useless = undecided if message < 0 else message
        if useless > 0:
            return self._take(useless)
        return self._take(LIMIT_BYTES // 2) if len(self._buffer) > LIMIT_BYTES else None

    def _inside(self) -> Frame | bytes | CodecError | None:
        buffer = self._buffer
        while (escape := buffer.find(_ESCAPE, self._scanned)) >= 0 and len(buffer) >= escape + _TOKEN_BYTES:
            token = buffer[escape + len(_ESCAPE) : escape + _TOKEN_BYTES]
            if escape + _TOKEN_BYTES > LIMIT_BYTES:
                break
            if token[0] == _END:
                return self._end(escape + _TOKEN_BYTES)
            if token == _ESCAPE:
                self._scanned = escape + _TOKEN_BYTES
            elif token == _START[len(_ESCAPE) :]:
                return self._give_up("truncated", "is cut by the start of the next", escape)
            else:
                self._scanned = escape + 1
        if len(buffer) > LIMIT_BYTES:
            return self._give_up("too-long", "and more is too long", LIMIT_BYTES)
        self._scanned = escape if escape >= 0 else max(self._scanned, len(buffer) - len(_ESCAPE) + 1)
        return None

    def _end(self, size: int) -> Frame | CodecError:
        raw = bytes(self._buffer[:size])
        x25 = crc16_x25(raw[:-2]) == int.from_bytes(raw[-2:], "little")
        if not x25 and crc16_kermit(raw[:-2]) != int.from_bytes(raw[-2:], "big"):
            return self._give_up("bad-checksum", "fails its checksum", size)
        del self._buffer[:size]
        self._in_frame = False
        payload = raw[_TOKEN_BYTES:-_TOKEN_BYTES]
        return Frame(raw, payload.replace(_ESCAPE + _ESCAPE, _ESCAPE), not x25)

    def _give_up(self, reason: str, what: str, size: int) -> CodecError:
        """Leave the frame: its first ``size`` bytes are the error's data, those behind its start are searched."""
        error = CodecError(f"the SML frame of {size} bytes {what}", reason=reason, data=bytes(self._buffer[:size]))
        del self._buffer[:_TOKEN_BYTES]
        self._in_frame = False
        return error

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
