"""Which processes of this machine use a file, a device or a TCP port: by /proc, where only root sees all."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"
"""State in /proc/net/tcp."""
_LOCK_FIELDS: Final = 6


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine."""

    pid: int
    command: tuple[str, ...]

    @property
    def config(self) -> Path | None:
        """The configuration, if it is ``meterway adapter --config FILE``."""
        if "adapter" not in self.command or "--config" not in self.command[:-1]:
            return None
        path = Path(self.command[self.command.index("--config") + 1])
        with suppress(OSError):
            return path if path.is_absolute() else (_PROC / str(self.pid) / "cwd").readlink() / path
        return path

    def __str__(self) -> str:
        """For people; without arguments, for they may be secret."""
        if self.config is not None:
            return f"process {self.pid} (meterway adapter --config {self.config})"
        return f"process {self.pid} ({Path(self.command[0]).name if self.command else 'unknown'})"


def processes() -> list[Process]:
    """Return all processes but this one."""
    found = []
    for folder in _PROC.iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                found.append(_process(int(folder.name)))
    return found


def _process(pid: int) -> Process:
    words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return Process(pid, tuple(words))


def users_of(path: Path) -> list[Process]:
    """Return who has the file or device open; empty if nobody has, or if it is not there."""
    try:
        wanted = path.stat()
    except OSError:
        return []
    return [process for process in processes() if any(_is_same(each, wanted) for each in _open_files(process.pid))]


def lock_owner(path: Path) -> Process | None:
    """Return who holds the lock file ``path`` (``flock``); None if nobody does."""
    for process in users_of(path):
        return process
    with suppress(OSError):
        inode = path.stat().st_ino
        for line in (_PROC / "locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > _LOCK_FIELDS and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                return _process(int(fields[4]))
    return None


def listens_on(port: int) -> list[Process]:
    """Return who listens on a TCP port of this machine; empty also if it is another user's process."""
    inodes = set(_listening(port))
    links = {f"socket:[{inode}]" for inode in inodes}
    return [process for process in processes() if links & set(_links(process.pid))]


def _listening(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _is_same(found: os.stat_result, wanted: os.stat_result) -> bool:
    if stat.S_ISCHR(wanted.st_mode):
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == wanted.st_rdev
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


def _open_files(pid: int) -> Iterator[os.stat_result]:
    for file in _descriptors(pid):
        with suppress(OSError):
            yield file.stat()


def _links(pid: int) -> Iterator[str]:
    for file in _descriptors(pid):
        with suppress(OSError):
            yield str(file.readlink())


def _descriptors(pid: int) -> list[Path]:
    with suppress(OSError):
        return list((_PROC / str(pid) / "fd").iterdir())
    return []
