"""What registers mean: words of 16 bits in, exact numbers and texts out.

A register that says "no value" gives None, never a number: the contents by which SunSpec says so are taken as such
from every meter, and so is a float that is no number or not finite.

Source: SunSpec Device Information Model Specification 1.1, 4.2 (types, unimplemented values).
"""

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from math import isfinite
from struct import Struct
from types import MappingProxyType
from typing import Final

from meterway.core.units import plain
from meterway.meter.modbus_map import Type, WordOrder

UNIMPLEMENTED: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "int16": (0x8000,),
        "uint16": (0xFFFF,),
        "int32": (0x8000_0000,),
        "uint32": (0xFFFF_FFFF,),
        "int64": (0x8000_0000_0000_0000,),
        "uint64": (0xFFFF_FFFF_FFFF_FFFF,),
        "acc32": (0, 0xFFFF_FFFF),
        "acc64": (0, 0xFFFF_FFFF_FFFF_FFFF),
    }
)
"""Contents, taken as unsigned, that mean "no value"."""

LARGEST_SCALE: Final = 10
"""Powers of ten in a scale register are -10 to 10; others are no scale (SunSpec, type sunssf)."""

_FLOATS: Final = {"float32": (Struct(">f"), range(6, 10)), "float64": (Struct(">d"), range(15, 18))}
"""How it is packed, and how many digits say it exactly."""
_EXACT: Final = Context(prec=60)
_WORD_BITS: Final = 16


def joined(words: Sequence[int], order: WordOrder) -> bytes:
    """Return the bytes of a value, the highest first."""
    return b"".join(word.to_bytes(2, "big") for word in (words if order == "big" else reversed(words)))


def number(
    words: Sequence[int], kind: Type, order: WordOrder, absent: Sequence[tuple[int, int]] = ()
) -> Decimal | None:
    """Return the number that registers hold; None where they say that there is none.

    A float is the shortest decimal number that means the same float.
    """
    data = joined(words, order)
    content = int.from_bytes(data, "big")
    if content in UNIMPLEMENTED.get(kind, ()) or any(first <= content <= last for first, last in absent):
        return None
    if kind in _FLOATS:
        return _real(data, kind)
    if kind.startswith("int") and content >> (_WORD_BITS * len(words) - 1):
        content -= 1 << (_WORD_BITS * len(words))
    return Decimal(content)


def text(words: Sequence[int]) -> str:
    """Return the characters that registers hold, without what pads them; empty where there are none to be read."""
    found = joined(words, "big").split(b"\0", 1)[0].strip()
    spelled = found.decode("latin-1")
    return spelled if spelled.isprintable() else ""


def scaled(value: Decimal, scale: Decimal, power: Decimal | None = None) -> Decimal | None:
    """Return ``value`` times ``scale`` times ten to the ``power``, exactly; None where that is no power."""
    if power is not None and not -LARGEST_SCALE <= power <= LARGEST_SCALE:
        return None
    if scale != 1:
        value = _EXACT.multiply(value, scale)
    return plain(value if power is None else _EXACT.scaleb(value, int(power)))


def _real(data: bytes, kind: str) -> Decimal | None:
    packing, digits = _FLOATS[kind]
    [value] = packing.unpack(data)
    if not isfinite(value):
        return None
    written = next(text for text in (f"{value:.{count}g}" for count in digits) if float_bytes(text, kind) == data)
    return abs(Decimal(0)) if value == 0 else plain(Decimal(written))


def float_bytes(written: str, kind: str) -> bytes:
    """Return the bytes of the float that is nearest to a written number.

    Raises:
        OverflowError: there is none so large.
    """
    return _FLOATS[kind][0].pack(float(written))
