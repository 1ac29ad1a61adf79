"""Hides who speaks in SML: octet strings of whole messages; mends the checksums of messages and frames. Pure.

What is in no whole frame is shuffled between the marks of the transport protocol, so that it is as wrong as it was.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.meter.crc import crc16_kermit, crc16_x25
from meterway.meter.sml_message import RESPONSE_HEAD, GrammarError, Message, read_message, read_messages, x25_holds
from meterway.meter.sml_transport import Frame, Framer

_ESCAPE: Final = b"\x1b" * 4
_HEAD_BYTES: Final = 8
_TWO_BYTES: Final = 0x63
"""The head of a number of two bytes; a checksum that is written with fewer is left, for it cannot be mended."""
_MARKS: Final = re.compile(rb"\x1b{4}(?:\x01{4}|\x1a...)|\x1b{1,4}|\x76", re.DOTALL)
_SHORTEST_BYTES: Final = 5
"""Shorter octet strings are names of makers, units of time, texts of state."""
_OBIS_BYTES: Final = 6
_ENTRY: Final = 0x77
_NO_GROUP_F: Final = 0xFF
_SERVER_ID_BYTES: Final = 10
_SERVER_IDS: Final = (0x06, 0x09, 0x0A)
_MAKE_BYTES: Final = 6
"""Of a server id of ten bytes: kind, medium and maker (DIN 43863-5)."""


def hide_sml(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return the bytes of an optical head with somebody else's meter before it."""
    hidden = []
    at = 0
    for start, frame in _frames(data):
        hidden += [_outside(data[at:start], pseudonyms), _frame(frame, pseudonyms)]
        at = start + len(frame.raw)
    hidden.append(_outside(data[at:], pseudonyms))
    return b"".join(hidden)


def mend_sml(before: bytes, after: bytes) -> bytes:
    """Return ``after`` with the checksums right that were right in ``before``."""
    mended = bytearray(after)
    at = 0
    for start, frame in _frames(before):
        _mend_outside(before, mended, at, start)
        at = start + len(frame.raw)
        raw = mended[start:at]
        payload = bytearray(raw[_HEAD_BYTES:-_HEAD_BYTES].replace(_ESCAPE * 2, _ESCAPE))
        for message in _messages(frame.payload):
            _mend_message(frame.payload, payload, message)
        raw[_HEAD_BYTES:-_HEAD_BYTES] = payload.replace(_ESCAPE, _ESCAPE * 2)
        covered = bytes(raw[:-2])
        crc = crc16_kermit(covered).to_bytes(2, "big") if frame.kermit else crc16_x25(covered).to_bytes(2, "little")
        mended[start:at] = covered + crc
    _mend_outside(before, mended, at, len(before))
    return bytes(mended)


def _frames(data: bytes) -> Iterator[tuple[int, Frame]]:
    """Yield whole frames and where they are."""
    framer = Framer()
    at = 0
    for item in (*framer.feed(data), *framer.flush()):
        if isinstance(item, Frame):
            at = data.index(item.raw, at)
            yield at, item
            at += len(item.raw)


def _messages(payload: bytes) -> list[Message]:
    """Return the messages of a file, as far as its grammar holds."""
    found: list[Message] = []
    with suppress(GrammarError):
        found.extend(read_messages(payload, ()))
    return found


def _frame(frame: Frame, pseudonyms: Pseudonyms) -> bytes:
    payload = bytearray(frame.payload)
    end = 0
    for message in _messages(frame.payload):
        _hide_message(payload, message, pseudonyms)
        end = message.end
    payload[end:] = pseudonyms.shuffled(bytes(payload[end:]))
    return frame.raw[:_HEAD_BYTES] + bytes(payload).replace(_ESCAPE, _ESCAPE * 2) + frame.raw[-_HEAD_BYTES:]


def _hide_message(payload: bytearray, message: Message, pseudonyms: Pseudonyms) -> None:
    before = bytes(payload[message.start : message.crc_at])
    for start, end in _octet_strings(before):
        content = before[start:end]
        kept = _MAKE_BYTES if len(content) == _SERVER_ID_BYTES and content[0] in _SERVER_IDS else 0
        payload[message.start + start + kept : message.start + end] = pseudonyms.octets(content[kept:])


def _mend_message(before: bytes, after: bytearray, message: Message) -> None:
    if before[message.crc_at] != _TWO_BYTES:
        return
    covered = slice(message.start, message.crc_at)
    crc = slice(message.crc_at + 1, message.crc_at + 3)
    if crc16_x25(before[covered]).to_bytes(2, "little") == before[crc]:
        after[crc] = crc16_x25(bytes(after[covered])).to_bytes(2, "little")
    elif crc16_kermit(before[covered]).to_bytes(2, "big") == before[crc]:
        after[crc] = crc16_kermit(bytes(after[covered])).to_bytes(2, "big")


def _octet_strings(message: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the contents of octet strings are that may name somebody; codes are left out."""
    at = before = head = 0
    while at < len(message):
        before, head = head, message[at]
        kind, length, start = head & 0x70, head & 0x0F, at + 1
        while message[start - 1] & 0x80 and start < len(message):
            length = length << 4 | message[start] & 0x0F
            start += 1
        at = start if kind == 0x70 or length == 0 else max(at + length, start)  # noqa: PLR2004 - a list
        content = message[start:at]
        is_code = len(content) == _OBIS_BYTES and (before == _ENTRY or content[-1] == _NO_GROUP_F)
        if kind == 0 and len(content) >= _SHORTEST_BYTES and not is_code:
            yield start, at


def _loose_messages(data: bytes) -> Iterator[Message]:
    """Yield messages outside of frames, whose own checksums hold."""
    at = 0
    while head := RESPONSE_HEAD.search(data, at):
        at = head.start() + 1
        with suppress(GrammarError):
            message = read_message(data, head.start(), ())
            if x25_holds(data, message):
                at = message.end
                yield message


def _outside(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Hide what is in no whole frame: in messages of their own what names somebody, else everything."""
    hidden = bytearray(data)
    at = 0
    for message in _loose_messages(data):
        hidden[at : message.start] = _shuffled(data[at : message.start], pseudonyms)
        _hide_message(hidden, message, pseudonyms)
        at = message.end
    hidden[at:] = _shuffled(data[at:], pseudonyms)
    return bytes(hidden)


def _mend_outside(before: bytes, after: bytearray, start: int, end: int) -> None:
    part = after[start:end]
    for message in _loose_messages(before[start:end]):
        _mend_message(before[start:end], part, message)
    after[start:end] = part


def _shuffled(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Shuffle between the marks of the transport protocol, which stay."""
    parts, end = [], 0
    for mark in _MARKS.finditer(data):
        parts += [pseudonyms.shuffled(data[end : mark.start()]), mark[0]]
        end = mark.end()
    return b"".join(parts) + pseudonyms.shuffled(data[end:])
