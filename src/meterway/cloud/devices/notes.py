"""What the broker says of devices: who is there, and what it refused. Refusals are noted at once, written each second.

Bounded: ``LIMIT_WAITING`` devices and topics wait for the database, further ones are counted in ``dropped``; of each
device ``queries.LIMIT_REFUSALS`` topics are kept.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from meterway.bus.refusals import Refusal
from meterway.cloud.background import in_background, repeat
from meterway.cloud.devices import queries
from meterway.cloud.query import Statement
from meterway.cloud.store import Store
from meterway.core.errors import TransientError

LIMIT_WAITING: Final = 5000
EVERY_S: Final = 1.0

_Key: TypeAlias = tuple[str, str, str, str]
"""User name, kind of refusal, topic, detail."""


@dataclass(slots=True)
class _Refused:
    first_time: datetime
    last_time: datetime
    count: int = 0


class DeviceNotes:
    """Keeps what is said of devices, by user name; what is said of others is not kept. ``running`` owns its task."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._refused: dict[_Key, _Refused] = {}
        self.refused = 0
        """How often the broker refused something to a device."""
        self.dropped = 0
        """How many of these were not kept."""

    def on_refused(self, refusal: Refusal) -> None:
        """Note what the broker refused to a device."""
        self.refused += refusal.count
        now = self._clock()
        key = refusal.device, refusal.kind, _storable(refusal.topic or ""), _storable(refusal.detail)
        if key not in self._refused and len(self._refused) >= LIMIT_WAITING:
            self.dropped += refusal.count
            return
        noted = self._refused.setdefault(key, _Refused(now, now))
        noted.last_time = now
        noted.count += refusal.count

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what is noted until the block ends."""
        failing = "what the broker refused is not written"
        async with in_background(devices_notes=repeat(self._write_refused, every_s=EVERY_S, failing=failing)):
            yield

    async def write_seen(self, usernames: Iterable[str]) -> None:
        """Note that these devices are connected now.

        Raises:
            TransientError: the database is away.
        """
        now = self._clock()
        if seen := [(username, now) for username in usernames]:
            await self._fetch(queries.note_seen(seen))

    async def _write_refused(self) -> None:
        if not self._refused:
            return
        refused, self._refused = self._refused, {}
        rows = [(*key, each.first_time, each.last_time, each.count) for key, each in refused.items()]
        try:
            touched = await self._fetch(queries.add_refusals(rows))
        except TransientError:
            self._take_back(refused)
            raise
        if touched:
            await self._fetch(queries.trim_refusals(touched))

    def _take_back(self, refused: dict[_Key, _Refused]) -> None:
        """Keep what could not be written for the next time."""
        for key, since in self._refused.items():
            before = refused.setdefault(key, since)
            if before is not since:
                before.last_time = since.last_time
                before.count += since.count
        self._refused = refused

    async def _fetch(self, statement: Statement) -> list[int]:
        return [row[0] for row in await self._store.fetch(statement.sql, *statement.args)]


def _storable(topic: str) -> str:
    """Return a text, which is what a stranger sent, as the database takes it."""
    text = topic[: queries.LIMIT_TOPIC_CHARACTERS].replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode()
