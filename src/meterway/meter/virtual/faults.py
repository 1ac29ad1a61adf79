"""Faults on demand: what happens to telegrams between a meter and its reader, seeded, and known exactly.

    noise      stray bytes before the telegram, which itself stays whole
    garble     one or two bytes inside are changed
    cut        the rest of the telegram is missing
    checksum   the telegram carries a wrong checksum
    silence    this telegram and some after it are not sent

A spoilt telegram is spoilt for certain: the changed bytes lie under the checksum, and a CRC of 16 bits detects
every error burst of 16 bits. In SML the list of values has a checksum of its own, by which a reader may save it from
a damaged frame; so garble and cut hit the list, and checksum makes both wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.virtual.chance import chance_bytes
from meterway.meter.virtual.meter import Kind

_PARTS: Final = 1 << 32
_NOISE_LIMIT_BYTES: Final = 48
_SILENCE: Final = (3, 30)
"""The fewest and the most telegrams in a row that a silence swallows."""

_CLOSE_HEAD_BYTES: Final = 10
"""From the beginning of the SML close message to the tag in it."""

_LIST_END_BYTES: Final = 4
"""The checksum of the SML list message with its type, and the end of the message."""

_STARTS: Final = b"/!\x1b"
"""Bytes that begin or end a telegram: not in noise, which could otherwise hide the whole telegram behind it."""


class FaultName(StrEnum):
    NOISE = "noise"
    GARBLE = "garble"
    CUT = "cut"
    CHECKSUM = "checksum"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Sending:
    """What goes over the line in place of a telegram."""

    data: bytes
    """Empty in a silence."""
    fault: FaultName | None = None

    @property
    def whole(self) -> bool:
        """Tell whether the telegram is among ``data``, unchanged."""
        return self.fault in (None, FaultName.NOISE)


def parse_faults(texts: tuple[str, ...]) -> dict[FaultName, float]:
    """Return the rates in texts such as ``noise=0.01``: how likely a telegram meets the fault.

    Raises:
        SetupError: an unknown name, a rate outside 0 to 1, or rates that exceed 1 together.
    """
    rates: dict[FaultName, float] = {}
    for text in texts:
        name, _, rate = text.partition("=")
        if name not in set(FaultName):
            raise SetupError(f"fault {name!r} is unknown; there are {', '.join(FaultName)}")
        try:
            rates[FaultName(name)] = float(rate)
        except ValueError:
            raise SetupError(f"fault {text!r} needs a rate from 0 to 1, such as {name}=0.01") from None
    if any(not 0 <= rate <= 1 for rate in rates.values()) or sum(rates.values()) > 1:
        raise SetupError(f"the rates of faults lie between 0 and 1 and are at most 1 together, not {' '.join(texts)}")
    return rates


class Faults:
    """Decides for each telegram of one meter what becomes of it; at most one fault each."""

    def __init__(self, rates: Mapping[FaultName, float], kind: Kind, *seed: str | int) -> None:
        self._bounds: list[tuple[int, FaultName]] = []
        bound = 0.0
        for name, rate in rates.items():
            bound += rate
            self._bounds.append((int(bound * _PARTS), name))
        self._kind = kind
        self._seed = seed
        self._silent_left = 0

    def send(self, telegram: bytes, instant_s: int) -> Sending:
        """Return what is sent in place of ``telegram``, which is sent at ``instant_s``."""
        if self._silent_left:
            self._silent_left -= 1
            return Sending(b"", FaultName.SILENCE)
        if not self._bounds:
            return Sending(telegram)
        drawn = chance_bytes(16 + _NOISE_LIMIT_BYTES, *self._seed, "fault", instant_s)
        part = int.from_bytes(drawn[:4], "big")
        fault = next((name for bound, name in self._bounds if part < bound), None)
        if fault is FaultName.SILENCE:
            fewest, most = _SILENCE
            self._silent_left = fewest - 1 + drawn[4] % (most - fewest + 1)
        return Sending(_spoil(telegram, fault, drawn, self._kind), fault)


def _spoil(telegram: bytes, fault: FaultName | None, drawn: bytes, kind: Kind) -> bytes:
    match fault:
        case FaultName.NOISE:
            return drawn[16 : 17 + drawn[4] % _NOISE_LIMIT_BYTES].translate(None, _STARTS) + telegram
        case FaultName.GARBLE:
            return _garble(telegram, drawn, kind)
        case FaultName.CUT:
            return telegram[: _place(drawn, 1, _covered(telegram, kind)[1])]
        case FaultName.CHECKSUM:
            return _wrong_checksum(telegram, drawn, kind)
        case FaultName.SILENCE:
            return b""
        case None:
            return telegram


def _covered(telegram: bytes, kind: Kind) -> tuple[int, int]:
    """Return where the bytes begin and end that carry the values and are under every checksum."""
    if kind is Kind.P1:
        return 1, telegram.rindex(b"!")
    list_tag = telegram.index(b"\x72\x63\x07\x01\x77")
    close_tag = telegram.rindex(b"\x72\x63\x02\x01\x71")
    return list_tag, close_tag - _CLOSE_HEAD_BYTES - _LIST_END_BYTES


def _place(drawn: bytes, first: int, end: int) -> int:
    return first + int.from_bytes(drawn[8:12], "big") % (end - first)


def _garble(telegram: bytes, drawn: bytes, kind: Kind) -> bytes:
    """Change up to two neighbouring bytes that the checksum covers."""
    first, end = _covered(telegram, kind)
    place = _place(drawn, first, end - 1)
    spoilt = bytearray(telegram)
    for at, change in ((place, drawn[4] or 1), (place + 1, drawn[5])):
        spoilt[at] ^= change
        if change and kind is Kind.P1 and spoilt[at] in _STARTS:
            spoilt[at] ^= 0x80  # else a telegram would seem to begin or end here
    return bytes(spoilt)


def _wrong_checksum(telegram: bytes, drawn: bytes, kind: Kind) -> bytes:
    wrong = int.from_bytes(drawn[4:6], "big") or 1
    if kind is Kind.P1:
        return telegram[:-6] + b"%04X\r\n" % (int(telegram[-6:-2], 16) ^ wrong)
    spoilt = bytearray(telegram)
    list_checksum = _covered(telegram, kind)[1] + 1
    for at in (list_checksum, len(telegram) - 2):
        spoilt[at] ^= wrong >> 8
        spoilt[at + 1] ^= wrong & 0xFF
    return bytes(spoilt)
