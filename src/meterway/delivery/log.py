"""The segment log: the files of a spool. Synchronous; used by one thread at a time."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection
from pathlib import Path

from meterway.core.errors import BadDataError, SetupError, TransientError
from meterway.delivery.intervals import Intervals
from meterway.delivery.intervals import decode as decode_intervals
from meterway.delivery.segment import (
    Segment,
    encode_head,
    find_segments,
    keep_damage,
    recover,
    segment_path,
)
from meterway.delivery.tally import Tally
from meterway.durable_file import sync_directory

LIMIT_SAVED_INTERVALS = 65_536
"""How much of the done-set is saved (1 MiB); what is beyond would be sent again after a crash."""


class SegmentLog:
    """Segments, the done-set's file and the lock in one directory.

    Messages are appended to the newest segment only; it is never unlinked, because its beginning carries the counts
    of all topics.
    """

    def __init__(self, directory: Path, *, segment_bytes: int, counted: bool) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._counted = counted
        self._lock: int | None = None
        self._file: int | None = None
        self._head_bytes = 0
        self.segments: list[Segment] = []
        """Oldest first; never empty between ``open`` and ``close``."""
        self.tally = Tally()
        self.done = Intervals()
        """What was done when the log was opened."""
        self.next_number = 0
        """The number of the first message to come, as of ``open``."""
        self.lost = 0
        """Messages found unreadable by ``open``."""
        self.torn_bytes = 0
        """What ``open`` cut off the end: a write that was never acknowledged."""

    @property
    def size_bytes(self) -> int:
        """What all segments hold on the disk."""
        return sum(segment.size_bytes for segment in list(self.segments))

    @property
    def seed(self) -> int:
        """What the CRC of every record begins with."""
        return self.segments[-1].seed

    def open(self, time_s: int) -> None:
        """Lock the directory, find what is there, and be ready to write.

        Raises:
            SetupError: another process has the directory; it cannot be made, read or written; see ``recover``.
            TransientError: it is new and the disk is full.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            self._recover(time_s)
        except OSError as error:
            self.close()
            raise SetupError(
                f"the spool in {self._directory} cannot be opened: {error.strerror}; it needs a directory on a local "
                "disk that this user may write"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files and give the lock back."""
        for handle in (self._file, self._lock):
            if handle is not None:
                os.close(handle)
        self._file = self._lock = None

    def write(self, data: bytes, first: int, time_s: int) -> None:
        """Append the records of messages from number ``first`` on; return when they are durable.

        Begins a new segment when the newest has its size. ``tally`` must be that before these messages.

        Raises:
            TransientError: disk full or failing; nothing of ``data`` is in the log.
        """
        try:
            newest = self.segments[-1]
            used_bytes = newest.size_bytes - self._head_bytes + len(data)
            if self._file is None or (newest.base < first and used_bytes > self._segment_bytes):
                newest = self._begin_segment(first, newest.seed, time_s)
            self._append(newest, data)
        except OSError as error:
            raise self._storage_error(error) from error

    def save_done(self, data: bytes, *, durable: bool) -> None:
        """Replace the file of what is done.

        An old or lost one only means that messages are sent again, so a power cut may take it unless ``durable``.

        Raises:
            TransientError: disk full or failing; the previous file stays.
        """
        draft = self._directory / "done.tmp"
        try:
            with draft.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fdatasync(file.fileno())
            draft.rename(self._directory / "done")
        except OSError as error:
            _remove(draft)
            raise self._storage_error(error) from error

    def unlink(self, segments: Collection[Segment]) -> None:
        """Delete segments whose messages are all done; never the newest. Works on a full disk.

        Raises:
            TransientError: the disk is failing.
        """
        newest = self.segments[-1]
        try:
            for segment in segments:
                if segment is not newest:
                    segment.path.unlink(missing_ok=True)
                    self.segments.remove(segment)
        except OSError as error:
            raise self._storage_error(error) from error

    def _take_lock(self) -> None:
        path = self._directory / "lock"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(
                f"the spool in {self._directory} is in use by another process; give each adapter and concentrator a "
                f"directory of its own, or stop the other one (`fuser {path}` shows it)"
            ) from None

    def _recover(self, time_s: int) -> None:
        for draft in self._directory.glob("*.tmp"):
            draft.unlink()
        try:
            self.done = decode_intervals((self._directory / "done").read_bytes())
        except (FileNotFoundError, BadDataError):
            self.done = Intervals()
        self.segments = find_segments(self._directory)
        if not self.segments:
            self.next_number = self.done.end
            try:
                self._begin_segment(self.next_number, int.from_bytes(os.urandom(4), "little"), time_s)
            except OSError as error:
                raise self._storage_error(error) from error
            return
        newest = self.segments[-1]
        self._recover_newest(newest)
        self._file = os.open(newest.path, os.O_WRONLY | os.O_CLOEXEC)
        if self.torn_bytes:
            os.ftruncate(self._file, newest.size_bytes)
            os.fdatasync(self._file)

    def _recover_newest(self, newest: Segment) -> None:
        found = recover(newest, self.tally, counted=self._counted)
        for damage in found.damages:
            keep_damage(newest, damage)
        self.torn_bytes = newest.size_bytes - found.size_bytes
        newest.size_bytes = found.size_bytes
        self.lost = sum(self.done.add(start, end) for start, end in found.lost)
        # What was done once existed: its numbers and counts are not used again even if the end of the file was lost.
        self.tally.skip(max(0, self.done.end - found.next_number))
        self.next_number = max(found.next_number, self.done.end)
        self._head_bytes = len(encode_head(0, 0, 0, self.tally, counted=self._counted))

    def _begin_segment(self, base: int, seed: int, time_s: int) -> Segment:
        path = segment_path(self._directory, base, seed)
        draft = path.with_suffix(".tmp")
        head = encode_head(base, seed, time_s, self.tally, counted=self._counted)
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, head, 0)
            os.fdatasync(file)
            draft.rename(path)
            sync_directory(self._directory)
        except OSError:
            os.close(file)
            _remove(draft)
            _remove(path)
            raise
        if self._file is not None:
            os.close(self._file)
        self._file = file
        self._head_bytes = len(head)
        segment = Segment(path, base, seed, len(head), time_s)
        self.segments.append(segment)
        return segment

    def _append(self, segment: Segment, data: bytes) -> None:
        if self._file is None:
            raise OSError(errno.EBADF, "the spool is closed")
        try:
            _write_all(self._file, data, segment.size_bytes)
            os.fdatasync(self._file)
        except OSError as error:
            self._take_back(segment, full=error.errno in (errno.ENOSPC, errno.EDQUOT))
            raise
        segment.size_bytes += len(data)

    def _take_back(self, segment: Segment, *, full: bool) -> None:
        """Cut off what was written in part. After any error but a full disk the file is not written again."""
        file = self._file
        if file is None:
            return
        try:
            os.ftruncate(file, segment.size_bytes)
            if full:
                return
        except OSError:
            # The next segment begins with a new file; what stands behind the durable size here is not read.
            pass
        os.close(file)
        self._file = None

    def _storage_error(self, error: OSError) -> TransientError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return TransientError(
                f"spool full: no space left on the disk of {self._directory}; it goes on by itself when messages are "
                "delivered or space is made"
            )
        return TransientError(f"the spool in {self._directory} cannot be written: {error.strerror}")


def _remove(path: Path) -> None:
    """Take away what was written in part; a disk that fails may refuse that too, and it does no harm where it is."""
    with contextlib.suppress(OSError):
        path.unlink()


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        offset += written
        view = view[written:]
