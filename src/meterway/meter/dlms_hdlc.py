"""A client's end of an HDLC connection to a meter (normal response mode, window of one frame).

    client                            meter
    SNRM [longest frames]        -->
                                 <--  UA [longest frames]
    I(0,0) e6 e6 00 request      -->                         ; segmented: each but the last is answered by RR
                                 <--  I(0,1) e6 e7 00 answer ; segmented: each but the last is answered by RR
    DISC                         -->
                                 <--  UA

I(s,r) carries the sender's number s and acknowledges all before r, both modulo 8. Addresses have seven bits a byte: a
client's is one byte, a meter's has one, two or four: above the logical device, below the meter on the line. Source:
IEC 62056-46, 6.4.
"""

from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.dlms_line import LIMIT_APDU_BYTES, Broken, Connected, Event, Heard, Reply
from meterway.meter.dlms_transport import Framed, Framer
from meterway.meter.hdlc import HdlcFrame, encode_frame

SNRM, DISC, UA, DM, FRMR = 0x93, 0x53, 0x73, 0x1F, 0x97
RR, RNR = 0x11, 0x15
FINAL: Final = 0x10
COMMAND_LLC, ANSWER_LLC = b"\xe6\xe6\x00", b"\xe6\xe7\x00"
LEAST_INFORMATION_BYTES: Final = 128
"""What every station takes, where nothing else was agreed."""
MOST_INFORMATION_BYTES: Final = 2030

LIMIT_REPLIES: Final = 64
"""So many frames in a row that bring nothing new break the connection."""

_NUMBERS: Final = 8
_PARAMETERS: Final = b"\x81\x80"
_MAY_SEND, _MAY_RECEIVE = 5, 6
_ADDRESS_LIMITS: Final = {1: 1 << 7, 2: 1 << 7, 4: 1 << 14}


def client_address(client: int) -> bytes:
    """Return a client's address.

    Raises:
        SetupError: not 1 to 127.
    """
    return server_address(client, None, 1)


def server_address(logical: int, physical: int | None, size: int) -> bytes:
    """Return a meter's address in ``size`` bytes: 1 (the logical device alone), 2 or 4.

    Raises:
        SetupError: a number does not fit.
    """
    limit = _ADDRESS_LIMITS[size]
    if not 0 <= logical < limit or not 0 <= (physical or 0) < limit or (size == 1 and physical):
        raise SetupError(
            f"the HDLC address {logical}/{physical or 0} does not fit into {size} bytes; each part is less than {limit}"
        )
    if size == 1:
        return bytes((logical << 1 | 1,))
    digits = 1 if size == 2 else 2  # noqa: PLR2004 - two parts of one byte, or of two
    parts = [
        (number >> 7 * place & 0x7F) << 1 for number in (logical, physical or 0) for place in reversed(range(digits))
    ]
    return bytes((*parts[:-1], parts[-1] | 1))


def encode_parameters(may_send_bytes: int, may_receive_bytes: int) -> bytes:
    """Return what an SNRM or a UA offers: longest frames both ways, and windows of one frame."""
    parts = b"".join(
        bytes((name, 2)) + size.to_bytes(2, "big")
        for name, size in ((_MAY_SEND, may_send_bytes), (_MAY_RECEIVE, may_receive_bytes))
    )
    windows = bytes((7, 4, 0, 0, 0, 1, 8, 4, 0, 0, 0, 1))
    return _PARAMETERS + bytes((len(parts + windows),)) + parts + windows


def receivable_bytes(information: bytes) -> int:
    """Return the longest information that the other side takes, as its SNRM or UA says; at least one byte.

    What is not understood counts as not said.
    """
    if information[:2] != _PARAMETERS:
        return LEAST_INFORMATION_BYTES
    at = 3
    while at + 2 <= len(information):
        size = information[at + 1]
        if information[at] == _MAY_RECEIVE:
            said = int.from_bytes(information[at + 2 : at + 2 + size], "big")
            return min(said, MOST_INFORMATION_BYTES) or LEAST_INFORMATION_BYTES
        at += 2 + size
    return LEAST_INFORMATION_BYTES


