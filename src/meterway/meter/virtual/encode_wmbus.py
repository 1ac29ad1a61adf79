"""Encoding of wireless M-Bus: what a radio meter sends, and what a receiver makes of it on its serial line.

From the inside out: records (``encode_mbus``), a header with or without encryption, layers around it, the link, and
either a frame with checksums (formats A and B) or what a receiver hands on.

    part = mode_5(meter, records, key=key, access=17)
    line = cul(format_a(linked(meter, part)))

Source: EN 13757-4:2019, 12 and 13; EN 13757-7:2018, 6 and 7; OMS specification volume 2, 9.
"""

from collections.abc import Iterable
from functools import reduce
from operator import xor
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR

from meterway.meter.crc import crc16_x25
from meterway.meter.mbus_records import record_bounds
from meterway.meter.virtual.encode_mbus import Header
from meterway.meter.wmbus_frames import crc16_en13757
from meterway.meter.wmbus_layers import Protection
from meterway.meter.wmbus_security import ephemeral_keys, message_mac, session_vector

SND_NR: Final = 0x44
"""C field: the meter sends and wants no answer."""

_LONG, _SHORT, _NO_HEADER, _COMPACT, _AFL = 0x72, 0x7A, 0x78, 0x79, 0x90
_ELL, _ELL_SESSION = 0x8C, 0x8D
_CHECK: Final = b"\x2f\x2f"
_FILLER: Final = b"\x2f"
_BLOCK_BYTES: Final = 16
_MOST_BLOCKS: Final = 15
_AFL_FIELDS: Final = 0x2C00
"""Control field, counter and MAC follow."""
_AFL_CONTROL: Final = b"\x25"
_MAC_BYTES: Final = 8
_KEY_FROM_COUNTER: Final = 0x10


def address(meter: Header) -> bytes:
    """Return the eight bytes of a meter's address as the link layer has them."""
    number, maker, rest = meter.secondary[:4], meter.secondary[4:6], meter.secondary[6:]
    return maker + number + rest


def linked(meter: Header, part: bytes, *, control: int = SND_NR) -> bytes:
    """Return the content of a frame: the link layer and what begins with a CI field."""
    return bytes((control,)) + address(meter) + part


def clear(records: Iterable[bytes], *, access: int, status: int = 0, behind: Header | None = None) -> bytes:
    """Return data without protection; ``behind`` is the meter itself where the link is a radio module's."""
    return _header(behind, access, status, 0, 0) + b"".join(records)


def without_header(records: Iterable[bytes]) -> bytes:
    """Return data in a full frame as Kamstrup's meters send them within a session."""
    return bytes((_NO_HEADER,)) + b"".join(records)


def compact(records: Iterable[bytes]) -> bytes:
    """Return the same data in a compact frame, which only who has heard a full one can read."""
    body = b"".join(records)
    bounds = list(record_bounds(body))
    headers = b"".join(body[begin:start] for begin, start, _ in bounds)
    values = b"".join(body[start:end] for _, start, end in bounds)
    return bytes((_COMPACT,)) + _checksum(headers) + _checksum(body) + values


