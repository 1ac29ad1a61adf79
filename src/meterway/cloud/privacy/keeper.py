"""Does in the background what privacy demands: erasures that were begun, and removing what is older than is kept."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from meterway.cloud.access.audit import AuditLog
from meterway.cloud.background import in_background, repeat
from meterway.cloud.store import Store
from meterway.core.errors import MeterwayError

RETAIN_EVERY_S = 3600.0
AGAIN_S = 10.0
"""What failed is tried again after so long."""
PATIENCE_S = 20.0
"""A request waits for its erasure so long, and then answers that the work goes on."""

_log = logging.getLogger(__name__)


class Keeper:
    """Works while ``running``; ``erase_soon`` has it look at once."""

    def __init__(self, store: Store, audit: AuditLog, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._wanted = asyncio.Event()
        self._looked = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the block ends; what is cut off is done at the next start."""
        retain = repeat(
            self._retain, every_s=RETAIN_EVERY_S, again_s=AGAIN_S, failing="what is too old waits to be removed"
        )
        async with in_background(privacy_erase=self._erase(), privacy_retain=retain):
            yield

    async def erase_soon(self) -> None:
        """Have it erase what was begun; wait until it looked, at most ``PATIENCE_S``."""
        async with self._looked:
            self._wanted.set()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._looked.wait()
            except TimeoutError:
                return

    async def _erase(self) -> None:
        while True:
            self._wanted.clear()
            try:
                await self._audit.flush()  # else entries that wait would name whom they must not
                done = await self._store.erase(now=self._clock())
                if done:
                    _log.info("%d erasures are finished", done)
                wait_s = RETAIN_EVERY_S
            except MeterwayError as error:
                _log.warning("! erasures wait: %s", error)
                wait_s = AGAIN_S
            if not self._wanted.is_set():
                async with self._looked:
                    self._looked.notify_all()
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wanted.wait()
                except TimeoutError:
                    continue

    async def _retain(self) -> None:
        done = await self._store.retain(now=self._clock())
        if done.total():
            _log.info("removed what is older than is kept: %s", dict(done))
