"""A meter's end of an HDLC connection: frames of a client in, its requests out, and the frames that answer them.

Source: IEC 62056-46, 6.4. The window is one frame; what is not acknowledged is sent again when the client asks.
"""

from collections.abc import Callable
from typing import Final

from meterway.meter.dlms_hdlc import (
    ANSWER_LLC,
    COMMAND_LLC,
    DISC,
    DM,
    FINAL,
    LEAST_INFORMATION_BYTES,
    RR,
    SNRM,
    UA,
    encode_parameters,
    receivable_bytes,
)
from meterway.meter.dlms_transport import Framed, Framer
from meterway.meter.hdlc import HdlcFrame, encode_frame

_NUMBERS: Final = 8
_LIMIT_REQUEST_BYTES: Final = 8192
"""A longer request is forgotten."""

Answer = Callable[[int, bytes], bytes]
"""Returns the APDU that answers a client's; empty: none does."""
Taken = Callable[[int], bool]
"""Tells whether a client may connect; what it had begun is forgotten."""


class Secondary:
    """A meter at one address; it serves one client at a time."""

    def __init__(self, address: bytes, answer: Answer, taken: Taken, *, most_bytes: int) -> None:
        self._address = address
        self._answer = answer
        self._taken = taken
        self._most_bytes = most_bytes
        self._may_send_bytes = LEAST_INFORMATION_BYTES
        self._framer = Framer()
        self._client: bytes | None = None
        self._send_number = self._receive_number = 0
        self._request = bytearray()
        self._segments: list[bytes] = []
        self._unacknowledged = b""
        """The last frame with information."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the frames that answer them."""
        frames = []
        for piece in self._framer.feed(data):
            if isinstance(piece, Framed) and isinstance(piece.frame, HdlcFrame):
                header = piece.frame.header
                if header.destination == self._address:
                    frames.append(self._take(piece.frame, header.source, header.control))
        return [frame for frame in frames if frame]

    def idle(self) -> None:
        """Tell that nothing was heard for long: what was begun is forgotten."""
        list(self._framer.flush())
        self._client = None

    def _take(self, frame: HdlcFrame, source: bytes, control: int) -> bytes:
        if control == SNRM:
            return self._connect(source, frame.information)
        if source != self._client:
            return self._frame(DM, to=source)
        if control == DISC:
            self._client = None
            return self._frame(UA, to=source)
        if control & 1:
            return self._resume(control >> 5) if control & 0x0F == RR & 0x0F else b""
        return self._inform(frame, control)

    def _connect(self, source: bytes, information: bytes) -> bytes:
        if not self._taken(source[0] >> 1):
            return self._frame(DM, to=source)
        self._client = source
        self._send_number = self._receive_number = 0
        self._request.clear()
        self._segments, self._unacknowledged = [], b""
        self._may_send_bytes = min(self._most_bytes, receivable_bytes(information))
        offer = encode_parameters(self._may_send_bytes, self._most_bytes) if information else b""
        return self._frame(UA, offer, to=source)

    def _resume(self, number: int) -> bytes:
        """Answer a client that is ready: the next frame, or the one again that it has not got."""
        if number != self._send_number:
            return self._unacknowledged
        return self._next_segment() if self._segments else self._ready()

    def _inform(self, frame: HdlcFrame, control: int) -> bytes:
        if (control >> 1) % _NUMBERS != self._receive_number:
            return self._resume(control >> 5)
        self._receive_number = (self._receive_number + 1) % _NUMBERS
        self._request += frame.information
        if len(self._request) > _LIMIT_REQUEST_BYTES:
            self._request.clear()
        if frame.header.segmented:
            return self._ready()
        request = bytes(self._request)
        self._request.clear()
        if self._client is None or not request.startswith(COMMAND_LLC):
            return self._ready()
        answer = self._answer(self._client[0] >> 1, request[len(COMMAND_LLC) :])
        data, size = ANSWER_LLC + answer, self._may_send_bytes
        self._segments = [data[start : start + size] for start in range(0, len(data), size)] if answer else []
        return self._next_segment() if self._segments else self._ready()

    def _next_segment(self) -> bytes:
        information = self._segments.pop(0)
        control = self._receive_number << 5 | FINAL | self._send_number << 1
        self._send_number = (self._send_number + 1) % _NUMBERS
        self._unacknowledged = self._frame(control, information, segmented=bool(self._segments))
        return self._unacknowledged

    def _ready(self) -> bytes:
        return self._frame(self._receive_number << 5 | RR)

    def _frame(self, control: int, information: bytes = b"", *, segmented: bool = False, to: bytes = b"") -> bytes:
        destination = to or self._client or b"\x21"
        return encode_frame(
            information, destination=destination, source=self._address, control=control, segmented=segmented
        )
