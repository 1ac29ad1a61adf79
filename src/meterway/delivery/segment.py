"""One file of the segment log: its name, its beginning, and what can be read of it."""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from meterway.core.errors import SetupError
from meterway.delivery.intervals import Intervals
from meterway.delivery.record import HEAD, MESSAGE, STATE, Damage, Record, Scanner, encode
from meterway.delivery.tally import Tally, TopicState

CHUNK_BYTES = 1 << 20
"""A segment is read in pieces of this size, so that a large one costs no memory."""

LIMIT_KEPT_BYTES = 64 << 20
"""Damaged bytes are copied into ``*.corrupt`` files up to this sum; what is beyond is only counted."""

_NAME = re.compile(r"(?P<base>\d{20})-(?P<seed>[0-9a-f]{8})\.segment")
_COPIES = 2
_BLOCK_BYTES = 4096


@dataclass(slots=True)
class Segment:
    """A file that holds the messages from ``base`` up to the base of the next segment."""

    path: Path
    base: int
    """The number of its first message."""
    seed: int
    size_bytes: int
    """How much of it is durable; what may be behind it is not read."""
    begun_s: int = 0
    """When it was begun, in seconds since 1970."""


def find_segments(directory: Path) -> list[Segment]:
    """Return the segments in a directory, oldest first."""
    found = []
    for path in sorted(directory.glob("*.segment")):
        name = _NAME.fullmatch(path.name)
        if name:
            status = path.stat()
            found.append(
                Segment(path, int(name["base"]), int(name["seed"], 16), status.st_size, begun_s=int(status.st_mtime))
            )
    return found


def segment_path(directory: Path, base: int, seed: int) -> Path:
    """Return where the segment that begins with message ``base`` stands."""
    return directory / f"{base:020d}-{seed:08x}.segment"


def encode_head(base: int, seed: int, time_s: int, states: Iterable[tuple[str, TopicState]], *, counted: bool) -> bytes:
    """Return the beginning of a segment: the state of every topic, twice, so that one damaged copy does no harm."""
    body = [
        encode(Record(base, topic, b"", time_s, mark=state.mark, count=state.appended, kind=STATE), seed)
        for topic, state in states
    ]
    head = encode(Record(base, "", bytes([counted]), time_s, count=len(body), kind=HEAD), seed)
    return b"".join((head, *body) * _COPIES)


def scan(segment: Segment) -> Iterator[Record | Damage]:
    """Yield what is in a segment, in order. Damage is followed by a record, or it is the end of the file."""
    scanner = Scanner(segment.seed)
    with segment.path.open("rb", buffering=0) as file:
        offset = 0
        while chunk := read_chunk(file.fileno(), offset, segment.size_bytes):
            offset += len(chunk)
            yield from scanner.feed(chunk)
    yield from scanner.finish()


def read_chunk(file: int, offset: int, end: int) -> bytes:
    """Return the next bytes of a file before ``end``; zeros in the place of blocks that the disk cannot read."""
    size = min(CHUNK_BYTES, end - offset)
    try:
        return os.pread(file, size, offset)
    except OSError as error:
        _check_unreadable(error)
        blocks = range(offset, offset + size, _BLOCK_BYTES)
        return b"".join(_read_block(file, block, min(_BLOCK_BYTES, offset + size - block)) for block in blocks)


def _read_block(file: int, offset: int, size: int) -> bytes:
    try:
        return os.pread(file, size, offset)
    except OSError as error:
        _check_unreadable(error)
        return bytes(size)


def _check_unreadable(error: OSError) -> None:
    """Raise ``error`` again unless it says that the disk cannot read this block."""
    if error.errno != errno.EIO:
        raise error


@dataclass(slots=True)
class Recovered:
    """What the newest segment says about the log."""

    next_number: int
    size_bytes: int
    """Behind this is a torn tail: a write that was cut and never acknowledged."""
    lost: Intervals = field(default_factory=Intervals)
    """Messages that were there and are unreadable."""
    damages: list[Damage] = field(default_factory=list)


def recover(segment: Segment, tally: Tally, *, counted: bool) -> Recovered:
    """Read the newest segment through; bring ``tally`` to what it was when the last message was stored.

    Raises:
        SetupError: the counts of the topics are unreadable in both copies, or the spool was made with the other
            setting of ``count_topics``.
    """
    result = Recovered(segment.base, segment.size_bytes)
    damage: Damage | None = None
    expected_states: int | None = None
    states: set[str] = set()
    for found in scan(segment):
        if isinstance(found, Damage):
            damage = found
            continue
        if damage:
            result.damages.append(damage)
        if found.kind == MESSAGE:
            if damage:
                tally.skip(result.lost.add(result.next_number, found.number))
            result.next_number = found.number + 1
        elif found.kind == HEAD:
            _check_counted(segment, found, counted=counted)
            expected_states = found.count
        else:
            states.add(found.topic)
        damage = None
        if counted and found.topic:
            tally.settle(found.topic, TopicState(found.count, found.mark))
    if damage:
        result.size_bytes = damage.offset
    if counted and (expected_states is None or len(states) < expected_states):
        raise SetupError(
            f"{segment.path}: the sequence numbers of the meters are unreadable; move the directory "
            f"{segment.path.parent} aside to begin with empty counters, and keep it: its messages can still be read"
        )
    return result


def _check_counted(segment: Segment, head: Record, *, counted: bool) -> None:
    if bool(head.payload[0]) is not counted:
        raise SetupError(
            f"{segment.path.parent} is a spool that {'counts' if head.payload[0] else 'does not count'} topics; "
            "an adapter and a concentrator need a directory each"
        )


def keep_damage(segment: Segment, damage: Damage) -> None:
    """Copy damaged bytes into a ``.corrupt`` file beside the segment; does nothing if that cannot be done."""
    target = segment.path.with_name(f"{segment.path.stem}-{damage.offset}.corrupt")
    try:
        kept_bytes = sum(path.stat().st_size for path in segment.path.parent.glob("*.corrupt"))
        if target.exists() or kept_bytes + damage.size_bytes > LIMIT_KEPT_BYTES:
            return
        with segment.path.open("rb") as file, open(target, "xb", opener=_private) as kept:
            file.seek(damage.offset)
            kept.write(file.read(damage.size_bytes))
    except OSError:
        # A full or failing disk: the damage is counted all the same.
        return


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
