"""Hides who speaks in DLMS pushes and in encrypted P1 telegrams; mends the checksums of HDLC and M-Bus frames. Pure.

Of what is encrypted the system title gets another number, so nobody can decrypt it any more, with whichever key. Names
that go over several frames are found, for the frames of a message are put together. What the grammar does not reach is
shuffled.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.adapter.doctor.hide.text import hide_lines
from meterway.meter import dlms_mbus, hdlc
from meterway.meter.axdr import GrammarError, read_length
from meterway.meter.crc import crc16_x25
from meterway.meter.hdlc import FLAG, HdlcFrame, Problem

_START: Final = re.compile(rb"\x7e(?=[\xa0-\xaf])|\x68(?=(.)\1\x68)", re.DOTALL)
_HDLC_MARKS: Final = re.compile(rb"\x7e[\xa0-\xaf].|\x68(.)\1\x68\x53.[\x00-\x1f]|\x7e", re.DOTALL)
_LLC: Final = re.compile(rb"\xe6[\xe6\xe7]\x00")
_TITLE: Final = re.compile(rb"([\xdb\xdc\xdd]\x08[A-Za-z]{3})(.{5})", re.DOTALL)
_BLOCK: Final = 0xE0
"""General block transfer: tag, control, number (2), acknowledged (2), length."""
_BLOCK_HEAD_BYTES: Final = 6
_HEAD: Final = re.compile(rb"\x0f.{4}(?:\x00|\x0c.{12}|\x09\x0c.{12}|\x19.{12})|\xc2(?:\x00|\x01.{13})", re.DOTALL)
"""What stands before the data of a push; where the code of an event follows it is taken for data, and is none."""
_DESCRIPTOR: Final = re.compile(rb"\x02\x02\x00.[\x00-\xff]{6}[\x00-\xff](?=[\x00-\x1b])", re.DOTALL)
_ATTRIBUTES: Final = re.compile(rb"\x02\x02\x16.\x01[\x00-\x7f](?=\x02\x02\x00)", re.DOTALL)
_SIZES: Final[dict[int, int]] = {
    **dict.fromkeys((0x00,), 0),
    **dict.fromkeys((0x03, 0x0D, 0x0F, 0x11, 0x16), 1),
    **dict.fromkeys((0x10, 0x12), 2),
    **dict.fromkeys((0x05, 0x06, 0x17, 0x1B), 4),
    **dict.fromkeys((0x14, 0x15, 0x18), 8),
    0x19: 12,
    0x1A: 5,
}
"""Bytes of the content by tag (``meter.axdr``)."""
_LISTS: Final = (0x01, 0x02)
_STRINGS: Final = (0x09, 0x0A, 0x0C)
_BITS: Final = 0x04
_HEAD_BYTES: Final = 64
"""Where what is ciphered names its sender."""
_LIST_NAME: Final = re.compile(rb"[A-Za-z]{3,12}_V?[0-9]{3,4}")
"""``AIDON_V0001``, ``KFM_001``: of the list, which every meter of its kind sends."""
_DEVICE_NAME: Final = re.compile(rb"([A-Z]{3}[0-9]{4})([0-9A-Za-z]{5,}\x00*)")
"""A logical device name: maker and type, by which families are told apart, and the number."""
_SHORTEST_BYTES: Final = 5
_CODE_BYTES: Final = 6
_TIME_BYTES: Final = 12
_YEARS: Final = (0x07, 0x08)
"""High bytes of the years 1792 to 2303."""


@dataclass(slots=True)
class _Frame:
    """A whole frame, and where in all bytes its part of a message is."""

    start: int
    end: int
    places: range
    begins: bool
    """Whether a message begins with it."""
    is_hdlc: bool


def hide_dlms(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return pushes, in frames or bare, of somebody else's meter."""
    frames = list(_frames(data))
    if not frames:
        return hide_apdus(data, pseudonyms)
    hidden = bytearray(data)
    at = 0
    for frame in frames:
        hidden[at : frame.start] = _outside(data[at : frame.start], pseudonyms)
        at = frame.end
    hidden[at:] = _outside(data[at:], pseudonyms)
    message: list[int] = []
    for frame in frames:
        if frame.begins:
            _hide_message(hidden, message, pseudonyms)
            message = []
        message += frame.places
    _hide_message(hidden, message, pseudonyms)
    return bytes(hidden)


def mend_dlms(before: bytes, after: bytes) -> bytes:
    """Return ``after`` with the checksums right that were right in ``before``."""
    mended = bytearray(after)
    for frame in _frames(before):
        if frame.is_hdlc and frame.places:
            check = frame.places.stop
            mended[check : check + 2] = crc16_x25(bytes(mended[frame.start + 1 : check])).to_bytes(2, "little")
        elif not frame.is_hdlc:
            mended[frame.end - 2] = sum(mended[frame.start + 4 : frame.end - 2]) & 0xFF
    return bytes(mended)


