"""Encoding of SML files as German electricity meters push them: open, list, close, in transport version 1.

    1b1b1b1b 01010101  messages  00 ... 1b1b1b1b 1a (number of 00) CRC-16/X.25

Source: BSI TR-03109-1 Annex IV, Smart Message Language 1.04: 5 (messages), 6 (binary coding), 8 (transport).
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from meterway.meter.crc import crc16_x25

UNIT_W: Final = 27
UNIT_WH: Final = 30
UNIT_A: Final = 33
UNIT_V: Final = 35
UNIT_HZ: Final = 44
"""DLMS units (IEC 62056-62)."""

_ESCAPE = b"\x1b\x1b\x1b\x1b"
_BEGIN = _ESCAPE + b"\x01\x01\x01\x01"
_ABSENT = b"\x01"
_END_OF_MESSAGE = b"\x00"
_GROUP_AND_NO_ABORT = b"\x62\x00\x62\x00"
_OPEN, _LIST, _CLOSE = 0x0101, 0x0701, 0x0201
_OCTETS, _SIGNED, _UNSIGNED, _LIST_TYPE = 0x0, 0x5, 0x6, 0x7
_NIBBLE = 0x0F


class SmlEntry(NamedTuple):
    """One entry of the list (SML_ListEntry)."""

    code: bytes
    """The OBIS code, six bytes."""
    value: int | bytes
    """A number in units of ``10**scaler``, or octets."""
    unit: int | None = None
    """A DLMS unit."""
    scaler: int | None = None
    status: int | None = None
    width_bytes: int | None = None
    """How many bytes the number takes; None for the fewest of 1, 2, 4, 8."""


def encode_sml(server_id: bytes, entries: Sequence[SmlEntry], *, file_number: int, running_s: int) -> bytes:
    """Return one transport frame: open, list and close.

    ``file_number`` counts the frames (its low 32 bits are sent); ``running_s`` is the meter's counter of seconds
    (SML_Time, secIndex).
    """
    file_id = _octets((file_number & 0xFFFF_FFFF).to_bytes(4, "big"))
    time = b"\x72\x62\x01" + _unsigned(running_s, 4)
    server = _octets(server_id)
    listed = b"".join(map(_entry, entries))
    opened = b"\x76" + _ABSENT + _ABSENT + file_id + server + time + _ABSENT
    list_name = _octets(b"\x01\x00\x62\x0a\xff\xff")
    got = b"\x77" + _ABSENT + server + list_name + time + _head(_LIST_TYPE, len(entries)) + listed + _ABSENT + _ABSENT
    number = 3 * file_number
    bodies = ((_OPEN, opened), (_LIST, got), (_CLOSE, b"\x71" + _ABSENT))
    return _transport(b"".join(_message(number + i, tag, body) for i, (tag, body) in enumerate(bodies)))


def _message(number: int, tag: int, body: bytes) -> bytes:
    transaction = _octets((number & 0xFFFF_FFFF).to_bytes(4, "big"))
    content = b"\x76" + transaction + _GROUP_AND_NO_ABORT + b"\x72\x63" + tag.to_bytes(2, "big") + body
    return content + b"\x63" + crc16_x25(content).to_bytes(2, "little") + _END_OF_MESSAGE


def _transport(messages: bytes) -> bytes:
    escaped = messages.replace(_ESCAPE, _ESCAPE + _ESCAPE)
    padding = -len(escaped) % 4
    frame = _BEGIN + escaped + bytes(padding) + _ESCAPE + b"\x1a" + bytes((padding,))
    return frame + crc16_x25(frame).to_bytes(2, "little")


def _entry(entry: SmlEntry) -> bytes:
    code, value, unit, scaler, status, width_bytes = entry
    return b"".join(
        (
            b"\x77\x07",
            code,
            _ABSENT if status is None else _unsigned(status, 4),
            _ABSENT,
            _ABSENT if unit is None else bytes((0x62, unit)),
            _ABSENT if scaler is None else b"\x52" + scaler.to_bytes(1, "big", signed=True),
            _octets(value) if isinstance(value, bytes) else _signed(value, width_bytes),
            _ABSENT,
        )
    )


def _head(kind: int, length: int, size_bytes: int = 1) -> bytes:
    """Return the type-length field (6.2.1) in at least ``size_bytes``: four bits of the length in each."""
    while length >> 4 * size_bytes:
        size_bytes += 1
    nibbles = [length >> 4 * place & _NIBBLE for place in reversed(range(size_bytes))]
    nibbles[0] |= kind << 4
    return bytes([nibble | 0x80 for nibble in nibbles[:-1]] + nibbles[-1:])


def _octets(data: bytes) -> bytes:
    size_bytes = 1
    while len(data) + size_bytes >> 4 * size_bytes:
        size_bytes += 1
    return _head(_OCTETS, len(data) + size_bytes, size_bytes) + data


def _unsigned(value: int, width_bytes: int) -> bytes:
    return bytes((_UNSIGNED << 4 | width_bytes + 1,)) + value.to_bytes(width_bytes, "big")


def _signed(value: int, width_bytes: int | None) -> bytes:
    if width_bytes is None:
        bits = (value if value >= 0 else ~value).bit_length() + 1
        width_bytes = 1 if bits <= 8 else 2 if bits <= 16 else 4 if bits <= 32 else 8  # noqa: PLR2004
    return bytes((_SIGNED << 4 | width_bytes + 1,)) + value.to_bytes(width_bytes, "big", signed=True)
