"""Wired M-Bus: bytes on the line become telegrams, one for each answer of a meter.

The frames are in ``mbus_frames``, the data records in ``mbus_records``, asking the meters in ``mbus_master``.

    answer      ::= variable / fixed / error / alarm
    variable    ::= 72 identification manufacturer version medium access status configuration records
                  / 7A access status configuration records / 78 records
    fixed       ::= 73 identification access status unit unit counter counter
    error       ::= 70 [code]
    alarm       ::= 71 [flags]

76 and 77 are 72 and 73 with the highest byte first. Source: EN 13757-3:2018, 5 and 6; the fixed structure: EN
1434-3:1997, 5.3.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec.structs import replace

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.meter import mbus_values as values
from meterway.meter.codec import CodecError
from meterway.meter.mbus_codes import GROUP_A, OTHER_MEDIUM, TABLE_OTHER, Place, Variant, private_code, standard_code
from meterway.meter.mbus_frames import LIMIT_BYTES, Frame, Framer
from meterway.meter.mbus_records import RecordError, read_records
from meterway.meter.mbus_units import FIXED, FIXED_MEDIA
from meterway.meter.telegram import Register, Telegram

__all__ = ["LIMIT_BYTES", "Identity", "MbusDecoder", "Readout", "read_answer", "read_identity", "status_register"]


@dataclass(frozen=True, slots=True)
class Identity:
    """How an M-Bus meter names itself: its secondary address."""

    number: str
    """Eight digits; hex ones occur."""
    manufacturer: str
    """Three letters; four hex digits if they are none, empty in the fixed structure."""
    version: int
    device_type: int
    """The medium (EN 13757-7)."""
    maker: bytes = b""
    """The two bytes of the manufacturer as sent with the lowest first; empty in the fixed structure."""

    def __str__(self) -> str:
        """The meter's name: ``6MWY0112345678``: group A of its codes, maker, version, number (DIN 43863-5)."""
        if not self.manufacturer:
            return self.number
        a = GROUP_A.get(self.device_type, OTHER_MEDIUM)
        return f"{a:X}{self.manufacturer}{self.version:02X}{self.number}"


class Readout(NamedTuple):
    """One answer with data."""

    telegram: Telegram
    more: bool
    """Whether the meter has further telegrams to the same readout."""
    identity: Identity | None
    """None where the answer has no long header (CI 78 and 7A)."""


