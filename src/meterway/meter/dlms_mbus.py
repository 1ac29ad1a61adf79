"""M-Bus long frames that carry DLMS: where one begins and ends, and what is in it.

    frame ::= 68 L L 68 53 address CI from to *byte sum 16
    CI    ::= 000 last number         ; bit 4: the last segment; bits 0 to 3: its number, from 0 on
    L     ::= bytes from 53 to before the sum; sum: these bytes added up, modulo 256

Source: EN 13757-3, annex on COSEM; IEC 62056-7-3; used by the customer ports of Austrian meters. The sum finds
only 255 of 256 damaged frames, and not two opposite errors, so what it guards is not ``checked``.

L counts modulo 256 in Sagemcom T210-D meters: they write 1 where they send 257 bytes. No long frame is shorter than
3 bytes, so 0 to 2 are read as 256 to 258.
"""

import re
from typing import Final, NamedTuple

from meterway.meter.hdlc import Problem

START: Final = re.compile(rb"\x68(.)\1\x68[\x53\x73].[\x00-\x1f]", re.DOTALL)
"""How a frame begins: the control field says that data are sent, CI that they are a segment."""

HEAD_BYTES: Final = 7

_OVERHEAD_BYTES: Final = 4
_DATA_AT: Final = 9
_SHORTEST: Final = 3
_STOP: Final = 0x16
_LAST: Final = 0x10
_NUMBER: Final = 0x0F


class MbusFrame(NamedTuple):
    """One frame whose sum holds."""

    number: int
    """Of the segment, from 0 on, modulo 16."""
    last: bool
    data: bytes
    end: int
    """Where the frame ends in what was searched."""


def read_frame(data: bytes, at: int) -> MbusFrame | Problem:
    """Return the frame that begins at ``at``."""
    if not START.match(data, at):
        return Problem.CUT if len(data) < at + HEAD_BYTES else Problem.NONE
    end = at + frame_bytes(data, at)
    if len(data) < end:
        return Problem.CUT
    if data[end - 1] != _STOP or sum(data[at + _OVERHEAD_BYTES : end - 2]) & 0xFF != data[end - 2]:
        return Problem.DAMAGED
    control = data[at + HEAD_BYTES - 1]
    return MbusFrame(control & _NUMBER, bool(control & _LAST), data[at + _DATA_AT : end - 2], end)


def frame_bytes(data: bytes, at: int) -> int:
    """Return how long the frame at ``at`` is, whose first bytes are there."""
    length = data[at + 1]
    return (length if length >= _SHORTEST else length + 256) + _OVERHEAD_BYTES + 2


def encode_frames(apdu: bytes, *, most_bytes: int = 250) -> bytes:
    """Return the frames of one APDU, each with at most ``most_bytes`` from 53 to before the sum (3 to 258)."""
    room = most_bytes - (_DATA_AT - _OVERHEAD_BYTES)
    pieces = [apdu[start : start + room] for start in range(0, len(apdu), room)]
    frames = bytearray()
    for number, piece in enumerate(pieces):
        control = number & _NUMBER | (_LAST if number == len(pieces) - 1 else 0)
        content = bytes((0x53, 0xFF, control, 0x01, 0x67)) + piece
        length = len(content) & 0xFF
        frames += bytes((0x68, length, length, 0x68)) + content + bytes((sum(content) & 0xFF, _STOP))
    return bytes(frames)
