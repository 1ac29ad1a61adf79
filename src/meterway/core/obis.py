"""OBIS codes (EN 62056-6-1): six value groups that name one quantity of a meter, in every form meters write them."""

import re
from functools import lru_cache
from typing import Final, NamedTuple, Self

from meterway.core.errors import BadDataError

CURRENT: Final = 255
"""Group F of a value that is no stored, historical one."""

_LIMIT_CHARACTERS = 32

_LETTERS = {"C": 96, "F": 97, "L": 98, "P": 99}
"""Letters that may stand for groups C and D in reduced codes (EN 62056-6-1, reduced ID codes)."""

_GROUP = r"[0-9]{1,3}"
_WRITTEN = re.compile(
    rf"(?:(?P<a>{_GROUP})-(?P<b>{_GROUP}):)?"
    rf"(?P<c>{_GROUP}|[CFLP])(?(a)[.:]|\.)(?P<d>{_GROUP}|[CFLP])(?:\.(?P<e>{_GROUP}))?(?:[*&.](?P<f>{_GROUP}))?",
)
_DOTTED = re.compile(rf"({_GROUP})" + rf"\.({_GROUP})" * 5)


class _Groups(NamedTuple):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int = CURRENT


class Obis(_Groups):
    """Value groups A-B:C.D.E*F, each 0 to 255; ordered and hashed by them, in this order.

    A: medium (0 abstract, 1 electricity, 4 heat cost, 5 cooling, 6 heat, 7 gas, 8 cold water, 9 hot water).
    B: channel. C: quantity. D: what is done with it (8 register, 7 instantaneous, 6 maximum). E: tariff.
    F: stored value; 255 where the code names none.
    """

    __slots__ = ()

    def __new__(cls, a: int, b: int, c: int, d: int, e: int, f: int = CURRENT) -> Self:  # noqa: PLR0917
        groups = (a, b, c, d, e, f)
        if min(groups) < 0 or max(groups) > 255:  # noqa: PLR2004
            raise BadDataError(f"OBIS code {groups} has a value group outside 0 to 255", reason="bad-obis")
        return super().__new__(cls, a, b, c, d, e, f)

    @classmethod
    def parse(cls, text: str, *, a: int = 1, b: int = 0) -> "Obis":
        """Return the code written in ``text``; ``a`` and ``b`` stand in where a reduced code names none.

        Understood are ``1-0:1.8.0*255``, ``1-0:1.8.0``, ``1-0:1.8.0.255``, ``1.0.1.8.0.255``, ``1.8.0``, ``1.8``,
        ``1.8.0*19`` and ``1.8.0&19`` (stored values), ``C.1.0``, ``C.1``, ``F.F``, ``F``, ``P.01``, and
        ``1-0:72:32.0`` as some Dutch P1 ports write. A missing E is 0, a missing F is 255. Exact: no blanks.

        Raises:
            BadDataError: none of these forms, or a value group above 255 (reason ``bad-obis``).
        """
        return _parse(text, a, b)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Obis":
        """Return the code in the six bytes that SML and DLMS send.

        Raises:
            BadDataError: not six bytes (reason ``bad-obis``).
        """
        return _from_bytes(data)

    def __bytes__(self) -> bytes:
        return bytes(tuple(self))

    def __str__(self) -> str:
        """The canonical form, ``1-0:1.8.0*255``; ``Obis.parse`` understands it."""
        return f"{self.a}-{self.b}:{self.c}.{self.d}.{self.e}*{self.f}"

    @property
    def reduced(self) -> str:
        """Groups C, D and E as ``1.8.0``: what people say when medium and channel are clear."""
        return f"{self.c}.{self.d}.{self.e}"

    @property
    def is_current(self) -> bool:
        """Whether this is the present value, not one that the meter stored at an earlier date."""
        return self.f == CURRENT


@lru_cache(maxsize=4096)
def _parse(text: str, a: int, b: int) -> Obis:
    if len(text) <= _LIMIT_CHARACTERS:
        if dotted := _DOTTED.fullmatch(text):
            return Obis(*map(int, dotted.groups()))
        if found := _WRITTEN.fullmatch("F.F" if text == "F" else text):
            return Obis(
                a if found["a"] is None else int(found["a"]),
                b if found["b"] is None else int(found["b"]),
                _group(found["c"]),
                _group(found["d"]),
                int(found["e"] or 0),
                CURRENT if found["f"] is None else int(found["f"]),
            )
    raise BadDataError(f"{text[:_LIMIT_CHARACTERS]!r} is not an OBIS code such as 1-0:1.8.0*255", reason="bad-obis")


@lru_cache(maxsize=4096)
def _from_bytes(data: bytes) -> Obis:
    if len(data) != 6:  # noqa: PLR2004
        raise BadDataError(f"an OBIS code is 6 bytes, not {len(data)} ({data[:16].hex()})", reason="bad-obis")
    return Obis(*data)


def _group(text: str) -> int:
    return _LETTERS.get(text) or int(text)
