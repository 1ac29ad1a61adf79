"""Places to be looked at: servers and ports with a meter behind them; and looking."""

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from meterway.adapter.config import AdapterConfig, SerialSource, Source, TcpSource
from meterway.adapter.detect import Detection, Detector, Found
from meterway.adapter.detect_plan import Listening, Step, plan
from meterway.adapter.detect_questions import Known, Question
from meterway.adapter.propose import propose, written
from meterway.core.config import load_config
from meterway.core.zones import find_zone
from meterway.meter.family import Family, family_names, load_family
from meterway.meter.keys import NO_KEYS, Keys

FAMILIES = [load_family(name) for name in family_names()]
BERLIN = find_zone("Europe/Berlin")
KNOWN = Known(families=FAMILIES, zone=BERLIN)
LISTEN_S = 0.3

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def known(keys: Keys = NO_KEYS, password: str | None = None) -> Known:
    return Known(families=FAMILIES, zone=BERLIN, keys=keys, password=password)


def sample(name: str) -> tuple[Family, bytes]:
    family = load_family(name)
    assert family.sample is not None
    return family, family.sample.telegram


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[TcpSource]:
    """A TCP server; each connection is closed when ``serve`` ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(each, "127.0.0.1", 0)
    try:
        yield TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def gateway(data: bytes) -> AsyncIterator[TcpSource]:
    """A TCP gateway that hands out ``data`` and then is quiet."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        while await reader.read(1024):
            pass

    async with serving(serve) as source:
        yield source


@asynccontextmanager
async def sending(data: bytes, pause_s: float = 0.2) -> AsyncIterator[TcpSource]:
    """A TCP gateway that hands out ``data`` over and over."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(pause_s)

    async with serving(serve) as source:
        yield source


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[TcpSource]:
    """A TCP server that says what ``answer`` makes of what it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(answer(data))

    async with serving(serve) as source:
        yield source


Reply = Callable[[bytes], bytes]


@asynccontextmanager
async def port(telegram: bytes = b"", pause_s: float = 0.05, reply: Reply | None = None) -> AsyncIterator[SerialSource]:
    """A pty on whose far end a meter sends ``telegram`` over and over, or what ``reply`` makes of what it hears."""
    far, near = os.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)

    async def send() -> None:
        while telegram:
            with suppress(BlockingIOError):
                os.write(far, telegram)
            await asyncio.sleep(pause_s)

    def hear() -> None:
        with suppress(BlockingIOError):
            data = os.read(far, 4096)
            if reply is not None and (said := reply(data)):
                os.write(far, said)

    loop = asyncio.get_running_loop()
    if reply is not None:
        loop.add_reader(far, hear)
    task = asyncio.create_task(send())
    try:
        yield SerialSource(port=Path(os.ttyname(near)))
    finally:
        loop.remove_reader(far)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        os.close(far)
        os.close(near)


def listening(source: Source, what: Known = KNOWN, *, first_s: float = 10.0) -> list[Step]:
    """Return the first steps, in which nothing is sent; the first byte may take ``first_s``."""
    steps = plan(source, what, listen_s=LISTEN_S, ask=False)
    return [
        replace(step, first_s=max(first_s, step.first_s)) if isinstance(step, Listening) else step for step in steps
    ]


def asking(source: Source, what: Known, *words: str) -> list[Step]:
    """Return the questions in which one of ``words`` stands."""
    every = plan(source, what, listen_s=LISTEN_S)
    return [step for step in every if isinstance(step, Question) and any(word in step.what for word in words)]


def receiving(source: Source, what: Known, receiver: str) -> list[Listening]:
    """Return how a receiver of wireless M-Bus is looked for."""
    every = plan(source, what, listen_s=LISTEN_S)
    return [step for step in every if isinstance(step, Listening) and step.receiver == receiver]


async def detect(source: Source, steps: Iterable[Step], what: Known = KNOWN) -> Detection:
    looking = Detector(source, what, say=lambda *_: None)
    await looking.run(steps)
    return looking.result


async def listen(source: Source, what: Known = KNOWN) -> Detection:
    return await detect(source, listening(source, what), what)


def configured(found: Iterable[Found], *, key_file: Path | None = None) -> AdapterConfig:
    """Return what is proposed, read again from the text that is written."""
    found = list(found)
    config = propose(found, adapter_id="a-1", key_file=key_file)
    assert load_config(written(config, found), AdapterConfig, where="proposed") == config
    return config
