"""Frames of wireless M-Bus: their two formats, and what their checksums prove.

    format A ::= L C M M A A A A A A crc *( 1*16byte crc )      ; L counts neither itself nor checksums
    format B ::= L C M M A A A A A A *116byte crc [ *byte crc ]  ; L counts all but itself

Most receivers have tested and removed the checksums before anybody else sees the frame. What is handed on here is the
content: everything from the C field on, without checksums.

Source: EN 13757-4:2019, 12 (link layer), 12.3 and 12.4 (formats A and B), 12.7 (checksum).
"""

from typing import Final

FRAME_BYTES: Final = 290
"""The longest frame: format A with 255 bytes of content."""

SHORTEST: Final = 10
"""The shortest content: C, M, A and CI."""

_HEAD_BYTES: Final = 10
_CRC_BYTES: Final = 2
_BLOCK_BYTES: Final = 16
_FIRST_OF_B: Final = 126
"""How many bytes the first checksum of a long frame of format B guards."""

_POLYNOMIAL: Final = 0x3D65
_MOST_STRAYS: Final = 2
_REMOVED_BYTES: Final = (-1, 0, _CRC_BYTES, 2 * _CRC_BYTES)


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte << 8
        for _ in range(8):
            value = value << 1 ^ (_POLYNOMIAL if value & 0x8000 else 0)
        found.append(value & 0xFFFF)
    return tuple(found)


_TABLE: Final = _table()


def crc16_en13757(data: bytes) -> int:
    """Return the checksum of a block: polynomial 3D65, start 0, inverted; C2B7 for ``123456789``."""
    value = 0
    for byte in data:
        value = (value << 8 & 0xFF00) ^ _TABLE[value >> 8 ^ byte]
    return value ^ 0xFFFF


def size_a(length: int) -> int:
    """Return how many bytes a frame of format A has whose L field is ``length``."""
    blocks = -(-max(length + 1 - _HEAD_BYTES, 0) // _BLOCK_BYTES)
    return length + 1 + _CRC_BYTES * (1 + blocks)


def begins_as_a(data: bytes) -> bool:
    """Return whether the checksum of a first block of format A holds; ``data`` has at least 12 bytes."""
    return _holds(data[: _HEAD_BYTES + _CRC_BYTES])


def open_checked(data: bytes) -> bytes | None:
    """Return the content of a frame of either format; None if it is none, or a checksum does not hold.

    Up to two bytes may follow: what a receiver says of the signal.
    """
    if len(data) <= SHORTEST or data[0] < SHORTEST:
        return None
    size = size_a(data[0])
    content = _open_a(data[:size]) if 0 <= len(data) - size <= _MOST_STRAYS else None
    size = data[0] + 1
    if content is None and 0 <= len(data) - size <= _MOST_STRAYS:
        content = _open_b(data[:size])
    return content


def open_stripped(data: bytes) -> bytes | None:
    """Return the content of a frame whose checksums a receiver removed; None if its length is not right.

    Some leave an L field that counts the checksums of format B; some append one byte, the signal's strength.
    """
    if len(data) <= SHORTEST or data[0] < SHORTEST:
        return None
    missing_bytes = data[0] + 1 - len(data)
    return data[1 : data[0] + 1] if missing_bytes in _REMOVED_BYTES else None


def may_be_damaged(data: bytes) -> bool:
    """Return whether ``data``, which is not empty, has the size of a frame with checksums, by its L field."""
    sizes = (size_a(data[0]), data[0] + 1)
    return any(0 <= len(data) - size <= _MOST_STRAYS for size in sizes)


def _open_a(data: bytes) -> bytes | None:
    head = _HEAD_BYTES + _CRC_BYTES
    step = _BLOCK_BYTES + _CRC_BYTES
    blocks = [data[:head], *(data[at : at + step] for at in range(head, len(data), step))]
    if not all(_holds(block) for block in blocks):
        return None
    return b"".join(block[:-_CRC_BYTES] for block in blocks)[1:]


def _open_b(data: bytes) -> bytes | None:
    first = data[: _FIRST_OF_B + _CRC_BYTES]
    second = data[_FIRST_OF_B + _CRC_BYTES :]
    if not _holds(first) or (second and not _holds(second)):
        return None
    return first[1:-_CRC_BYTES] + second[:-_CRC_BYTES]


def _holds(block: bytes) -> bool:
    return len(block) > _CRC_BYTES and crc16_en13757(block[:-_CRC_BYTES]) == int.from_bytes(block[-_CRC_BYTES:], "big")
