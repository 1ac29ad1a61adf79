"""From frames to APDUs: the pieces of a long message put together again.

    HDLC     a frame with the S bit is continued in the next; the first has the LLC header e6 e7 00
    M-Bus    frames count their segments, the last one says so
    GBT      a general-block-transfer APDU (e0) holds a numbered block of another APDU (IEC 62056-5-3, 9.6.5)

    block ::= e0 control number acknowledged length *byte   ; control bit 7: the last block; two bytes each number

A message that begins anew ends the one before it; a block that comes twice in a row is taken once. What lacks a piece
is an error, and so are pieces without their beginning: the halves of two messages are never put together, as far as
numbers and ``GAP_S`` tell them apart.
"""

from typing import Final, NamedTuple

from meterway.meter.axdr import GrammarError, read_length
from meterway.meter.codec import CodecError
from meterway.meter.dlms_mbus import MbusFrame
from meterway.meter.dlms_transport import Framed

LIMIT_MESSAGE_BYTES: Final = 6 * 1024
"""The longest message, all its frames together; real ones have up to 1.5 KB. A longer one is ``too-long``."""

GAP_S: Final = 3.0
"""The pieces of one message follow each other faster than this."""

LLC_HEADERS: Final = (b"\xe6\xe7\x00", b"\xe6\xe6\x00")

PUSHED: Final = b"\x0f\xc2\xca\xd2\xdb\xdc\xe0"
"""First bytes of the APDUs that meters push; a frame that begins with one needs no LLC header."""

_BLOCK: Final = 0xE0
_BLOCK_HEAD_BYTES: Final = 6
_LAST_BLOCK: Final = 0x80
_NUMBERS: Final = 16
"""M-Bus segments are counted modulo this."""


class Message(NamedTuple):
    """A whole APDU."""

    apdu: bytes
    raw: bytes
    """The frames it came in, and what was between them, as received."""
    is_hdlc: bool
    """Whether a checksum of 16 bits guards it."""


Items = list[Message | CodecError]


class Joiner:
    """Puts messages together; at most ``LIMIT_MESSAGE_BYTES`` of one wait, and their frames beside them."""

    def __init__(self) -> None:
        self._segments = _Segments()
        self._blocks = _Blocks()
        self._time_s = 0.0

    @property
    def buffered_bytes(self) -> int:
        return self._segments.parts.buffered_bytes + self._blocks.parts.buffered_bytes

    def skip(self, noise: bytes) -> None:
        """Tell that these bytes came between frames."""
        for parts in (self._segments.parts, self._blocks.parts):
            if parts.raw and parts.buffered_bytes < LIMIT_MESSAGE_BYTES:
                parts.raw += noise[:LIMIT_MESSAGE_BYTES]
                return

    def feed(self, framed: Framed, now: float) -> Items:
        """Take the next frame; return the message that it ends, and errors before it."""
        items: Items = []
        if now - self._time_s > GAP_S:
            items += self.flush()
        self._time_s = now
        for item in self._segments.feed(framed):
            items += self._blocks.feed(item) if isinstance(item, Message) else [item]
        return items

    def flush(self) -> Items:
        """Give up what waits."""
        return [*self._segments.parts.give_up("stopped"), *self._blocks.parts.give_up("stopped")]


class _Parts:
    """The pieces of one message so far."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.raw = bytearray()
        self.content = bytearray()
        self.next = 0
        """Number of the piece that must come."""

    @property
    def buffered_bytes(self) -> int:
        return len(self.raw) + len(self.content)

    def add(self, content: bytes, raw: bytes) -> Items:
        """Take a piece; return an error, and forget all, where the message becomes too long."""
        self.raw += raw
        self.content += content
        self.next += 1
        if len(self.raw) <= LIMIT_MESSAGE_BYTES:
            return []
        error = CodecError(
            f"a message is longer than {LIMIT_MESSAGE_BYTES} bytes", reason="too-long", data=bytes(self.raw)
        )
        self.clear()
        return [error]

    def take(self, *, is_hdlc: bool) -> Message:
        """Return the message that is whole now."""
        message = Message(bytes(self.content), bytes(self.raw), is_hdlc)
        self.clear()
        return message

    def give_up(self, why: str) -> Items:
        if not self.raw:
            return []
        error = CodecError(
            f"a message in {self._what} {why} after {self.next} of them", reason="truncated", data=bytes(self.raw)
        )
        self.clear()
        return [error]

    def clear(self) -> None:
        self.raw.clear()
        self.content.clear()
        self.next = 0


class _Segments:
    """HDLC and M-Bus segments."""

    def __init__(self) -> None:
        self.parts = _Parts("segments")

    def feed(self, framed: Framed) -> Items:
        frame = framed.frame
        parts = self.parts
        if isinstance(frame, MbusFrame):
            data, last = frame.data, frame.last
            first = frame.number == 0 and not (parts.next and parts.next % _NUMBERS == 0)
            fits = frame.number == parts.next % _NUMBERS
        else:
            data, last = frame.information, not frame.header.segmented
            first = data[:3] in LLC_HEADERS or (not parts.next and data[:1] in PUSHED)
            fits = bool(parts.next)
            data = data[3:] if data[:3] in LLC_HEADERS else data
        if not data:
            return []
        items: Items = []
        if first:
            items += parts.give_up("ends where the next begins")
        elif not fits or not parts.next:
            return parts.give_up("lacks one") or [_orphan(framed.raw)]
        if too_long := parts.add(data, framed.raw):
            return items + too_long
        return [*items, parts.take(is_hdlc=not isinstance(frame, MbusFrame))] if last else items


class _Blocks:
    """Blocks of general block transfer; other messages pass."""

    def __init__(self) -> None:
        self.parts = _Parts("blocks")
        self._previous = b""

    def feed(self, message: Message) -> Items:
        apdu = message.apdu
        parts = self.parts
        if apdu[0] != _BLOCK:
            return [*parts.give_up("ends where another begins"), message]
        content = _block_content(apdu)
        if content is None:
            return [CodecError("a block is cut", reason="truncated", data=message.raw)]
        number = int.from_bytes(apdu[2:4], "big")
        items: Items = []
        if number == 1:
            items += parts.give_up("ends where the next begins")
        elif parts.next and apdu == self._previous:
            parts.raw += message.raw
            return []
        elif not parts.next or number != parts.next + 1:
            return parts.give_up("lacks one") or [_orphan(message.raw)]
        self._previous = apdu
        if too_long := parts.add(content, message.raw):
            return items + too_long
        return [*items, parts.take(is_hdlc=message.is_hdlc)] if apdu[1] & _LAST_BLOCK else items


def _block_content(apdu: bytes) -> bytes | None:
    try:
        size, start = read_length(apdu, _BLOCK_HEAD_BYTES)
    except GrammarError:
        return None
    return apdu[start : start + size] if size and start + size <= len(apdu) else None


def _orphan(raw: bytes) -> CodecError:
    return CodecError("the beginning of a message is missing, this is a later piece", reason="truncated", data=raw)