def mode_5(
    meter: Header, records: Iterable[bytes], *, key: bytes, access: int, status: int = 0, behind: Header | None = None
) -> bytes:
    """Return data encrypted with the meter's key."""
    owner = behind or meter
    plain = _padded(records)
    vector = address(owner) + bytes((access & 0xFF,)) * 8
    return _header(behind, access, status, 5, len(plain) // _BLOCK_BYTES) + _cbc(key, vector, plain)


def mode_7(meter: Header, records: Iterable[bytes], *, key: bytes, counter: int, access: int, status: int = 0) -> bytes:
    """Return data encrypted with the key of one message, and authenticated."""
    written = counter.to_bytes(4, "little")
    keys = ephemeral_keys(key, written, meter.secondary[:4])
    plain = _padded(records)
    header = _header(None, access, status, 7, len(plain) // _BLOCK_BYTES) + bytes((_KEY_FROM_COUNTER,))
    rest = header + _cbc(keys.encryption, bytes(_BLOCK_BYTES), plain)
    mac = message_mac(keys.mac, Protection(rest, _AFL_CONTROL, b"", written, bytes(_MAC_BYTES)))
    layer = _AFL_FIELDS.to_bytes(2, "little") + _AFL_CONTROL + written + mac
    return bytes((_AFL, len(layer))) + layer + rest


def extended(part: bytes, *, access: int, control: int = 0x20) -> bytes:
    """Return the short extended link layer around ``part``."""
    return bytes((_ELL, control, access & 0xFF)) + part


def session(meter: Header, part: bytes, *, key: bytes, access: int, number: int, control: int = 0x20) -> bytes:
    """Return an encrypted session of the extended link layer around ``part``; ``number`` has 29 bits."""
    written = (number | 1 << 29).to_bytes(4, "little")
    vector = session_vector(address(meter), control, written)
    plain = _checksum(part) + part
    encrypted = Cipher(AES(key), CTR(vector)).encryptor().update(plain)
    return bytes((_ELL_SESSION, control, access & 0xFF)) + written + encrypted


def format_a(content: bytes) -> bytes:
    """Return the frame with a checksum for every block of 16 bytes."""
    frame = bare(content)
    blocks = [frame[:10], *(frame[at : at + 16] for at in range(10, len(frame), 16))]
    return b"".join(block + crc16_en13757(block).to_bytes(2, "big") for block in blocks)


def format_b(content: bytes) -> bytes:
    """Return the frame with one checksum, or two if it is long.

    Raises:
        OverflowError: more content than the format holds (251 bytes).
    """
    size = 1 + len(content) + (2 if 1 + len(content) <= 126 else 4)  # noqa: PLR2004 - up to the first checksum
    frame = _length(size - 1) + content
    blocks = [frame[:126], *([frame[126:]] if len(frame) > 126 else ())]  # noqa: PLR2004 - up to the first checksum
    return b"".join(block + crc16_en13757(block).to_bytes(2, "big") for block in blocks)


def bare(content: bytes) -> bytes:
    """Return the frame as an RC1180 hands it on: without checksums.

    Raises:
        OverflowError: more content than a frame holds (255 bytes).
    """
    return _length(len(content)) + content


def im871a(content: bytes, *, time_ms: int | None = None, rssi: int | None = None) -> bytes:
    """Return what an iM871A hands on."""
    control = 0x82 | (0 if time_ms is None else 0x20) | (0 if rssi is None else 0x40)
    message = bytes((control, 0x03)) + _length(len(content)) + content
    if time_ms is not None:
        message += time_ms.to_bytes(4, "little")
    if rssi is not None:
        message += bytes((rssi,))
    return b"\xa5" + message + crc16_x25(message).to_bytes(2, "little")


def amber(content: bytes, *, rssi: int | None = None) -> bytes:
    """Return what an AMB8465 with command output hands on; a signal strength counts as content."""
    inner = content if rssi is None else content + bytes((rssi,))
    message = b"\xff\x03" + _length(len(inner)) + inner
    return message + bytes((reduce(xor, message),))


def cul(frame: bytes, *, is_b: bool = False, quality: bytes = b"") -> bytes:
    """Return the line of a CUL; ``frame`` is of format A or B, ``quality`` is up to two bytes that it appends."""
    mark = b"bY" if is_b else b"b"
    return mark + (frame + quality).hex().upper().encode() + b"\r\n"


def rtl_wmbus(content: bytes, *, mode: str = "T1", holds: bool = True) -> bytes:
    """Return the line of rtl_wmbus."""
    number = content[3:7][::-1].hex()
    return f"{mode};{int(holds)};1;2026-02-14 09:35:07.000;97;58;{number};0x{bare(content).hex()}\n".encode()


def hex_line(content: bytes) -> bytes:
    """Return the frame without checksums as hex digits, as gateways write it."""
    return bare(content).hex().encode() + b"\n"


def _header(behind: Header | None, access: int, status: int, mode: int, blocks: int) -> bytes:
    if blocks > _MOST_BLOCKS:
        raise OverflowError(f"{blocks} blocks are more than a header can count")
    fields = bytes((access & 0xFF, status, blocks << 4, mode))
    return bytes((_SHORT,)) + fields if behind is None else bytes((_LONG,)) + behind.secondary + fields


def _padded(records: Iterable[bytes]) -> bytes:
    plain = _CHECK + b"".join(records)
    return plain + _FILLER * (-len(plain) % _BLOCK_BYTES)


def _cbc(key: bytes, vector: bytes, plain: bytes) -> bytes:
    encryptor = Cipher(AES(key), CBC(vector)).encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def _checksum(data: bytes) -> bytes:
    return crc16_en13757(data).to_bytes(2, "little")


def _length(length: int) -> bytes:
    return length.to_bytes(1, "big")
