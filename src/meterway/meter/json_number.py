"""Numbers of JSON documents, with exactly the digits sent; and what is too large to be one.

A number has at most ``LIMIT_DIGITS`` digits on each side of the point, as much as storage keeps. NaN and infinity are
no numbers of JSON.
"""

import re
from decimal import Context, Decimal
from typing import Final

from meterway.core.checks import LIMIT_DIGITS
from meterway.core.units import plain

_LIMIT_CHARACTERS: Final = 2 * LIMIT_DIGITS + 8
_WRITTEN: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_LIMIT_INTEGER: Final = 10**LIMIT_DIGITS
_EXACT: Final = Context(prec=4 * LIMIT_DIGITS)


def parse_number(text: str) -> Decimal | None:
    """Return the number in ``text``, without exponent; None if it is none, or too large or too fine."""
    if len(text) > _LIMIT_CHARACTERS or not _WRITTEN.fullmatch(text):
        return None
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or value.adjusted() >= LIMIT_DIGITS or exponent < -LIMIT_DIGITS:
        return None
    return plain(value)


def read_number(found: object) -> Decimal | None:
    """Return a member of a document as a number, also where it is a text of digits; None if it is none."""
    if isinstance(found, Decimal):
        return found
    if isinstance(found, str):
        return parse_number(found.strip())
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) < _LIMIT_INTEGER:
        return Decimal(found)
    return None


def times(value: Decimal, factor: Decimal) -> Decimal:
    """Return the exact product, without exponent."""
    return value if factor == 1 else plain(_EXACT.multiply(value, factor))
