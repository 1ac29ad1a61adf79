"""What a driver of a Modbus master does: in simulated time with virtual meters, over a real pty, over real TCP."""

import os
import select
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from meterway.core.errors import MeterwayError
from meterway.meter.codec import CodecError
from meterway.meter.master import Deadline, Done, Master, Send, Steps, Wait
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.modbus_slave import ModbusBus

STEP_S = 0.001
"""How much simulated time passes for each piece of an answer."""

Damage = Callable[[int, bytes], bytes]
"""What the master hears of an answer, which has a number from 0 on."""


def untouched(_number: int, answer: bytes) -> bytes:
    return answer


@dataclass
class Heard:
    """What a visit gave."""

    items: list[Telegram | CodecError] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    error: MeterwayError | None = None
    elapsed_s: float = 0.0

    @property
    def telegrams(self) -> list[Telegram]:
        return [item for item in self.items if isinstance(item, Telegram)]

    @property
    def values(self) -> dict[str, str]:
        """Values and texts of the only telegram, by reduced OBIS code."""
        [telegram] = self.telegrams
        return {register.obis.reduced: str(register.value) for register in telegram.registers}

    @property
    def reasons(self) -> list[str]:
        return [item.reason for item in self.items if isinstance(item, CodecError)]

    @property
    def messages(self) -> list[str]:
        return [str(item) for item in self.items if isinstance(item, CodecError)]


class Bus(Protocol):
    """The far end of a line."""

    def feed(self, data: bytes) -> bytes: ...

    def idle(self) -> None: ...


def converse(
    master: Master,
    bus: Bus,
    *,
    damage: Damage = untouched,
    chunk_bytes: int = 64,
    begin_s: float = 0.0,
    limit_s: float = 1000.0,
) -> Heard:
    """Drive ``master`` against ``bus`` in simulated time; fails when it takes longer than ``limit_s``."""
    heard = Heard()
    now = deadline = begin_s
    coming = b""
    steps: Steps = master.start(now)
    while True:
        for step in steps:
            match step:
                case Send(data):
                    bus.idle()
                    coming += damage(len(heard.sent), bus.feed(data))
                    heard.sent.append(data)
                    heard.sent_at.append(now)
                case Wait(seconds_s):
                    now += seconds_s
                case Deadline(seconds_s):
                    assert seconds_s > 0
                    deadline = now + seconds_s
                case Done(error):
                    heard.error, heard.elapsed_s = error, now - begin_s
                    return heard
                case Telegram() | CodecError():
                    heard.items.append(step)
                case _:
                    raise AssertionError(step)
        assert now - begin_s < limit_s, "the visit does not end"
        if coming and now + STEP_S < deadline:
            now += STEP_S
            piece, coming = coming[:chunk_bytes], coming[chunk_bytes:]
            steps = master.feed(piece, now)
        else:
            now = max(now, deadline)
            steps = master.on_timeout(now)


class Endless:
    """A far end that never stops: ``pieces`` come as fast as they are taken."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)

    def visit(self, master: Master, *, every_s: float) -> Heard:
        """Drive ``master`` while a piece comes every so many seconds; no deadline is ever reached by silence."""
        heard = Heard()
        now = 0.0
        steps: Steps = master.start(now)
        while True:
            for step in steps:
                match step:
                    case Send(data):
                        heard.sent.append(data)
                    case Done(error):
                        heard.error, heard.elapsed_s = error, now
                        return heard
                    case Telegram() | CodecError():
                        heard.items.append(step)
                    case _:
                        pass
            assert now < 1000, "the visit does not end"
            now += every_s
            steps = master.feed(next(self.pieces), now)


def drive(master: Master, handle: int) -> Heard:
    """Drive ``master`` in real time over an open file or socket."""
    heard = Heard()
    begin = deadline = time.monotonic()
    steps: Steps = master.start(begin)
    while True:
        for step in steps:
            match step:
                case Send(data):
                    heard.sent.append(data)
                    os.write(handle, data)
                case Wait(seconds_s):
                    time.sleep(seconds_s)
                case Deadline(seconds_s):
                    deadline = time.monotonic() + seconds_s
                case Done(error):
                    heard.error, heard.elapsed_s = error, time.monotonic() - begin
                    return heard
                case Telegram() | CodecError():
                    heard.items.append(step)
                case _:
                    raise AssertionError(step)
        # What came in time is heard, also where this process had no time to look.
        if select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
            steps = master.feed(os.read(handle, 4096), time.monotonic())
        else:
            steps = master.on_timeout(time.monotonic()) if time.monotonic() >= deadline else []


@contextmanager
def pty_pair() -> Iterator[tuple[int, int, str]]:
    """Yield both ends of a pty, raw, and the path of the second."""
    near, far = os.openpty()
    try:
        tty.setraw(near)
        tty.setraw(far)
        yield near, far, os.ttyname(far)
    finally:
        os.close(near)
        os.close(far)


@contextmanager
def pty_meters(bus: ModbusBus) -> Iterator[int]:
    """Yield the near end of a pty with virtual meters at its far end."""
    with pty_pair() as (near, far, _):
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                if select.select([far], [], [], 0.02)[0]:
                    os.write(far, bus.feed(os.read(far, 4096)))

        thread = threading.Thread(target=serve, name="virtual modbus meters")
        thread.start()
        try:
            yield near
        finally:
            stop.set()
            thread.join()


@contextmanager
def tcp_meters(bus: ModbusBus) -> Iterator[int]:
    """Yield a socket's handle with virtual meters at its far end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(bus.feed(data))

        thread = threading.Thread(target=serve, name="virtual modbus meters")
        thread.start()
        try:
            with socket.create_connection(server.getsockname()) as near:
                yield near.fileno()
        finally:
            thread.join()
