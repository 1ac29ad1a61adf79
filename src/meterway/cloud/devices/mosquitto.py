"""A mosquitto with the provisioning table as its guard: its users are the devices of the table, kept so at all times.

mosquitto hashes passwords itself, so each is written at the moment of enrolment, the only one at which it is known;
everything else (rights, revocations) follows from the table, also after either of them was away.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meterway.bus.bus import BrokerConfig
from meterway.bus.directory import Device
from meterway.bus.dynsec import DynamicSecurity
from meterway.cloud.devices import queries
from meterway.cloud.devices.answers import username_of
from meterway.cloud.devices.directory import DeviceDirectory
from meterway.cloud.store import Store
from meterway.core.errors import MeterwayError, TransientError
from meterway.core.grants import Grant

RETRY_S = 2.0

_log = logging.getLogger(__name__)


class MosquittoGuard:
    """Writes the devices of the table into a mosquitto; see ``guarded_mosquitto``."""

    def __init__(self, administrator: BrokerConfig, store: Store) -> None:
        self._administrator = administrator
        self._store = store
        self._changed: asyncio.Queue[Device] = asyncio.Queue()
        self._security: DynamicSecurity | None = None
        self._last_error = "not connected yet"
        self.directory = DeviceDirectory(store, self._changed.put_nowait)

    async def let_in(self, username: str, grant: Grant, password: str) -> None:
        """Give a device that enrols its password.

        Raises:
            TransientError: mosquitto is away.
            SetupError: it refuses that.
        """
        if self._security is None:
            raise TransientError(f"mosquitto is away ({self._last_error})")
        await self._security.put(username, grant, password=password)

    async def run(self) -> None:
        """Keep mosquitto's users as the table says, until cancelled."""
        while True:
            try:
                async with DynamicSecurity(self._administrator) as security:
                    await self._write_all(security)
                    self._security = security
                    while True:
                        await self._write(security, await self._changed.get())
            except MeterwayError as error:
                if str(error) != self._last_error:
                    _log.warning("! the devices at mosquitto are as they were: %s", error)
                self._last_error = str(error)
            finally:
                self._security = None
            await asyncio.sleep(RETRY_S)

    async def _write_all(self, security: DynamicSecurity) -> None:
        for device in self.directory.devices():
            await security.put(device.username, device.grant)
        statement = queries.select_closed()
        for row in await self._store.fetch(statement.sql, *statement.args):
            await security.remove(username_of(row))

    async def _write(self, security: DynamicSecurity, device: Device) -> None:
        try:
            if device.revoked:
                await security.remove(device.username)
            else:
                await security.put(device.username, device.grant)
        except MeterwayError:
            self._changed.put_nowait(device)
            raise


@asynccontextmanager
async def guarded_mosquitto(administrator: BrokerConfig, store: Store) -> AsyncIterator[MosquittoGuard]:
    """Keep mosquitto's users as the table of devices says, until the block ends.

    ``administrator`` is who may change them: the user that ``mosquitto_ctrl dynsec init`` made.

    Raises:
        TransientError: the database is away now.
    """
    guard = MosquittoGuard(administrator, store)
    async with guard.directory.running():
        task = asyncio.create_task(guard.run(), name="meterway.cloud.devices.mosquitto")
        try:
            yield guard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
