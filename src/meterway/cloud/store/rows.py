"""What the cloud stores, as the database takes it. Pure.

A batch goes to the database as a few array literals, one text a column, for ``unnest``. The driver would look at each
element of a list; a text it copies. (Arrays of arrays, as the values of readings, could not be sent otherwise: those of
PostgreSQL are rectangular.) Readings are stored as fast this way as by COPY into a staging table, and the database
says which of them are new.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, cast

import msgspec

from meterway.core.columns import PropertySet, ReadingColumns
from meterway.core.receipts import digest
from meterway.core.reports import Fault
from meterway.core.signatures import Signed
from meterway.core.topics import SpecificTopic

PAYLOAD_LIMIT_BYTES = 1024 * 1024
"""What is kept aside carries at most this much of its payload; ``size_bytes`` tells how much there was."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class ArrivedReading(msgspec.Struct, frozen=True, gc=False):
    """A reading, and the message that brought it."""

    topic: str
    payload: bytes
    concentrator_id: str
    reading: ReadingColumns
    signed: Signed | None = None
    """None where the payload has no signature."""
    is_verified: bool | None = None
    """Of a signed one: whether the signature is the meter's; None before it was checked, and where there is none."""


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


class ReadingRows(NamedTuple):
    """Readings as the database takes them: an array literal a column, None where all elements are null."""

    meter_keys: str
    reading_times: str
    identifiers: str
    property_set_keys: str
    numerical_values: str
    """Each element is an array literal again, as those of ``text_values`` and ``dates``."""
    concentrator_ids: str
    sequence_numbers: str | None
    fault_codes: str | None
    text_values: str | None
    dates: str | None
    signature_verified: str | None
    signed_payloads: str | None


def reading_rows(
    arrived: Sequence[ArrivedReading], meter_keys: Mapping[str, int], property_set_keys: Mapping[PropertySet, int]
) -> ReadingRows:
    """Return the rows of readings, in the order given."""
    readings = [each.reading for each in arrived]
    columns = [reading.columns for reading in readings]
    return ReadingRows(
        _array([str(meter_keys[reading.meter_id]) for reading in readings]),
        _array([reading.reading_time.isoformat() for reading in readings]),
        _array([f"{reading.identifier.int:032x}" for reading in readings]),
        _array([str(property_set_keys[each.property_set]) for each in columns]),
        '{"{' + '}","{'.join([_numbers(each.numerical_values) for each in columns]) + '}"}',
        _array([_quoted(each.concentrator_id) for each in arrived]),
        _nullable([None if each.sequence_number is None else str(each.sequence_number) for each in readings]),
        _texts([each.fault_code for each in readings]),
        _texts([None if each.text_values is None else _texts(each.text_values) for each in columns]),
        _texts([None if each.dates is None else _dates(each.dates) for each in columns]),
        _nullable([None if each.is_verified is None else str(each.is_verified) for each in arrived]),
        _nullable([None if each.signed is None else f'"\\\\x{each.payload.hex()}"' for each in arrived]),
    )


def storable(text: str) -> str:
    """Return ``text`` with U+FFFD for what PostgreSQL cannot keep: NUL and half surrogates."""
    return _UNSTORABLE.sub("\ufffd", text)


def _array(elements: Iterable[str]) -> str:
    return "{" + ",".join(elements) + "}"


def _nullable(elements: Sequence[str | None]) -> str | None:
    if elements.count(None) == len(elements):
        return None
    return _array(["NULL" if each is None else each for each in elements])


def _numbers(values: tuple[str | None, ...]) -> str:
    if None in values:
        return ",".join([each or "NULL" for each in values])
    return ",".join(cast("tuple[str, ...]", values))


def _texts(texts: Sequence[str | None]) -> str | None:
    return _nullable([None if text is None else _quoted(text) for text in texts])


def _dates(dates: Sequence[datetime | None]) -> str | None:
    return _nullable([None if date is None else date.isoformat() for date in dates])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
