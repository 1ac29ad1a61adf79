"""Encoding of DSMR P1 telegrams, version 5.

    "/" XXX "5" identification CR LF CR LF  line CR LF ...  "!" CRC-16/ARC as 4 hex digits CR LF

A line is an OBIS code and values in brackets. Source: Dutch Smart Meter Requirements 5.0.2, P1 Companion Standard,
chapters 5.2 (telegram) and 6 (representation of values).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from meterway.meter.crc import crc16_arc

_STANDARD_TIME = timedelta()


class P1Line(NamedTuple):
    """One line of a telegram."""

    code: str
    """As on the wire: ``1-0:1.8.1``."""
    text: str
    """What follows the code, with its brackets: ``(000004.426*kWh)``."""
    number: Decimal | None = None
    """The last number in ``text``; None where the line has none that counts as a reading."""


def encode_p1(identification: str, lines: Iterable[P1Line]) -> bytes:
    """Return a telegram; ``identification`` is what follows the slash (``MWY5\\2VIRTUAL``)."""  # noqa: D301
    body = "\r\n".join([f"/{identification}\r\n", *(line.code + line.text for line in lines), "!"]).encode("ascii")
    return body + b"%04X\r\n" % crc16_arc(body)


def p1_number(code: str, value: int, digits: int, decimals: int, unit: str, *, time: str = "") -> P1Line:
    """Return a line with ``value`` in units of ``10**-decimals``; ``digits`` counts those on both sides of the point.

    ``time`` is put before the number, with its brackets. The specification's F9(3,3) is ``digits=9, decimals=3``.
    """
    number = Decimal(value).scaleb(-decimals)
    return P1Line(code, f"{time}({number:0{digits + bool(decimals)}f}*{unit})", number)


def p1_text(code: str, text: str) -> P1Line:
    """Return a line with a text, which P1 sends as hex digits."""
    return P1Line(code, f"({text.encode('ascii').hex().upper()})")


def p1_time(instant: datetime) -> str:
    """Return YYMMDDhhmmssX: the wall clock of the instant's zone; X is S in summer time, W in winter (TST)."""
    return f"{instant:%y%m%d%H%M%S}{'S' if (instant.dst() or _STANDARD_TIME) else 'W'}"
