"""Who may log in at the broker now: the provisioning table in memory, live.

The database tells which device changed; when the connection to it was lost, all are read again. While it is away, what
was known last holds: devices go on logging in, and nobody new does.
"""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from meterway.bus.directory import Device
from meterway.cloud.answers import Row
from meterway.cloud.devices import queries
from meterway.cloud.devices.answers import grant_of_row, username_of
from meterway.cloud.store import Store
from meterway.core.errors import MeterwayError

CHANNEL = "device_changed"
RETRY_S = 1.0

_log = logging.getLogger(__name__)


class DeviceDirectory:
    """A ``bus.directory.Directory`` of the enrolled devices; ``running`` keeps it up to date.

    ``on_change`` is called with the user name of each device whose password or rights are others than before, or that
    has none any more: what it began with the old ones is to be ended.
    """

    def __init__(self, store: Store, on_change: Callable[[Device], None] = lambda _device: None) -> None:
        self._store = store
        self._on_change = on_change
        self._devices: dict[str, Device] = {}
        self._usernames: dict[int, str] = {}
        """By the key in the database."""

    def find(self, username: str) -> Device | None:
        return self._devices.get(username)

    def devices(self) -> list[Device]:
        """Return all that may log in."""
        return list(self._devices.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Know all devices, and follow what changes until the block ends.

        Raises:
            TransientError: the database is away now.
        """
        await self._read_all()
        task = asyncio.create_task(self._follow(), name="meterway.cloud.devices")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                async for device_key in self._store.listen(CHANNEL, greet=True):
                    await (self._read(int(device_key)) if device_key else self._read_all())
            except MeterwayError as error:
                _log.warning("! devices are as they were known last: %s", error)
            await asyncio.sleep(RETRY_S)

    async def _read_all(self) -> None:
        statement = queries.select_users(None)
        rows = {int(row["device_key"]): row for row in await self._store.fetch(statement.sql, *statement.args)}
        for device_key in self._usernames.keys() - rows.keys():
            self._forget(device_key)
        for device_key, row in rows.items():
            self._know(device_key, row)

    async def _read(self, device_key: int) -> None:
        statement = queries.select_users(device_key)
        rows = await self._store.fetch(statement.sql, *statement.args)
        if rows and rows[0]["secret_digest"] is not None:
            self._know(device_key, rows[0])
        else:
            self._forget(device_key)

    def _know(self, device_key: int, row: Row) -> None:
        digest = row["secret_digest"]
        device = Device(username_of(row), digest if isinstance(digest, bytes) else b"", grant_of_row(row))
        before = self._devices.get(device.username)
        self._usernames[device_key] = device.username
        self._devices[device.username] = device
        if before is not None and before != device:
            self._on_change(device)

    def _forget(self, device_key: int) -> None:
        username = self._usernames.pop(device_key, None)
        if username is not None and (before := self._devices.pop(username, None)) is not None:
            self._on_change(dataclasses.replace(before, revoked=True))
