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
    """Connect to ``source``; the serial line behind it is taken to be set as ``line`` says.

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
        check_same(self.where, self._line, line)


def check_same(where: str, line: Line, wanted: Line) -> None:
    """Check that nobody wants another line than the one behind a gateway, which cannot be set from here.

    Raises:
        SetupError: somebody does.
    """
    if wanted != line:
        raise SetupError(
            f"{where}: the meter wants {wanted}, the gateway's line is taken to be {line} and cannot be set over plain "
            'TCP; use `type = "rfc2217"` with a gateway that speaks it (ser2net: telnet(rfc2217)), or a family whose '
            "meters stay at the rate with which they begin (sign_on.highest_baud)"
        )
