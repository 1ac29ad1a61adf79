"""Identifiers and digests of readings: by what a reading is known, and whether two of them say the same.

Both are over the *value* of numbers: 1.0 and 1.00 are the same content, and so are 0 and -0; units count as they are
given (on the wire each property has one, see ``wire``). Instants count, not the offsets they are written with. The
order of the values does not count. None covers the sequence number, so the same telegram read twice is the same
reading.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from uuid import UUID

import msgspec

from meterway.core.columns import ReadingColumns, ValueColumns
from meterway.core.reading import MeterReading, PropertyValue

CONTENT_DIGEST_BYTES: Final = 16

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encoder = msgspec.json.Encoder()

_Canonical = tuple[str, str | None, str | None, str | None, int | None]


def reading_identifier(meter_id: str, reading_time: datetime, property_values: Sequence[PropertyValue]) -> UUID:
    """Return the identifier of a reading, in the layout of UUID version 7 (RFC 9562, 5.7).

    Its first 48 bits are the Unix time of ``reading_time`` (aware, after 1970) in milliseconds, so that identifiers
    sort by time. The others are a hash of the meter, the exact time and the values.
    """
    return columns_identifier(meter_id, reading_time, ValueColumns.of(tuple(property_values)))


def columns_identifier(meter_id: str, reading_time: datetime, columns: ValueColumns) -> UUID:
    """Return the identifier of a reading whose values are ``columns``; the same as above."""
    return _timed_uuid(reading_time, b"reading", (meter_id, _micros(reading_time), _canonical(columns)))


def foreign_identifier(meter_id: str, reading_time: datetime, text: str) -> UUID:
    """Return the identifier of a reading whose sender calls it ``text``, which is no UUID; layout as above."""
    return _timed_uuid(reading_time, b"foreign", (meter_id, text))


def content_digest(reading: MeterReading) -> bytes:
    """Return 16 bytes that are equal where two readings say the same: meter, time, values and fault code."""
    return columns_digest(ReadingColumns.of(reading))


def columns_digest(reading: ReadingColumns) -> bytes:
    """Return the digest of a reading that is given as columns; the same as above."""
    content = (reading.meter_id, _micros(reading.reading_time), reading.fault_code, _canonical(reading.columns))
    return blake2b(_encoder.encode(content), digest_size=CONTENT_DIGEST_BYTES, person=b"content").digest()


def _timed_uuid(time: datetime, purpose: bytes, content: object) -> UUID:
    rest = blake2b(_encoder.encode(content), digest_size=10, person=purpose).digest()
    data = bytearray((_micros(time) // 1000).to_bytes(6, "big") + rest)
    data[6] = data[6] & 0x0F | 0x70
    data[8] = data[8] & 0x3F | 0x80
    return UUID(bytes=bytes(data))


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _canonical(columns: ValueColumns) -> list[_Canonical]:
    names, units = columns.property_set
    none = (None,) * len(names)
    texts = columns.text_values or none
    instants = [None if date is None else _micros(date) for date in columns.dates] if columns.dates else none
    rows = list(zip(names, units, map(_number, columns.numerical_values), texts, instants, strict=True))
    return [rows[place] for place in _order(names)]


@lru_cache(maxsize=1024)
def _order(names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the places of names in the order of the names; of equal ones the first is first."""
    return tuple(sorted(range(len(names)), key=names.__getitem__))


def _number(digits: str | None) -> str | None:
    """Return the one spelling of a number: no zeros at the end behind the point, no minus before zero."""
    if digits is None or "." not in digits:
        return "0" if digits == "-0" else digits
    shortest = digits.rstrip("0").rstrip(".")
    return "0" if shortest == "-0" else shortest
