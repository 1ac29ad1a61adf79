"""Tickbox answers: lines of text with a checksum.

answer    = "*" address " " ( values / "refused" ) " #" checksum CR LF
address   = 2 digits
values    = name "=" number unit *( " " name "=" number unit )
checksum  = CRC-16/ARC of everything before the blank in front of "#", 4 hexadecimal digits
"""

import re
from decimal import Decimal
from typing import Final

from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.telegram import Register, Telegram

PROTOCOL: Final = "tickbox"
LIMIT_BYTES: Final = 256
"""The longest line; what goes on for longer is given up."""

_NAMES: Final = {
    "imp": Obis.parse("1-0:1.8.0"),
    "exp": Obis.parse("1-0:2.8.0"),
    "pow": Obis.parse("1-0:16.7.0"),
}
_START, _END = b"*", b"\n"
_LINE: Final = re.compile(rb"(\*(?P<address>\d\d) (?P<content>[ -)+-~]+)) #(?P<checksum>[0-9A-F]{4})\r\n")
_VALUE: Final = re.compile(r"(?P<name>[a-z]{3})=(?P<number>-?\d{1,9}(?:\.\d{1,3})?)(?P<unit>kWh|W)")


def answer(address: str, content: str) -> bytes:
    """Return the line that a Tickbox sends."""
    line = f"*{address} {content}".encode("ascii")
    return line + b" #%04X\r\n" % crc16_arc(line)


class TickboxDecoder:
    """A ``meterway.meter.codec.Decoder``."""

    def __init__(self) -> None:
        self.skipped_bytes = 0
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; less than ``LIMIT_BYTES``."""
        return len(self._buffer)

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:  # noqa: ARG002 - lines have no time-out
        """See ``Decoder``."""
        self._buffer += data
        items = []
        while (item := self._next()) is not None:
            items.append(item)
        return items

    def idle(self, now: float) -> list[Telegram | CodecError]:  # noqa: ARG002
        """See ``Decoder``."""
        return [self._give_up(len(self._buffer), "truncated")] if self._buffer else []

    def _next(self) -> Telegram | CodecError | None:
        """Return what the first whole line means; None where there is none yet."""
        start = self._buffer.find(_START)
        noise_bytes = len(self._buffer) if start < 0 else start
        self.skipped_bytes += noise_bytes
        del self._buffer[:noise_bytes]
        end = self._buffer.find(_END, 0, LIMIT_BYTES) + 1
        restart = self._buffer.find(_START, 1, end or LIMIT_BYTES)
        if restart > 0:
            return self._give_up(restart, "truncated")
        if end:
            line = bytes(self._buffer[:end])
            del self._buffer[:end]
            return decode(line)
        return self._give_up(LIMIT_BYTES, "too-long") if len(self._buffer) >= LIMIT_BYTES else None

    def _give_up(self, size_bytes: int, reason: str) -> CodecError:
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return CodecError(f"a Tickbox line ends after {len(data)} bytes without its end", reason=reason, data=data)


def decode(line: bytes) -> Telegram | CodecError:
    """Return what one line, from its asterisk to its line end, means."""
    found = _LINE.fullmatch(line)
    if found is None:
        return CodecError("a Tickbox line has another form", reason="bad-syntax", data=line)
    address, content = found["address"].decode(), found["content"].decode()
    expected = crc16_arc(found[1])
    if int(found["checksum"], 16) != expected:
        return CodecError(f"the checksum of a Tickbox line is not {expected:04X}", reason="bad-checksum", data=line)
    if content == "refused":
        return CodecError(f"Tickbox {address} refuses to answer", reason="refused", data=line)
    values = [_VALUE.fullmatch(value) for value in content.split(" ")]
    registers = tuple(
        Register(_NAMES[value["name"]], Decimal(value["number"]), value["unit"])
        for value in values
        if value is not None and value["name"] in _NAMES
    )
    if not registers or None in values:
        return CodecError("a Tickbox line has values of another form", reason="bad-syntax", data=line)
    return Telegram(PROTOCOL, registers, line, meter=address)
