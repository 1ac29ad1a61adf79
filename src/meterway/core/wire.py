"""MeterReading <-> JSON bytes; the only file that knows how readings are spelled on the wire.

``encode`` writes one shape, ours. ``decode`` reads three:

- ours: the names of the public specification, without what the catalogue knows;
- the specification's own example, with descriptions and units in every value and an identifier that is no UUID;
- the flat shape of the public reference implementation: ``meterId``, ``propertyName`` with a short OBIS code, numbers
  as strings, no identifier.

Fields that are not known are ignored, so that an old cloud understands a new edge. What one decodes the other
encodes: ``encode`` refuses what ``decode`` would refuse.

Reasons of the errors: ``too-large``, ``not-utf8``, ``not-json``, ``bad-shape``, ``naive-time``, ``absurd-time``,
``meter-mismatch``, ``empty``, ``too-many-values``, ``unknown-property``, ``repeated-property``, ``bad-unit``,
``bad-number``, ``bad-text``.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, TypeVar
from uuid import UUID

import msgspec

from meterway.core.errors import BadDataError
from meterway.core.identifiers import content_digest, foreign_identifier, reading_identifier
from meterway.core.properties import Catalogue, OperationalProperty, catalogue
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.units import plain

__all__ = [
    "LIMIT_PAYLOAD_BYTES",
    "LIMIT_TEXT_CHARACTERS",
    "LIMIT_VALUES",
    "content_digest",
    "decode",
    "encode",
    "reading_identifier",
]

LIMIT_PAYLOAD_BYTES: Final = 256 * 1024
"""A longer payload is refused unread."""
LIMIT_VALUES: Final = 512
"""The most values in one reading; meters send up to some hundred."""
LIMIT_TEXT_CHARACTERS: Final = 4096
"""The longest text value; a message on a P1 port has at most 2048."""
LIMIT_FAULT_CODE_CHARACTERS: Final = 256
LIMIT_DIGITS: Final = 40
"""The most digits of a number before the decimal point, and behind it; storage keeps them all."""
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2100
"""A time outside these years comes from a clock that was never set, or from a wrong unit."""

_LIMIT_NUMBER_CHARACTERS = 200
_LIMIT_SHOWN_CHARACTERS = 80

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


class _MessageIn(msgspec.Struct, frozen=True, gc=False, rename="camel", kw_only=True):
    reading_time: datetime
    sequence_number: _SequenceNumber | None = None
    fault_code: str | None = None
    property_values: list[_ValueIn]
    meter_individual: _Individual | None = None
    meter_id: str | None = None


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
            _instant(reading.reading_time, "$.readingTime"),
            reading.sequence_number,
            _fault_code(reading.fault_code),
            [
                _ValueOut(
                    _Definition(value.property_id),
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

    Property ids and units come out in the catalogue's spelling, values as sent: 5000 Wh stays 5000 Wh. An identifier
    that is missing is derived from meter, time and values; one that is no UUID, from meter, time and its text.

    Raises:
        BadDataError: see the reasons above; the message names the place as a JSON path.
    """
    _check_bytes(payload)
    message = _parse(payload)
    reading_time = _instant(message.reading_time, "$.readingTime")
    individual = message.meter_individual
    for named in (individual.meter_individual_id if individual else None, message.meter_id):
        if named is not None and named != meter_id:
            raise BadDataError(
                f"the payload names meter {named[:_LIMIT_SHOWN_CHARACTERS]!r}, the topic {meter_id!r}",
                reason="meter-mismatch",
            )
    values = _each(message.property_values, _from_wire)
    identifier = message.meter_reading_identifier
    if identifier is None:
        identifier = reading_identifier(meter_id, reading_time, values)
    elif isinstance(identifier, str):
        identifier = foreign_identifier(meter_id, reading_time, identifier)
    return MeterReading(
        identifier,
        meter_id,
        reading_time,
        values,
        message.sequence_number,
        _fault_code(message.fault_code),
    )


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
    return _property_value(named, number, value.text_value, value.unit, value.date)


