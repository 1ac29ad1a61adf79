"""Encoding of IEC 62056-21 readouts and load profiles, and the parity of their line.

    "/" identification CR LF [CR LF]  [STX] line CR LF ...  "!" CR LF  [ETX BCC]

Source: IEC 62056-21:2002, 6.3 and 6.5; load profile P.01: VDEW specification 2.0.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from meterway.meter.iec62056_21 import block_check

_EVEN_PARITY = bytes(byte | (byte.bit_count() & 1) << 7 for byte in range(128))


def encode_push(identification: str, lines: Iterable[str]) -> bytes:
    """Return a readout as mode D sends it: unasked, without checksum."""
    return f"/{identification}\r\n\r\n".encode("ascii") + _data(lines)


def encode_block(lines: Iterable[str]) -> bytes:
    """Return the data block of modes A, B and C: from STX to the BCC."""
    guarded = _data(lines) + b"\x03"
    return b"\x02" + guarded + bytes((block_check(guarded),))


def encode_readout(identification: str, lines: Iterable[str]) -> bytes:
    """Return identification and data block, as somebody who listens to both hears them."""
    return f"/{identification}\r\n".encode("ascii") + encode_block(lines)


def encode_profile(
    start: datetime, rows: Sequence[Sequence[Decimal]], columns: Sequence[tuple[str, str]], *, period_min: int
) -> str:
    """Return a load profile as the data of an answer: the header and a line for each row.

    ``start`` is the end of the first period, aware; ``columns`` are codes and units.
    """
    time = f"{int(bool(start.dst()))}{start:%y%m%d%H%M%S}"
    named = "".join(f"({code})({unit})" for code, unit in columns)
    header = f"P.01({time})(00000000)({period_min})({len(columns)}){named}"
    return "\r\n".join([header, *("".join(f"({value})" for value in row) for row in rows)]) + "\r\n"


def with_even_parity(data: bytes) -> bytes:
    """Return 7-bit ``data`` as a line of 8 bits without parity shows it: the eighth bit is the parity."""
    return data.translate(_EVEN_PARITY.ljust(256, b"\x00"))


def _data(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "!")).encode("latin-1")
