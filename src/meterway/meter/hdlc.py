"""HDLC frames of DLMS (frame format type 3): where a frame begins and ends, and what is in it.

    frame  ::= 7e format destination source control [hcs information] fcs 7e
    format ::= a/S and 11 bits of length              ; S: more segments follow; counts all but the two flags
    address ::= 1, 2 or 4 bytes, the last one is odd
    hcs, fcs ::= CRC-16/X.25 from the format on, low byte first

Source: IEC 62056-46, 6. The length rules, there is no escaping: a 7e within a frame is data, and one flag may close
a frame and open the next.
"""

from enum import Enum
from typing import Final, NamedTuple

from meterway.meter.crc import crc16_x25

FLAG: Final = 0x7E
LIMIT_FRAME_BYTES: Final = 0x7FF
"""The longest frame, without its flags."""

UI: Final = 0x13
"""Unnumbered information, final: how a meter pushes."""

_TYPE_3: Final = 0xA0
_SEGMENTED: Final = 0x08
_LIMIT_ADDRESS_BYTES: Final = 4
_CRC_BYTES: Final = 2
CRC_RESIDUE: Final = 0x0F47
"""The CRC of bytes that are followed by their own CRC."""


class Problem(Enum):
    """Why there is no frame at a place."""

    CUT = "more bytes are needed to tell"
    NONE = "no frame begins here"
    DAMAGED = "a frame began, its header is right, and its checksum is wrong"


class Header(NamedTuple):
    """What stands before the information, its checksum tested."""

    destination: bytes
    source: bytes
    control: int
    segmented: bool
    """More frames follow with the rest of the information."""
    start: int
    """Where the information begins, in what was searched; ``end`` where there is none."""
    end: int
    """Where the frame ends: the place of its closing flag."""


class HdlcFrame(NamedTuple):
    """One frame whose checksums hold."""

    header: Header
    information: bytes
    """Empty where the frame has none."""


def read_header(data: bytes, at: int) -> Header | Problem:
    """Return the header behind the opening flag at ``at``; its length is true, for its checksum holds.

    The header of a frame without information has no checksum but the frame's: it is read when all of it is there.
    """
    if len(data) < at + 3:
        return Problem.CUT
    first = data[at + 1]
    end = at + 1 + ((first & 0x07) << 8 | data[at + 2])
    if first & 0xF0 != _TYPE_3:
        return Problem.NONE
    source_at = _address_end(data, at + 3)
    control_at = _address_end(data, source_at) if source_at else 0
    start = control_at + 1 + _CRC_BYTES
    if not control_at or start > end:
        known = control_at or len(data) >= min(at + 3 + 2 * _LIMIT_ADDRESS_BYTES, end)
        return Problem.NONE if known else Problem.CUT
    if len(data) < start:
        return Problem.CUT
    if crc16_x25(data[at + 1 : start]) != CRC_RESIDUE:
        return Problem.NONE
    source = data[source_at:control_at]
    return Header(data[at + 3 : source_at], source, data[control_at], bool(first & _SEGMENTED), start, end)


def read_frame(data: bytes, at: int) -> HdlcFrame | Problem:
    """Return the frame whose opening flag is at ``at``; its closing flag need not be there.

    A header with a wrong checksum is ``NONE``: such a length cannot be trusted, so the line must not wait for it.
    """
    header = read_header(data, at)
    if isinstance(header, Problem):
        return header
    if len(data) < header.end:
        return Problem.CUT
    if header.end == header.start:
        return HdlcFrame(header, b"")
    if crc16_x25(data[at + 1 : header.end]) != CRC_RESIDUE:
        return Problem.DAMAGED
    return HdlcFrame(header, data[header.start : header.end - _CRC_BYTES])


def encode_frame(
    information: bytes, *, destination: bytes, source: bytes, control: int = UI, segmented: bool = False
) -> bytes:
    """Return the frame with both its flags.

    Raises:
        ValueError: the information is too long for one frame.
    """
    header_bytes = 2 + len(destination) + len(source) + 1
    length = header_bytes + _CRC_BYTES + (len(information) + _CRC_BYTES if information else 0)
    if length > LIMIT_FRAME_BYTES:
        raise ValueError(f"{len(information)} bytes do not fit into one HDLC frame")
    first = _TYPE_3 | (_SEGMENTED if segmented else 0) | length >> 8
    frame = _sealed(bytes((first, length & 0xFF)) + destination + source + bytes((control,)))
    if information:
        frame = _sealed(frame + information)
    return bytes((FLAG,)) + frame + bytes((FLAG,))


def _sealed(data: bytes) -> bytes:
    return data + crc16_x25(data).to_bytes(_CRC_BYTES, "little")


def _address_end(data: bytes, at: int) -> int:
    """Return where the address at ``at`` ends: behind its first odd byte; 0 where that is not in sight."""
    for size in range(1, _LIMIT_ADDRESS_BYTES + 1):
        place = at + size
        if place > len(data):
            return 0
        if data[place - 1] & 1:
            return place
    return 0
