"""Child processes that live as long as their parent: started, watched, restarted, ended.

Used for the embedded broker, PostgreSQL, and the components that ``demo`` and ``edge`` run. Linux: the kernel is
told (through ``setpriv`` of util-linux) to end the child when the parent dies, even by SIGKILL.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from meterway.core.errors import SetupError

_log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
STEADY_AFTER_S = 30.0
"""A process that ran this long is started again without delay when it ends."""
LIMIT_LINE_BYTES = 8 << 20
"""A longer line is passed on in pieces; the message that says ready names every virtual meter of a town."""
LIMIT_LOGGED_CHARACTERS = 4096
"""So much of a line is logged and quoted."""
KEPT_LINES = 20
"""How many of the last lines an error quotes."""

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run and how it is to be treated."""

    name: str
    """In log lines: ``broker``, ``postgres``, ``adapter``."""
    arguments: Sequence[str | Path]
    probe: Probe | None = None
    """Asked until it says True; without it the process is ready when it prints a line of JSON with ``"ready": true``
    on standard output."""
    probe_every_s: float = 0.05
    check_every_s: float | None = None
    """How often ``probe`` is asked once ready; three refusals in a row and the process is ended and started anew."""
    ready_within_s: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 10.0
    """After this SIGKILL follows."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends when the parent has died."""
    user_id: int | None = None
    """Run as this user (and the group of the same number's account), for programs that refuse to run as root."""
    group_id: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to ours."""
    directory: Path | None = None
    kept_open: Sequence[int] = ()
    """File descriptors that the child inherits; a lock on one is held until the child, too, is gone."""
    level: Callable[[str], int] = lambda _line: logging.INFO
    """The level at which a line of its output is logged."""


class ChildProcess:
    """Runs a ``Command`` inside ``async with``: entered when it is ready, left when it has ended.

    When it ends by itself it is started again, after a delay that doubles from 0.2 to 10 s while it keeps failing.
    It has a session of its own, so Ctrl-C reaches only the parent, which ends its children in its own order.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self._ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._error = ""
        self.restarts = 0
        self.ready_message: Mapping[str, object] = {}
        """The object that the process printed when it was ready; empty with a probe."""

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def __aenter__(self) -> Self:
        """Start it.

        Raises:
            SetupError: the program does not exist, ends before it is ready, or is not ready in time; quotes its
                last lines.
        """
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        self._task = asyncio.create_task(self._supervise(), name=f"meterway.process.{self._command.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._end()

    async def _supervise(self) -> None:
        delay_s, started_s = FIRST_DELAY_S, time.monotonic()
        while True:
            reason = await self._wait_for_trouble()
            self._ready.clear()
            await self._end()
            self.restarts += 1
            if time.monotonic() - started_s > STEADY_AFTER_S:
                delay_s = FIRST_DELAY_S
            _log.warning("! %s %s; starting it again in %.1f s", self._command.name, reason, delay_s)
            await asyncio.sleep(delay_s)
            delay_s, started_s = min(delay_s * 2, LONGEST_DELAY_S), time.monotonic()
            try:
                await self._start()
            except SetupError as error:
                _log.error("! %s", error)

    async def _wait_for_trouble(self) -> str:
        """Return why the process must be started again, once it must."""
        process, refusals = self._process, 0
        while process is not None and self.ready:
            try:
                async with asyncio.timeout(self._command.check_every_s):
                    return f"ended with status {await process.wait()}"
            except TimeoutError:
                refusals = 0 if await self._healthy() else refusals + 1
                if refusals == 3:  # noqa: PLR2004
                    return "does not answer"
        return "did not start"

    async def _start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            SetupError: see ``__aenter__``.
        """
        command = self._command
        self._last_lines.clear()
        self._error = ""
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *with_orphan_signal(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **command.environment},
                cwd=command.directory,
                start_new_session=True,
                pass_fds=tuple(command.kept_open),
                limit=LIMIT_LINE_BYTES,
            )
        except OSError as error:
            raise SetupError(f"{command.name} cannot be started: {error}") from error
        self._readers = [
            asyncio.create_task(self._read(stream, is_output=is_output), name=f"meterway.process.{command.name}.read")
            for stream, is_output in ((process.stdout, True), (process.stderr, False))
            if stream is not None
        ]
        await self._wait_until_ready(process)

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        name = self._command.name
        waits = [asyncio.create_task(process.wait()), asyncio.create_task(self._become_ready())]
        try:
            done, _ = await asyncio.wait(
                waits, timeout=self._command.ready_within_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if waits[0] in done:
            await asyncio.gather(*self._readers, return_exceptions=True)
            raise SetupError(f"{name} ended with status {process.returncode} before it was ready{self._quote()}")
        if not done:
            raise SetupError(f"{name} was not ready within {self._command.ready_within_s:.0f} s{self._quote()}")
        self._ready.set()

    async def _become_ready(self) -> None:
        if self._command.probe is None:
            await self._ready.wait()
            return
        while not await self._healthy():  # noqa: ASYNC110 - nobody can set an event for another process
            await asyncio.sleep(self._command.probe_every_s)

    async def _healthy(self) -> bool:
        if self._command.probe is None:
            return True
        try:
            async with asyncio.timeout(5.0):
                return await self._command.probe()
        except (OSError, TimeoutError):
            return False

    async def _read(self, stream: asyncio.StreamReader, *, is_output: bool) -> None:
        while True:
            try:
                line = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                if not error.partial:
                    return
                line = error.partial
            except asyncio.LimitOverrunError as error:
                line = await stream.readexactly(max(error.consumed, 1))
            if not (is_output and self._take_message(line)):
                self._take_line(line)

    def _take_message(self, line: bytes) -> bool:
        """Tell whether ``line`` is the message that says ready, or why it cannot be, and note it."""
        if self._command.probe is not None or self.ready or not line.startswith(b"{"):
            return False
        with contextlib.suppress(msgspec.DecodeError):
            message = msgspec.json.decode(line, type=dict[str, object])
            if isinstance(message.get("error"), str):
                self._error = str(message["error"])
                return True
            if message.get("ready") is True:
                self.ready_message = message
                self._ready.set()
                return True
        return False

    def _take_line(self, line: bytes) -> None:
        text = line[:LIMIT_LOGGED_CHARACTERS].decode(errors="replace").rstrip()
        if text:
            self._last_lines.append(text)
            _log.log(self._command.level(text), "%s: %s", self._command.name, text)

    def _quote(self) -> str:
        if self._error:
            return f": {self._error}"
        return f"; it said: {' | '.join(self._last_lines)}" if self._last_lines else ""

    async def _end(self) -> None:
        """Ask it to end, insist after the grace time, and collect what it still had to say."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self._command.stop_signal)
        try:
            async with asyncio.timeout(self._command.stop_within_s):
                await process.wait()
        except TimeoutError:
            _log.warning("! %s did not end within %.0f s: killing it", self._command.name, self._command.stop_within_s)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._process = None


def with_orphan_signal(command: Command) -> list[str]:
    """Return the command line that also asks the kernel to end the child with its parent, and changes the user."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise SetupError("setpriv is not there; install the package util-linux")
    prefix = [setpriv, "--pdeathsig", command.orphan_signal.name.removeprefix("SIG")]
    if command.user_id is not None:
        group_id = command.user_id if command.group_id is None else command.group_id
        prefix += ["--reuid", str(command.user_id), "--regid", str(group_id), "--clear-groups"]
    return [*prefix, "--", *map(str, command.arguments)]
