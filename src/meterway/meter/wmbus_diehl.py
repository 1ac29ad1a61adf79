"""Radio water meters of Diehl, formerly Hydrometer and Sappel, that scramble instead of encrypting.

IZAR meters send eleven bytes of their own under the CI fields A2 and A3; Hydrus meters send records under 7A with a
security mode from 16 on, which the standard leaves to makers. Both are combined with the bits of a shift register of
32 bits, which begins with one of two keys that are the same for all meters, combined with the first bytes of the frame.
That hides nothing and guards nothing, so what comes out must prove itself:

    7A, mode 16 to 31    the sum of the data is the configuration's high byte; they begin with a volume
    A2, A3               4B (thousandths of m3), the volume, that of the due day, the due day

In both forms HYD and DME send version and type before the number of their address; SAP sends year and make in their
place, and here is a water meter of version 0. Source: frames whose values are known.
"""

from typing import Final

from meterway.core.errors import BadDataError

_FIRST_OWN_MODE: Final = 16
_OWN_CIS: Final = frozenset({0xA2, 0xA3})
_SHORT_CI: Final = 0x7A
_NO_HEADER_CI: Final = 0x78
_CI_AT: Final = 9
_DATA_AT: Final = 14
"""In a frame from its C field on: behind address, CI field, access number, status and configuration."""
_ADDRESS: Final = slice(1, 9)

_TURNED: Final = (b"\x24\x23", b"\xa5\x11")
"""HYD and DME."""
_SAP: Final = b"\x30\x4c"
_COLD_WATER: Final = b"\x00\x07"
_MAKERS: Final = frozenset({*_TURNED, _SAP})
_KEYS: Final = (0xDFD109E8, 0xB71F0AE8)
_TAPS: Final = (1, 2, 11, 31)

_FIELDS_BYTES: Final = 11
_LITRES: Final = 0x4B
_MOST_LITRES: Final = 10**8
"""More than any of these meters counts: what was combined with another key is found out by it."""
_VOLUME_DIFS: Final = frozenset({0x04, 0x0C})
_VOLUME_VIFS: Final = range(0x10, 0x18)


def address_of(frame: bytes) -> bytes:
    """Return the eight bytes of the address of a frame from its C field on, in the standard's order."""
    address = frame[_ADDRESS]
    if not _is_scrambled(frame):
        return address
    return address[:-2] + _COLD_WATER if address.startswith(_SAP) else address[:2] + address[4:] + address[2:4]


def plain_frame(frame: bytes) -> bytes:
    """Return a frame from its C field on as it would be without scrambling; others are handed back as they are.

    Raises:
        BadDataError: what comes out does not prove itself (``bad-key``).
    """
    if not _is_scrambled(frame):
        return frame
    start, data = frame[:1] + address_of(frame), frame[_DATA_AT:]
    candidates = [_combined(frame, data, key) for key in _KEYS]
    if frame[_CI_AT] == _SHORT_CI:
        for records in (data, *candidates):  # some receivers undo it
            if _are_records(records, frame[_DATA_AT - 1]):
                return start + frame[_CI_AT : _DATA_AT - 2] + bytes(2) + records
    else:
        for fields in candidates:
            if _are_fields(fields):
                volume, due_volume, due_day = fields[1:5], fields[5:9], fields[9:11]
                parts = (b"\x04\x13", volume, b"\x44\x13", due_volume, b"\x42\x6c", due_day)
                return start + bytes((_NO_HEADER_CI,)) + b"".join(parts)
    raise BadDataError("its data are scrambled in a way of Diehl's that is not known here", reason="bad-key")


def _is_scrambled(frame: bytes) -> bool:
    if len(frame) <= _DATA_AT or frame[1:3] not in _MAKERS:
        return False
    ci = frame[_CI_AT]
    return ci in _OWN_CIS or (ci == _SHORT_CI and frame[_DATA_AT - 1] & 0x1F >= _FIRST_OWN_MODE)


def _combined(frame: bytes, data: bytes, key: int) -> bytes:
    """Return the data exclusive-or the shift register's bits."""
    register = key
    for at in (1, 5, 9):
        register ^= int.from_bytes(frame[at : at + 4], "big")
    found = bytearray()
    for byte in data:
        for _ in range(8):
            bit = sum(register >> tap for tap in _TAPS) & 1
            register = (register << 1 | bit) & 0xFFFFFFFF
        found.append(byte ^ register & 0xFF)
    return bytes(found)


def _are_records(data: bytes, checksum: int) -> bool:
    begins = len(data) > 1 and data[0] in _VOLUME_DIFS and data[1] in _VOLUME_VIFS
    return begins and sum(data) & 0xFF == checksum


def _are_fields(data: bytes) -> bool:
    if len(data) != _FIELDS_BYTES or data[0] != _LITRES:
        return False
    volume, due_volume = (int.from_bytes(data[at : at + 4], "little") for at in (1, 5))
    day, month = data[9] & 0x1F, data[10] & 0x0F
    return max(volume, due_volume) < _MOST_LITRES and (not due_volume or (day > 0 and 1 <= month <= 12))  # noqa: PLR2004