def _from_model(value: PropertyValue, known: Catalogue) -> PropertyValue:
    number = value.numerical_value
    return _property_value(
        known.require(value.property_id),
        None if number is None else _bounded(number),
        value.text_value,
        value.unit,
        value.date,
    )


def _property_value(
    named: OperationalProperty, number: Decimal | None, text: str | None, unit: str | None, date: datetime | None
) -> PropertyValue:
    """Apply the catalogue; ``number`` is already known to be within bounds."""
    if date is not None:
        _instant(date, "date")
    if text is None:
        if number is None:
            raise BadDataError(f"{named.property_id} has no value", reason="bad-shape")
        return PropertyValue(named.property_id, number, None, named.check_unit(unit), date)
    if number is not None:
        raise BadDataError(f"{named.property_id} has both a number and a text", reason="bad-shape")
    if not named.kind.may_be_text:
        raise BadDataError(f"{named.property_id} is a number, not a text", reason="bad-number")
    if unit:
        raise BadDataError(f"{named.property_id} is a text and has no unit", reason="bad-unit")
    return PropertyValue(named.property_id, None, _text(text, LIMIT_TEXT_CHARACTERS, "textValue"), None, date)


def _number(text: str) -> Decimal | None:
    """Return the number in a piece of JSON; None for null."""
    if text[0] in "-0123456789":
        return _exact(text)
    if text == "null":
        return None
    raise BadDataError(f"numericalValue {_shown(text)} is not a number", reason="bad-number")


def _number_or_text(text: str) -> Decimal | None:
    """Return the number in a piece of JSON, which may also be a string with a number in it."""
    if text[0] != '"':
        return _number(text)
    if not _NUMBER_IN_TEXT.fullmatch(text):
        raise BadDataError(f"numericalValue {_shown(text)} is not a number", reason="bad-number")
    return _exact(text[1:-1])


def _exact(text: str) -> Decimal:
    if len(text) <= LIMIT_DIGITS and "e" not in text and "E" not in text:
        return Decimal(text)
    if len(text) > _LIMIT_NUMBER_CHARACTERS:
        raise BadDataError(f"numericalValue has {len(text)} characters", reason="bad-number")
    try:
        return _bounded(Decimal(text))
    except InvalidOperation as error:
        raise BadDataError(f"numericalValue {_shown(text)} is out of all bounds", reason="bad-number") from error


def _bounded(value: Decimal) -> Decimal:
    """Return a number that storage can keep, with an exponent of at most 0."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise BadDataError(f"{value} is not a finite number", reason="bad-number")
    if value.adjusted() >= LIMIT_DIGITS or exponent < -LIMIT_DIGITS:
        raise BadDataError(
            f"{_shown(str(value))} has more than {LIMIT_DIGITS} digits before or behind the point", reason="bad-number"
        )
    return plain(value)


def _spelled(value: Decimal) -> Decimal | msgspec.Raw:
    return msgspec.Raw(format(value, "f").encode()) if "E" in str(value) else value


def _instant(time: datetime, where: str) -> datetime:
    if time.tzinfo is None or time.utcoffset() is None:
        raise BadDataError(f"{time.isoformat()} has no offset from UTC - at `{where}`", reason="naive-time")
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise BadDataError(
            f"{time.isoformat()} is not in the years {FIRST_YEAR} to {LAST_YEAR} - at `{where}`", reason="absurd-time"
        )
    return time


def _fault_code(text: str | None) -> str | None:
    return None if text is None else _text(text, LIMIT_FAULT_CODE_CHARACTERS, "faultCode")


def _text(text: str, limit: int, what: str) -> str:
    """Return a text that storage can keep."""
    if len(text) > limit:
        raise BadDataError(f"{what} has {len(text)} characters, at most {limit} are kept", reason="bad-text")
    if "\0" in text:
        raise BadDataError(f"{what} contains NUL", reason="bad-text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadDataError(f"{what} contains half a surrogate pair", reason="bad-text") from error
    return text


def _shown(text: str) -> str:
    return text if len(text) <= _LIMIT_SHOWN_CHARACTERS else f"{text[:_LIMIT_SHOWN_CHARACTERS]}..."