class MbusDecoder:
    """Turns bytes of an M-Bus segment into telegrams; a ``meter.codec.Decoder``.

    Listens only: what the master says is recognised and passed over. ``zone`` is that of the meters' clocks. At most
    ``LIMIT_BYTES`` are buffered. A telegram whose records break the grammar is refused as a whole (``bad-syntax``),
    and searched for another one: a sum of eight bits is too weak to trust a part of it.
    """

    def __init__(self, zone: tzinfo) -> None:
        self.skipped_bytes = 0
        self._framer = Framer()
        self._zone = zone

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; at most ``LIMIT_BYTES``."""
        return self._framer.buffered_bytes

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:  # noqa: ARG002 - nothing is timed here
        """Take the next bytes; return what they completed, in order."""
        return self._decode(self._framer.feed(data))

    def idle(self, now: float) -> list[Telegram | CodecError]:  # noqa: ARG002 - nothing is timed here
        """Give up the frame that was begun; return what is in it nevertheless."""
        return self._decode(self._framer.flush())

    def _decode(self, items: Iterable[Frame | CodecError]) -> list[Telegram | CodecError]:
        found: list[Telegram | CodecError] = []
        for item in items:
            if isinstance(item, CodecError):
                found.append(item)
            elif item.is_answer:
                answer = read_answer(item, self._zone)
                if isinstance(answer, Readout):
                    found.append(answer.telegram)
                    continue
                found.append(answer)
                if answer.reason == "bad-syntax":
                    self._framer.reject(item)
        self.skipped_bytes = self._framer.skipped_bytes
        return found


_VARIABLE: Final = 0x72
_FIXED: Final = 0x73
_HIGHEST_FIRST: Final = 0x04
"""The bit of CI 72 and 73 that turns the bytes around."""
_ERROR: Final = 0x70
_ALARM: Final = 0x71
_NO_HEADER: Final = 0x78
_SHORT_HEADER: Final = 0x7A
_LONG_HEADER_BYTES: Final = 12
_SHORT_HEADER_BYTES: Final = 4
_FIXED_BYTES: Final = 16

_ERRORS: Final = {
    0x00: "unspecified error",
    0x01: "CI field not implemented",
    0x02: "buffer too long",
    0x03: "too many records",
    0x04: "premature end of record",
    0x05: "more than ten DIFE",
    0x06: "more than ten VIFE",
    0x08: "application busy",
    0x09: "too many readouts",
    0x10: "access denied",
    0x11: "application or block unknown",
    0x12: "parameter unknown or missing",
    0x13: "parameter wrong",
    0x14: "decryption failed",
    0x15: "encryption method not supported",
    0x16: "signature not supported",
}
"""EN 13757-3:2018, 9, general application errors."""


def read_answer(frame: Frame, zone: tzinfo) -> Readout | CodecError:
    """Return the telegram in a frame of a meter (``Frame.is_answer``), or why there is none.

    Reasons of the error: ``bad-syntax``, ``encrypted``, ``refused`` (the meter itself answers with an error or an
    alarm).
    """
    ci, data = (frame.body[0], frame.body[1:]) if frame.body else (-1, b"")
    try:
        readout = _read(frame, ci, data, zone)
    except BadDataError as error:
        text = f"the M-Bus frame of {len(frame.raw)} bytes has a good checksum, but {error}"
        return CodecError(text, reason=error.reason, data=frame.raw)
    if readout:
        return readout
    who = f"the M-Bus meter at address {frame.address} answers"
    if ci == _ERROR:
        what = _ERRORS.get(data[0], f"error {data[0]:02X}") if data else "an error without a number"
        return CodecError(f"{who}: {what}", reason="refused", data=frame.raw)
    if ci == _ALARM:
        return CodecError(f"{who} with alarm flags {data.hex().upper()}", reason="refused", data=frame.raw)
    return CodecError(f"{who} with CI {ci & 0xFF:02X}, which is no data", reason="bad-syntax", data=frame.raw)


def _read(frame: Frame, ci: int, data: bytes, zone: tzinfo) -> Readout | None:
    highest_first = bool(ci & _HIGHEST_FIRST)
    if ci & ~_HIGHEST_FIRST == _VARIABLE:
        return _variable(frame, data, zone, big_endian=highest_first)
    if ci & ~_HIGHEST_FIRST == _FIXED:
        return _fixed(frame, data, big_endian=highest_first)
    if ci == _SHORT_HEADER and len(data) >= _SHORT_HEADER_BYTES:
        _refuse_encrypted(data[2:4], data[_SHORT_HEADER_BYTES:])
        return _records(frame, data[_SHORT_HEADER_BYTES:], zone, data[1])
    return _records(frame, data, zone, None) if ci == _NO_HEADER else None


def read_identity(data: bytes, *, big_endian: bool = False) -> Identity:
    """Return who sends a long header; ``data`` begins with the identification number and has at least 8 bytes."""
    parts = (data[0:4], data[4:6])
    number, maker = (part[::-1] if big_endian else part for part in parts)
    return Identity(values.digits(number), values.manufacturer(maker), data[6], data[7], maker)


def _variable(frame: Frame, data: bytes, zone: tzinfo, *, big_endian: bool) -> Readout:
    if len(data) < _LONG_HEADER_BYTES:
        raise RecordError(f"its header has {len(data)} bytes instead of {_LONG_HEADER_BYTES}")
    identity, name = _named(data[:8], big_endian)
    configuration = data[11:9:-1] if big_endian else data[10:12]
    body = data[_LONG_HEADER_BYTES:]
    _refuse_encrypted(configuration, body)
    return _records(frame, body, zone, data[9], identity=identity, name=name, big_endian=big_endian)


def _refuse_encrypted(configuration: bytes, body: bytes) -> None:
    """Look for the modes 5 and 7 of the configuration field (EN 13757-7); old meters send anything there."""
    mode, blocks = configuration[1] & 0x1F, configuration[0] >> 4
    if mode in {5, 7} and blocks and 16 * blocks <= len(body):
        raise BadDataError(f"its data are encrypted (mode {mode}), which needs a key", reason="encrypted")


def _records(
    frame: Frame,
    body: bytes,
    zone: tzinfo,
    status: int | None,
    *,
    identity: Identity | None = None,
    name: str = "",
    big_endian: bool = False,
) -> Readout:
    device_type = identity.device_type if identity else 0
    records = read_records(body, device_type=device_type, zone=zone, big_endian=big_endian)
    registers = records.registers
    if status is not None:
        registers += (status_register(GROUP_A.get(device_type, OTHER_MEDIUM), status),)
    return Readout(Telegram("mbus", registers, frame.raw, name, records.time), records.more, identity)


@lru_cache(maxsize=1024)
def _named(head: bytes, big_endian: bool) -> tuple[Identity, str]:  # noqa: FBT001
    identity = read_identity(head, big_endian=big_endian)
    return identity, str(identity)


@lru_cache(maxsize=1024)
def status_register(a: int, status: int) -> Register:
    """Return the status byte of a data header; ``a`` is group A of the meter's codes."""
    return Register(Obis(a, 0, 97, 97, 1), Decimal(status), None, None, "status")


