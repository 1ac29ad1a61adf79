"""Data of radio meters that makers send in a form of their own, written as the records that they stand for.

Few of the forms in the field are here: those whose meaning can be read off telegrams whose values are known. The rest
stays one register of hex digits, or is an error that says so.
"""

from collections.abc import Callable, Mapping
from typing import Final

from meterway.meter.mbus import Identity
from meterway.meter.mbus_records import RecordError, record_bounds

_REST: Final = 0x0F
_LITRES: Final = b"\x04\x13"
"""Header of a record: volume, 32 bits, in litres."""


def as_records(identity: Identity, data: bytes) -> bytes:
    """Return the data of a meter with what its maker hides in them as records; mostly they stay as they are."""
    translate = _BY_MAKER.get(identity.manufacturer)
    return translate(identity, data) if translate else data


def _apator(identity: Identity, data: bytes) -> bytes:
    """AT-WMBUS-16-2: behind 0F seven bytes, then fields of known lengths; field 10 is the volume."""
    at = len(data) - len(data.lstrip(b"\x2f"))
    if (identity.version, identity.device_type) != (0x05, 0x07) or data[at : at + 1] != bytes((_REST,)):
        return data
    field = at + 8
    while field < len(data):
        width = _APATOR_FIELDS.get(data[field], 0)
        if not width:
            break
        if data[field] == _APATOR_VOLUME and field + width < len(data):
            return data[:at] + _LITRES + data[field + 1 : field + 1 + width] + data[at:]
        field += 1 + width
    return data


_APATOR_VOLUME: Final = 0x10
_APATOR_FIELDS: Final[Mapping[int, int]] = {
    _APATOR_VOLUME: 4,
    0x40: 6,
    0x41: 2,
    0x42: 4,
    0x43: 2,
    0x71: 9,
    0xA0: 4,
    0xF0: 4,
    **dict.fromkeys(range(0x80, 0x90), 10),
}
"""Bytes after each field's number."""


def _zenner(identity: Identity, data: bytes) -> bytes:
    """Radio modules of version 0B: behind 0F nine bytes, then the volume."""
    at = len(data) - len(data.lstrip(b"\x2f"))
    volume = data[at + 10 : at + 14]
    if (identity.version, identity.device_type) != (0x0B, 0x16) or data[at : at + 1] != bytes((_REST,)):
        return data
    return data[:at] + _LITRES + volume + data[at:] if len(volume) == 4 else data  # noqa: PLR2004 - of 32 bits


def _qundis(_identity: Identity, data: bytes) -> bytes:
    """The record 0D FF 5F of 53 bytes: a VIF, then three values, with the days of the second and third before them."""
    try:
        bounds = list(record_bounds(data))
    except RecordError:
        return data
    for begin, start, end in bounds:
        value = data[start + 1 : end]
        if data[begin:start] == _QUNDIS_HEADER and len(value) == _QUNDIS_BYTES and value[7] == _QUNDIS_MARK:
            vif = value[9:10]
            records = (
                *(b"\x0c", vif, value[12:16]),
                *(b"\x4c", vif, value[18:22], b"\x42\x6c", value[16:18]),
                *(b"\xcc\x08", vif, value[24:28], b"\xc2\x08\x6c", value[22:24]),
            )
            return data[:begin] + b"".join(records) + data[begin:]
    return data


_QUNDIS_HEADER: Final = b"\x0d\xff\x5f"
_QUNDIS_BYTES: Final = 53
_QUNDIS_MARK: Final = 0x07


def _bfw(_identity: Identity, data: bytes) -> bytes:
    """Cost allocators whose data look like records and are none: one register of hex digits."""
    return bytes((_REST,)) + data


_BY_MAKER: Final[Mapping[str, Callable[[Identity, bytes], bytes]]] = {
    "APA": _apator,
    "BFW": _bfw,
    "QDS": _qundis,
    "ZRI": _zenner,
}
