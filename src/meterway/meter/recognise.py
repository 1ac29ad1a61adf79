"""Which protocol do these bytes speak? By signature, without configuration."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import tzinfo
from typing import NamedTuple

from meterway.core.errors import SetupError
from meterway.meter import dlms_mbus
from meterway.meter.codec import Decoder
from meterway.meter.dlms import DlmsDecoder
from meterway.meter.dlms_bare import BARE_PUSH
from meterway.meter.dlms_layout import PushList
from meterway.meter.iec62056_21 import SIGNATURE, ReadoutDecoder, strip_parity
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.mbus import MbusDecoder
from meterway.meter.p1 import P1Decoder
from meterway.meter.p1_encrypted import EncryptedP1Decoder
from meterway.meter.sml import SmlDecoder


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
    ("mbus", re.compile(rb"\x68(.)\1\x68", re.DOTALL), "an M-Bus long frame 68 L L 68"),
    (
        "sml",
        re.compile(rb"\x76.{1,16}\x62.\x62.\x72\x63\x07\x01\x77", re.DOTALL),
        "an SML list without the frame around it",
    ),
    ("iec62056_21", SIGNATURE, "a readout of an optical head (IEC 62056-21)"),
    ("p1", re.compile(rb"/[^\r\n/!]{3,}\r?\n.*?\d:\d+\.\d+\.\d+", re.DOTALL), "a telegram that begins with /XXX"),
)


class _Options(NamedTuple):
    """What decoders may have to know."""

    zone: tzinfo
    quirks: Collection[str]
    keys: Keys
    lists: Sequence[PushList]


_DECODERS: Mapping[str, Callable[[_Options], Decoder]] = {
    "dlms": lambda options: DlmsDecoder(options.zone, keys=options.keys, lists=options.lists),
    "iec62056_21": lambda options: ReadoutDecoder(options.zone, quirks=options.quirks),
    "mbus": lambda options: MbusDecoder(options.zone),
    "p1": lambda options: P1Decoder(zone=options.zone),
    "p1-encrypted": lambda options: EncryptedP1Decoder(options.zone, keys=options.keys),
    "sml": lambda options: SmlDecoder(quirks=options.quirks),
}

PROTOCOLS = tuple(_DECODERS)
"""The protocols that can be decoded."""


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


def make_decoder(
    protocol: str,
    zone: tzinfo,
    quirks: Collection[str] = (),
    *,
    keys: Keys = NO_KEYS,
    lists: Sequence[PushList] = (),
) -> Decoder:
    """Return a decoder of ``protocol``; ``zone`` is that of the meter's clock, ``quirks`` and ``lists`` its family's.

    Raises:
        SetupError: no such protocol in ``PROTOCOLS``, or no such quirk.
    """
    if protocol not in _DECODERS:
        raise SetupError(f"protocol {protocol!r} is not known; there are {', '.join(PROTOCOLS)}")
    return _DECODERS[protocol](_Options(zone, quirks, keys, lists))
