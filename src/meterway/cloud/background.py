"""What the process does beside its requests: tasks that end with a block, and work that is done again and again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

from meterway.core.errors import MeterwayError

_log = logging.getLogger(__name__)


@asynccontextmanager
async def in_background(**steps: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run each step as a task, ``meterway.cloud.[its name]``, until the block ends; one that fails ends the block."""
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(step, name=f"meterway.cloud.{name}") for name, step in steps.items()]
        try:
            yield
        finally:
            for task in own:
                task.cancel()


async def repeat(
    work: Callable[[], Awaitable[None]], *, every_s: float, failing: str, again_s: float | None = None
) -> None:
    """Do ``work`` until cancelled: again ``every_s`` after it ended, or ``again_s`` after it failed.

    What fails is logged as ``failing`` with the reason, as in "the audit log waits: the database is away".
    """
    while True:
        wait_s = every_s
        try:
            await work()
        except MeterwayError as error:
            _log.warning("! %s: %s", failing, error)
            wait_s = every_s if again_s is None else again_s
        await asyncio.sleep(wait_s)
