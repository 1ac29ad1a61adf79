"""What the query API answers: rows of the store as readings on the wire. Pure.

Numbers keep every digit that the meter sent: 1.2300 is answered as ``1.2300``, a JSON number.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Protocol
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

Aware = Annotated[datetime, Meta(tz=True)]
Number = Annotated[Decimal, Meta(extra_json_schema={"type": "number", "format": "decimal"})]

encoder = msgspec.json.Encoder(decimal_format="number")
"""Writes a Decimal as a JSON number with its own digits."""

CSV_HEADER = b"readingTime,meterId,readingId,sequenceNumber,faultCode,propertyName,numericalValue,textValue,unit\r\n"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Row(Protocol):
    """A row of an answer: values by column name."""

    def __getitem__(self, name: str, /) -> object: ...


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something the API answers."""


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Something the API reads; a field that it does not know is an error."""


class PropertyAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One value; exactly one of ``numericalValue`` and ``textValue`` is there."""

    property_name: str
    numerical_value: Number | UnsetType = UNSET
    text_value: str | UnsetType = UNSET
    unit: str | None
    date: datetime | UnsetType = UNSET
    """Only where the value has a time of its own."""


class ReadingAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One reading; ``readingId`` is ours, the specification needs it for deletion."""

    reading_id: UUID
    reading_time: datetime
    """In UTC."""
    meter_id: str
    sequence_number: int | None
    fault_code: str | None
    stored_time: datetime
    """When it was written here, in UTC; how late it came is the difference."""
    property_values: tuple[PropertyAnswer, ...]
    signature_state: Literal["verified", "bad"] | UnsetType = UNSET
    """Only of signed readings: whether the signature is that of the meter's key (docs/signatures.md)."""


class PageAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which part of the result this is."""

    number: int
    size: int
    more: bool
    """Whether readings follow."""
    next_page_token: str | None
    """Sent as ``pageToken`` with the same query, continues after the last reading of this page."""


class QueryAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The answer to ``POST /v1/meterReadings``."""

    link_to_bulk: str | UnsetType = UNSET
    """Where the whole result can be downloaded; there when it has more than this page, or when it was asked for."""
    page: PageAnswer | UnsetType = UNSET
    content: tuple[ReadingAnswer, ...] | UnsetType = UNSET


def reading_answer(row: Row, names: frozenset[str]) -> ReadingAnswer:
    """Return the reading in a row of ``query.select_readings``, with the properties in ``names`` (none: all)."""
    return ReadingAnswer(
        reading_id=_uuid(row["reading_identifier"]),
        reading_time=_time(row["reading_time"]),
        meter_id=str(row["meter_id"]),
        sequence_number=_integer(row["sequence_number"]),
        fault_code=_text(row["fault_code"]),
        stored_time=_time(row["stored_time"]),
        property_values=property_answers(row, names),
        signature_state=_signature_state(row["signature_verified"]),
    )


def property_answers(row: Row, names: frozenset[str] = frozenset()) -> tuple[PropertyAnswer, ...]:
    """Return the values in the parallel arrays of a row, in the meter's order; ``names`` as in ``reading_answer``."""
    ids = _array(row["property_ids"])
    length = len(ids)
    columns = zip(
        ids,
        _array(row["units"]),
        _padded(row["numerical_values"], length),
        _padded(row["text_values"], length),
        _padded(row["dates"], length),
        strict=True,
    )
    return tuple(
        PropertyAnswer(
            property_name=str(name),
            numerical_value=number if isinstance(number, Decimal) else UNSET,
            text_value=text if isinstance(text, str) else UNSET,
            unit=unit or None if isinstance(unit, str) else None,
            date=date if isinstance(date, datetime) else UNSET,
        )
        for name, unit, number, text, date in columns
        if not names or name in names
    )


def csv_lines(reading: ReadingAnswer) -> Iterator[bytes]:
    """Return one line a value. Texts that a spreadsheet would run as a formula are led by an apostrophe."""
    start = (
        f"{reading.reading_time.isoformat().replace('+00:00', 'Z')},{reading.meter_id},{reading.reading_id},"
        f"{'' if reading.sequence_number is None else reading.sequence_number},{_cell(reading.fault_code)}"
    )
    for value in reading.property_values:
        number = "" if value.numerical_value is UNSET else str(value.numerical_value)
        text = _cell(None if value.text_value is UNSET else value.text_value)
        yield f"{start},{_cell(value.property_name)},{number},{text},{_cell(value.unit)}\r\n".encode()


def _cell(text: str | None) -> str:
    if text is None:
        return ""
    safe = "'" + text if text.startswith(_FORMULA) else text
    return '"' + safe.replace('"', '""') + '"' if any(mark in safe for mark in ',"\r\n') else safe


def _array(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _padded(value: object, length: int) -> Sequence[object]:
    return value if isinstance(value, list) and len(value) == length else (None,) * length


def _uuid(value: object) -> UUID:
    # The driver's own subclass is written by msgspec like any UUID.
    if not isinstance(value, UUID):
        raise TypeError(f"a reading identifier is a UUID, not {type(value).__name__}")
    return value


def _time(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError(f"a reading time is a datetime, not {type(value).__name__}")
    return value


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _signature_state(verified: object) -> Literal["verified", "bad"] | UnsetType:
    if verified is None:
        return UNSET
    return "verified" if verified else "bad"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