def hide_encrypted_p1(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return encrypted P1 telegrams of somebody else; nobody can decrypt them."""
    parts, end = [], 0
    for title in _TITLE.finditer(data):
        try:
            length, body = read_length(data, title.end())
        except GrammarError:
            continue
        if title.start() < end:
            continue
        parts += [hide_lines(data[end : title.start()], pseudonyms), title[1], pseudonyms.octets(title[2])]
        end = min(body + length, len(data))
        parts.append(data[title.end() : end])
    return b"".join(parts) + hide_lines(data[end:], pseudonyms)


def hide_apdus(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return APDUs without frames of somebody else's meter."""
    hidden = bytearray(data)
    _hide_message(hidden, list(range(len(data))), pseudonyms)
    return bytes(hidden)


def _frames(data: bytes) -> Iterator[_Frame]:
    at = 0
    while start := _START.search(data, at):
        at = start.start()
        if data[at] == FLAG:
            found: HdlcFrame | dlms_mbus.MbusFrame | Problem = hdlc.read_frame(data, at)
        else:
            found = dlms_mbus.read_frame(data, at)
        if isinstance(found, HdlcFrame):
            first = found.header.start
            llc = bool(_LLC.match(found.information))
            begins = llc and found.information[3:4] != bytes((_BLOCK,))
            begins = begins or found.information[5:7] == b"\x00\x01"
            yield _Frame(at, found.header.end, range(first, first + len(found.information)), begins, is_hdlc=True)
            at = found.header.end
        elif isinstance(found, dlms_mbus.MbusFrame):
            last = found.end - 2
            places = range(last - len(found.data), last)
            yield _Frame(at, found.end, places, found.number == 0, is_hdlc=False)
            at = found.end
        else:
            at += 1


def _outside(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Shuffle what is in no whole frame; marks stay, and of a frame that is damaged or cut its header."""
    parts, end, at = [], 0, 0
    while mark := _HDLC_MARKS.search(data, at):
        start = mark.start()
        header = hdlc.read_header(data, start) if data[start] == FLAG else Problem.NONE
        stop = mark.end() if isinstance(header, Problem) else header.start
        parts += [pseudonyms.shuffled(data[end:start]), data[start:stop]]
        end = at = stop
    return b"".join(parts) + pseudonyms.shuffled(data[end:])


def _hide_message(hidden: bytearray, places: list[int], pseudonyms: Pseudonyms) -> None:
    """Hide who speaks in the bytes at ``places``, which together are one message."""
    places = _without_blocks(hidden, places)
    data = bytes(hidden[place] for place in places)
    new = _apdus(data, pseudonyms)
    for place, byte in zip(places, new, strict=True):
        hidden[place] = byte


def _without_blocks(hidden: bytearray, places: list[int]) -> list[int]:
    """Return the places of the APDU that comes in blocks; of another, its own."""
    data = bytes(hidden[place] for place in places)
    kept: list[int] = []
    at = 3 if _LLC.match(data) else 0
    while data[at : at + 1] == bytes((_BLOCK,)):
        try:
            length, start = read_length(data, at + _BLOCK_HEAD_BYTES)
        except GrammarError:
            break
        kept += places[start : start + length]
        at = start + length
        at += 3 if _LLC.match(data, at) else 0
    return kept or places


def _apdus(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    hidden = bytearray(data)
    if _TITLE.search(data, 0, _HEAD_BYTES):
        return _TITLE.sub(lambda title: title[1] + pseudonyms.octets(title[2]), data)
    at = 0
    while head := _HEAD.search(data, at):
        end = _walk(hidden, head.end(), pseudonyms)
        if end == head.end():
            at = head.start() + 1
            continue
        at = end
    hidden[at:] = pseudonyms.shuffled(bytes(hidden[at:]))
    return bytes(hidden)


def _walk(hidden: bytearray, at: int, pseudonyms: Pseudonyms) -> int:
    """Hide the names in A-XDR data from ``at`` on; return where they end, or cannot be read any more."""
    attributes = _ATTRIBUTES.match(hidden, at)
    at = attributes.end() if attributes else at
    while at < len(hidden):
        tag = hidden[at]
        if attributes and (descriptor := _DESCRIPTOR.match(hidden, at)):
            at = descriptor.end()
        elif tag in _SIZES:
            at += 1 + _SIZES[tag]
        elif tag in _LISTS or tag in _STRINGS or tag == _BITS:
            try:
                length, size = read_length(bytes(hidden[at + 1 : at + 4]), 0)
            except GrammarError:
                return at
            start = at + 1 + size
            if tag in _LISTS:
                at = start
                continue
            at = start + (length if tag != _BITS else -(-length // 8))
            if tag != _BITS and not _is_harmless(bytes(hidden[start:at])):
                hidden[start:at] = _other_name(bytes(hidden[start:at]), pseudonyms)
        else:
            return at
    return min(at, len(hidden))


def _other_name(content: bytes, pseudonyms: Pseudonyms) -> bytes:
    device = _DEVICE_NAME.fullmatch(content)
    return device[1] + pseudonyms.text(device[2]) if device else pseudonyms.octets(content)


def _is_harmless(content: bytes) -> bool:
    """Return whether a string is too short for a name, a code, or a time."""
    if len(content) < _SHORTEST_BYTES or _LIST_NAME.fullmatch(content):
        return True
    if len(content) == _CODE_BYTES:
        return content[-1] == 0xFF or content[0] <= 1  # noqa: PLR2004 - group F, and group A of electricity
    return len(content) == _TIME_BYTES and content[0] in _YEARS and 1 <= content[2] <= 12  # noqa: PLR2004 - a month