class HdlcLine:
    """One connection as a client; a ``dlms_line.DlmsLine``. At most a frame and ``LIMIT_APDU_BYTES`` wait.

    A damaged frame is reported, and what it answered is asked for again by ``repeat``: first by asking what the meter
    has got (RR), so that no request is ever carried out twice; then by the same frame, with the same number.
    """

    def __init__(self, client: bytes, server: bytes, *, most_bytes: int = LEAST_INFORMATION_BYTES) -> None:
        """``most_bytes`` is the longest information that we want to take in a frame."""
        self._client, self._server = client, server
        self._most_bytes = most_bytes
        self._framer = Framer()
        self._wanted = 0
        """SNRM or DISC while its answer is awaited."""
        self._may_send_bytes = LEAST_INFORMATION_BYTES
        self._send_number = self._receive_number = 0
        self._segments: list[bytes] = []
        """What is still to be sent of a request."""
        self._sent = b""
        """The last frame; an echo of it is no answer, but RR may look the same from both sides."""
        self._information = b""
        """The last frame with information; empty once the meter has it."""
        self._has_polled = False
        self._idle_replies = 0
        self._parts = bytearray()
        self._raw = bytearray()

    @property
    def buffered_bytes(self) -> int:
        return self._framer.buffered_bytes + len(self._parts) + len(self._raw)

    def connect(self) -> bytes:
        self._wanted = SNRM
        plain = self._most_bytes == LEAST_INFORMATION_BYTES
        return self._frame(SNRM, b"" if plain else encode_parameters(self._most_bytes, self._most_bytes))

    def disconnect(self) -> bytes:
        self._wanted = DISC
        return self._frame(DISC)

    def send(self, apdu: bytes) -> bytes:
        data = COMMAND_LLC + apdu
        size = self._may_send_bytes
        self._segments = [data[start : start + size] for start in range(0, len(data), size)]
        self._parts.clear()
        self._raw.clear()
        self._idle_replies = 0
        return self._next_segment()

    def repeat(self) -> bytes:
        list(self._framer.flush())
        if self._wanted:
            return self._sent
        self._has_polled = not self._has_polled
        return self._sent if not self._has_polled and self._information else self._ready()

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for piece in self._framer.feed(data):
            if isinstance(piece, Framed) and isinstance(piece.frame, HdlcFrame):
                events += self._take(piece.frame, piece.raw)
            elif isinstance(piece, CodecError):
                events.append(piece)
        return events

    def _take(self, frame: HdlcFrame, raw: bytes) -> list[Event]:
        header = frame.header
        control = header.control | FINAL
        is_echo = raw == self._sent[:-1] and control & 0x0F != RR & 0x0F
        if is_echo or (header.destination, header.source) != (self._client, self._server):
            return []
        if control == UA and self._wanted:
            return self._connected(frame.information)
        if control in (DM, FRMR):
            return self._gone(control)
        if self._wanted:
            return []
        if control & 0x0F in (RR & 0x0F, RNR & 0x0F):
            return self._acknowledged(header.control >> 5) if control & 0x0F == RR & 0x0F else []
        return self._informed(frame, raw) if not control & 1 else []

    def _connected(self, information: bytes) -> list[Event]:
        self._wanted, self._send_number, self._receive_number = 0, 0, 0
        self._may_send_bytes = receivable_bytes(information)
        return [Connected()]

    def _gone(self, control: int) -> list[Event]:
        wanted, self._wanted = self._wanted, 0
        if wanted == DISC:
            return [Connected()]
        if wanted:
            return [Broken("refuses the connection: it is busy, or does not know this client address")]
        return [Broken("broke off the connection" if control == DM else "found a fault in what it was sent")]

    def _acknowledged(self, number: int) -> list[Event]:
        """Send on, or again, by what the meter says that it has got."""
        self._idle_replies += 1
        if self._idle_replies > LIMIT_REPLIES:
            return [Broken("acknowledges again and again, and answers nothing")]
        if number != self._send_number:
            return [Reply(self._sent_again())] if self._information else []
        self._information = b""
        return [Reply(self._next_segment())] if self._segments else []

    def _informed(self, frame: HdlcFrame, raw: bytes) -> list[Event]:
        control = frame.header.control
        if (control >> 1) % _NUMBERS != self._receive_number:
            return self._out_of_order(control)
        if self._segments or control >> 5 != self._send_number:
            return []
        self._receive_number = (self._receive_number + 1) % _NUMBERS
        self._information, self._has_polled, self._idle_replies = b"", False, 0
        self._parts += frame.information
        self._raw += raw + b"\x7e"
        if len(self._raw) > 2 * LIMIT_APDU_BYTES or len(self._parts) > LIMIT_APDU_BYTES:
            return [Broken(f"sends an answer of more than {LIMIT_APDU_BYTES} bytes")]
        if frame.header.segmented:
            return [Reply(self._ready())] if control & FINAL else []
        return [self._whole()]

    def _out_of_order(self, control: int) -> list[Event]:
        self._idle_replies += 1
        if self._idle_replies > LIMIT_REPLIES:
            return [Broken("sends frames with wrong numbers")]
        return [Reply(self._ready())] if control & FINAL else []

    def _whole(self) -> Heard | CodecError:
        """Return the answer that is complete now."""
        answer, whole = bytes(self._parts), bytes(self._raw)
        self._parts.clear()
        self._raw.clear()
        if not answer.startswith(ANSWER_LLC):
            return CodecError("an answer has no LLC header e6 e7 00", reason="bad-syntax", data=whole)
        return Heard(answer[len(ANSWER_LLC) :], whole)

    def _next_segment(self) -> bytes:
        information = self._segments.pop(0)
        control = self._receive_number << 5 | FINAL | self._send_number << 1
        self._send_number = (self._send_number + 1) % _NUMBERS
        self._information = self._frame(control, information, segmented=bool(self._segments))
        return self._information

    def _sent_again(self) -> bytes:
        self._sent = self._information
        return self._sent

    def _ready(self) -> bytes:
        return self._frame(self._receive_number << 5 | RR)

    def _frame(self, control: int, information: bytes = b"", *, segmented: bool = False) -> bytes:
        self._sent = encode_frame(
            information, destination=self._server, source=self._client, control=control, segmented=segmented
        )
        return self._sent
