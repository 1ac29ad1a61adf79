"""From bytes on a line to frames that carry DLMS: HDLC or M-Bus, whichever is there.

The two are told apart by how they begin, at every place anew. A frame that is wrong is an error, and is searched,
from behind its first byte on, for other frames.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from meterway.meter import dlms_mbus, hdlc
from meterway.meter.codec import CodecError
from meterway.meter.dlms_mbus import MbusFrame
from meterway.meter.hdlc import FLAG, HdlcFrame, Problem

LIMIT_FRAME_BYTES: Final = hdlc.LIMIT_FRAME_BYTES + 1
"""The most that waits for the rest of a frame."""

_START = re.compile(rb"\x7e(?:[\xa0-\xaf]|\Z)|\x68(?:(.)(?:\1(?:\x68(?:[\x53\x73]|\Z)|\Z)|\Z)|\Z)", re.DOTALL)
"""How a frame begins, or may begin at the end of what has arrived."""


class Framed(NamedTuple):
    """A whole frame."""

    frame: HdlcFrame | MbusFrame
    raw: bytes
    """As received; without the flag that closes an HDLC frame, for it may be the one that opens the next."""


Piece = Framed | bytes | CodecError


class Framer:
    """Cuts a stream into frames, errors, and ``bytes`` outside of frames, in order; nothing is lost.

    The bytes of a wrong frame come twice: as its error's data, and then as what they are found to be.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._needed_bytes = 0
        """With fewer bytes in the buffer nothing new can be decided."""

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait: at most ``LIMIT_FRAME_BYTES`` between two calls."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take the next bytes; yield what they completed."""
        for offset in range(0, len(data), LIMIT_FRAME_BYTES):
            self._buffer += data[offset : offset + LIMIT_FRAME_BYTES]
            if len(self._buffer) >= self._needed_bytes:
                yield from self._pieces(final=False)

    def flush(self) -> Iterator[Piece]:
        """Give up what waits; yield it as an error and as bytes outside of frames."""
        return self._pieces(final=True)

    def _pieces(self, *, final: bool) -> Iterator[Piece]:
        data = self._buffer
        begin = scan = 0
        rest = len(data)
        self._needed_bytes = 0
        while start := _START.search(data, scan):
            at = start.start()
            found = hdlc.read_frame(data, at) if data[at] == FLAG else dlms_mbus.read_frame(data, at)
            if found is Problem.CUT and not final:
                rest = at
                self._needed_bytes = _needed_bytes(data, at)
                break
            if isinstance(found, Problem):
                scan = at + 1
                if error := _error(data, at, found):
                    if begin < at:
                        yield data[begin:at]
                    begin = at
                    yield error
                continue
            if begin < at:
                yield data[begin:at]
            begin = scan = found.header.end if isinstance(found, HdlcFrame) else found.end
            yield Framed(found, data[at:begin])
        if begin < rest:
            yield data[begin:rest]
        self._buffer = data[rest:]


def _needed_bytes(data: bytes, at: int) -> int:
    """Return how many bytes from ``at`` on, where a frame begins, must be there before more can be said of it."""
    if data[at] == FLAG:
        header = hdlc.read_header(data, at)
        return len(data) - at + 1 if isinstance(header, Problem) else header.end - at
    head = len(data) >= at + dlms_mbus.HEAD_BYTES
    return dlms_mbus.frame_bytes(data, at) if head else dlms_mbus.HEAD_BYTES


def _error(data: bytes, at: int, problem: Problem) -> CodecError | None:
    """Return what to report of the frame that did not come to be at ``at``; None where there is no sign of one."""
    if data[at] == FLAG:
        header = hdlc.read_header(data, at)
        kind, end = "HDLC", at if isinstance(header, Problem) else header.end
    else:
        begun = problem is not Problem.NONE and len(data) >= at + dlms_mbus.HEAD_BYTES
        kind, end = "M-Bus", at + dlms_mbus.frame_bytes(data, at) if begun else at
    if end == at:
        return None
    if problem is Problem.CUT:
        text = f"an {kind} frame of {end - at} bytes broke off after {len(data) - at}"
        return CodecError(text, reason="truncated", data=data[at:])
    text = f"an {kind} frame of {end - at} bytes fails its checksum"
    return CodecError(text, reason="bad-checksum", data=data[at:end])
