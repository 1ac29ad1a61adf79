"""What listening and asking share: a link that is opened, and opened again when it breaks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from meterway.adapter.links import Link
from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.meter.family import Line

_log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
"""Between two attempts to open a link; doubles from the first to the longest."""
SETUP_PAUSE_S = 3600.0
"""After an error that only a person can end: so seldom it is tried again."""
STATUS_INTERVAL_S = 30.0
"""How often the status is published again, for its counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A link to one meter, or to several that share it."""

    where: str
    """In words, for people."""
    line: Line
    """How it is set when it is opened."""
    open: Callable[[Line], AbstractAsyncContextManager[Link]]
    """Raises what ``links.open_link`` does."""


async def keep_open(
    segment: Segment,
    serve: Callable[[Link], Awaitable[None]],
    broken: Callable[[MeterwayError], Awaitable[bool]],
) -> None:
    """Open the link and let ``serve`` use it; again whenever it breaks. Returns when ``serve`` does.

    ``broken`` is told why, and returns whether meters had been read since it was called last: then the first delay
    is the short one again.
    """
    delay_s = FIRST_DELAY_S
    while True:
        try:
            async with segment.open(segment.line) as link:
                await serve(link)
                return
        except TransientError as error:
            _log.warning("! %s", error)
            if await broken(error):
                delay_s = FIRST_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)
        except SetupError as error:
            _log.error("! %s", error)
            await broken(error)
            await asyncio.sleep(SETUP_PAUSE_S)
