"""What serial ports and sockets have in common: a stream of bytes that is read and written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from meterway.adapter.links.place import why
from meterway.core.errors import TransientError

CHUNK_LIMIT_BYTES = 16_384
"""The most that one ``read`` returns; what comes faster than it is read waits at the other side."""
CONNECT_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 60.0
"""The other side that takes nothing for so long is gone; 1,500 bytes at 300 baud take 50 s."""


class Stream:
    """An open stream; ``where`` names it in errors, ``broken`` are the errors of the library below it."""

    message_bounded = False

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        where: str,
        *,
        broken: tuple[type[Exception], ...] = (OSError,),
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.where = where
        self._broken = broken

    async def read(self) -> bytes:
        await asyncio.sleep(0)  # what waits is read without waiting: others must have their turn, and time-outs
        try:
            data = await self._reader.read(CHUNK_LIMIT_BYTES)
        except self._broken as error:
            raise TransientError(f"{self.where} broke: {why(error)}") from error
        if not data:
            raise TransientError(f"{self.where} was closed by the other side")
        return data

    async def write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                self._writer.write(data)
                await self._writer.drain()
                await self._sent()
        except self._broken as error:
            raise TransientError(f"{self.where} takes nothing: {why(error)}") from error

    async def _sent(self) -> None:
        """Return when what was written has left, if that can be seen."""


@asynccontextmanager
async def closing(
    writer: asyncio.StreamWriter, *, broken: tuple[type[Exception], ...] = (OSError,)
) -> AsyncIterator[None]:
    """Close a stream at the end."""
    try:
        yield
    finally:
        writer.close()
        with suppress(*broken):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await writer.wait_closed()
