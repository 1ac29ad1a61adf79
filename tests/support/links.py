"""The other ends of links: a pty, a gateway that speaks RFC 2217, a device that speaks HTTP; and reading them out."""

import asyncio
import os
import pty
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from support.brokers import free_port

IN_TIME_S = 30.0

_IAC, _SE, _SB, _WILL, _DO = 255, 240, 250, 251, 253
_COM_PORT = 44
_SETTINGS = {1: "baud", 2: "data_bits", 3: "parity", 4: "stop_bits"}
_CONTROL = 5
_ANSWER = 100


class Readable(Protocol):
    async def read(self) -> bytes: ...


async def read_exactly(link: Readable, size_bytes: int) -> bytes:
    """Read so many bytes, in time."""
    data = b""
    async with asyncio.timeout(IN_TIME_S):
        while len(data) < size_bytes:
            data += await link.read()
    return data


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, in time."""
    async with asyncio.timeout(IN_TIME_S):
        while not condition():
            await asyncio.sleep(0.01)


@contextmanager
def serial_line() -> Iterator[tuple[int, Path]]:
    """Make a serial line; yield the meter's end of it, and the device at the other end."""
    meter_end, adapter_end = pty.openpty()
    tty.setraw(adapter_end)
    try:
        yield meter_end, Path(os.ttyname(adapter_end))
    finally:
        for descriptor in (meter_end, adapter_end):
            os.close(descriptor)


class Rfc2217Gateway:
    """Takes every setting and says so (RFC 2217, section 3); what comes over its line is a loop back."""

    def __init__(self) -> None:
        self.port = free_port()
        self.line: dict[str, int] = {}
        """As it is set now, by the numbers of the RFC: parity 1 none, 2 odd, 3 even."""
        self.before: bytes = b""
        """Sent to who connects, before anything is negotiated."""
        self.flood: bytes = b""
        """Sent for ever once the line is set."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Rfc2217Gateway"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            writer.write(self.before)
            while True:
                byte = (await reader.readexactly(1))[0]
                if byte == _IAC:
                    byte = (await reader.readexactly(1))[0]
                    if byte != _IAC:
                        await self._command(byte, reader, writer)
                        continue
                    writer.write(b"\xff\xff")
                else:
                    writer.write(bytes((byte,)))
        writer.close()

    async def _command(self, command: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        option = (await reader.readexactly(1))[0]
        if command in (_DO, _WILL):
            writer.write(bytes((_IAC, _WILL if command == _DO else _DO, option)))
        if command != _SB:
            return
        content = (await reader.readuntil(bytes((_IAC, _SE))))[:-2].replace(b"\xff\xff", b"\xff")
        name = _SETTINGS.get(content[0])
        if name:
            self.line[name] = int.from_bytes(content[1:], "big")
        answer = bytes((content[0] + _ANSWER,)) + content[1:].replace(b"\xff", b"\xff\xff")
        writer.write(bytes((_IAC, _SB, _COM_PORT)) + answer + bytes((_IAC, _SE)))
        while self.flood and content[0] == _CONTROL:
            writer.write(self.flood)
            await writer.drain()


class Request:
    """What a device was asked."""

    def __init__(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.method, self.path, _ = first.split(" ", 2)
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """Return a whole answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class HttpDevice:
    """Answers each request with what ``answers`` says, piece by piece."""

    def __init__(self, answers: Callable[[Request], AsyncIterator[bytes]]) -> None:
        self.port = free_port()
        self.requests: list[Request] = []
        self._answers = answers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/data"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["HttpDevice"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = Request((await reader.readuntil(b"\r\n\r\n")).decode().strip())
                self.requests.append(request)
                async for piece in self._answers(request):
                    writer.write(piece)
                    await writer.drain()
        writer.close()


def always(data: bytes) -> Callable[[Request], AsyncIterator[bytes]]:
    """Answer everything with the same bytes."""

    async def answers(_: Request) -> AsyncIterator[bytes]:
        yield data

    return answers
