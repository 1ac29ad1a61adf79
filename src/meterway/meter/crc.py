"""The 16-bit checksums of meter protocols, all of the reflected kind, at C speed with the standard library.

CRC-16/ARC guards DSMR P1 telegrams; CRC-16/X.25 and CRC-16/Kermit guard SML (X.25 also HDLC frames).
Names and check values as in the catalogue of parametrised CRC algorithms: the CRC of ``123456789`` is
BB3D (ARC), 906E (X.25), 2189 (Kermit).
"""

from binascii import crc_hqx

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in the opposite order."""

_TRINOMIAL = 0x8003
"""x^15 + x + 1; the ARC polynomial x^16 + x^15 + x^2 + 1 is (x + 1) times this."""


def crc16_arc(data: bytes) -> int:
    """Return the CRC-16/ARC of ``data`` (polynomial 8005 reflected, start 0, no final inversion).

    The message is one long polynomial over GF(2). Modulo x^15 + x + 1 it is folded: with s a power of two,
    x^(15s) = x^s + 1, so one shift and two XORs of long integers halve the length. Modulo x + 1 it is the parity
    of its bits. The two residues together are the remainder.
    """
    message = int.from_bytes(data.translate(_REVERSED), "big") << 16
    parity = message.bit_count() & 1
    for exponent in range((message.bit_length() // 15).bit_length(), -1, -1):
        step = 1 << exponent
        width = 15 * step
        while high := message >> width:
            message ^= high << width ^ high << step ^ high
    if message.bit_count() & 1 != parity:
        message ^= _TRINOMIAL
    return _reversed_16(message)


def crc16_x25(data: bytes) -> int:
    """Return the CRC-16/X.25 of ``data`` (polynomial 1021 reflected, start FFFF, inverted)."""
    return _reversed_16(crc_hqx(data.translate(_REVERSED), 0xFFFF)) ^ 0xFFFF


def crc16_kermit(data: bytes) -> int:
    """Return the CRC-16/Kermit of ``data`` (polynomial 1021 reflected, start 0)."""
    return _reversed_16(crc_hqx(data.translate(_REVERSED), 0))


def _reversed_16(value: int) -> int:
    return _REVERSED[value & 0xFF] << 8 | _REVERSED[value >> 8]
