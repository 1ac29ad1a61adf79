"""A link between two processes that can be made bad: a TCP or Unix-socket proxy on this machine, in this process.

What a link does to bytes:

- ``cut``: connections are reset, new ones are refused, until ``mend``.
- ``swallow``: nothing is closed and bytes vanish, in both directions or one (half-open). A connection that lost bytes
  stays dead after ``mend``, as TCP has no way to go on without them; new ones work.
- ``latency_s``: each piece comes so much later, its order kept.
- ``repeat``, ``reorder``: the shares of MQTT's PUBLISH packets with QoS 1 that come twice (with DUP), or up to
  ``HELD_S`` later than those behind them.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

Direction = Literal["up", "down"]
BOTH: frozenset[Direction] = frozenset({"up", "down"})
"""Up is from who connects to who listens."""

HELD_S = 0.5
_PIECE_BYTES = 65_536
_PUBLISH_QOS_1 = 0x32
_KIND_AND_QOS = 0xF6
_DUP = 0x08


class Link:
    """A proxy to ``target``, the MQTT port of a broker or the path of PostgreSQL's socket; see the module."""

    def __init__(self, target: int | Path, chance: random.Random) -> None:
        self.target = target
        self._mqtt = isinstance(target, int)
        self.port = 0
        """Where it listens, if ``target`` is a port."""
        self.latency_s = 0.0
        self.repeat = 0.0
        self.reorder = 0.0
        self._chance = chance
        self._swallowed: frozenset[Direction] = frozenset()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path | None = None) -> None:
        """Take connections: at ``path``, else at a free port, which stays the same."""
        self._path = path
        if path is not None:
            self._server = await asyncio.start_unix_server(self._serve, path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, reset those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def cut(self) -> None:
        await self.close()

    async def mend(self) -> None:
        """Be a good link again."""
        self._swallowed = frozenset()
        self.latency_s = self.repeat = self.reorder = 0.0
        if self._server is None:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            await self.listen(self._path)

    def swallow(self, directions: frozenset[Direction] = BOTH) -> None:
        self._swallowed = directions

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer), name="faults.link")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        self._writers.add(writer)
        far = None
        try:
            if isinstance(self.target, int):
                far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
            else:
                far_reader, far = await asyncio.open_unix_connection(self.target)
            self._writers.add(far)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far, "up"))
                group.create_task(self._pump(far_reader, writer, "down"))
        except (OSError, ExceptionGroup):
            pass  # an end is gone: so is the connection
        finally:
            for each in (writer, far):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Carry one direction.

        Raises:
            ConnectionError: the sender ended, or the receiver is gone.
        """
        loop, last_s, dead = asyncio.get_running_loop(), 0.0, False
        packets = Packets()
        while piece := await reader.read(_PIECE_BYTES):
            dead = dead or direction in self._swallowed
            if dead:
                continue
            for packet in packets.feed(piece) if self._mqtt else (piece,):
                if self.latency_s or last_s > loop.time():
                    last_s = max(last_s, loop.time() + self.latency_s)
                    loop.call_at(last_s, writer.write, packet)
                else:
                    self._pass(packet, writer)
            await writer.drain()
        raise ConnectionResetError

    def _pass(self, packet: bytes, writer: asyncio.StreamWriter) -> None:
        copies = [packet]
        if self._mqtt and packet[0] & _KIND_AND_QOS == _PUBLISH_QOS_1:
            if self._chance.random() < self.repeat:
                copies.append(bytes((packet[0] | _DUP,)) + packet[1:])
            if self._chance.random() < self.reorder:
                delay_s = self._chance.uniform(0, HELD_S)
                asyncio.get_running_loop().call_later(delay_s, writer.write, b"".join(copies))
                return
        writer.write(b"".join(copies))


class Packets:
    """Cuts a stream of MQTT into packets (MQTT 3.1.1, 2.2). What is no MQTT comes out as it may."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the packets that are complete."""
        self._buffer += piece
        while (length := self._length()) is not None and len(self._buffer) >= length:
            packet = bytes(self._buffer[:length])
            del self._buffer[:length]
            yield packet

    def _length(self) -> int | None:
        """Return the length of the packet at the front, or None while that is not known."""
        length = 0
        for index, byte in enumerate(self._buffer[1:5]):
            length |= (byte & 0x7F) << 7 * index
            if not byte & 0x80:
                return length + index + 2
        return None


@asynccontextmanager
async def link_to(target: int | Path, chance: random.Random, *, path: Path | None = None) -> AsyncIterator[Link]:
    """Run a proxy to ``target`` that listens at ``path`` or a free port."""
    link = Link(target, chance)
    await link.listen(path)
    try:
        yield link
    finally:
        await link.close()
