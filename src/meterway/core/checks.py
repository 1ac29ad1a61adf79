"""What the parts of a reading may be, whichever way they came: the catalogue, the units, and the bounds of storage.

Everything here raises ``BadDataError`` with one of the reasons that ``wire`` lists.
"""

from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final

from meterway.core.errors import BadDataError
from meterway.core.properties import OperationalProperty
from meterway.core.reading import PropertyValue
from meterway.core.units import convert, plain, same_dimension

LIMIT_TEXT_CHARACTERS: Final = 4096
"""The longest text value; a message on a P1 port has at most 2048."""
LIMIT_FAULT_CODE_CHARACTERS: Final = 256
LIMIT_DIGITS: Final = 40
"""The most digits of a number before the decimal point, and behind it; storage keeps them all."""
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2100
"""A time outside these years comes from a clock that was never set, or from a wrong unit."""

_LAST_DECIMAL: Final = Decimal(1).scaleb(-LIMIT_DIGITS)
_ROUNDED: Final = Context(prec=4 * LIMIT_DIGITS, rounding=ROUND_HALF_EVEN)
_LIMIT_NUMBER_CHARACTERS = 200
_LIMIT_SHOWN_CHARACTERS = 80


def property_value(
    named: OperationalProperty, number: Decimal | None, text: str | None, unit: str | None, date: datetime | None
) -> PropertyValue:
    """Return a value of property ``named``, as the catalogue allows it and in its usual unit.

    ``number`` is already known to be ``bounded``.
    """
    if date is not None:
        instant(date, "date")
    if text is None:
        if number is None:
            raise BadDataError(f"{named.property_id} has no value", reason="bad-shape")
        found = named.check_unit(unit)
        if found == named.unit:
            return PropertyValue(named.property_id, number, None, found, date)
        return _in_usual_unit(named, number, unit=str(found), date=date)
    if number is not None:
        raise BadDataError(f"{named.property_id} has both a number and a text", reason="bad-shape")
    if not named.kind.may_be_text:
        raise BadDataError(f"{named.property_id} is a number, not a text", reason="bad-number")
    if unit:
        raise BadDataError(f"{named.property_id} is a text and has no unit", reason="bad-unit")
    return PropertyValue(named.property_id, None, _text(text, LIMIT_TEXT_CHARACTERS, "textValue"), None, date)


def _in_usual_unit(named: OperationalProperty, number: Decimal, *, unit: str, date: datetime | None) -> PropertyValue:
    usual = next(each for each in named.allowed_units if same_dimension(each, unit))
    converted = convert(number, unit, usual)
    if -_exponent(converted) > LIMIT_DIGITS:
        converted = converted.quantize(_LAST_DECIMAL, context=_ROUNDED)
    return PropertyValue(named.property_id, bounded(converted), None, usual, date)


def exact(text: str) -> Decimal:
    """Return the number that ``text`` spells, by the grammar of JSON or of Python's ``Decimal``, if it is bounded."""
    if len(text) <= LIMIT_DIGITS and "e" not in text and "E" not in text:
        return Decimal(text)
    if len(text) > _LIMIT_NUMBER_CHARACTERS:
        raise BadDataError(f"numericalValue has {len(text)} characters", reason="bad-number")
    try:
        return bounded(Decimal(text))
    except InvalidOperation as error:
        raise BadDataError(f"numericalValue {shown(text)} is out of all bounds", reason="bad-number") from error


def bounded(value: Decimal) -> Decimal:
    """Return a number that storage can keep, with an exponent of at most 0."""
    if not value.is_finite():
        raise BadDataError(f"{value} is not a finite number", reason="bad-number")
    text = str(value)
    if len(text) <= LIMIT_DIGITS and "E" not in text:
        return value  # as nearly all are
    exponent = _exponent(value)
    if value.adjusted() >= LIMIT_DIGITS or exponent < -LIMIT_DIGITS:
        raise BadDataError(
            f"{shown(str(value))} has more than {LIMIT_DIGITS} digits before or behind the point", reason="bad-number"
        )
    return plain(value)


def _exponent(value: Decimal) -> int:
    return int(value.as_tuple().exponent)


def instant(time: datetime, where: str) -> datetime:
    """Return a time that is aware and plausible; ``where`` it stands is told if it is not."""
    if time.tzinfo is None or time.utcoffset() is None:
        raise BadDataError(f"{time.isoformat()} has no offset from UTC - at `{where}`", reason="naive-time")
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise BadDataError(
            f"{time.isoformat()} is not in the years {FIRST_YEAR} to {LAST_YEAR} - at `{where}`", reason="absurd-time"
        )
    return time


def fault_code(text: str | None) -> str | None:
    """Return a fault code that storage can keep."""
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


def shown(text: str) -> str:
    """Return ``text``, cut to what a message can show."""
    return text if len(text) <= _LIMIT_SHOWN_CHARACTERS else f"{text[:_LIMIT_SHOWN_CHARACTERS]}..."
