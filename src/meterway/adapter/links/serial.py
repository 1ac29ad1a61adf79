"""A serial port: here (an optical head, a pty) or behind a gateway that speaks RFC 2217.

The only file that knows the serial library.
"""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import serialx
from serialx.platforms.serial_rfc2217 import RFC2217SerialTransport

from meterway.adapter.config import Rfc2217Source, SerialSource
from meterway.adapter.links.place import describe, why
from meterway.adapter.links.stream import CONNECT_TIMEOUT_S, Stream, closing
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line
from meterway.meter.wmbus_receivers import RECEIVERS, start_bytes

_BROKEN = (OSError, serialx.SerialException)
_LIMIT_NEGOTIATION = 1000
"""How many bytes, and how many offers, a gateway may negotiate with; serialx keeps all of them."""


@asynccontextmanager
async def open_serial(source: SerialSource | Rfc2217Source, family_line: Line) -> AsyncIterator["Serial"]:
    """Open a port for this process alone.

    Raises:
        TransientError: it is not there, another process holds it, or it cannot be set so.
    """
    where = describe(source)
    line = _pinned(source, family_line, family_line)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await serialx.open_serial_connection(
                url=_url(source),
                transport_cls=_Rfc2217Transport if isinstance(source, Rfc2217Source) else None,
                baudrate=line.baud,
                byte_size=line.data_bits,
                parity=serialx.Parity(line.parity),
                stopbits=serialx.StopBits(line.stop_bits),
                exclusive=True,
            )
    except (*_BROKEN, ValueError) as error:
        raise TransientError(f"{where} cannot be opened: {_why_not(source, error)}") from error
    async with closing(writer, broken=_BROKEN):
        link = Serial(reader, writer, source, family_line)
        if source.receiver is not None:
            await link.write(start_bytes(source.receiver, source.radio_mode))
        yield link


class Serial(Stream):
    """An open port."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: "serialx.SerialStreamWriter[serialx.BaseSerialTransport]",
        source: SerialSource | Rfc2217Source,
        family_line: Line,
    ) -> None:
        super().__init__(reader, writer, describe(source), broken=_BROKEN)
        self._transport = writer.transport
        self._source = source
        self._family_line = family_line
        self._line = _pinned(source, family_line, family_line)

    async def write(self, data: bytes) -> None:
        """Send, and wait for as long as the line takes: a pty, many USB converters and gateways say so too early."""
        loop = asyncio.get_running_loop()
        left_at = loop.time() + len(data) * _bits(self._line) / self._line.baud
        await super().write(data)
        await asyncio.sleep(left_at - loop.time())

    async def set_line(self, line: Line) -> None:
        wanted = _pinned(self._source, self._family_line, line)
        if wanted == self._line:
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._transport.reconfigure_port(
                    baudrate=wanted.baud,
                    byte_size=wanted.data_bits,
                    parity=serialx.Parity(wanted.parity),
                    stopbits=serialx.StopBits(wanted.stop_bits),
                )
        except serialx.UnsupportedSetting as error:
            raise SetupError(f"{self.where} cannot be set to {wanted}: {why(error)}") from error
        except _BROKEN as error:
            raise TransientError(f"{self.where} could not be set to {wanted}: {why(error)}") from error
        self._line = wanted

    async def _sent(self) -> None:
        await self._transport.flush()


def _pinned(source: SerialSource | Rfc2217Source, family_line: Line, wanted: Line) -> Line:
    """Return ``wanted`` with what the owner has pinned; his baud stands for the one with which the family begins."""
    owned_baud = source.baud or (RECEIVERS[source.receiver].baud if source.receiver else None)
    return Line(
        baud=owned_baud or wanted.baud if wanted.baud == family_line.baud else wanted.baud,
        data_bits=source.data_bits or wanted.data_bits,
        parity=source.parity or wanted.parity,
        stop_bits=source.stop_bits or wanted.stop_bits,
    )


def _bits(line: Line) -> int:
    """Return how many bits a byte takes on the line, with its start bit."""
    return 1 + line.data_bits + (line.parity != "N") + line.stop_bits


def _url(source: SerialSource | Rfc2217Source) -> str:
    if isinstance(source, SerialSource):
        return str(source.port)
    host = f"[{source.host}]" if ":" in source.host else source.host
    return f"rfc2217://{host}:{source.port}"


def _why_not(source: SerialSource | Rfc2217Source, error: Exception) -> str:
    """Return why a port cannot be opened, and what to do."""
    if isinstance(source, Rfc2217Source):
        refused = isinstance(error, serialx.SerialException | TimeoutError)
        hint = '; does the gateway speak RFC 2217 on this port? If not, use `type = "tcp"`' if refused else ""
        return f"{why(error)}{hint}"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EBUSY:
        return f"another process holds it; `fuser -v {source.port}` names it"
    if number == errno.EACCES:
        return f"{why(error)}; add the adapter's user to the group dialout"
    return f"{why(error)}{_missing_port_hint(source.port)}"


def _missing_port_hint(port: Path) -> str:
    if port.exists():
        return ""
    by_id = Path("/dev/serial/by-id")
    found = sorted(str(path) for path in by_id.iterdir()) if by_id.is_dir() else []
    return f"; plugged in now: {', '.join(found)}" if found else "; no USB serial adapter is plugged in"


class _Rfc2217Transport(RFC2217SerialTransport):
    """The library's, with a bound on what a gateway may negotiate."""

    def _data_received(self, data: bytes) -> None:
        super()._data_received(data)
        if self._serial is None:
            return
        engine = self._serial._engine  # noqa: SLF001 - the library has no bound of its own
        pending = max(len(engine._parser._subneg_buffer), len(engine._pending_telnet))  # noqa: SLF001
        if pending > _LIMIT_NEGOTIATION:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the gateway negotiates without end")
