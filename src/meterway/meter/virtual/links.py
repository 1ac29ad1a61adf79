"""Where the bytes of a virtual meter go: a TCP port with any number of readers, or a pty with one.

A meter does not wait. What a reader has not taken is kept up to a bound; beyond it a TCP reader is dropped, and a
pty misses whole telegrams, never halves. Both are counted.
"""

import asyncio
import fcntl
import os
import select
import struct
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from meterway.core.errors import SetupError
from meterway.meter.virtual.counters import Counters

WRITE_BUFFER_LIMIT_BYTES: Final = 65_536
"""A TCP reader that leaves more than this unread (beside the kernel's own buffers) is dropped."""

READERS_LIMIT: Final = 32
"""Readers of one TCP port at a time; further ones are refused."""

SETTLE_S: Final = 1.5
"""A pty's reader is left alone for so long after it opened: it sets up its line, and throws away what came before."""

Taken = Callable[[], None]
"""Called when a telegram has been handed to the line completely."""

Moved = Callable[[bool, int], None]
"""Called when a reader came (True) or went (False), with the bytes it left unread."""


class TcpAddress(msgspec.Struct, frozen=True, tag="tcp"):
    """Where a reader connects; printed as ``tcp://127.0.0.1:8001``."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


class SerialAddress(msgspec.Struct, frozen=True, tag="serial"):
    """The device that a reader opens."""

    port: str

    def __str__(self) -> str:
        return self.port


class Link(Protocol):
    """The line of one meter."""

    @property
    def address(self) -> TcpAddress | SerialAddress: ...

    def awaited(self, now_s: float) -> bool:
        """Tell whether someone reads and can take a telegram; ``now_s`` is monotonic."""

    def send(self, data: bytes, taken: Taken) -> None:
        """Hand on a telegram; ``taken`` is called now, or later, once for each reader that took it, or never."""

    @property
    def busy(self) -> bool:
        """Whether a reader has begun with a telegram and not yet taken its end."""

    def drop(self) -> None:
        """Let go of readers that have not taken what they were sent; they are counted."""

    async def close(self) -> None: ...


class TcpLink:
    """A port on which each reader gets every telegram from the moment it connects."""

    def __init__(self, server: asyncio.Server, readers: "set[_Reader]") -> None:
        self._server = server
        self._readers = readers
        host, port = server.sockets[0].getsockname()[:2]
        self.address = TcpAddress(host, port)

    @classmethod
    async def open(cls, host: str, port: int, counters: Counters, moved: Moved) -> "TcpLink":
        """Listen; port 0 takes a free one.

        Raises:
            SetupError: the port is taken or not allowed.
        """
        readers: set[_Reader] = set()
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: _Reader(readers, counters, moved), host, port
            )
        except (OSError, OverflowError) as error:
            raise SetupError(f"cannot listen on {host}:{port}: {error}; --tcp 0 takes free ports") from error
        return cls(server, readers)

    def awaited(self, now_s: float) -> bool:  # noqa: ARG002 - a TCP reader needs no time to settle
        return bool(self._readers)

    def send(self, data: bytes, taken: Taken) -> None:
        for reader in tuple(self._readers):
            reader.send(data, taken)

    @property
    def busy(self) -> bool:
        return any(reader.busy for reader in self._readers)

    def drop(self) -> None:
        for reader in tuple(self._readers):
            if reader.busy:
                reader.drop()

    async def close(self) -> None:
        self._server.close()
        for reader in tuple(self._readers):
            reader.close()
        while self._readers:  # noqa: ASYNC110 - each tells in the loop's next turn that it has gone
            await asyncio.sleep(0)
        await self._server.wait_closed()


class _Reader(asyncio.Protocol):
    def __init__(self, readers: "set[_Reader]", counters: Counters, moved: Moved) -> None:
        self._readers = readers
        self._counters = counters
        self._moved = moved
        self._pending: list[Taken] = []
        self._transport: asyncio.Transport | None = None

    @property
    def busy(self) -> bool:
        return bool(self._pending)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_server makes
        if len(self._readers) >= READERS_LIMIT:
            self._counters.readers_refused += 1
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._readers.add(self)
        self._moved(True, 0)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._pending.clear()
        if self in self._readers:
            self._readers.remove(self)
            self._moved(False, 0)

    def resume_writing(self) -> None:
        """All that was written has been handed to the kernel."""
        taken, self._pending = self._pending, []
        for each in taken:
            each()

    def send(self, data: bytes, taken: Taken) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        waiting_bytes = transport.get_write_buffer_size()
        if not waiting_bytes:
            taken()
        elif waiting_bytes > WRITE_BUFFER_LIMIT_BYTES:
            self.drop()
        else:
            self._pending.append(taken)

    def drop(self) -> None:
        self._counters.readers_dropped += 1
        self._pending.clear()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort() if self._pending else self._transport.close()


class PtyLink:
    """A pseudo-terminal: to its reader a serial device, in raw mode.

    Nothing is sent while nobody has it open; what a reader left unread is thrown away before the next comes.
    """

    def __init__(self, counters: Counters, moved: Moved, alias: Path | None = None) -> None:
        """Make a pty; ``alias`` becomes a symbolic link to it.

        Raises:
            SetupError: no pty is to be had, or the alias cannot be made.
        """
        self._counters = counters
        self._moved = moved
        self._alias = alias
        self._rest = b""
        self._taken: Taken | None = None
        self._opened_s: float | None = None
        try:
            self._master, slave = os.openpty()
        except OSError as error:
            raise SetupError(f"cannot make a pty: {error}") from error
        self.device = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        if alias:
            self._make_alias(alias)
        self.address = SerialAddress(str(alias) if alias else self.device)
        self._poll = select.poll()
        self._poll.register(self._master, 0)

    def _make_alias(self, alias: Path) -> None:
        try:
            alias.parent.mkdir(parents=True, exist_ok=True)
            if alias.is_symlink():
                alias.unlink()
            alias.symlink_to(self.device)
        except OSError as error:
            os.close(self._master)
            raise SetupError(f"cannot link {alias} to {self.device}: {error}") from error

    def awaited(self, now_s: float) -> bool:
        if self._hung_up():
            if self._opened_s is not None:
                self._left()
            return False
        if self._opened_s is None:
            self._opened_s = now_s
            self._moved(True, 0)
        if now_s - self._opened_s < SETTLE_S:
            return False
        if self._rest:
            self._counters.telegrams_missed += 1
            return False
        return True

    def send(self, data: bytes, taken: Taken) -> None:
        self._rest, self._taken = data, taken
        self._write()
        if self._rest:
            asyncio.get_running_loop().add_writer(self._master, self._write)

    @property
    def busy(self) -> bool:
        """Whether the reader has not read all: closing the pty throws away what it holds."""
        if self._hung_up():
            return False
        if self._rest:
            return True
        slave = self._open_slave()
        try:
            return _unread_bytes(slave) > 0
        finally:
            os.close(slave)

    def drop(self) -> None:
        """Throw away what waits; a pty's reader cannot be sent away."""
        self._counters.readers_dropped += 1
        self._forget()
        slave = self._open_slave()
        try:
            termios.tcflush(slave, termios.TCIFLUSH)
        finally:
            os.close(slave)

    async def close(self) -> None:
        self._forget()
        os.close(self._master)
        if self._alias and self._alias.is_symlink() and str(self._alias.readlink()) == self.device:
            self._alias.unlink()

    def _write(self) -> None:
        if self._hung_up():
            self._forget()
            return
        try:
            sent = os.write(self._master, self._rest)
        except BlockingIOError:
            return
        self._rest = self._rest[sent:]
        if not self._rest:
            taken = self._taken
            self._forget()
            if taken:
                taken()

    def _forget(self) -> None:
        asyncio.get_running_loop().remove_writer(self._master)
        self._rest, self._taken = b"", None

    def _hung_up(self) -> bool:
        return any(events & select.POLLHUP for _, events in self._poll.poll(0))

    def _left(self) -> None:
        """Empty the line behind a reader that closed it, so that the next one begins with a whole telegram."""
        self._opened_s = None
        self._forget()
        slave = self._open_slave()
        try:
            unread_bytes = _unread_bytes(slave)
            termios.tcflush(slave, termios.TCIFLUSH)
            tty.setraw(slave)
        finally:
            os.close(slave)
        self._moved(False, unread_bytes)

    def _open_slave(self) -> int:
        return os.open(self.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def _unread_bytes(slave: int) -> int:
    """Return how much the reader has not read yet, with what the kernel still has on its way to it."""
    on_its_way = select.poll()
    on_its_way.register(slave, select.POLLIN)
    on_its_way.poll(0)  # only then FIONREAD counts it, and tcflush throws it away
    unread: int = struct.unpack("i", fcntl.ioctl(slave, termios.FIONREAD, bytes(4)))[0]
    return unread