_BINARY: Final = 0x01
_STORED: Final = 0x02
_SAME_BUT_STORED: Final = 0x3E
_NO_UNIT: Final = 0x3F


def _fixed(frame: Frame, data: bytes, *, big_endian: bool) -> Readout:
    if len(data) < _FIXED_BYTES:
        raise RecordError(f"its fixed data have {len(data)} bytes instead of {_FIXED_BYTES}")
    step = -1 if big_endian else 1
    number, status, units = data[:4][::step], data[5], data[6:8]
    device_type = FIXED_MEDIA[units[0] >> 6 | units[1] >> 6 << 2]
    a = GROUP_A.get(device_type, OTHER_MEDIUM)
    registers: list[Register] = []
    for index, counter in enumerate((data[8:12][::step], data[12:16][::step])):
        code = units[index] & 0x3F
        stored = bool(status & _STORED)
        if code == _SAME_BUT_STORED and index:
            code, stored = units[0] & 0x3F, True
        if code != _NO_UNIT:
            registers.append(_counter(a, code, counter, stored=stored, binary=bool(status & _BINARY)))
    if len(registers) > 1 and registers[0].obis == registers[1].obis:
        registers[1] = replace(registers[1], obis=private_code(Place(a, 0, 0, 0, 1), TABLE_OTHER, units[1]))
    registers.append(status_register(a, status))
    identity = Identity(values.digits(number), "", 0, device_type)
    return Readout(Telegram("mbus", tuple(registers), frame.raw, str(identity)), more=False, identity=identity)


def _counter(a: int, code: int, counter: bytes, *, stored: bool, binary: bool) -> Register:
    quantity = FIXED.get(code)
    exponent = quantity.exponent if quantity else 0
    value = values.unsigned(counter, exponent) if binary else values.bcd(counter, exponent)
    place = Place(a, 0, int(stored), 0, 0)
    name = quantity.name if quantity else f"unit {code:02X}"
    obis = standard_code(name, place, Variant()) or private_code(place, TABLE_OTHER, code)
    return Register(obis, value, quantity.unit if quantity else None, None, name + (", storage 1" if stored else ""))
