"""One record of the segment log: bytes to write, and bytes found on a disk turned back into records.

    magic 4 | crc32 4 | number 8 | time 4 | count 4 | payload length 4 | topic length 2 | mark length 1 | kind 1
    topic | mark | payload

Little-endian. The CRC covers everything behind it and starts from the spool's own random seed, so that neither
bytes left over on the disk nor a payload that imitates a record passes for one. Pure: no files here.
"""

import struct
import zlib
from dataclasses import dataclass

import msgspec

LIMIT_PAYLOAD_BYTES = 1 << 20
"""The longest payload of one record; a longer one is refused by ``Spool.append``."""

LIMIT_MARK_BYTES = 32
LIMIT_TOPIC_BYTES = 4096

MESSAGE = 0
"""A record that is to be delivered."""
HEAD = 1
"""Begins a segment and tells how many STATE records follow (``count``)."""
STATE = 2
"""A topic's count and mark at the moment the segment was begun."""

_MAGIC = b"\xa5MW1"
_HEADER = struct.Struct("<4sIQIIIHBB")
_REST = struct.Struct("<QIIIHBB")
_CRC_FROM = 8


class Record(msgspec.Struct, frozen=True, gc=False):
    """What one record holds."""

    number: int
    """Position in the log: rises by one with each message, is never used twice."""
    topic: str
    payload: bytes
    time_s: int
    """When it was appended, in seconds since 1970."""
    mark: bytes = b""
    count: int = 0
    """How many messages of this topic were ever appended, this one included; 0 where topics are not counted."""
    kind: int = MESSAGE


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of bytes in which no record can be read."""

    offset: int
    """From the start of the segment."""
    size_bytes: int


def encode(record: Record, seed: int) -> bytes:
    """Return the bytes of a record."""
    topic = record.topic.encode()
    rest = b"".join(
        (
            _REST.pack(
                record.number,
                record.time_s,
                record.count,
                len(record.payload),
                len(topic),
                len(record.mark),
                record.kind,
            ),
            topic,
            record.mark,
            record.payload,
        )
    )
    return b"".join((_MAGIC, zlib.crc32(rest, seed).to_bytes(4, "little"), rest))


class Scanner:
    """Finds the records in a segment that is fed piece by piece from its start.

    Bytes that are no record are skipped up to the next one and reported as one ``Damage`` before it. Holds at most
    one incomplete record (little over ``LIMIT_PAYLOAD_BYTES``) between two calls.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rest = b""
        self._offset = 0
        self._damage_from: int | None = None

    def feed(self, data: bytes) -> list[Record | Damage]:
        """Take the next bytes; return what they completed, in order."""
        return self._scan(self._rest + data if self._rest else data, last=False)

    def finish(self) -> list[Record | Damage]:
        """Return what the rest holds, now that no more bytes come."""
        found = self._scan(self._rest, last=True)
        if self._damage_from is not None:
            found.append(Damage(self._damage_from, self._offset - self._damage_from))
            self._damage_from = None
        return found

    def _scan(self, data: bytes, *, last: bool) -> list[Record | Damage]:
        found: list[Record | Damage] = []
        at = 0
        view = memoryview(data)
        while at < len(data):
            size = self._record_size(data, view, at)
            if size > 0:
                if self._damage_from is not None:
                    found.append(Damage(self._damage_from, self._offset + at - self._damage_from))
                    self._damage_from = None
                found.append(_decode(data, at))
                at += size
            elif size == 0 and not last:
                break
            else:
                if self._damage_from is None:
                    self._damage_from = self._offset + at
                at = _next_magic(data, at + 1, last=last)
        self._rest = data[at:]
        self._offset += at
        return found

    def _record_size(self, data: bytes, view: memoryview, at: int) -> int:
        """Return the size of the record at ``at``; 0 if bytes are missing, -1 if there is none."""
        available = len(data) - at
        if available < _HEADER.size:
            return 0 if _MAGIC.startswith(data[at : at + 4]) or data.startswith(_MAGIC, at) else -1
        magic, crc, _, _, _, payload, topic, mark, _ = _HEADER.unpack_from(data, at)
        if magic != _MAGIC or payload > LIMIT_PAYLOAD_BYTES or topic > LIMIT_TOPIC_BYTES or mark > LIMIT_MARK_BYTES:
            return -1
        size: int = _HEADER.size + topic + mark + payload
        if available < size:
            return 0
        return size if zlib.crc32(view[at + _CRC_FROM : at + size], self._seed) == crc else -1


def _next_magic(data: bytes, start: int, *, last: bool) -> int:
    """Return where the next record may begin; near the end, where its first bytes may stand."""
    found = data.find(_MAGIC, start)
    if found >= 0:
        return found
    return len(data) if last else max(start, len(data) - len(_MAGIC) + 1)


def _decode(data: bytes, at: int) -> Record:
    _, _, number, time_s, count, payload_bytes, topic_bytes, mark_bytes, kind = _HEADER.unpack_from(data, at)
    topic_at = at + _HEADER.size
    mark_at = topic_at + topic_bytes
    payload_at = mark_at + mark_bytes
    return Record(
        number=number,
        topic=data[topic_at:mark_at].decode(),
        payload=data[payload_at : payload_at + payload_bytes],
        time_s=time_s,
        mark=data[mark_at:payload_at],
        count=count,
        kind=kind,
    )
