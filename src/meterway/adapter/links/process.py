"""A program that prints what a meter says."""

import asyncio
import logging
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from meterway.adapter.config import ProcessSource
from meterway.adapter.links.oneway import OneWay
from meterway.adapter.links.place import describe, why
from meterway.adapter.links.stream import CHUNK_LIMIT_BYTES
from meterway.adapter.links.throttle import Throttle
from meterway.core.errors import SetupError, TransientError
from meterway.process import Command, with_orphan_signal

_log = logging.getLogger(__name__)

STOP_WITHIN_S = 3.0
"""After SIGTERM; then SIGKILL follows. Also how long a program may run on after it has closed its output."""
LIMIT_LINE_BYTES = 1024
"""No more of a line on standard error is logged."""


@asynccontextmanager
async def open_process(source: ProcessSource) -> AsyncIterator["Program"]:
    """Start a program, in a process group of its own, which is ended with the link.

    Raises:
        TransientError: it is not there or cannot be started.
    """
    where = describe(source)
    process = await _start(source, where)
    if process.stdout is None or process.stderr is None:
        raise TransientError(f"{where} was started without pipes")
    log = asyncio.create_task(_log_lines(where, process.stderr), name=f"meterway.adapter.link {where} stderr")
    try:
        yield Program(where, process, process.stdout)
    finally:
        await _end(process, process.stdout, where)
        log.cancel()
        await asyncio.gather(log, return_exceptions=True)


class Program(OneWay):
    """A running program. What it prints faster than it is read waits in its pipe: it is slowed down, not cut."""

    def __init__(self, where: str, process: Process, output: asyncio.StreamReader) -> None:
        super().__init__(where)
        self._process = process
        self._output = output

    async def read(self) -> bytes:
        await asyncio.sleep(0)  # what waits is read without waiting: others must have their turn, and time-outs
        data = await self._output.read(CHUNK_LIMIT_BYTES)
        if data:
            return data
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                status = await self._process.wait()
        except TimeoutError:
            raise TransientError(f"{self.where} has closed its output and runs on") from None
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        raise TransientError(f"{self.where} {how}; what it said to standard error stands in the adapter's log")


async def _start(source: ProcessSource, where: str) -> Process:
    environment = {**os.environ, **source.environment}
    program = shutil.which(source.command[0], path=environment.get("PATH"))
    if program is None:
        raise TransientError(f"{where} is not there; install it, or correct `command`")
    try:
        return await asyncio.create_subprocess_exec(
            *with_orphan_signal(Command(name=where, arguments=(program, *source.command[1:]))),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=CHUNK_LIMIT_BYTES,
            env=environment,
            start_new_session=True,
        )
    except (OSError, SetupError) as error:
        raise TransientError(f"{where} cannot be started: {why(error)}") from error


async def _end(process: Process, output: asyncio.StreamReader, where: str) -> None:
    """End the program and all that it has started."""
    _signal_group(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            while await output.read(CHUNK_LIMIT_BYTES):  # noqa: ASYNC110 - its end is seen once its output is read
                await asyncio.sleep(0)  # the time-out must have its turn
            await process.wait()
    except TimeoutError:
        _log.warning("! %s did not end within %.0f s: killing it", where, STOP_WITHIN_S)
    _signal_group(process, signal.SIGKILL)
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else lets go of unread pipes
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        _log.error("! %s cannot be ended (process %d); does it run as another user?", where, process.pid)


def _signal_group(process: Process, how: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, how)


async def _log_lines(where: str, errors: asyncio.StreamReader) -> None:
    """Log standard error, a line at a time and not too many of them; it is read in any case, so nobody waits."""
    throttle = Throttle()
    while True:
        await asyncio.sleep(0)
        try:
            line = await errors.readline()
        except ValueError:
            throttle.held_back += 1
            continue
        if not line:
            return
        if throttle.allow():
            text = "".join(
                each if each.isprintable() else " " for each in line[:LIMIT_LINE_BYTES].decode(errors="replace")
            ).strip()
            left_out = f" ({throttle.held_back} lines left out so far)" if throttle.held_back else ""
            _log.info("%s: %s%s", where, text, left_out)
