"""The messages that a reader and a meter exchange before and around the data (IEC 62056-21:2002, 6.3 and 6.4).

    request         "/?" [device address] "!" CR LF
    identification  "/" 3LETTER BAUD *printable CR LF
    option select   ACK "0" BAUD ("0" readout | "1" programming mode) CR LF
    command         SOH ("P1" | "R1" | ... ) STX data ETX BCC      break: SOH "B0" ETX BCC
    answer          STX data ETX BCC | STX data EOT BCC (more blocks follow an ACK) | SOH "P0" STX data ETX BCC
    or              ACK | NAK

Both sides' messages are here, as bytes of 7 bits without parity.
"""

import re
from typing import Final, NamedTuple

from meterway.core.errors import SetupError
from meterway.meter.iec62056_21 import block_check

ACK: Final = b"\x06"
NAK: Final = b"\x15"
SOH, STX, ETX, EOT = b"\x01", b"\x02", b"\x03", b"\x04"
READOUT, PROGRAMMING = "0", "1"
"""Options of mode C."""

MODE_C_BAUD: Final = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
MODE_B_BAUD: Final = {"A": 600, "B": 1200, "C": 2400, "D": 4800, "E": 9600, "F": 19200}
"""The identification's fourth character; any other is that of mode A, which stays at 300 baud."""

IDENTIFICATION_LIMIT_BYTES: Final = 256
"""What may come before and with an identification; more is noise."""

_ADDRESS = re.compile(r"[0-9A-Za-z ]{0,32}")
_IDENTIFICATION = re.compile(rb"/([A-Za-z]{3})([!-~])([ -.0-~]{0,40})\r?\n")
_MESSAGE = re.compile(rb"(?:\x01([A-Z][0-9])\x02?|\x02)([^\x01-\x04]*)([\x03\x04])(.)", re.DOTALL)
_OPTION = re.compile(rb"\x06([0-9])([0-9A-F])([0-9A-F])\r\n")
_REQUEST = re.compile(rb"/\?([0-9A-Za-z ]{0,32})!\r\n")


class Identification(NamedTuple):
    """What a meter answers to a request."""

    text: str
    """Without slash: ``LGZ4ZMF100AC.M26``."""
    baud_character: str
    is_fast: bool
    """Whether the meter reacts within 20 ms, not 200: its third letter is a small one."""
    end: int
    """Where it ends in the bytes that it was found in."""


class Message(NamedTuple):
    """A command or an answer with a BCC, or a single ACK or NAK."""

    command: str
    """``P0``, ``B0``, ``R1``; empty: a plain answer."""
    data: str
    """Between STX and ETX."""
    is_right: bool
    """Whether the BCC holds."""
    has_more: bool
    """Whether another block follows once this one is acknowledged."""
    end: int


class Option(NamedTuple):
    """What a reader chooses in mode C."""

    baud_character: str
    choice: str
    end: int


def request(address: str = "") -> bytes:
    """Return the request that signs on to the meter with this device address; an empty one is every meter's.

    Raises:
        SetupError: no device address: up to 32 digits, letters and blanks.
    """
    if not _ADDRESS.fullmatch(address):
        raise SetupError(f"{address[:40]!r} is no device address; it has up to 32 digits, letters and blanks")
    return b"/?" + address.encode("ascii") + b"!\r\n"


def option_select(baud_character: str, choice: str) -> bytes:
    """Return the acknowledgement that chooses baud rate and ``READOUT`` or ``PROGRAMMING``."""
    return ACK + f"0{baud_character}{choice}\r\n".encode("ascii")


def command(name: str, data: str | None = None) -> bytes:
    """Return a command: ``R1`` with ``1.8.0()``, ``P1`` with ``(password)``, ``B0`` without data.

    Raises:
        SetupError: ``data`` has characters that would end the message or are not ASCII.
    """
    if data is not None and not (data.isascii() and data.isprintable()):
        raise SetupError(f"the data of a command {name} may only have printable ASCII characters")
    content = name.encode("ascii") + (b"" if data is None else STX + data.encode("ascii")) + ETX
    return SOH + content + bytes((block_check(content),))


def answer(data: str, *, ending: bytes = ETX) -> bytes:
    """Return a meter's answer; ``ending`` EOT: another block follows."""
    content = data.encode("latin-1") + ending
    return STX + content + bytes((block_check(content),))


def find_identification(data: bytes) -> Identification | None:
    """Return the first identification in ``data``; None if there is no whole one."""
    found = _IDENTIFICATION.search(data)
    if found is None:
        return None
    text = found[0].decode("ascii")
    return Identification(text[1:].strip(), text[4], text[3].islower(), found.end())


def find_message(data: bytes) -> Message | None:
    """Return the first message with a BCC in ``data``, or a single ACK or NAK as command ``ACK`` or ``NAK``."""
    found = _MESSAGE.search(data)
    for byte, name in ((ACK, "ACK"), (NAK, "NAK")):
        at = data.find(byte, 0, found.start() if found else len(data))
        if at >= 0:
            return Message(name, "", is_right=True, has_more=False, end=at + 1)
    if found is None:
        return None
    is_right = block_check(data[found.start() + 1 : found.end() - 1]) == found[4][0]
    command_name = (found[1] or b"").decode("ascii")
    return Message(command_name, found[2].decode("latin-1"), is_right, found[3] == EOT, found.end())


def find_request(data: bytes) -> tuple[str, int] | None:
    """Return the device address in the first request in ``data``, and where that ends."""
    found = _REQUEST.search(data)
    return (found[1].decode("ascii"), found.end()) if found else None


def find_option(data: bytes) -> Option | None:
    """Return the first option select message in ``data``."""
    found = _OPTION.search(data)
    return Option(found[2].decode(), found[3].decode(), found.end()) if found else None
