"""Encoding of M-Bus answers: data records, headers, frames, as a meter on the wire sends them.

Source: EN 13757-3:2018, 6.3 (data information), 6.4 (value information), annex A (values); EN 13757-2:2018, 5 (frames).
"""

import struct
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from meterway.meter.mbus_frames import RSP_UD, long_frame

INT8, INT16, INT24, INT32, REAL32, INT48, INT64 = range(1, 8)
BCD2, BCD4, BCD6, BCD8, VARIABLE, BCD12 = range(9, 15)
"""Data fields of the DIF."""

MAXIMUM: Final = 1
MINIMUM: Final = 2
DURING_ERROR: Final = 3
"""Functions of the DIF; 0 is instantaneous."""

_INTEGER_BYTES: Final = {INT8: 1, INT16: 2, INT24: 3, INT32: 4, INT48: 6, INT64: 8}
_BCD_BYTES: Final = {BCD2: 1, BCD4: 2, BCD6: 3, BCD8: 4, BCD12: 6}
_VARIABLE_DATA: Final = 0x72
_FIXED_DATA: Final = 0x73
_REST: Final = 0x0F
_REST_AND_MORE: Final = 0x1F


class Header(NamedTuple):
    """Who answers."""

    number: str
    """Eight digits."""
    maker: str
    """Three letters."""
    version: int
    device_type: int

    @property
    def secondary(self) -> bytes:
        """The eight bytes of the secondary address."""
        letters = [ord(letter) - 64 for letter in self.maker]
        maker = letters[0] << 10 | letters[1] << 5 | letters[2]
        return bytes.fromhex(self.number)[::-1] + maker.to_bytes(2, "little") + bytes((self.version, self.device_type))


class Where(NamedTuple):
    """What the DIF and DIFEs say beside the data field."""

    function: int = 0
    storage: int = 0
    tariff: int = 0
    subunit: int = 0


_HERE: Final = Where()


def record(vif: bytes, field: int, data: bytes, where: Where = _HERE) -> bytes:
    """Return a data record; ``vif`` is the whole value information, with a plain text if it has one."""
    dif = bytearray([field | where.function << 4 | (where.storage & 1) << 6])
    storage, tariff, subunit = where.storage >> 1, where.tariff, where.subunit
    while storage or tariff or subunit:
        dif[-1] |= 0x80
        dif.append(storage & 0x0F | (tariff & 3) << 4 | (subunit & 1) << 6)
        storage, tariff, subunit = storage >> 4, tariff >> 2, subunit >> 1
    return bytes(dif) + vif + data


def integer(vif: bytes, field: int, value: int, where: Where = _HERE) -> bytes:
    """Return a record with an integer in units of the VIF; ``field`` is ``INT8`` to ``INT64``."""
    return record(vif, field, value.to_bytes(_INTEGER_BYTES[field], "little", signed=True), where)


def bcd(vif: bytes, field: int, value: int, where: Where = _HERE) -> bytes:
    """Return a record with decimal digits; ``field`` is ``BCD2`` to ``BCD12``. A minus takes the highest digit."""
    digits = 2 * _BCD_BYTES[field]
    written = f"{value:0{digits}d}" if value >= 0 else f"F{-value:0{digits - 1}d}"
    return record(vif, field, bytes.fromhex(written)[::-1], where)


def real(vif: bytes, value: Decimal, where: Where = _HERE) -> bytes:
    """Return a record with a float of 32 bits."""
    return record(vif, REAL32, struct.pack("<f", float(value)), where)


def text(vif: bytes, value: str, where: Where = _HERE) -> bytes:
    """Return a record with up to 191 characters of ISO 8859-1."""
    return record(vif, VARIABLE, bytes((len(value),)) + value.encode("latin-1")[::-1], where)


def day(vif: bytes, value: date, where: Where = _HERE) -> bytes:
    """Return a record with a date (type G)."""
    return record(vif, INT16, _day(value), where)


def minute(vif: bytes, value: datetime, where: Where = _HERE) -> bytes:
    """Return a record with date, hour and minute (type F): the wall clock of the value, and its summer-time bit."""
    summer = 0x80 if value.dst() else 0
    hundreds = value.year // 100 - 19
    return record(vif, INT32, bytes((value.minute, value.hour | hundreds << 5 | summer)) + _day(value), where)


def second(vif: bytes, value: datetime, where: Where = _HERE) -> bytes:
    """Return a record with date, hour, minute and second (type I)."""
    summer = 0x40 if value.dst() else 0
    data = bytes((value.second | summer, value.minute, value.hour)) + _day(value) + b"\x00"
    return record(vif, INT48, data, where)


def plain_vif(name: str, chain: bytes = b"") -> bytes:
    """Return a value information that is a text, with VIFEs after it."""
    return bytes((0xFC if chain else 0x7C, len(name))) + name.encode("latin-1")[::-1] + chain


def encode_answer(
    header: Header,
    records: Iterable[bytes],
    *,
    address: int,
    access: int,
    status: int = 0,
    rest: bytes = b"",
    more: bool = False,
) -> bytes:
    """Return the frame of an answer; ``rest`` is the maker's own data, ``more`` says that telegrams follow.

    Raises:
        OverflowError: more records than a frame holds (240 bytes).
    """
    body = bytes((_VARIABLE_DATA,)) + header.secondary + bytes((access & 0xFF, status, 0, 0)) + b"".join(records)
    if rest or more:
        body += bytes((_REST_AND_MORE if more else _REST,)) + rest
    return _framed(address, body)


def encode_fixed(
    number: str, counters: tuple[int, int], units: bytes, *, address: int, access: int, status: int = 0
) -> bytes:
    """Return an answer of the fixed structure; ``units`` are its two bytes of medium and units; BCD counters."""
    head = bytes((_FIXED_DATA,)) + bytes.fromhex(number)[::-1] + bytes((access & 0xFF, status)) + units
    return _framed(address, head + b"".join(bytes.fromhex(f"{counter:08d}")[::-1] for counter in counters))


_MOST_BYTES: Final = 253


def _framed(address: int, body: bytes) -> bytes:
    if len(body) > _MOST_BYTES:
        raise OverflowError(f"{len(body)} bytes do not fit in one M-Bus frame, which holds {_MOST_BYTES}")
    return long_frame(RSP_UD, address, body)


def _day(value: date) -> bytes:
    year = value.year % 100
    return bytes((value.day | (year & 7) << 5, value.month | (year & 0x78) << 1))
