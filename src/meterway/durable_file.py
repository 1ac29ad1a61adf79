"""Files and names that survive a power cut: there is always a whole one, the old or the new, whatever is pulled."""

import os
from contextlib import suppress
from pathlib import Path

PUBLIC_MODE = 0o644
PRIVATE_MODE = 0o600


def replace_file(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Replace the file (and make its folder); when this returns, the new one survives a power cut.

    Written beside, fsync, rename, fsync of the folder. ``mode`` is what the file is made with, less the umask; a link
    in its place is replaced, and none is followed. For one process at a time: others hold a lock meanwhile.

    Raises:
        OSError: it cannot be written, and names ``path``; the old one is still there, and nothing beside it.
    """
    new = path.with_name(f"{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make names that were created or replaced in a directory survive a power cut.

    Raises:
        OSError: it cannot be opened, or its disk fails.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` as ``replace_file`` does, readable by its owner only."""
    replace_file(path, text.encode(), mode=PRIVATE_MODE)
