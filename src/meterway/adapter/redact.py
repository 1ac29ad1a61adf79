"""Takes what identifies a meter or a home out of the bytes of a rejected telegram. Pure."""

import re

_DIGITS = re.compile(rb"[0-9A-Za-z]{8,}")
"""Serial numbers, EAN codes and texts in hex; a register (``012345.678``) has fewer before its point."""

_OCTETS_MINIMUM_BYTES = 6
_OCTETS_MAXIMUM_BYTES = 15
_OBIS_BYTES = 7
"""An OBIS code with its length: it identifies a quantity, not a meter, and is kept."""
_PRINTABLE = frozenset(range(0x20, 0x7F)) | frozenset(b"\r\n\t")
_TEXT_SHARE = 0.9


def redact(data: bytes, identities: tuple[bytes, ...] = ()) -> bytes:
    """Return ``data`` at the same length with identifying parts overwritten.

    ``identities`` are byte strings by which the meter called itself in good telegrams: each becomes ``x``.
    In text, runs of eight or more letters and digits become ``x``. In binary, octet strings of an SML
    TL field (type 0, six to fifteen bytes long) become zeros; the framing stays, so that the fault can be found.
    """
    for identity in identities:
        if len(identity) >= _OCTETS_MINIMUM_BYTES:
            data = data.replace(identity, b"x" * len(identity))
    printable = sum(byte in _PRINTABLE for byte in data)
    if printable >= _TEXT_SHARE * len(data):
        return _DIGITS.sub(lambda match: b"x" * len(match[0]), data)
    return _mask_octet_strings(data)


def _mask_octet_strings(data: bytes) -> bytes:
    """An SML octet string is a byte 0x02 to 0x0f (its length with itself) and its content."""
    masked = bytearray(data)
    position = 0
    while position < len(data):
        size = data[position]
        end = position + size
        if _OCTETS_MINIMUM_BYTES < size <= _OCTETS_MAXIMUM_BYTES and size != _OBIS_BYTES and end <= len(data):
            masked[position + 1 : end] = bytes(size - 1)
            position = end
        else:
            position += 1
    return bytes(masked)
