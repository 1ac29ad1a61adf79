"""The audit log: who read, changed, exported, deleted, and signed in.

An entry names meters and filters, never data. Entries wait in memory and are written each second, so that reading
costs nothing more; what is still waiting when the process is killed is lost. While the database is away up to
``LIMIT_WAITING`` entries wait; further ones are lost, counted and logged.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from meterway.cloud.access.viewer import EVERYBODY, Viewer, viewer
from meterway.cloud.background import in_background, repeat
from meterway.cloud.store import Store
from meterway.cloud.store.rows import storable
from meterway.core.errors import MeterwayError

Action: TypeAlias = Literal["read", "changed", "exported", "deleted", "signed-in", "sign-in-failed", "signed-out"]

EVERY_S = 1.0
SWEEP_S = 3600.0
LIMIT_WAITING = 10_000
LIMIT_BATCH = 1000

_log = logging.getLogger(__name__)

_INSERT = """
insert into audit (audit_time, tenant_key, account_key, actor, action, subject, detail)
select audit_time, tenant_key, account_key, actor, action, subject, detail::jsonb
from unnest($1::timestamptz[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])
     as v (audit_time, tenant_key, account_key, actor, action, subject, detail)
"""


@dataclass(frozen=True, slots=True)
class _Entry:
    time: datetime
    tenant_key: int | None
    account_key: int | None
    actor: str
    action: Action
    subject: str
    detail: str | None


class AuditLog:
    """Takes entries at any time; ``running`` writes them."""

    def __init__(self, store: Store, clock: Callable[[], datetime], keep: timedelta = timedelta(days=400)) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self._waiting: list[_Entry] = []
        self._writing = asyncio.Lock()
        self.written = 0
        self.lost = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def note(self, action: Action, subject: str, detail: object = None, *, who: Viewer | None = None) -> None:
        """Note what the viewer of this request did.

        ``subject`` names what it was done to: a meter id, ``account/ada``, ``readings``. ``detail`` becomes JSON:
        filters and ids, never readings, names of people or secrets. What everybody reads where the cloud is open is
        not noted.
        """
        actor = who or viewer.get()
        if actor is EVERYBODY and action == "read":
            return
        if len(self._waiting) >= LIMIT_WAITING:
            self.lost += 1
            if self.lost == 1 or self.lost % LIMIT_BATCH == 0:
                _log.error("! the audit log cannot be written: %d entries are lost", self.lost)
            return
        text = None if detail is None else msgspec.json.encode(detail).decode().replace("\\u0000", "\\ufffd")
        entry = _Entry(self._clock(), actor.tenant_key, actor.account_key, actor.actor, action, subject, text)
        self._waiting.append(entry)

    async def flush(self) -> None:
        """Write what waits.

        Raises:
            MeterwayError: the database is away, or refuses; the entries go on waiting.
        """
        async with self._writing:
            while batch := self._waiting[:LIMIT_BATCH]:
                await self._store.fetch(_INSERT, *zip(*map(_columns, batch), strict=True))
                del self._waiting[: len(batch)]
                self.written += len(batch)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write entries until the block ends, and then the last ones."""
        async with in_background(
            audit_write=repeat(self.flush, every_s=EVERY_S, failing="the audit log waits"),
            audit_sweep=repeat(self._sweep, every_s=SWEEP_S, failing="the audit log is not tidied"),
        ):
            yield
        try:
            await self.flush()
        except MeterwayError as error:
            _log.error("! %d entries of the audit log are lost: %s", len(self._waiting), error)

    async def _sweep(self) -> None:
        """Remove what is older than is kept, also tokens that ended before then, and sessions and links of the past."""
        now = self._clock()
        await self._store.fetch("delete from audit where audit_time < $1", now - self._keep)
        await self._store.fetch("delete from session where expires_time < $1", now)
        await self._store.fetch("delete from sign_in_link where expires_time < $1", now)
        await self._store.fetch("delete from api_token where least(expires_time, revoked_time) < $1", now - self._keep)


def _columns(entry: _Entry) -> tuple[object, ...]:
    return (
        entry.time,
        entry.tenant_key,
        entry.account_key,
        storable(entry.actor[:200]),
        entry.action,
        storable(entry.subject[:200]),
        entry.detail,
    )
