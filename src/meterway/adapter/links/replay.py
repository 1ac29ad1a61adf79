"""A file of captured bytes, at a chosen speed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meterway.adapter.config import ReplaySource
from meterway.adapter.links.oneway import OneWay
from meterway.adapter.links.place import describe, why
from meterway.adapter.links.stream import CHUNK_LIMIT_BYTES
from meterway.core.errors import TransientError


@asynccontextmanager
async def open_replay(source: ReplaySource) -> AsyncIterator["Replay"]:
    """Open a file; whether it is there, the first ``read`` finds out."""
    yield Replay(source)


class Replay(OneWay):
    """A file that is read once."""

    def __init__(self, source: ReplaySource) -> None:
        super().__init__(describe(source))
        self._source = source
        self._offset_bytes = 0

    async def read(self) -> bytes:
        rate = self._source.bytes_per_s
        size_bytes = CHUNK_LIMIT_BYTES if rate is None else max(1, min(CHUNK_LIMIT_BYTES, rate // 10))
        if rate is not None:
            await asyncio.sleep(size_bytes / rate)
        try:
            data = await asyncio.to_thread(self._read_chunk, size_bytes)
        except OSError as error:
            raise TransientError(f"{self.where} cannot be read: {why(error)}") from error
        self._offset_bytes += len(data)
        return data

    def _read_chunk(self, size_bytes: int) -> bytes:
        with self._source.file.open("rb") as file:
            file.seek(self._offset_bytes)
            return file.read(size_bytes)
