"""A look at a spool that belongs to another process: how much waits there, and for how long. Takes no lock.

What the owner has done in the last second may not be saved yet and then counts as waiting.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from meterway.core.errors import BadDataError, SetupError
from meterway.delivery.intervals import Intervals
from meterway.delivery.intervals import decode as decode_intervals
from meterway.delivery.record import MESSAGE, Record
from meterway.delivery.segment import Segment, find_segments, scan

_TRIES: Final = 3
"""The owner may delete a segment while it is read."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a spool holds."""

    messages: int
    """Stored and not delivered."""
    oldest: datetime | None
    """When the oldest of them was stored, in UTC; None if nothing waits."""
    size_bytes: int
    """On the disk, with what is delivered and not yet deleted."""
    message: Record | None = None
    """The oldest itself."""


def look(directory: Path) -> Waiting | None:
    """Return what waits in the spool in ``directory``; None if there is none. Reads two segments at most.

    Raises:
        SetupError: it may not be read.
    """
    for _ in range(_TRIES):
        try:
            return _look(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SetupError(f"the spool in {directory} cannot be read: {error.strerror}") from error
    return None


def _look(directory: Path) -> Waiting | None:
    segments = find_segments(directory)
    if not segments:
        return None
    try:
        done = decode_intervals((directory / "done").read_bytes())
    except (FileNotFoundError, BadDataError):
        done = Intervals()
    done.add(0, segments[0].base)
    newest = segments[-1]
    end = newest.base
    for found in scan(newest):
        if isinstance(found, Record) and found.kind == MESSAGE:
            end = found.number + 1
    messages = max(0, end - sum(min(stop, end) - min(start, end) for start, stop in done))
    size_bytes = sum(segment.size_bytes for segment in segments)
    message = _find(segments, done.first_missing(0)) if messages else None
    oldest = datetime.fromtimestamp(message.time_s, UTC) if message else None
    return Waiting(messages, oldest, size_bytes, message)


def _find(segments: list[Segment], number: int) -> Record | None:
    """Return the message ``number``, or the next one that can be read."""
    holder = next((segment for segment in reversed(segments) if segment.base <= number), segments[0])
    for found in scan(holder):
        if isinstance(found, Record) and found.kind == MESSAGE and found.number >= number:
            return found
    return None
