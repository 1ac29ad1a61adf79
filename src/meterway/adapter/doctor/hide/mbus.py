"""Hides who speaks on wired M-Bus: numbers, texts, what the maker keeps to itself; mends the checksums. Pure.

What is in no whole frame is shuffled, but the heads of damaged frames stay.
"""

import re
from collections.abc import Iterator
from typing import Final

from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.meter.mbus_records import RecordError, record_bounds

_START: Final = re.compile(rb"\x68(.)\1\x68", re.DOTALL)
_SHORT: Final = re.compile(rb"\x10[\x40\x5a\x5b\x7a\x7b]..\x16|\xe5", re.DOTALL)
_STOP: Final = 0x16
_HEAD_BYTES: Final = 7
_NUMBER_BYTES: Final = 4
_FILLER: Final = 0x2F
_MAKERS_OWN: Final = frozenset((0x0F, 0x1F))
_TEXT: Final = 0x0D
"""Data field of a DIF: variable length."""
_FIRST_BCD: Final = 9
_LONGEST_TEXT: Final = 0xC0
_NAMES: Final = re.compile(rb".[\x80-\xff]{0,10}(?:[\x78\x79\xf8\xf9]|\xfd[\x10-\x16\x90-\x96])", re.DOTALL)
"""Fabrication number, enhanced identification; customer, customer's location, codes (EN 13757-3, 6.4)."""
_RECORDS_AT: Final = {0x72: 13, 0x76: 13, 0x7A: 5, 0x78: 1}
_WITH_NUMBER: Final = frozenset((0x72, 0x73, 0x76, 0x77))
"""CI fields, behind which the meter's number stands."""


def hide_mbus(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return what was said on an M-Bus segment, by other meters."""
    hidden = bytearray()
    for start, end in _frames(data):
        hidden += _outside(data[len(hidden) : start], pseudonyms)
        body = hide_answer(data[start + _HEAD_BYTES - 1 : end - 2], pseudonyms)
        hidden += data[start : start + _HEAD_BYTES - 1] + body + data[end - 2 : end]
    return bytes(hidden) + _outside(data[len(hidden) :], pseudonyms)


def mend_mbus(before: bytes, after: bytes) -> bytes:
    """Return ``after`` with the checksums right that were right in ``before``."""
    mended = bytearray(after)
    for start, end in _frames(before):
        mended[end - 2] = sum(after[start + 4 : end - 2]) & 0xFF
    return bytes(mended)


def hide_answer(body: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return the body of an answer, from its CI field on."""
    hidden = bytearray(body)
    if body[0] in _WITH_NUMBER:
        hidden[1 : 1 + _NUMBER_BYTES] = pseudonyms.bcd(body[1 : 1 + _NUMBER_BYTES])
    at = _RECORDS_AT.get(body[0])
    if at is not None:
        hidden[at:] = hide_records(body[at:], pseudonyms)
    return bytes(hidden)


def hide_records(records: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return data records in which nobody is named; where they break the grammar, the rest is shuffled."""
    hidden = bytearray(records)
    end = 0
    try:
        for begin, start, stop in record_bounds(records):
            end = stop
            if content := records[start:stop]:
                hidden[start:stop] = _content(records[begin:start], content, pseudonyms)
    except RecordError:
        hidden[end:] = pseudonyms.shuffled(records[end:])
        return bytes(hidden)
    while end < len(records) and records[end] == _FILLER:
        end += 1
    if end < len(records) and records[end] in _MAKERS_OWN:
        hidden[end + 1 :] = pseudonyms.octets(records[end + 1 :])
    return bytes(hidden)


def _content(header: bytes, content: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return the data of a record; those of variable length begin with their length."""
    field, is_name = header[0] & 0x0F, _NAMES.match(header)
    if field == _TEXT:
        is_text = content[0] < _LONGEST_TEXT
        return content[:1] + pseudonyms.octets(content[1:]) if is_text or is_name else content
    if not is_name:
        return content
    return pseudonyms.bcd(content) if field >= _FIRST_BCD else pseudonyms.octets(content)


def _frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where whole frames begin and end."""
    at = 0
    while found := _START.search(data, at):
        start, end = found.start(), found.start() + data[found.start() + 1] + 6
        is_whole = _HEAD_BYTES + 2 <= end - start <= len(data) - start and data[end - 1] == _STOP
        if is_whole and sum(data[start + 4 : end - 2]) & 0xFF == data[end - 2]:
            yield start, end
            at = end
        else:
            at = start + 1


def _outside(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Shuffle what is in no whole frame; of one that is damaged its head and its end stay."""
    if found := _START.search(data):
        start = found.start()
        end = min(start + data[start + 1] + 6, len(data))
        middle = data[start + _HEAD_BYTES : max(end - 2, start + _HEAD_BYTES)]
        head, tail = data[start : start + _HEAD_BYTES], data[start + _HEAD_BYTES + len(middle) : end]
        rest = _outside(data[end:], pseudonyms) if end < len(data) else b""
        return _outside(data[:start], pseudonyms) + head + pseudonyms.shuffled(middle) + tail + rest
    parts, end = [], 0
    for mark in _SHORT.finditer(data):
        parts += [pseudonyms.shuffled(data[end : mark.start()]), mark[0]]
        end = mark.end()
    return b"".join(parts) + pseudonyms.shuffled(data[end:])
