"""A-XDR, the encoding of DLMS data: bytes in, elements out.

    element ::= tag content
    tag     ::= 00 null / 01 array / 02 structure / 03 boolean / 04 bit string / 05 int32 / 06 uint32 / 09 octets
              / 0a visible string / 0c UTF-8 string / 0d BCD / 0f int8 / 10 int16 / 11 uint8 / 12 uint16 / 14 int64
              / 15 uint64 / 16 enum / 17 float32 / 18 float64 / 19 date-time / 1a date / 1b time
    length  ::= 00 to 7f / 81 byte / 82 byte byte       ; of strings in bytes, of arrays and structures in elements

Source: IEC 62056-5-3, "Data"; IEC 61334-6. Compact arrays (13) and the types of "delta" coding are refused.

Nothing here loops or recurses without bound: a list is refused when it has more elements than bytes follow, lists
are nested at most ``LIMIT_DEPTH`` deep, and every element takes at least one byte.
"""

import struct
from decimal import Decimal
from functools import lru_cache
from typing import Final

Element = int | str | bytes | Decimal | list["Element"] | None
"""A number, boolean (0, 1) or enum (``Enum``); a text; octets, dates and times; an exact float; a list; null."""

LIMIT_DEPTH: Final = 8
"""Lists within lists; what meters push has 5."""

NULL: Final = 0x00
ARRAY: Final = 0x01
STRUCTURE: Final = 0x02
OCTETS: Final = 0x09

_BIT_STRING: Final = 0x04
_TEXTS: Final = (0x0A, 0x0C)
_ENUM: Final = 0x16
_FLOAT: Final = 0x17
_DOUBLE: Final = 0x18
_TIMES: Final = {0x19: 12, 0x1A: 5, 0x1B: 4}
_LONG_LENGTHS: Final = {0x81: 1, 0x82: 2}

_INTEGER_BYTES: Final = {0x0F: 1, 0x10: 2, 0x05: 4, 0x14: 8, 0x11: 1, 0x12: 2, 0x06: 4, 0x15: 8, 0x03: 1, 0x0D: 1}
_SIZE: Final = tuple(_INTEGER_BYTES.get(tag, 0) for tag in range(256))
"""By tag: how many bytes an integer has; 0 for what is none."""
_SIGNED: Final = frozenset({0x0F, 0x10, 0x05, 0x14})


class Enum(int):
    """An enumerated value, told apart from a plain integer: units are enums."""


_ENUMS: Final = tuple(Enum(value) for value in range(256))


class GrammarError(Exception):
    """The bytes are no A-XDR; says in which way."""

    reason = "bad-syntax"


class CutError(GrammarError):
    """The bytes end within an element."""


class DepthError(GrammarError):
    """Lists are nested too deep."""

    reason = "too-deep"


def read_elements(data: bytes, at: int, count: int, depth: int = LIMIT_DEPTH) -> tuple[list[Element], int]:
    """Return ``count`` elements from offset ``at`` on, with at most ``depth`` levels of lists, and where they end.

    Raises:
        GrammarError: they are none, too deep (``DepthError``), or not all there (``CutError``).
    """
    found: list[Element] = []
    append = found.append
    try:
        for _ in range(count):
            tag = data[at]
            if size := _SIZE[tag]:
                end = at + 1 + size
                append(int.from_bytes(data[at + 1 : end], "big", signed=tag in _SIGNED))
                at = end
            elif tag == OCTETS and (length := data[at + 1]) < 0x80:  # noqa: PLR2004 - a length of one byte
                end = at + 2 + length
                append(data[at + 2 : end])
                at = end
            elif tag == _ENUM:
                append(_ENUMS[data[at + 1]])
                at += 2
            elif tag in (STRUCTURE, ARRAY):
                if data[at + 1 : at + 3] == b"\x02\x0f" and data[at + 4 : at + 5] == b"\x16":
                    append(_scaler_unit(data[at : at + 6]))
                    at += 6
                    continue
                if depth == 0:
                    raise DepthError(f"lists are nested too deep at byte {at}")
                inner, start = read_list_head(data, at)
                element, at = read_elements(data, start, inner, depth - 1)
                append(element)
            else:
                rare, at = _rare(data, at, tag)
                append(rare)
            if at > len(data):
                raise CutError("the data end within an element")
    except IndexError:
        raise CutError("the data end within an element") from None
    return found, at


def read_list_head(data: bytes, at: int) -> tuple[int, int]:
    """Return how many elements the array or structure at ``at`` has, and where the first begins.

    Raises:
        GrammarError: there is none, or it has more elements than bytes follow (``CutError``).
    """
    if at >= len(data) or data[at] not in (ARRAY, STRUCTURE):
        raise GrammarError(f"there is no array or structure at byte {at}")
    count, start = read_length(data, at + 1)
    if count > len(data) - start:
        raise CutError(f"the list at byte {at} has more elements than there are bytes")
    return count, start


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """Return the length that is written at ``at``, and where it ends.

    Raises:
        GrammarError: it is of a form that no push needs, or cut (``CutError``).
    """
    if at >= len(data):
        raise CutError("the data end before a length")
    first = data[at]
    if first < 0x80:  # noqa: PLR2004 - a length of one byte
        return first, at + 1
    size = _LONG_LENGTHS.get(first)
    if size is None:
        raise GrammarError(f"there is no length at byte {at}")
    end = at + 1 + size
    if end > len(data):
        raise CutError("the data end within a length")
    return int.from_bytes(data[at + 1 : end], "big"), end


@lru_cache(maxsize=1024)
def _scaler_unit(data: bytes) -> list[Element]:
    """Return the structure of scaler and unit that follows nearly every value; the list is shared, never changed."""
    return [int.from_bytes(data[3:4], "big", signed=True), _ENUMS[data[5]]]


def _rare(data: bytes, at: int, tag: int) -> tuple[Element, int]:
    """Return an element of a kind that is met seldom, and where it ends (perhaps behind the data)."""
    if tag == NULL:
        return None, at + 1
    if tag in (_FLOAT, _DOUBLE):
        return _float(data, at + 1, 4 if tag == _FLOAT else 8)
    if tag in _TIMES:
        end = at + 1 + _TIMES[tag]
        return data[at + 1 : end], end
    if tag in _TEXTS or tag in (OCTETS, _BIT_STRING):
        length, start = read_length(data, at + 1)
        end = start + (-(-length // 8) if tag == _BIT_STRING else length)
        if end > len(data):
            raise CutError("the data end within a string")
        octets = data[start:end]
        return (octets.decode("utf-8", "replace") if tag in _TEXTS else octets), end
    raise GrammarError(f"no element begins at byte {at} (tag {tag:02x})")


def _float(data: bytes, at: int, size: int) -> tuple[Decimal | None, int]:
    """Return the shortest decimal that is this float, None where it is no number."""
    end = at + size
    if end > len(data):
        raise CutError("the data end within a float")
    (value,) = struct.unpack(">f" if size == 4 else ">d", data[at:end])  # noqa: PLR2004 - bytes of a float32
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - the test for NaN
        return None, end
    if size == 8:  # noqa: PLR2004 - bytes of a float64
        return Decimal(repr(value)), end
    shortest = next(
        text for digits in range(6, 10) if struct.pack(">f", float(text := f"{value:.{digits}g}")) == data[at:end]
    )
    return Decimal(shortest), end
