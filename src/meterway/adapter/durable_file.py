"""Replacing a small file so that there is always a whole one, the old or the new, whatever is pulled or killed."""

import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file (and make its folder); when this returns, the new one survives a power cut.

    Written beside, fsync, rename, fsync of the folder.

    Raises:
        OSError: it cannot be written; the old one is still there.
    """
    new = path.with_name(f"{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
