"""What do these bytes say about the line, the key and the meter? For ``meterway doctor``; no wait, no clock.

The codec decides what is a telegram; what is judged here is what it made of the bytes, and what the rest looks like.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from meterway.meter.codec import CodecError, Decoder
from meterway.meter.family import Line
from meterway.meter.iec62056_21 import strip_parity
from meterway.meter.recognise import Recognised, recognise
from meterway.meter.telegram import Telegram

_FEW_BYTES: Final = 16
"""Fewer say nothing about baud and parity."""
_SLOWER_SHARE: Final = 0.6
"""So many bytes of a line that is read too fast are one run of zeros and one of ones; of other lines, a tenth is."""
_PARITY_SHARE: Final = 0.98
"""So many bytes of a line of seven bits with even parity have an even number of ones when they are read as eight."""
_TOLERATED: Final = 100
"""One damaged frame among so many whole ones is what lines do."""
_LOCKED_WH: Final = 1000
"""Without its PIN an SML meter rounds energy down to whole kWh and sends no power."""
_WHOLE: Final = frozenset(("encrypted", "bad-key", "refused"))
"""Reasons for which a frame is refused that is whole, and its checksum good."""
_ACTIVE_POWER: Final = frozenset((1, 2, 16, 21, 41, 61))
"""Groups C."""


CODES: Final = frozenset(
    (
        *("no-bytes", "wrong-protocol", "wrong-parity", "wrong-baud", "unknown-bytes"),
        *("bad-checksum", "half-telegrams", "no-key", "wrong-key", "pin-locked"),
        *("bad-syntax", "too-long", "too-deep", "replayed", "downgraded", "refused", "collision", "foreign", "late"),
    )
)
"""What a finding of a protocol that Meterway brings may be; the last line are reasons of ``CodecError``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what to do."""

    code: str
    """One of ``CODES``, or a reason that another package's driver gives."""
    detail: str
    fix: str


