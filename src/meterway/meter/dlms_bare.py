"""DLMS pushes without any frame around them, as some gateways hand them out: where one ends and the next begins.

Nothing but their own grammar delimits them, and nothing guards them. So an APDU counts only if another one follows it
at once, or silence; what begins within another shows that the first was cut.
"""

import re
from collections.abc import Callable
from typing import Final

from meterway.core.errors import BadDataError
from meterway.meter.axdr import GrammarError
from meterway.meter.dlms_segments import LIMIT_MESSAGE_BYTES, LLC_HEADERS, Message

BARE_PUSH = re.compile(
    rb"\A(?:\xe6[\xe6\xe7]\x00)?(?:\x0f.{4}(?:\x00|\x09?\x0c[\x07\x08].{11})[\x01\x02]"
    rb"|[\xdb\xdc]\x08[A-Z]{3}.{5}(?:[\x10-\x7f]|\x81|\x82(?:\x00|\x01[\x00-\x7f])))",
    re.DOTALL,
)
"""Signature of bytes that begin with a bare push. A ciphered one of 384 bytes and more is taken for an encrypted P1
telegram, which looks the same (the shortest, of Austria, has 498); only the key tells."""

_START = re.compile(
    rb"(?:\xe6[\xe6\xe7]\x00)?(?:\x0f.{4}(?:\x00|\x0c.{12}|\x09\x0c.{12})[\x01\x02]|[\xdb\xdc]\x08[A-Za-z]{3})",
    re.DOTALL,
)
_START_BYTES: Final = 24
"""No match of ``_START`` is longer."""

_SWALLOWED = re.compile(rb"\xe6[\xe6\xe7]\x00[\x0f\xdb\xdc]|\x0f.{4}\x09?\x0c[\x07\x08].{11}[\x01\x02]", re.DOTALL)
"""The beginning of another APDU, within one."""

_CHUNK_BYTES: Final = LIMIT_MESSAGE_BYTES // 2
_MOST_STARTS: Final = 16
"""How many places are tried at a time, so that bytes that look like many beginnings cost little."""
_GROWTH: Final = 4
"""It is tried again when a quarter more has come."""
_KEPT_BYTES: Final = LIMIT_MESSAGE_BYTES - LIMIT_MESSAGE_BYTES // _GROWTH
"""Of a buffer that is full so much stays: were it all, every byte more would have it tried again."""


class BareReader:
    """Bytes in, bare APDUs out; at most ``LIMIT_MESSAGE_BYTES`` wait, then the oldest quarter is given up."""

    def __init__(self, end_of: Callable[[bytes, int], int]) -> None:
        """``end_of`` returns where the APDU at a place ends, and raises GrammarError or BadDataError if it does not."""
        self.skipped_bytes = 0
        self._end_of = end_of
        self._buffer = b""
        self._tried_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """Take the next bytes; return the APDUs that others follow."""
        messages: list[Message] = []
        for offset in range(0, len(data), _CHUNK_BYTES):
            before = len(self._buffer)
            self._buffer += data[offset : offset + _CHUNK_BYTES]
            size = len(self._buffer)
            grown = (size - self._tried_bytes) * _GROWTH >= self._tried_bytes
            if size > LIMIT_MESSAGE_BYTES or (grown and _START.search(self._buffer, max(1, before - _START_BYTES))):
                messages += self._read(final=False)
                if len(self._buffer) > LIMIT_MESSAGE_BYTES:
                    self._drop(len(self._buffer) - _KEPT_BYTES)
                self._tried_bytes = len(self._buffer)
        return messages

    def flush(self) -> list[Message]:
        """Return the APDUs that silence follows; give up the rest."""
        messages = self._read(final=True)
        self._drop(len(self._buffer))
        self._tried_bytes = 0
        return messages

    def _read(self, *, final: bool) -> list[Message]:
        data = self._buffer
        scan = 0
        for _ in range(_MOST_STARTS):
            start = _START.search(data, scan)
            if start is None:
                break
            scan = start.start() + 1
            ends = self._chain(data, start.start(), final=final)
            if ends:
                self._drop(start.start())
                self._buffer = data[ends[-1] :]
                starts = [start.start(), *ends]
                return [_message(data[at:end]) for at, end in zip(starts, ends, strict=False)]
        return []

    def _chain(self, data: bytes, at: int, *, final: bool) -> list[int]:
        """Return where the APDUs end that follow one another from ``at`` on; unless ``final``, each before another."""
        ends: list[int] = []
        while at < len(data):
            if not _START.match(data, at):
                return [] if final else ends[:-1]
            body = at + 3 if data[at : at + 3] in LLC_HEADERS else at
            try:
                end = self._end_of(data, body)
            except (GrammarError, BadDataError):
                return [] if final else ends
            if _SWALLOWED.search(data, body + 1, end):
                return []
            ends.append(end)
            at = end
        return ends if final else ends[:-1]

    def _drop(self, count: int) -> None:
        if count > 0:
            self.skipped_bytes += count
            self._buffer = self._buffer[count:]


def _message(raw: bytes) -> Message:
    return Message(raw[3:] if raw[:3] in LLC_HEADERS else raw, raw, is_hdlc=False)
