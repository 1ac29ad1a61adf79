"""A master on an open link: its steps are carried out, in order and in time (``meter.master``)."""

import asyncio
from collections.abc import Callable
from typing import Final

from meterway.adapter.links import Link
from meterway.core.errors import MeterwayError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.master import Deadline, Done, Effect, Master, Send, SetLine, Steps, Wait
from meterway.meter.telegram import Telegram

SESSION_LIMIT_S: Final = 1800.0
"""When a session is ended whose master does not: a load profile at 300 baud takes less."""
_SHORTEST_DEADLINE_S: Final = 0.005
"""A master whose deadlines are over at once must not take the processor."""


class AskedLink:
    """An open link on which masters take turns; knows how its line is set."""

    def __init__(self, link: Link, line: Line, *, where: str, monotonic: Callable[[], float]) -> None:
        self._link = link
        self._line = line
        self._where = where
        self._monotonic = monotonic
        self._deadline = 0.0
        self._done: Done | None = None

    async def rest(self, seconds_s: float) -> None:
        """Wait; what comes unasked is dropped.

        Raises:
            TransientError: the link broke.
        """
        try:
            async with asyncio.timeout(seconds_s):
                while True:
                    await self._read()
        except TimeoutError:
            return

    async def converse(
        self,
        master: Master,
        line: Line,
        found: list[Telegram | CodecError],
        *,
        limit_s: float = SESSION_LIMIT_S,
    ) -> MeterwayError | None:
        """Let ``master`` have its session, which begins with the line set to ``line``; what it reads goes to ``found``.

        Returns why the session failed; None if it did not. Bytes that come while the master wants to wait stay in the
        link until it listens again.

        Raises:
            TransientError: the link broke; ``found`` holds what was read before.
            SetupError: the link cannot do what the master wants.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await self._session(master, line, found)
        except TimeoutError:
            return TransientError(f"the session was not over after {limit_s:g} s; it was broken off")

    async def _session(self, master: Master, line: Line, found: list[Telegram | CodecError]) -> MeterwayError | None:
        await self._set_line(line)
        self._done = None
        self._deadline = self._monotonic() + SESSION_LIMIT_S
        await self._carry_out(master.start(self._monotonic()), found)
        while self._done is None:
            data = await self._hear()
            now = self._monotonic()
            await self._carry_out(master.feed(data, now) if data else master.on_timeout(now), found)
        return self._done.error

    async def _carry_out(self, steps: Steps, found: list[Telegram | CodecError]) -> None:
        for step in steps:
            if isinstance(step, Telegram | CodecError):
                found.append(step)
            else:
                await self._do(step)

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Send(data):
                await self._link.write(data)
            case SetLine(line):
                await self._set_line(line)
            case Wait(seconds_s):
                await asyncio.sleep(seconds_s)
            case Deadline(seconds_s):
                self._deadline = self._monotonic() + seconds_s
            case Done():
                self._done = effect

    async def _hear(self) -> bytes:
        """Return what comes before the deadline; empty if nothing does."""
        try:
            async with asyncio.timeout(max(self._deadline - self._monotonic(), _SHORTEST_DEADLINE_S)):
                return await self._read()
        except TimeoutError:
            return b""

    async def _read(self) -> bytes:
        data = await self._link.read()
        if not data:
            raise TransientError(f"{self._where} was read to its end, and there is nobody to ask")
        return data

    async def _set_line(self, line: Line) -> None:
        if line != self._line:
            await self._link.set_line(line)
            self._line = line