SILENT: Final = Finding(
    "no-bytes",
    "not one byte came",
    "check cable, optical head and its magnet, the meter's power, and whether its port is switched on",
)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a decoder made of the bytes of a line."""

    data: bytes
    telegrams: tuple[Telegram, ...]
    errors: tuple[CodecError, ...]

    @property
    def reasons(self) -> Counter[str]:
        """How often frames were rejected, by reason."""
        return Counter(error.reason for error in self.errors)


def hear(chunks: Sequence[bytes], decoder: Decoder) -> Heard:
    """Return what ``decoder`` makes of the bytes, as they came; what is half there at the end is given up."""
    items = [item for chunk in chunks for item in decoder.feed(chunk, 0.0)]
    items += decoder.idle(0.0)
    telegrams = tuple(item for item in items if isinstance(item, Telegram))
    errors = tuple(item for item in items if isinstance(item, CodecError))
    return Heard(b"".join(chunks), telegrams, errors)


def diagnose(heard: Heard, protocol: str, line: Line, decoder_of: Callable[[str], Decoder]) -> list[Finding]:
    """Return what is wrong with a line that should carry ``protocol``; empty: its telegrams are good.

    ``line`` is how it was read; ``decoder_of`` makes a decoder of another protocol, to see whether it fits better.
    """
    if not heard.data:
        return [SILENT]
    found = [*_locked(heard.telegrams), *_keys(heard), *_rejected(heard)]
    if not heard.telegrams and not heard.errors:
        found.append(_unknown(heard.data, protocol, line, decoder_of))
    return found


def _locked(telegrams: Sequence[Telegram]) -> list[Finding]:
    """Tell a locked SML meter: every energy is whole kWh though it is sent in Wh, and there is no power."""
    energies = [
        register.value
        for telegram in telegrams
        if telegram.protocol == "sml"
        for register in telegram.registers
        if register.unit == "Wh" and isinstance(register.value, Decimal)
    ]
    has_power = any(
        register.obis.c in _ACTIVE_POWER and register.unit == "W"
        for telegram in telegrams
        for register in telegram.registers
    )
    if has_power or not any(energies) or any(value % _LOCKED_WH for value in energies):
        return []
    detail = "every energy register is whole kWh and there is no power: the meter is locked by its PIN"
    fix = "ask the meter's operator for the PIN, enter it with a torch or the button, and switch `InF` on"
    return [Finding("pin-locked", detail, fix)]


def _keys(heard: Heard) -> list[Finding]:
    """Tell a wrong key from a damaged line: a right key opens all frames, a wrong one hardly any.

    Without the authentication key nothing proves a key; but of AES-GCM under a wrong key one plaintext in some
    thousand begins like a telegram, so a few frames are enough to tell.
    """
    reasons = heard.reasons
    if missing := reasons["encrypted"]:
        fix = "get the key from the grid operator, write it into a file and name that as `key_file`"
        return [Finding("no-key", f"{missing} frames are encrypted and there is no key for them", fix)]
    wrong, right = reasons["bad-key"], len(heard.telegrams)
    if not wrong or wrong <= right:
        return []
    detail = f"the key opened {right} of {right + wrong} whole, encrypted frames: it is not this meter's"
    fix = "compare the key's digits with the operator's letter, and the meter's number with the one in the letter"
    return [Finding("wrong-key", detail, fix)]


def _rejected(heard: Heard) -> list[Finding]:
    reasons = heard.reasons
    whole = len(heard.telegrams)
    found = []
    damaged = reasons["bad-checksum"]
    if damaged * _TOLERATED > whole:
        detail = f"{damaged} of {damaged + whole} frames have a wrong checksum"
        fix = "centre the optical head, shorten or shield the cable; if none is good, another `family` may fit"
        found.append(Finding("bad-checksum", detail, fix))
    if (cut := reasons["truncated"]) > whole:
        detail = f"{cut} telegrams began and did not end, {whole} are whole"
        fix = "the line loses bytes: check the head's position, a USB hub, or a gateway that cuts long messages"
        found.append(Finding("half-telegrams", detail, fix))
    told = {"bad-checksum", "truncated", "encrypted", "bad-key"}
    for reason, count in sorted(reasons.items()):
        if reason not in told:
            sentence = next(str(error) for error in heard.errors if error.reason == reason)
            fix = "keep the bytes (`meterway doctor --bundle`) and report them with the meter's make and model"
            found.append(Finding(reason, f"{count} frames were refused; the first: {sentence}", fix))
    return found


def _unknown(data: bytes, protocol: str, line: Line, decoder_of: Callable[[str], Decoder]) -> Finding:
    """Tell what bytes are in which the codec saw no frame."""
    size = f"{len(data)} bytes came"
    is_seven_bits = line.data_bits == 8 and line.parity == "N" and looks_like_even_parity(data)  # noqa: PLR2004
    if is_seven_bits and protocol != "iec62056_21":
        fix = 'set `data_bits = 7` and `parity = "E"`, or choose an IEC 62056-21 family'
        return Finding("wrong-parity", f"{size} that have seven bits and even parity", fix)
    other = recognise(data)
    if other is not None and other.protocol != protocol and _speaks(data, decoder_of(other.protocol)):
        return _other(size, other, protocol)
    if other is not None and other.protocol == protocol:
        detail = f"{size} that begin like {protocol} ({other.sign}), and no whole telegram"
        return Finding("half-telegrams", detail, "listen for longer; if it stays so, the line loses bytes")
    if len(data) < _FEW_BYTES:
        return Finding("unknown-bytes", f"only {size}, too few to say what they are", "listen for longer")
    if looks_slower(data):
        fix = "try a lower `baud` (9600, 2400, 300), or run `meterway detect`"
        return Finding("wrong-baud", f"{size} that look as if read too fast, at {line.baud} baud", fix)
    fix = "try a higher `baud` (115200) and other parity, or run `meterway detect`"
    return Finding("wrong-baud", f"{size} in which nothing is recognised at {_named(line)}", fix)


def _speaks(data: bytes, decoder: Decoder) -> bool:
    """Return whether there is a whole frame; a signature of three bytes alone is soon found in noise."""
    heard = hear([data], decoder)
    return bool(heard.telegrams or not _WHOLE.isdisjoint(heard.reasons))


def _other(size: str, other: Recognised, protocol: str) -> Finding:
    fix = "choose a family of that protocol (`meterway drivers` lists them), or run `meterway detect`"
    return Finding("wrong-protocol", f"{size} that are {other.protocol} ({other.sign}), not {protocol}", fix)


def looks_slower(data: bytes) -> bool:
    """Return whether the bytes look as if the sender is several times slower than the reader.

    Then a bit that was sent is seen as several alike, so a byte is a run of zeros and a run of ones.
    """
    return len(data) >= _FEW_BYTES and sum(byte in _ONE_STEP for byte in data) > _SLOWER_SHARE * len(data)


def looks_like_even_parity(data: bytes) -> bool:
    """Return whether the bytes are text of seven bits with even parity that was read as eight bits."""
    even = sum(byte.bit_count() % 2 == 0 for byte in data)
    text = sum(chr(byte).isprintable() or byte in b"\r\n\x02\x03\x06" for byte in strip_parity(data))
    return min(even, text) > _PARITY_SHARE * len(data) and not data.isascii()


def _named(line: Line) -> str:
    return f"{line.baud} baud {line.data_bits}{line.parity}{line.stop_bits}"


_ONE_STEP: Final = frozenset(
    value & 0xFF for ones in range(9) for value in ((1 << ones) - 1, 0xFF << ones, ~((1 << ones) - 1))
)
"""Bytes with at most one change between a 0 and a 1."""
