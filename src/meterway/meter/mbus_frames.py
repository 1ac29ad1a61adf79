"""Frames of wired M-Bus: where in a stream of bytes they begin and end, and how they are made.

    ack   ::= E5
    short ::= 10 C A checksum 16
    long  ::= 68 L L 68 C A CI data checksum 16           ; L counts C to the end of the data, 3 to 255

The checksum is the sum of the bytes from C on, modulo 256: it notices any damage to one byte, and 255 of 256 others.
So a frame that holds its own first bytes once more is refused whatever the sum says: the meter was cut short, and
what follows is its next answer.

Source: EN 13757-2:2018, 5 (IEC 60870-5-2, frame format FT 1.2).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meterway.meter.codec import CodecError

ACK: Final = 0xE5
SND_NKE: Final = 0x40
"""C field: reset of the link."""
REQ_UD2: Final = 0x5B
"""C field: asks for data; with the frame count bit 7B."""
SND_UD: Final = 0x53
"""C field: sends data; with the frame count bit 73."""
RSP_UD: Final = 0x08
"""C field: data of the meter; bits 4 and 5 (DFC, ACD) may be set."""
FRAME_COUNT_BIT: Final = 0x20

ADDRESS_SELECTED: Final = 0xFD
"""The meter that was selected by its secondary address."""
ADDRESS_ANY: Final = 0xFE
"""Every meter, and it answers: for one alone on the bus."""
ADDRESS_SILENT: Final = 0xFF
"""Every meter, and none answers."""

LIMIT_BYTES: Final = 261
"""The longest frame, and the most that waits for its end."""

_SHORT: Final = 0x10
_LONG: Final = 0x68
_STOP: Final = 0x16
_SHORT_BYTES: Final = 5
_OVERHEAD_BYTES: Final = 6
_HEAD_BYTES: Final = 7
_SHORTEST: Final = 3
_SHORT_CONTROLS: Final = frozenset({0x40, 0x5A, 0x5B, 0x7A, 0x7B})
_LONG_CONTROLS: Final = frozenset({0x08, 0x18, 0x28, 0x38, 0x43, 0x53, 0x63, 0x73})
_ANSWERS: Final = frozenset({0x08, 0x18, 0x28, 0x38})
_START = re.compile(rb"[\x10\x68\xe5]")


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame whose checksum holds."""

    raw: bytes
    control: int
    """The C field; ``ACK`` for an acknowledgement."""
    address: int = 0
    body: bytes = b""
    """CI and data of a long frame."""

    @property
    def is_answer(self) -> bool:
        """Whether it carries data of a meter (RSP_UD)."""
        return self.control in _ANSWERS


def short_frame(control: int, address: int) -> bytes:
    """Return a short frame."""
    return bytes((_SHORT, control, address, control + address & 0xFF, _STOP))


def long_frame(control: int, address: int, body: bytes) -> bytes:
    """Return a long frame; ``body`` is the CI field and up to 252 bytes of data."""
    content = bytes((control, address)) + body
    head = bytes((_LONG, len(content), len(content), _LONG))
    return head + content + bytes((sum(content) & 0xFF, _STOP))


class Framer:
    """Cuts a stream into frames and errors, in order; what lies outside is dropped and counted.

    A frame that is cut or wrong gives an error and is then searched, from behind its start, for another one. So is
    a frame that the caller gives back at once with ``reject``.
    """

    def __init__(self) -> None:
        self.skipped_bytes = 0
        self._buffer = b""
        self._position = 0
        """Where in the buffer the search goes on."""
        self._needed_bytes = 1

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait: fewer than ``LIMIT_BYTES``."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame | CodecError]:
        """Take the next bytes; yield what they completed."""
        self._buffer += data
        if len(self._buffer) >= self._needed_bytes:
            yield from self._items(final=False)

    def flush(self) -> Iterator[Frame | CodecError]:
        """Give up what waits; yield what is in it nevertheless."""
        yield from self._items(final=True)

    def reject(self, frame: Frame) -> None:
        """Take the frame that was yielded last for damaged, though its checksum holds: search it for others."""
        self._position -= len(frame.raw) - 1
        self.skipped_bytes += 1

    def _items(self, *, final: bool) -> Iterator[Frame | CodecError]:
        buffer = self._buffer
        while start := _START.search(buffer, self._position):
            begin = start.start()
            self.skipped_bytes += begin - self._position
            self._position = begin
            size = _size(buffer, begin)
            if size > len(buffer) - begin:
                if not final:
                    self._buffer, self._position, self._needed_bytes = buffer[begin:], 0, size
                    return
                if len(buffer) - begin >= _HEAD_BYTES:
                    yield _truncated(buffer[begin:], size)
                size = 0
            item = _frame(buffer[begin : begin + size]) if size else None
            if isinstance(item, Frame):
                self._position += size
            else:
                self.skipped_bytes += 1
                self._position += 1
            if item is not None:
                yield item
        self.skipped_bytes += len(buffer) - self._position
        self._buffer, self._position, self._needed_bytes = b"", 0, 1


def _truncated(raw: bytes, size: int) -> CodecError:
    text = f"an M-Bus frame of {size} bytes broke off after {len(raw)}"
    return CodecError(text, reason="truncated", data=raw)


def _size(buffer: bytes, position: int) -> int:
    """Return how long the frame at ``position`` is, as far as it can be known; 0 if there is none."""
    first = buffer[position]
    if first == ACK:
        return 1
    head = buffer[position : position + _HEAD_BYTES]
    if first == _SHORT:
        return _SHORT_BYTES if len(head) == 1 or head[1] in _SHORT_CONTROLS else 0
    if len(head) > 1 and head[1] < _SHORTEST:
        return 0
    if (len(head) > 2 and head[2] != head[1]) or (len(head) > 3 and head[3] != _LONG):  # noqa: PLR2004
        return 0
    if len(head) > 4 and head[4] not in _LONG_CONTROLS:  # noqa: PLR2004
        return 0
    return head[1] + _OVERHEAD_BYTES if len(head) == _HEAD_BYTES else _HEAD_BYTES


def _frame(raw: bytes) -> Frame | CodecError | None:
    """Return what a frame of the right length is; None if it is none at all."""
    if raw[0] == ACK:
        return Frame(raw, ACK)
    content = raw[1:-2] if raw[0] == _SHORT else raw[4:-2]
    holds = sum(content) & 0xFF == raw[-2] and raw[-1] == _STOP
    if holds and (raw[0] == _SHORT or raw.find(raw[:_HEAD_BYTES], _HEAD_BYTES) < 0):
        return Frame(raw, content[0], content[1], content[2:])
    if raw[0] == _SHORT:
        return None
    if holds:
        return CodecError("an M-Bus frame is cut by the start of another one", reason="truncated", data=raw)
    text = f"the M-Bus frame of {len(raw)} bytes fails its checksum"
    if raw[-1] != _STOP:
        text = f"the M-Bus frame of {len(raw)} bytes has no stop byte 16 at its end"
    return CodecError(text, reason="bad-checksum", data=raw)
