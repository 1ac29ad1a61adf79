"""What the cloud stores, as the database takes it. Pure.

Arrays of arrays cannot be sent (those of PostgreSQL are rectangular, readings are not), so the values of a reading go
as one array literal. Sent that way, as columns for ``unnest``, readings are stored as fast as by COPY into a staging
table, and the database says which of them are new.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from meterway.core.reading import MeterReading
from meterway.core.receipts import DIGEST_BYTES, digest
from meterway.core.reports import Fault
from meterway.core.topics import SpecificTopic

PAYLOAD_LIMIT_BYTES = 1024 * 1024
"""What is kept aside carries at most this much of its payload; ``size_bytes`` tells how much there was."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class PropertySet(NamedTuple):
    """Which properties a reading has, in order, and their units."""

    property_ids: tuple[str, ...]
    units: tuple[str | None, ...]


class ArrivedReading(msgspec.Struct, frozen=True, gc=False):
    """A reading, and the message that brought it."""

    topic: str
    payload: bytes
    concentrator_id: str
    reading: MeterReading


class ArrivedReport(msgspec.Struct, frozen=True, gc=False):
    """A status or description, which replaces the one before; an empty payload clears it."""

    topic: str
    payload: bytes
    concentrator_id: str
    meter_id: str | None
    """None where a concentrator speaks about itself."""
    specific_topic: SpecificTopic


class ArrivedFault(msgspec.Struct, frozen=True, gc=False):
    """A fault that an adapter or a concentrator reports."""

    topic: str
    payload: bytes
    concentrator_id: str
    meter_id: str | None
    fault: Fault


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A message that could not become any of the others."""

    topic: str
    payload: bytes
    reason: str
    message: str

    @property
    def digest(self) -> bytes:
        """By what the quarantine knows it; the same message arrives twice as one."""
        return digest(self.topic, self.payload)


Arrived = ArrivedReading | ArrivedReport | ArrivedFault | Rejected
"""A message, decided."""


class ReadingRow(NamedTuple):
    """A reading as the database takes it; the first three are its primary key."""

    meter_key: int
    reading_time: datetime
    identifier_bytes: bytes
    arrived: ArrivedReading
    property_set_key: int
    numerical_values: str
    text_values: str | None
    dates: str | None
    content_digest: bytes


def property_set(reading: MeterReading) -> PropertySet:
    """Return which properties ``reading`` has."""
    values = reading.property_values
    return PropertySet(tuple([value.property_id for value in values]), tuple([value.unit for value in values]))


def reading_row(arrived: ArrivedReading, meter_key: int, property_set_key: int) -> ReadingRow:
    """Return the row of a reading; ``content_digest`` is over everything but the primary key."""
    reading = arrived.reading
    values = reading.property_values
    numbers = _literal([str(v.numerical_value) if v.numerical_value is not None else "NULL" for v in values])
    texts = dates = None
    for value in values:
        if value.text_value is not None:
            texts = _literal(_quoted(v.text_value) for v in values)
        if value.date is not None:
            dates = _literal(v.date.astimezone(UTC).isoformat() if v.date else "NULL" for v in values)
    content = (reading.sequence_number, reading.fault_code, property_set_key, numbers, texts, dates)
    content_digest = blake2b(repr(content).encode(), digest_size=DIGEST_BYTES).digest()
    identifier = reading.identifier.bytes
    return ReadingRow(
        meter_key,
        reading.reading_time,
        identifier,
        arrived,
        property_set_key,
        numbers,
        texts,
        dates,
        content_digest,
    )


def newest_by_meter(rows: Iterable[ReadingRow]) -> list[ReadingRow]:
    """Return the newest row of each meter, by reading time, in the order of the keys.

    ``rows`` are in the order of their primary keys; of two with the same key the first is taken, as PostgreSQL does.
    """
    newest: dict[int, ReadingRow] = {}
    for row in rows:
        held = newest.get(row.meter_key)
        if held is None or held[:3] != row[:3]:
            newest[row.meter_key] = row
    return list(newest.values())


def storable(text: str) -> str:
    """Return ``text`` with U+FFFD for what PostgreSQL cannot keep: NUL and half surrogates."""
    return _UNSTORABLE.sub("\ufffd", text)


def notification(meter_keys: Sequence[int]) -> str:
    """Return the payload of ``reading_stored``: the keys, or ``*`` when PostgreSQL would refuse so long a text."""
    text = ",".join(map(str, meter_keys))
    return text if len(text) < _NOTIFY_LIMIT_BYTES else "*"


_NOTIFY_LIMIT_BYTES = 8000


def _literal(elements: Iterable[str]) -> str:
    return "{" + ",".join(elements) + "}"


def _quoted(text: str | None) -> str:
    if text is None:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
