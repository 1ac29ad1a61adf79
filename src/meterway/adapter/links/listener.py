"""A TCP port that a meter or gateway dials in to."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from meterway.adapter.config import TcpListenerSource
from meterway.adapter.links.place import describe, why
from meterway.adapter.links.stream import CHUNK_LIMIT_BYTES, CONNECT_TIMEOUT_S, Stream
from meterway.adapter.links.tcp import check_same
from meterway.adapter.links.throttle import Throttle
from meterway.core.errors import TransientError
from meterway.meter.family import Line

_log = logging.getLogger(__name__)

_BACKLOG = 4
"""How many may dial in at the same moment."""


@asynccontextmanager
async def open_tcp_listener(source: TcpListenerSource, line: Line) -> AsyncIterator["Listener"]:
    """Listen, whether somebody dials in or not.

    Raises:
        TransientError: the port is in use, or the address is not this machine's.
    """
    listener = Listener(describe(source), line)
    try:
        server = await asyncio.start_server(
            listener.take, source.host, source.port, limit=CHUNK_LIMIT_BYTES, backlog=_BACKLOG
        )
    except OSError as error:
        raise TransientError(f"{listener.where} cannot be opened: {why(error)}") from error
    try:
        yield listener
    finally:
        server.close()
        listener.hang_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await server.wait_closed()


class Listener:
    """One connection after the other, as one stream; a new connection ends the one before it.

    The other way round a gateway that lost its power, and dials in again, would find its own dead connection in
    the way. A connection that ends does not end the link: the next one is waited for.
    """

    message_bounded = False

    def __init__(self, where: str, line: Line) -> None:
        self.where = where
        self._line = line
        self._stream: Stream | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._dialled_in = asyncio.Event()
        self._throttle = Throttle()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a new connection."""
        if self._throttle.allow():
            before = "" if self._writer is None else "; the connection before it is ended"
            _log.info("%s: %s dialled in%s", self.where, writer.get_extra_info("peername"), before)
        self.hang_up()
        self._writer = writer
        self._stream = Stream(reader, writer, self.where)
        self._dialled_in.set()

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._writer = self._stream = None
        self._dialled_in.clear()

    async def read(self) -> bytes:
        while True:
            stream = await self._present()
            try:
                return await stream.read()
            except TransientError as error:
                if stream is self._stream:
                    _log.debug("! %s", error)
                    self.hang_up()

    async def write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                stream = await self._present()
        except TimeoutError:
            raise TransientError(f"{self.where}: nobody has dialled in, so nobody can be asked") from None
        await stream.write(data)

    async def set_line(self, line: Line) -> None:
        check_same(self.where, self._line, line)

    async def _present(self) -> Stream:
        while self._stream is None:
            await self._dialled_in.wait()
        return self._stream
