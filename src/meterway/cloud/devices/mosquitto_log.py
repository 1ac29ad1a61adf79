"""What a mosquitto refused to devices, read from its log as it grows: it tells nobody else (``bus.refusals``).

What was written before the start is not read: it was noted then, or nobody was there. Rotation and truncation are
noticed within ``EVERY_S``; a line longer than ``LIMIT_LINE_BYTES`` is passed over.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Final

from meterway.bus.refusals import Refusals, parse_mosquitto
from meterway.cloud.devices.notes import DeviceNotes
from meterway.cloud.store import Store

EVERY_S: Final = 1.0
LIMIT_LINE_BYTES: Final = 8192
_READ_BYTES: Final = 1 << 18
_REFUSED: Final = b"Denied PUBLISH"
_UNREADABLE: Final = (
    "! the log of mosquitto, %s, cannot be read (%s), so what it refuses is not shown: let mosquitto write it and this "
    "user read it (docs/permissions.md), or correct `mosquitto_log` in [devices]; looking again each second"
)
"""Path, why."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def noting_refusals(path: Path, store: Store, clock: Callable[[], datetime]) -> AsyncIterator[None]:
    """Note with the devices what mosquitto's log says was refused to them, until the block ends."""
    notes = DeviceNotes(store, clock)
    refusals = Refusals(notes.on_refused, time.monotonic)

    def take(line: str) -> None:
        refusal = parse_mosquitto(line)
        if refusal is not None:
            refusals.put(refusal)

    async with notes.running():
        task = asyncio.create_task(follow(path, take), name="meterway.cloud.devices.mosquitto_log")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def follow(path: Path, take: Callable[[str], object], *, every_s: float = EVERY_S) -> None:
    """Give each line added to ``path`` that says what was refused to ``take``, until cancelled; it may come later."""
    is_missed, whence = False, os.SEEK_END
    while True:
        try:
            with path.open("rb", buffering=0) as file:
                is_missed = False
                file.seek(0, whence)
                await _read(file, path, take, every_s)
        except OSError as error:
            if not is_missed:
                _log.warning(_UNREADABLE, path, error.strerror)
            is_missed = True
            await asyncio.sleep(every_s)
        whence = os.SEEK_SET


async def _read(file: FileIO, path: Path, take: Callable[[str], object], every_s: float) -> None:
    """Return when ``path`` is another file, or was cut, and all of this one is read."""
    rest = b""
    while True:
        is_over = _is_over(file, path)
        while chunk := file.read(_READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if _REFUSED in line and len(line) <= LIMIT_LINE_BYTES:
                    take(line.decode(errors="replace"))
            rest = rest[: LIMIT_LINE_BYTES + 1]
            await asyncio.sleep(0)
        if is_over:
            return
        await asyncio.sleep(every_s)


def _is_over(file: FileIO, path: Path) -> bool:
    own = os.fstat(file.fileno())
    try:
        there = path.stat()
    except OSError:
        return False  # renamed: mosquitto writes on here until it is told to make a new one
    return own.st_size < file.tell() or not os.path.samestat(own, there)
