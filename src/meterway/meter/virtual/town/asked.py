"""Lines on which meters are asked: a TCP port, as a gateway offers it, or a pty, as an optical head is one."""

import asyncio
import os
import termios
import tty
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from meterway.core.errors import SetupError
from meterway.meter.master import Effect, Send, SetLine, Wait
from meterway.meter.virtual.links import Moved, SerialAddress, TcpAddress
from meterway.meter.virtual.town.answer import Conversation

_FORGETS_S: Final = 1.5
"""After so long a silence a session is over (IEC 62056-21:2002, 6.3.14)."""
_CHUNK_BYTES: Final = 1024
_LOOK_S: Final = 0.002
_PATIENCE_S: Final = 1.0
"""How long a meter waits for its reader to change the baud rate as agreed."""


class AskedLine(Protocol):
    """A line with a conversation on it."""

    @property
    def address(self) -> TcpAddress | SerialAddress: ...

    async def close(self) -> None: ...


class AskedTcp:
    """A port; one reader at a time: a new one takes the place of the one before it."""

    def __init__(self, server: asyncio.Server, readers: set[asyncio.Task[None]]) -> None:
        self._server = server
        self._readers = readers
        host, port = server.sockets[0].getsockname()[:2]
        self.address = TcpAddress(host, port)

    @classmethod
    async def open(cls, host: str, port: int, conversation: Conversation, moved: Moved) -> "AskedTcp":
        """Listen; port 0 takes a free one.

        Raises:
            SetupError: the port is taken or not allowed.
        """
        readers: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine run by asyncio has a task
            for other in readers:
                other.cancel()
            readers.add(task)
            moved(True, 0)
            try:
                await _talk(reader, writer, conversation)
            except (OSError, asyncio.CancelledError):
                writer.transport.abort()
            finally:
                writer.close()
                readers.discard(task)
                moved(False, 0)

        try:
            server = await asyncio.start_server(serve, host, port, limit=_CHUNK_BYTES)
        except (OSError, OverflowError) as error:
            raise SetupError(f"cannot listen on {host}:{port}: {error}; --tcp 0 takes free ports") from error
        return cls(server, readers)

    async def close(self) -> None:
        self._server.close()
        for task in tuple(self._readers):
            task.cancel()
        while self._readers:  # noqa: ASYNC110 - each takes itself out of the set
            await asyncio.sleep(0)
        await self._server.wait_closed()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conversation: Conversation) -> None:
    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    while True:
        try:
            async with asyncio.timeout(_FORGETS_S):
                data = await reader.read(_CHUNK_BYTES)
        except TimeoutError:
            conversation.forget()
            continue
        if not data:
            conversation.forget()
            return
        await _carry_out(conversation.hear(data), send)
        conversation.sent()


async def _carry_out(effects: list[Effect], send: Callable[[bytes], Awaitable[None]]) -> None:
    """Do what the meter wants; a line of a TCP gateway stays as it is."""
    for effect in effects:
        if isinstance(effect, Send):
            await send(effect.data)
        elif isinstance(effect, Wait):
            await asyncio.sleep(effect.seconds_s)


class AskedPty:
    """A pseudo-terminal: to the reader an optical head, whose baud rate it has to change as the meter says."""

    def __init__(self, conversation: Conversation, alias: Path | None = None) -> None:
        """Make it; ``alias`` becomes a symbolic link to it.

        Raises:
            SetupError: no pty is to be had, or the alias cannot be made.
        """
        try:
            self._far, self._near = os.openpty()
        except OSError as error:
            raise SetupError(f"cannot make a pty: {error}") from error
        tty.setraw(self._near)
        os.set_blocking(self._far, False)
        device = os.ttyname(self._near)
        self._alias = alias
        if alias is not None:
            self._link(alias, device)
        self.address = SerialAddress(str(alias or device))
        self._conversation = conversation
        self._baud = conversation.baud
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self._far, self._take)
        self._task = asyncio.create_task(self._talk(), name=f"meterway.meter.virtual.town.{device}")

    def _link(self, alias: Path, device: str) -> None:
        try:
            alias.parent.mkdir(parents=True, exist_ok=True)
            if alias.is_symlink():
                alias.unlink()
            alias.symlink_to(device)
        except OSError as error:
            os.close(self._far)
            os.close(self._near)
            raise SetupError(f"cannot link {alias} to {device}: {error}") from error

    def _take(self) -> None:
        with suppress(BlockingIOError):
            self._heard.put_nowait(os.read(self._far, _CHUNK_BYTES))

    async def _talk(self) -> None:
        conversation = self._conversation
        while True:
            try:
                async with asyncio.timeout(_FORGETS_S):
                    data = await self._heard.get()
            except TimeoutError:
                await self._carry_out(conversation.forget())
                continue
            await self._carry_out(conversation.hear(data))
            conversation.sent()

    async def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SetLine):
                self._baud = effect.line.baud
            else:
                await _carry_out([effect], self._send)

    async def _send(self, data: bytes) -> None:
        """Write; at another speed than the reader's, rubbish."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _PATIENCE_S
        while not self._same_speed and loop.time() < until_s:  # noqa: ASYNC110 - nobody tells of a change
            await asyncio.sleep(_LOOK_S)
        rest = data if self._same_speed else bytes(byte ^ 0x55 for byte in data)
        until_s = loop.time() + _FORGETS_S
        while rest and loop.time() < until_s:
            try:
                rest = rest[os.write(self._far, rest) :]
            except BlockingIOError:
                await asyncio.sleep(_LOOK_S)

    @property
    def _same_speed(self) -> bool:
        speed: int = termios.tcgetattr(self._far)[5]
        wanted: int = getattr(termios, f"B{self._baud}")
        return speed == wanted

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._far)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._alias is not None and self._alias.is_symlink():
            self._alias.unlink()
        os.close(self._far)
        os.close(self._near)
