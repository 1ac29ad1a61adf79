"""Where no adapter runs: listens to a link for some seconds, or asks its meters once."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from meterway.adapter.config import ProcessSource, Source
from meterway.adapter.converse import AskedLink
from meterway.adapter.links import Link, describe, open_link
from meterway.adapter.prepare import Prepared
from meterway.adapter.raw import Chunk
from meterway.bus.bus import BrokerConfig
from meterway.core.errors import MeterwayError, SetupError
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.telegram import Telegram

LIMIT_BYTES: Final = 1 << 20
"""More is not taken."""
_LONGEST_SESSION_S: Final = 60.0


@dataclass(slots=True)
class Taken:
    """What came from a link."""

    chunks: list[Chunk] = field(default_factory=list)
    answers: dict[str, list[Telegram | CodecError]] = field(default_factory=dict)
    """Of meters that were asked, by id."""
    problems: dict[str, MeterwayError] = field(default_factory=dict)
    """Why a meter did not answer, by id; of all of them: why the link could not be opened."""


async def listen(source: Source, line: Line, broker: BrokerConfig, listen_s: float) -> Taken:
    """Return what comes within ``listen_s``.

    Raises:
        TransientError, SetupError: it cannot be opened; or only a program would say, and none is started here.
    """
    taken = Taken()
    _refuse_program(source)
    async with open_link(source, line, broker) as link:
        with suppress(TimeoutError):
            async with asyncio.timeout(listen_s):
                while sum(len(chunk.data) for chunk in taken.chunks) < LIMIT_BYTES:
                    data = await link.read()
                    if not data:
                        break
                    taken.chunks.append(Chunk(datetime.now(UTC), data))
    return taken


async def ask(meters: Sequence[Prepared], broker: BrokerConfig) -> Taken:
    """Ask the meters of one link, each once.

    Raises:
        TransientError, SetupError: as ``listen``.
    """
    taken = Taken()
    source, line = meters[0].config.source, meters[0].family.line
    _refuse_program(source)
    async with open_link(source, line, broker) as link:
        asked = AskedLink(_Kept(link, taken.chunks), line, where=describe(source), monotonic=time.monotonic)
        for meter in meters:
            if meter.make_master is None:
                continue
            found = taken.answers.setdefault(meter.config.id, [])
            try:
                master = meter.make_master()
                problem = await asked.converse(master, meter.family.line, found, limit_s=_LONGEST_SESSION_S)
            except MeterwayError as error:
                problem = error
            if problem is not None:
                taken.problems[meter.config.id] = problem
    return taken


def _refuse_program(source: Source) -> None:
    if isinstance(source, ProcessSource):
        raise SetupError("its source is a program, and only the adapter starts that")


class _Kept:
    """A link whose reads are kept."""

    def __init__(self, link: Link, chunks: list[Chunk]) -> None:
        self.message_bounded = link.message_bounded
        self.write = link.write
        self.set_line = link.set_line
        self._link = link
        self._chunks = chunks

    async def read(self) -> bytes:
        data = await self._link.read()
        if data:
            self._chunks.append(Chunk(datetime.now(UTC), data))
        return data
