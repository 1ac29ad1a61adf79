"""How APDUs travel between a DLMS client and a meter: in the TCP wrapper, or over an HDLC connection.

    wrapped ::= 00 01 source(2) destination(2) length(2) APDU              ; IEC 62056-47

Here are what a client's line says, and the line with the wrapper; ``dlms_hdlc`` is the other.
"""

import re
from dataclasses import dataclass
from typing import Final, Protocol

from meterway.meter.codec import CodecError

LIMIT_APDU_BYTES: Final = 0xFFFF
"""The longest APDU, all its frames together."""

HEADER_BYTES: Final = 8
_VERSION: Final = b"\0\1"


@dataclass(frozen=True, slots=True)
class Connected:
    """The meter has taken the connection, or the end of it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A whole APDU."""

    apdu: bytes
    raw: bytes
    """The frames it came in."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes to be sent so that the rest may come."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection is no more, or never was."""

    why: str
    """The rest of a sentence that begins with "the meter"."""


Event = Connected | Heard | Reply | Broken | CodecError


class DlmsLine(Protocol):
    """A client's end of the line."""

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the rest of an APDU."""

    def connect(self) -> bytes:
        """Return what asks for a connection; empty: there is none to ask for."""

    def disconnect(self) -> bytes:
        """Return what ends it; empty: nothing does."""

    def send(self, apdu: bytes) -> bytes:
        """Return the first frame of an APDU; the others are replies."""

    def repeat(self) -> bytes:
        """Return what is sent when no answer came; empty: asking again would be taken for another question."""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes; return what they mean, in order. Noise is skipped in silence."""


def wrap(apdu: bytes, *, source: int, destination: int) -> bytes:
    """Return the APDU with its header.

    Raises:
        OverflowError: it is longer than ``LIMIT_APDU_BYTES``.
    """
    parts = (source, destination, len(apdu))
    return _VERSION + b"".join(part.to_bytes(2, "big") for part in parts) + apdu


class WrapperLine:
    """The wrapper between two ports; at most one header and ``LIMIT_APDU_BYTES`` wait.

    A header names the ports of both sides, so bytes that are none of this conversation are skipped up to the next one.
    Meters that answer with the two ports the wrong way round are understood.
    """

    def __init__(self, own: int, other: int) -> None:
        ports = own.to_bytes(2, "big"), other.to_bytes(2, "big")
        either = b"|".join(re.escape(one + two) for one, two in (ports, ports[::-1]))
        self._own, self._other = own, other
        self._header = re.compile(re.escape(_VERSION) + b"(?:" + either + b")", re.DOTALL)
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def connect(self) -> bytes:
        return b""

    def disconnect(self) -> bytes:
        return b""

    def repeat(self) -> bytes:
        return b""

    def send(self, apdu: bytes) -> bytes:
        self._buffer.clear()
        return wrap(apdu, source=self._own, destination=self._other)

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for start in range(0, len(data), LIMIT_APDU_BYTES):
            self._buffer += data[start : start + LIMIT_APDU_BYTES]
            while heard := self._whole():
                events.append(heard)
        return events

    def _whole(self) -> Heard | None:
        found = self._header.search(self._buffer)
        if found is None:
            del self._buffer[: -(HEADER_BYTES - 3)]
            return None
        del self._buffer[: found.start()]
        end = HEADER_BYTES + int.from_bytes(self._buffer[6:HEADER_BYTES], "big")
        if len(self._buffer) < max(end, HEADER_BYTES):
            return None
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        return Heard(raw[HEADER_BYTES:], raw)
