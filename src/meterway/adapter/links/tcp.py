"""A TCP server that hands out the meter's bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meterway.adapter.config import TcpSource
from meterway.adapter.links.place import describe, why
from meterway.adapter.links.stream import CHUNK_LIMIT_BYTES, CONNECT_TIMEOUT_S, Stream, closing
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line


@asynccontextmanager
async def open_tcp(source: TcpSource, line: Line) -> AsyncIterator["Tcp"]:
    """Connect to ``source``, whose serial port, if it has one, is set as ``line`` says.

    Raises:
        TransientError: nobody listens there.
    """
    where = describe(source)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(source.host, source.port, limit=CHUNK_LIMIT_BYTES)
    except OSError as error:
        raise TransientError(f"{where} cannot be opened: {why(error)}") from error
    async with closing(writer):
        yield Tcp(reader, writer, where, line)


class Tcp(Stream):
    """A connection. ``write`` returns when the bytes are handed over: what is behind the gateway cannot be seen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, line: Line) -> None:
        super().__init__(reader, writer, where)
        self._line = line

    async def set_line(self, line: Line) -> None:
        if line != self._line:
            raise SetupError(
                f"{self._where}: the meter wants {line.baud} baud {line.data_bits}{line.parity}{line.stop_bits}, and "
                'the serial line behind a TCP gateway cannot be set; use `type = "rfc2217"` if the gateway speaks '
                "RFC 2217 (ser2net: telnet(rfc2217)), or a family whose meters stay at the rate they begin with"
            )
