"""Links: where a meter's bytes come from. The only file that opens a serial port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import serialx

from meterway.adapter.config import ReplaySource, SerialSource, Source, TcpSource
from meterway.core.errors import TransientError
from meterway.meter.family import Line

CHUNK_LIMIT_BYTES = 16_384
CONNECT_TIMEOUT_S = 10.0


class Link(Protocol):
    """An open way to a meter."""

    async def read(self) -> bytes:
        """Return the next bytes, 1 to ``CHUNK_LIMIT_BYTES``; empty at the end of a replayed file.

        Raises:
            TransientError: the line broke.
        """


@asynccontextmanager
async def open_link(source: Source, line: Line) -> AsyncIterator[Link]:
    """Open ``source``; ``line`` fills in the serial settings that it leaves out.

    Raises:
        TransientError: it cannot be opened now; says where and why.
    """
    match source:
        case SerialSource():
            reader, writer = await _open_serial(source, line)
        case TcpSource():
            reader, writer = await _open_tcp(source)
        case ReplaySource():
            yield _Replay(source)
            return
    try:
        yield _Stream(reader, describe(source))
    finally:
        writer.close()
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), CONNECT_TIMEOUT_S)


def describe(source: Source) -> str:
    """Return the place in words for status and errors."""
    match source:
        case SerialSource():
            return f"serial port {source.port}"
        case TcpSource():
            return f"tcp {source.host}:{source.port}"
        case ReplaySource():
            return f"file {source.file}"


def kind(source: Source) -> str:
    """Return the kind of link, without address."""
    match source:
        case SerialSource():
            return "serial"
        case TcpSource():
            return "tcp"
        case ReplaySource():
            return "replay"


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _missing_port_hint(port: Path) -> str:
    if port.exists():
        return ""
    by_id = Path("/dev/serial/by-id")
    found = sorted(str(path) for path in by_id.iterdir()) if by_id.is_dir() else []
    return f"; plugged in now: {', '.join(found)}" if found else "; no USB serial adapter is plugged in"


async def _open_serial(source: SerialSource, line: Line) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.wait_for(
            serialx.open_serial_connection(
                url=str(source.port),
                baudrate=source.baud or line.baud,
                byte_size=source.data_bits or line.data_bits,
                parity=serialx.Parity(source.parity or line.parity),
                stopbits=serialx.StopBits(source.stop_bits or line.stop_bits),
            ),
            CONNECT_TIMEOUT_S,
        )
    except (OSError, serialx.SerialException, TimeoutError, ValueError) as error:
        hint = _missing_port_hint(source.port)
        raise TransientError(f"{describe(source)} cannot be opened: {_why(error)}{hint}") from error


async def _open_tcp(source: TcpSource) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.wait_for(
            asyncio.open_connection(source.host, source.port, limit=CHUNK_LIMIT_BYTES), CONNECT_TIMEOUT_S
        )
    except (OSError, TimeoutError) as error:
        raise TransientError(f"{describe(source)} cannot be opened: {_why(error)}") from error


class _Stream:
    """A serial port or a socket."""

    def __init__(self, reader: asyncio.StreamReader, where: str) -> None:
        self._reader = reader
        self._where = where

    async def read(self) -> bytes:
        try:
            data = await self._reader.read(CHUNK_LIMIT_BYTES)
        except (OSError, serialx.SerialException) as error:
            raise TransientError(f"{self._where} broke: {_why(error)}") from error
        if not data:
            raise TransientError(f"{self._where} was closed by the other side")
        return data


class _Replay:
    """A file, at a chosen speed."""

    def __init__(self, source: ReplaySource) -> None:
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
            raise TransientError(f"{describe(self._source)} cannot be read: {_why(error)}") from error
        self._offset_bytes += len(data)
        return data

    def _read_chunk(self, size_bytes: int) -> bytes:
        with self._source.file.open("rb") as file:
            file.seek(self._offset_bytes)
            return file.read(size_bytes)
