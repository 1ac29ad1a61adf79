"""MeterReading <-> JSON bytes; the only file that knows how readings are spelled on the wire.

``encode`` writes one shape, ours. ``decode`` reads three:

- ours: the names of the public specification, without what the catalogue knows;
- the specification's own example, with descriptions and units in every value and an identifier that is no UUID;
- the flat shape of the public reference implementation: ``meterId``, ``propertyName`` with a short OBIS code, numbers
  as strings, no identifier.

Fields that are not known are ignored, so that an old cloud understands a new edge. What one decodes the other
encodes: ``encode`` refuses what ``decode`` would refuse. What the parts may be is decided in ``checks``.

Both give a number the usual unit of its property if it has another one of the same dimension, so that numbers of one
property can be compared: 1500 Wh becomes 1.500 kWh. The digits stay where units differ by a power of ten; else (MJ and
kWh) the result is exact if its decimals end, and has 34 significant digits if not. At most ``checks.LIMIT_DIGITS``
decimals are kept. A property that measures in different dimensions (kW or kVA) has a usual unit of each.

Reasons of the errors: ``too-large``, ``not-utf8``, ``not-json``, ``bad-shape``, ``naive-time``, ``absurd-time``,
``meter-mismatch``, ``empty``, ``too-many-values``, ``unknown-property``, ``repeated-property``, ``bad-unit``,
``bad-number``, ``bad-text``.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final, TypeVar
from uuid import UUID

import msgspec

from meterway.core import checks
from meterway.core.columns import ReadingColumns, ValueColumns
from meterway.core.errors import BadDataError
from meterway.core.identifiers import columns_identifier, content_digest, foreign_identifier, reading_identifier
from meterway.core.properties import Catalogue, catalogue
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.shapes import Shapes

__all__ = [
    "LIMIT_PAYLOAD_BYTES",
    "LIMIT_VALUES",
    "content_digest",
    "decode",
    "decode_columns",
    "encode",
    "reading_identifier",
]

LIMIT_PAYLOAD_BYTES: Final = 256 * 1024
"""A longer payload is refused unread."""
LIMIT_VALUES: Final = 512
"""The most values in one reading; meters send up to some hundred."""
_SequenceNumber = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Definition(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    property_id: str


class _Individual(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    meter_individual_id: str | None = None


_ABSENT = msgspec.Raw()


class _ValueIn(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    operational_property_definition: _Definition | None = None
    property_name: str | None = None
    numerical_value: msgspec.Raw = _ABSENT
    """Raw, because only here it shows whether it was a number or a string."""
    text_value: str | None = None
    unit: str | None = None
    date: datetime | None = None


class _Head(msgspec.Struct, frozen=True, gc=False, rename="camel", kw_only=True):
    reading_time: datetime
    sequence_number: _SequenceNumber | None = None
    fault_code: str | None = None
    meter_individual: _Individual | None = None
    meter_id: str | None = None


class _Envelope(_Head, frozen=True, gc=False, rename="camel", kw_only=True):
    """A message whose values are not opened."""

    property_values: msgspec.Raw
    meter_reading_identifier: UUID | None = None


class _MessageIn(_Head, frozen=True, gc=False, rename="camel", kw_only=True):
    property_values: list[_ValueIn]


class _Message(_MessageIn, frozen=True, gc=False, rename="camel", kw_only=True):
    meter_reading_identifier: UUID | None = None


class _ForeignMessage(_MessageIn, frozen=True, gc=False, rename="camel", kw_only=True):
    meter_reading_identifier: str | None = None


class _ValueOut(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    operational_property_definition: _Definition
    numerical_value: Decimal | msgspec.Raw | None = None
    text_value: str | None = None
    unit: str | None = None
    date: datetime | None = None


class _MessageOut(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    meter_reading_identifier: UUID
    reading_time: datetime
    sequence_number: int | None
    fault_code: str | None
    property_values: list[_ValueOut]
    meter_individual: _Individual


_Source = TypeVar("_Source", _ValueIn, PropertyValue)
_Values = tuple[PropertyValue, ...]

_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = msgspec.json.Decoder(_Message)
_foreign_decoder = msgspec.json.Decoder(_ForeignMessage)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_values_decoder = msgspec.json.Decoder(list[_ValueIn])

_NOT_A_NUMBER = re.compile(rb"[:\[,]\s*[+-]?(NaN|Infinity|inf|nan)\b")
_NUMBER_IN_TEXT = re.compile(r'"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"')


def encode(reading: MeterReading) -> bytes:
    """Return the payload of a reading, in our shape.

    Numbers are JSON numbers with all their digits and without exponent.

    Raises:
        BadDataError: ``decode`` would refuse it.
    """
    values = _each(reading.property_values, _from_model)
    if reading.sequence_number is not None and not 0 <= reading.sequence_number < 2**63:
        raise BadDataError(f"sequence number {reading.sequence_number} is not 0 to 2**63 - 1", reason="bad-shape")
    payload = _encoder.encode(
        _MessageOut(
            reading.identifier,
            checks.instant(reading.reading_time, "$.readingTime"),
            reading.sequence_number,
            checks.fault_code(reading.fault_code),
            [
                _ValueOut(
                    _definition(value.property_id),
                    None if value.numerical_value is None else _spelled(value.numerical_value),
                    value.text_value,
                    value.unit,
                    value.date,
                )
                for value in values
            ],
            _Individual(reading.meter_id),
        )
    )
    _check_bytes(payload)
    return payload


def decode(payload: bytes, *, meter_id: str) -> MeterReading:
    """Return the reading in a payload that arrived on the topic of meter ``meter_id``.

    Property ids come out in the catalogue's spelling, numbers as sent, in the property's usual unit (see above). An
    identifier that is missing is derived from meter, time and values; one that is no UUID, from meter, time and its
    text.

    Raises:
        BadDataError: see the reasons above; the message names the place as a JSON path.
    """
    return decode_columns(payload, meter_id=meter_id).reading()


def decode_columns(payload: bytes, *, meter_id: str) -> ReadingColumns:
    """Return the reading in a payload as a store takes it; as ``decode``, at half the cost.

    Raises:
        BadDataError: as ``decode``.
    """
    _check_bytes(payload)
    envelope = _envelope(payload)
    split = _shapes.split(str(envelope.property_values, "utf-8")) if envelope else None
    if envelope and split and (shape := _shapes.find(split)):
        _check_head(envelope, meter_id)
        return _reading(envelope, meter_id, shape.filled(split.numbers))
    message = _parse(payload)
    _check_head(message, meter_id)
    columns = _columns(message.property_values)
    if split:
        _shapes.learn(split, columns)
    return _reading(message, meter_id, columns)


def _envelope(payload: bytes) -> _Envelope | None:
    """Return a message with its values unopened; None if its values must be read with all care."""
    if b"\\" in payload or payload.count(b'"propertyValues"') != 1:
        return None  # a name may be spelled with escapes, or stand there twice
    try:
        return _envelope_decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _check_head(message: _Head, meter_id: str) -> None:
    checks.instant(message.reading_time, "$.readingTime")
    individual = message.meter_individual
    for named in (individual.meter_individual_id if individual else None, message.meter_id):
        if named is not None and named != meter_id:
            raise BadDataError(
                f"the payload names meter {checks.shown(named)!r}, the topic {meter_id!r}",
                reason="meter-mismatch",
            )


def _reading(message: _Envelope | _Message | _ForeignMessage, meter_id: str, columns: ValueColumns) -> ReadingColumns:
    reading_time = message.reading_time
    identifier = message.meter_reading_identifier
    if identifier is None:
        identifier = columns_identifier(meter_id, reading_time, columns)
    elif isinstance(identifier, str):
        identifier = foreign_identifier(meter_id, reading_time, identifier)
    return ReadingColumns(
        identifier, meter_id, reading_time, columns, message.sequence_number, checks.fault_code(message.fault_code)
    )


def _columns(values: Sequence[_ValueIn]) -> ValueColumns:
    return ValueColumns.of(_each(values, _from_wire))


_shapes = Shapes("numericalValue", lambda values: _columns(_values_decoder.decode(values)))


def _check_bytes(payload: bytes) -> None:
    if len(payload) > LIMIT_PAYLOAD_BYTES:
        raise BadDataError(
            f"a reading has at most {LIMIT_PAYLOAD_BYTES} bytes, this one {len(payload)}", reason="too-large"
        )
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise BadDataError(f"not UTF-8: {error.reason} at byte {error.start}", reason="not-utf8") from error


def _parse(payload: bytes) -> _Message | _ForeignMessage:
    try:
        try:
            return _decoder.decode(payload)
        except msgspec.ValidationError:
            return _foreign_decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise BadDataError(f"not a reading: {error}", reason="bad-shape") from error
    except msgspec.DecodeError as error:
        raise _not_json(payload, error) from error
    except RecursionError as error:
        raise BadDataError("not a reading: nested too deeply", reason="bad-shape") from error


def _not_json(payload: bytes, error: Exception) -> BadDataError:
    if found := _NOT_A_NUMBER.search(payload):
        return BadDataError(f"{found[1].decode()} is no number in JSON (byte {found.start(1)})", reason="bad-number")
    return BadDataError(f"not JSON: {error}", reason="not-json")


def _each(sources: Sequence[_Source], convert: Callable[[_Source, Catalogue], PropertyValue]) -> _Values:
    if not sources:
        raise BadDataError("a reading without values - at `$.propertyValues`", reason="empty")
    if len(sources) > LIMIT_VALUES:
        raise BadDataError(
            f"a reading has at most {LIMIT_VALUES} values, this one {len(sources)} - at `$.propertyValues`",
            reason="too-many-values",
        )
    known = catalogue()
    values: list[PropertyValue] = []
    try:
        for source in sources:
            values.append(convert(source, known))  # noqa: PERF401
    except BadDataError as error:
        raise BadDataError(f"{error} - at `$.propertyValues[{len(values)}]`", reason=error.reason) from error
    names = [value.property_id for value in values]
    if len(set(names)) != len(names):
        position = next(i for i, name in enumerate(names) if name in names[:i])
        raise BadDataError(
            f"{names[position]} for the second time - at `$.propertyValues[{position}]`", reason="repeated-property"
        )
    return tuple(values)


def _from_wire(value: _ValueIn, known: Catalogue) -> PropertyValue:
    definition = value.operational_property_definition
    raw = value.numerical_value
    if definition is None:
        if value.property_name is None:
            raise BadDataError("neither operationalPropertyDefinition nor propertyName", reason="bad-shape")
        named = known.require(value.property_name)
        number = None if raw is _ABSENT else _number_or_text(str(raw, "utf-8"))
    else:
        named = known.require(definition.property_id)
        number = None if raw is _ABSENT else _number(str(raw, "utf-8"))
    return checks.property_value(named, number, value.text_value, value.unit, value.date)


def _from_model(value: PropertyValue, known: Catalogue) -> PropertyValue:
    number = value.numerical_value
    return checks.property_value(
        known.require(value.property_id),
        None if number is None else checks.bounded(number),
        value.text_value,
        value.unit,
        value.date,
    )


def _number(text: str) -> Decimal | None:
    """Return the number in a piece of JSON; None for null."""
    if text[0] in "-0123456789":
        return checks.exact(text)
    if text == "null":
        return None
    raise BadDataError(f"numericalValue {checks.shown(text)} is not a number", reason="bad-number")


def _number_or_text(text: str) -> Decimal | None:
    """Return the number in a piece of JSON, which may also be a string with a number in it."""
    if text[0] != '"':
        return _number(text)
    if not _NUMBER_IN_TEXT.fullmatch(text):
        raise BadDataError(f"numericalValue {checks.shown(text)} is not a number", reason="bad-number")
    return checks.exact(text[1:-1])


@lru_cache(maxsize=4096)
def _definition(property_id: str) -> _Definition:
    return _Definition(property_id)


def _spelled(value: Decimal) -> Decimal | msgspec.Raw:
    return msgspec.Raw(format(value, "f").encode()) if "E" in str(value) else value
