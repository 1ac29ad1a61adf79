"""The other ends of links: a pty, a gateway that speaks RFC 2217, a device that speaks HTTP; and reading them out."""

import asyncio
import os
import pty
import ssl
import tty
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from support.brokers import free_port

IN_TIME_S = 60.0

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


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def tcp_server(serve: Serve, port: int = 0, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run ``serve`` for each connection; yield the port. A connection ends with ``serve`` or with us."""
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            serving.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
        await server.wait_closed()


class Rfc2217Gateway:
    """Takes every setting and says so (RFC 2217, section 3); what comes over its line is a loop back."""

    def __init__(self) -> None:
        self.port = free_port()
        self.line: dict[str, int] = {}
        """As it is set now, by the numbers of the RFC: parity 1 none, 2 odd, 3 even."""
        self.says: bytes = b""
        """Sent for ever once the line is set."""
        self.pause_s = 0.0
        """After each time."""
        self._agreed: set[tuple[int, int]] = set()
        """What was agreed to is not agreed to again: the two would never come to an end (RFC 854)."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Rfc2217Gateway"]:
        async with tcp_server(self._serve, self.port):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._agreed.clear()
        while True:
            byte = (await reader.readexactly(1))[0]
            if byte != _IAC:
                writer.write(bytes((byte,)))
            elif (command := (await reader.readexactly(1))[0]) == _IAC:
                writer.write(b"\xff\xff")
            else:
                await self._command(command, reader, writer)

    async def _command(self, command: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        option = (await reader.readexactly(1))[0]
        if command in (_DO, _WILL) and (command, option) not in self._agreed:
            self._agreed.add((command, option))
            writer.write(bytes((_IAC, _WILL if command == _DO else _DO, option)))
        if command != _SB:
            return
        content = (await reader.readuntil(bytes((_IAC, _SE))))[:-2].replace(b"\xff\xff", b"\xff")
        name = _SETTINGS.get(content[0])
        if name:
            self.line[name] = int.from_bytes(content[1:], "big")
        answer = bytes((content[0] + _ANSWER,)) + content[1:].replace(b"\xff", b"\xff\xff")
        writer.write(bytes((_IAC, _SB, _COM_PORT)) + answer + bytes((_IAC, _SE)))
        while self.says and content[0] == _CONTROL:
            writer.write(self.says)
            await writer.drain()
            await asyncio.sleep(self.pause_s)


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
        async with tcp_server(self.serve, self.port):
            yield self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = Request((await reader.readuntil(b"\r\n\r\n")).decode().strip())
            self.requests.append(request)
            async for piece in self._answers(request):
                writer.write(piece)
                await writer.drain()


def always(data: bytes) -> Callable[[Request], AsyncIterator[bytes]]:
    """Answer everything with the same bytes."""

    async def answers(_: Request) -> AsyncIterator[bytes]:
        yield data

    return answers
