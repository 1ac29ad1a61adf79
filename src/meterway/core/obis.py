"""OBIS codes (IEC 62056-61 / EN 62056-6-1)."""

from typing import NamedTuple


class Obis(NamedTuple):
    """Value groups A-B:C.D.E*F, each 0 to 255; F is 255 where the code names no storage."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int = 255
