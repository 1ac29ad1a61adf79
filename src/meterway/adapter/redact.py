"""Takes what identifies a meter or a home out of the bytes of a rejected telegram. Pure."""

import re

_DIGITS = re.compile(rb"[0-9A-Za-z]{8,}")
"""Serial numbers, EAN codes and texts in hex; a register (``012345.678``) has fewer before its point."""
_NUMBER_IN_SENTENCE = re.compile(r"(?<![0-9A-Za-z])(?=[A-Za-z]*+[0-9])[0-9A-Za-z]{8,}")

_MBUS_NUMBER = re.compile(rb"(\x68(.)\2\x68..[\x72\x76]|\x0c[\x78\xf8])(.{4})", re.DOTALL)
"""The meter's number in the head of an M-Bus answer (EN 13757-7, 7.5), and as the record "fabrication number"."""
_BEFORE_CONTENT = frozenset((0x09, 0x0A, 0xDB))
"""DLMS: octet string, visible string, ciphered with a system title; the length that follows is of the content only."""
_CONTENT_MAXIMUM_BYTES = 32

_OCTETS_MINIMUM_BYTES = 6
_OCTETS_MAXIMUM_BYTES = 15
_OBIS_BYTES = 7
"""An OBIS code with its length: it identifies a quantity, not a meter, and is kept."""
_PRINTABLE = frozenset(range(0x20, 0x7F)) | frozenset(b"\r\n\t")
_TEXT_SHARE = 0.9


def redact(data: bytes, identities: tuple[bytes, ...] = ()) -> bytes:
    """Return ``data`` at the same length with identifying parts overwritten.

    ``identities`` are byte strings by which the meter called itself in good telegrams: each becomes ``x``.
    In text, runs of eight or more letters and digits become ``x``, in binary too. There the octet strings of an SML
    TL field (type 0, six to fifteen bytes long), those of DLMS (six to 32) and the number of an M-Bus meter become
    zeros; the framing stays, so that the fault can be found.
    """
    for identity in identities:
        if len(identity) >= _OCTETS_MINIMUM_BYTES:
            data = data.replace(identity, b"x" * len(identity))
    printable = sum(byte in _PRINTABLE for byte in data)
    if printable < _TEXT_SHARE * len(data):
        data = _mask_octet_strings(_MBUS_NUMBER.sub(lambda match: match[1] + bytes(4), data))
    return _DIGITS.sub(lambda match: b"x" * len(match[0]), data)


def redact_name(text: str) -> str:
    """Return how a meter calls itself with its individual part overwritten."""
    return re.sub(r"[0-9A-Za-z]{8,}", lambda match: "x" * len(match[0]), text)


def redact_sentence(text: str) -> str:
    """Return a sentence of a codec, which may quote a meter, with what may be a serial number overwritten."""
    return _NUMBER_IN_SENTENCE.sub(lambda match: "x" * len(match[0]), text)


def identities_of(meter: str) -> tuple[bytes, ...]:
    """Return the bytes by which the meter that calls itself ``meter`` (``Telegram.meter``) may stand in a frame."""
    written = tuple(_DIGITS.findall(meter.encode()))
    try:
        return (*written, bytes.fromhex(meter))
    except ValueError:
        return written


def _mask_octet_strings(data: bytes) -> bytes:
    """An SML octet string is a byte 0x02 to 0x0f (its length with itself) and its content."""
    masked = bytearray(data)
    position = 0
    while position < len(data):
        start, end = _octet_string(data, position)
        if end - start != _OBIS_BYTES - 1:
            masked[start:end] = bytes(len(data[start:end]))
        position = end
    return bytes(masked)


def _octet_string(data: bytes, position: int) -> tuple[int, int]:
    """Return where the content of the octet string at ``position`` begins and ends; nothing if there is none."""
    size = data[position]
    if size in _BEFORE_CONTENT and position + 1 < len(data):
        length = data[position + 1]
        if _OCTETS_MINIMUM_BYTES <= length <= _CONTENT_MAXIMUM_BYTES:
            return position + 2, position + 2 + length
    if _OCTETS_MINIMUM_BYTES < size <= _OCTETS_MAXIMUM_BYTES:
        return position + 1, position + size
    return position + 1, position + 1
