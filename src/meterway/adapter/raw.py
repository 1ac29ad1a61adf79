"""The last raw bytes of every link, kept on disk for ``meterway doctor``; a bounded ring of two files a link.

They hold readings and numbers of meters as the meter sent them, so the files are for the adapter's user alone. They
are written every few seconds and never fsynced: a crash costs the last seconds of what is only for looking at.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from meterway.adapter.links import Link
from meterway.meter.family import Line

_log = logging.getLogger(__name__)

FOLDER: Final = "raw"
"""Beside the spool's files."""
WRITE_INTERVAL_S: Final = 2.0

Opening = Callable[[Line], AbstractAsyncContextManager[Link]]
_OLD, _NEW = "old", "new"


class Chunk(msgspec.Struct, frozen=True):
    """What one read of a link returned."""

    time: datetime
    """When it came; aware."""
    data: bytes


@dataclass(slots=True)
class _Ring:
    stem: str
    pending: deque[Chunk] = field(default_factory=deque)
    pending_bytes: int = 0


class RawRings:
    """The rings of one adapter: at most ``limit_bytes`` a link on disk, and as much in memory between two writes.

    With a limit of 0 nothing is kept. What is above goes, oldest first; one read that is larger is kept alone. A disk
    that is full or away costs the ring and nothing else; it is logged once.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._rings: dict[str, _Ring] = {}
        self._is_failing = False

    def recording(self, link: Link, name: str) -> Link:
        """Return ``link``, so that what it reads is kept in the ring ``name`` (a smart meter id)."""
        if not self._limit_bytes:
            return link
        return _Recording(link, self._rings.setdefault(name, _Ring(name)), self._limit_bytes)

    def opening(self, open_link: Opening, name: str) -> Opening:
        """Return what opens a link as ``open_link`` does, and keeps what it reads in the ring ``name``."""

        @asynccontextmanager
        async def opened(line: Line) -> AsyncIterator[Link]:
            async with open_link(line) as link:
                yield self.recording(link, name)

        return opened

    async def run(self) -> None:
        """Write every ``WRITE_INTERVAL_S``, and once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(WRITE_INTERVAL_S)
                await asyncio.to_thread(self._write, self._take())
        finally:
            self._write(self._take())

    def _take(self) -> list[tuple[_Ring, deque[Chunk]]]:
        taken = [(ring, ring.pending) for ring in self._rings.values() if ring.pending]
        for ring, _ in taken:
            ring.pending, ring.pending_bytes = deque(), 0
        return taken

    def _write(self, taken: list[tuple[_Ring, deque[Chunk]]]) -> None:
        for ring, chunks in taken:
            try:
                self._append(ring, b"".join(msgspec.json.encode(chunk) + b"\n" for chunk in chunks))
            except OSError as error:
                if not self._is_failing:
                    _log.warning(
                        "! raw bytes for `meterway doctor` are not kept in %s: %s", self._folder, error.strerror
                    )
                self._is_failing = True
            else:
                self._is_failing = False

    def _append(self, ring: _Ring, lines: bytes) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        new = _file(self._folder, ring.stem, _NEW)
        if new.exists() and new.stat().st_size + len(lines) > self._limit_bytes // 2:
            new.replace(_file(self._folder, ring.stem, _OLD))
        descriptor = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "ab") as file:  # noqa: PTH123 - a descriptor, for its mode
            file.write(lines)


class _Recording:
    """A link whose reads are kept; what is written may hold a password and is not."""

    def __init__(self, link: Link, ring: _Ring, limit_bytes: int) -> None:
        self.message_bounded = link.message_bounded
        self.write = link.write
        self._link = link
        self._ring = ring
        self._limit_bytes = limit_bytes // 4
        """Of pending bytes; in JSON, each takes up to twice the room, and one of two files holds them."""

    async def read(self) -> bytes:
        data = await self._link.read()
        if not data:
            return data
        ring = self._ring
        ring.pending.append(Chunk(datetime.now(UTC), data))
        ring.pending_bytes += len(data)
        while ring.pending_bytes > self._limit_bytes and len(ring.pending) > 1:
            ring.pending_bytes -= len(ring.pending.popleft().data)
        return data

    async def set_line(self, line: Line) -> None:
        await self._link.set_line(line)


def read_ring(spool_dir: Path, name: str) -> list[Chunk]:
    """Return what is kept of the link ``name``, oldest first; empty if nothing is.

    A line that a crash cut is left out.

    Raises:
        OSError: it is there and may not be read.
    """
    chunks: list[Chunk] = []
    for age in (_OLD, _NEW):
        try:
            lines = _file(spool_dir / FOLDER, name, age).read_bytes().splitlines()
        except FileNotFoundError:
            continue
        chunks += _decoded(lines)
    return chunks


def _decoded(lines: Iterable[bytes]) -> Iterable[Chunk]:
    for line in lines:
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=Chunk)


def _file(folder: Path, stem: str, age: str) -> Path:
    return folder / f"{stem}.{age}.jsonl"
