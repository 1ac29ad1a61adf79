"""Keeps the delivery ledger: enters what was stored every few seconds, and forgets what is too old."""

import asyncio
import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta

from meterway.cloud.config import LedgerConfig
from meterway.cloud.store import Store
from meterway.core.errors import TransientError

_log = logging.getLogger(__name__)

ENTER_EVERY_S = 5.0
"""Who asks for completeness has all entered first, so this is only how much is entered at once."""


async def keep_ledger(store: Store, config: LedgerConfig, clock: Callable[[], datetime]) -> None:
    """Keep the ledger until cancelled; while the database is away it waits, and nothing is lost.

    Raises:
        SetupError: the database refuses us in a way that waiting does not mend.
    """
    forgotten: date | None = None
    while True:
        try:
            await store.enter_arrivals()
            today = clock().date()
            if today != forgotten:
                await store.forget_ledger(today - timedelta(days=config.keep_days))
                forgotten = today
            while await store.enter_backlog():
                await store.enter_arrivals()
        except TransientError as error:
            _log.debug("! the ledger waits: %s", error)
        await asyncio.sleep(ENTER_EVERY_S)
