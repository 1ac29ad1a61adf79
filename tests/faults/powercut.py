"""The power cut: what a disk holds afterwards of what a process wrote, made with the library in ``powercut.c``."""

import contextlib
import os
import random
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults.preload import preload
from support.platform import alive, descendants

FLUSH_US = 4000
"""How long the disk takes to flush: so a cut also finds what is on its way."""
WITHIN_S = 30.0
_CHANGE = struct.Struct("<QQQ")
_NAMES = struct.Struct("<QQ256sQ256s")


@dataclass(frozen=True, slots=True)
class _Change:
    """One undo record of a file: what stood at ``offset`` when the file had ``size`` bytes."""

    offset: int
    size: int
    old: bytes

    def undo(self, file: int, kept_bytes: int = 0) -> None:
        """Take the change back but for its first ``kept_bytes``: a write that was cut in the middle."""
        begin = self.offset + kept_bytes
        os.pwrite(file, self.old[kept_bytes:], begin)
        os.ftruncate(file, max(self.size, begin if kept_bytes else 0))


class Disk:
    """The disk of one machine: what is below ``root``, a prefix of paths, survives a power cut only if flushed."""

    def __init__(self, root: str | Path, journal: Path) -> None:
        self._root = root
        self._journal = journal
        journal.mkdir()
        journal.chmod(0o777)

    @property
    def environment(self) -> dict[str, str]:
        """What the processes that use the disk are started with."""
        return {
            "LD_PRELOAD": str(preload("powercut")),
            "METERWAY_POWERCUT_ROOT": str(self._root),
            "METERWAY_POWERCUT_JOURNAL": str(self._journal),
            "METERWAY_POWERCUT_FLUSH_US": str(FLUSH_US),
        }

    def refuse(self, number: int) -> None:
        """Have every change and flush fail with this errno from now on; 0 ends it."""
        draft = self._journal / "fail.new"
        draft.write_text(str(number))
        draft.rename(self._journal / "fail")

    def cut(self, pid: int, chance: random.Random) -> int:
        """Cut the power: kill a process with all below it, undo what was not flushed; return how many changes.

        Every other time a random part of what was not flushed is on the disk all the same: of each file the first so
        many changes, the last of them perhaps torn.
        """
        kill_all(pid)
        is_clean = chance.random() < 0.5
        undone = sum(self._undo_file(path, chance, is_clean=is_clean) for path in self._journals("data"))
        undone += sum(self._undo_names(path, chance, is_clean=is_clean) for path in self._journals("names"))
        for path in self._journal.iterdir():
            path.unlink()
        return undone

    def _journals(self, kind: str) -> list[Path]:
        return sorted(path for path in self._journal.glob(f"*.{kind}") if path.stat().st_size)

    def _undo_file(self, path: Path, chance: random.Random, *, is_clean: bool) -> int:
        inode = path.with_suffix(".inode")
        if not inode.exists():  # it had no name when it was written
            return 0
        changes = list(_changes(path.read_bytes()))
        kept = 0 if is_clean else chance.randint(0, len(changes))
        file = os.open(inode, os.O_RDWR)
        try:
            for index in range(len(changes) - 1, kept - 1, -1):
                torn_bytes = max(0, os.fstat(file).st_size - changes[index].offset)
                is_torn = index == kept and not is_clean
                changes[index].undo(file, chance.randint(0, torn_bytes) if is_torn else 0)
        finally:
            os.close(file)
        return len(changes) - kept

    def _undo_names(self, path: Path, chance: random.Random, *, is_clean: bool) -> int:
        folder = Path(os.fsdecode(path.with_suffix(".folder").read_bytes().rstrip(b"\0")))
        data = path.read_bytes()
        records = list(_NAMES.iter_unpack(data[: len(data) // _NAMES.size * _NAMES.size]))
        kept = 0 if is_clean else chance.randint(0, len(records))
        for count, *pairs in reversed(records[kept:]):
            for inode, text in list(zip(pairs[::2], pairs[1::2], strict=True))[:count]:
                self._put_back(folder / os.fsdecode(text.rstrip(b"\0")), inode)
        return len(records) - kept

    def _put_back(self, path: Path, inode: int) -> None:
        """Let a name stand for what it stood for; 0 is nothing."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        if inode:
            os.link(self._journal / f"{inode}.inode", path)


def _changes(data: bytes) -> Iterator[_Change]:
    """Yield the whole records; the kill may have cut the last one, and then its change was not made."""
    at = 0
    while at + _CHANGE.size <= len(data):
        offset, size, length = _CHANGE.unpack_from(data, at)
        at += _CHANGE.size
        if at + length > len(data):
            return
        yield _Change(offset, size, data[at : at + length])
        at += length


def kill_all(pid: int) -> None:
    """Kill a process and all below it, which have no time to react; returns when they are gone."""
    seen: set[int] = set()
    while new := ({pid, *descendants(pid)} - seen):
        for each in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        seen |= new
    for each in seen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    deadline = time.monotonic() + WITHIN_S
    while alive(seen):
        if time.monotonic() > deadline:
            raise AssertionError(f"processes {sorted(alive(seen))} do not end")
        time.sleep(0.005)
