"""Which protocol do these bytes speak? By signature, without configuration."""

import re
from typing import NamedTuple

from meterway.meter import dlms_mbus, wmbus_receivers
from meterway.meter.dlms_bare import BARE_PUSH
from meterway.meter.iec62056_21 import SIGNATURE, strip_parity


class Recognised(NamedTuple):
    """A protocol's name and why it was recognised."""

    protocol: str
    sign: str


_SIGNATURES: tuple[tuple[str, re.Pattern[bytes], str], ...] = (
    ("sml", re.compile(rb"\x1b{4}\x01{4}"), "the SML start sequence 1b1b1b1b01010101"),
    (
        "p1-encrypted",
        re.compile(rb"\xdb\x08[A-Za-z]{3}.{5}(?:\x81.|\x82..)[\x20\x21\x30\x31]", re.DOTALL),
        "the start db 08 of an encrypted P1 telegram",
    ),
    ("dlms", re.compile(rb"\x7e[\xa0-\xaf].", re.DOTALL), "an HDLC frame 7e a."),
    ("dlms", dlms_mbus.START, "an M-Bus frame 68 L L 68 53 with a segment of DLMS"),
    ("dlms", BARE_PUSH, "a DLMS push without a frame around it"),
    *(("wmbus", pattern, sign) for pattern, sign in wmbus_receivers.SIGNATURES),
    ("mbus", re.compile(rb"\x68(.)\1\x68", re.DOTALL), "an M-Bus long frame 68 L L 68"),
    (
        "sml",
        re.compile(rb"\x76.{1,16}\x62.\x62.\x72\x63\x07\x01\x77", re.DOTALL),
        "an SML list without the frame around it",
    ),
    ("iec62056_21", SIGNATURE, "a readout of an optical head (IEC 62056-21)"),
    (
        "p1",
        re.compile(rb"/[^\r\n/!]{3,}\r?\n.{0,1024}?\d:\d+\.\d+\.\d+", re.DOTALL),
        "a telegram that begins with /XXX",
    ),
)


def recognise(data: bytes) -> Recognised | None:
    """Return the protocol whose signature comes first in ``data``; None if there is none.

    Where there is none, a readout is looked for that was read with its parity bits.
    """
    return _first(data) or (None if data.isascii() else _first(strip_parity(data)))


def _first(data: bytes) -> Recognised | None:
    found = [
        (match.start(), Recognised(protocol, sign))
        for protocol, pattern, sign in _SIGNATURES
        if (match := pattern.search(data))
    ]
    return min(found)[1] if found else None
