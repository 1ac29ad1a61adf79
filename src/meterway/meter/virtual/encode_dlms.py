"""Encodes pushes of DLMS/COSEM: what ``meter.dlms`` decodes, in the forms that meters send.

    encode_notification(1, coded([(Obis(1, 0, 1, 8, 0), uint32(1234), (0, 30))]))   -> an APDU
    encode_hdlc(apdu)                                                               -> its frames

Sealing an APDU is ``meter.dlms_security.seal``.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from meterway.core.obis import Obis
from meterway.meter.axdr_write import array, date_time, enum, int8, int16, octets, structure, uint16, uint32, visible
from meterway.meter.dlms_security import write_length
from meterway.meter.hdlc import encode_frame

__all__ = [
    "Scale",
    "array",
    "attributes",
    "coded",
    "date_time",
    "described",
    "encode_blocks",
    "encode_hdlc",
    "encode_notification",
    "enum",
    "flat",
    "int16",
    "octets",
    "structure",
    "uint16",
    "uint32",
    "visible",
]

_LLC: Final = b"\xe6\xe7\x00"
_MOST_INFORMATION_BYTES: Final = 2030

Scale = tuple[int, int]
"""Scaler and unit number."""


def coded(values: Iterable[tuple[Obis, bytes, Scale | None]]) -> list[bytes]:
    """Return one structure a value: code, value and, unless None, scaler and unit."""
    return [structure(octets(bytes(obis)), value, *_scale(scale)) for obis, value, scale in values]


def flat(values: Iterable[tuple[Obis, bytes, Scale | None]]) -> list[bytes]:
    """Return code, value and, unless None, scaler and unit, side by side."""
    return [part for obis, value, scale in values for part in (octets(bytes(obis)), value, *_scale(scale))]


def described(values: Sequence[tuple[int, Obis, bytes]]) -> list[bytes]:
    """Return a list of objects (class and code; each value is attribute 2) and the values after the first.

    The first object is the list itself, its value is not sent.
    """
    objects = [structure(uint16(class_id), octets(bytes(obis)), int8(2), uint16(0)) for class_id, obis, _ in values]
    return [array(*objects), *(value for _, _, value in values[1:])]


def attributes(values: Sequence[tuple[int, Obis, bytes]]) -> bytes:
    """Return the data of Czech meters: pairs of an untagged attribute descriptor (attribute 2) and a value."""
    pairs = [
        b"\x02\x02" + class_id.to_bytes(2, "big") + bytes(obis) + b"\x02" + value for class_id, obis, value in values
    ]
    return structure(enum(1), array(*pairs))


def encode_notification(invoke_id: int, data: bytes, time: bytes = b"") -> bytes:
    """Return a data-notification; ``time`` is empty or 12 octets."""
    return b"\x0f" + invoke_id.to_bytes(4, "big") + bytes((len(time),)) + time + data


def encode_blocks(apdu: bytes, *, most_bytes: int) -> list[bytes]:
    """Return the blocks of a general block transfer, each with at most ``most_bytes`` of the APDU."""
    pieces = [apdu[start : start + most_bytes] for start in range(0, len(apdu), most_bytes)]
    blocks = []
    for number, piece in enumerate(pieces, 1):
        control = 0xC0 if number == len(pieces) else 0x40
        blocks.append(
            b"\xe0" + bytes((control,)) + number.to_bytes(2, "big") + b"\0\0" + write_length(len(piece)) + piece
        )
    return blocks


def encode_hdlc(
    apdu: bytes,
    *,
    destination: bytes = b"\xcf",
    source: bytes = b"\x02\x23",
    most_bytes: int = _MOST_INFORMATION_BYTES,
) -> bytes:
    """Return the frames of an APDU, segmented where it is longer than ``most_bytes``."""
    information = _LLC + apdu
    starts = range(0, len(information), most_bytes)
    return b"".join(
        encode_frame(
            information[start : start + most_bytes],
            destination=destination,
            source=source,
            segmented=start + most_bytes < len(information),
        )
        for start in starts
    )


def _scale(scale: Scale | None) -> list[bytes]:
    if scale is None:
        return []
    scaler, unit = scale
    return [structure(int8(scaler), enum(unit))]
