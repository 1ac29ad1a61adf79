"""A serial port, an optical head, a pty. The only file that knows the serial library."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import serialx

from meterway.adapter.config import SerialSource
from meterway.adapter.links.place import describe, why
from meterway.adapter.links.stream import CONNECT_TIMEOUT_S, Stream, closing
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line

_BROKEN = (OSError, serialx.SerialException)


@asynccontextmanager
async def open_serial(source: SerialSource, line: Line) -> AsyncIterator["Serial"]:
    """Open a port for this process alone.

    Raises:
        TransientError: it is not there, or another process holds it.
    """
    where = describe(source)
    try:
        reader, writer = await asyncio.wait_for(
            serialx.open_serial_connection(
                url=str(source.port),
                baudrate=source.baud or line.baud,
                byte_size=source.data_bits or line.data_bits,
                parity=serialx.Parity(source.parity or line.parity),
                stopbits=serialx.StopBits(source.stop_bits or line.stop_bits),
            ),
            CONNECT_TIMEOUT_S,
        )
    except (*_BROKEN, ValueError) as error:
        raise TransientError(f"{where} cannot be opened: {why(error)}{_missing_port_hint(source.port)}") from error
    async with closing(writer, broken=_BROKEN):
        yield Serial(reader, writer, where, broken=_BROKEN)


class Serial(Stream):
    """An open port."""

    async def set_line(self, line: Line) -> None:
        try:
            await self._writer.transport.reconfigure_port(  # type: ignore[attr-defined]
                baudrate=line.baud,
                byte_size=line.data_bits,
                parity=serialx.Parity(line.parity),
                stopbits=serialx.StopBits(line.stop_bits),
            )
        except _BROKEN as error:
            raise TransientError(f"{self._where} broke: {why(error)}") from error
        except ValueError as error:
            raise SetupError(f"{self._where} cannot be set to {line}: {error}") from error


def _missing_port_hint(port: Path) -> str:
    if port.exists():
        return ""
    by_id = Path("/dev/serial/by-id")
    found = sorted(str(path) for path in by_id.iterdir()) if by_id.is_dir() else []
    return f"; plugged in now: {', '.join(found)}" if found else "; no USB serial adapter is plugged in"
