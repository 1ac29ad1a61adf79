"""Hides who was heard by a receiver of wireless M-Bus; mends checksums of radio frames and receivers. Pure.

The number in the address of every frame is replaced; what is encrypted hangs on the address, so nobody can decrypt it
any more. What is in no frame is shuffled.
"""

import re
from collections.abc import Callable, Iterator
from functools import reduce
from operator import xor
from typing import Final

from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.meter.crc import crc16_x25
from meterway.meter.wmbus_frames import crc16_en13757, open_checked, size_a
from meterway.meter.wmbus_receivers import Framer, Heard

_NUMBER_AT, _NUMBER_END = 4, 8
"""Within a frame that begins with its L field."""
_HEX: Final = re.compile(rb"(?:0x)?([0-9A-Fa-f]{22,});?\Z")
_LINK_NUMBER: Final = re.compile(rb"(?<=;)[0-9A-Fa-f]{8}(?=;)")
_IM871A, _AMBER = 0xA5, 0xFF
_IM871A_CONTENT_AT, _AMBER_CONTENT_AT = 4, 3
_HAS_CRC: Final = 0x80
_FIRST_BLOCK: Final = 10
_BLOCK: Final = 16
_FIRST_OF_B: Final = 126
_CRC: Final = 2


def hide_wmbus(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return what a receiver heard, with other numbers in the addresses."""
    hidden = bytearray()
    for start, raw in _frames(data):
        hidden += _outside(data[len(hidden) : start], pseudonyms)
        new = _rewritten(raw, raw, lambda _, frame: _with_number(frame, pseudonyms))
        hidden += _LINK_NUMBER.sub(lambda number: pseudonyms.text(number[0]), new) if _HEX.search(raw) else new
    return bytes(hidden) + _outside(data[len(hidden) :], pseudonyms)


def mend_wmbus(before: bytes, after: bytes) -> bytes:
    """Return ``after`` with the checksums right that were right in ``before``."""
    mended = bytearray(after)
    for start, raw in _frames(before):
        new = _rewritten(raw, after[start : start + len(raw)], _sealed)
        if raw[0] == _IM871A and raw[1] & _HAS_CRC:
            new = new[:-2] + crc16_x25(new[1:-2]).to_bytes(2, "little")
        elif _is_amber(raw):
            new = new[:-1] + bytes((reduce(xor, new[:-1]),))
        mended[start : start + len(raw)] = new
    return bytes(mended)


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what receivers say of one frame each, and where it is."""
    framer = Framer()
    at = 0
    for item in (*framer.feed(data), *framer.flush()):
        if isinstance(item, Heard) and (start := data.find(item.raw, at)) >= 0:
            yield start, item.raw
            at = start + len(item.raw)


def _rewritten(before: bytes, after: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """Return what a receiver says, ``after``, with its frame changed; ``change`` gets the frame of both."""
    if digits := _HEX.search(before):
        start, end = digits.span(1)
        start += (end - start) % 2
        frames = (bytes.fromhex(each[start:end].decode()) for each in (before, after))
        new = change(*frames).hex().encode()
        return after[:start] + (new if before[start:end].islower() else new.upper()) + after[end:]
    if before[0] == _IM871A:
        start, end = _IM871A_CONTENT_AT, _IM871A_CONTENT_AT + before[3]
    elif _is_amber(before):
        start, end = _AMBER_CONTENT_AT, _AMBER_CONTENT_AT + before[2]
    else:
        return change(before, after)
    new = change(*(b"\x00" + each[start:end] for each in (before, after)))[1:]
    return after[:start] + new + after[end:]


def _is_amber(raw: bytes) -> bool:
    return raw[:2] == bytes((_AMBER, _AMBER_CONTENT_AT))


def _with_number(frame: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return a frame, from its L field on, with another number in its address."""
    return frame[:_NUMBER_AT] + pseudonyms.bcd(frame[_NUMBER_AT:_NUMBER_END]) + frame[_NUMBER_END:]


def _sealed(before: bytes, after: bytes) -> bytes:
    if not before[0] or open_checked(before) is None:
        return after
    return _sealed_a(after) if _is_a(before) else _sealed_b(after)


def _is_a(frame: bytes) -> bool:
    head = frame[:_FIRST_BLOCK]
    return crc16_en13757(head).to_bytes(2, "big") == frame[_FIRST_BLOCK : _FIRST_BLOCK + _CRC]


def _sealed_a(frame: bytes) -> bytes:
    size = size_a(frame[0])
    sealed = b""
    at, room = 0, _FIRST_BLOCK
    while at < size:
        block = frame[at : min(at + room, size - _CRC)]
        sealed += block + crc16_en13757(block).to_bytes(2, "big")
        at, room = at + len(block) + _CRC, _BLOCK
    return sealed + frame[size:]


def _sealed_b(frame: bytes) -> bytes:
    size = frame[0] + 1
    sealed = b""
    for part in (frame[: min(_FIRST_OF_B + _CRC, size)], frame[_FIRST_OF_B + _CRC : size]):
        if part:
            sealed += part[:-_CRC] + crc16_en13757(part[:-_CRC]).to_bytes(2, "big")
    return sealed + frame[size:]


def _outside(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Shuffle each line, and what is none."""
    return b"".join(
        part if part in (b"\r", b"\n") else pseudonyms.shuffled(part) for part in re.split(rb"([\r\n])", data)
    )
