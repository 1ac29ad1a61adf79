"""The embedded broker with the provisioning table as its guard: what changes in the table, changes there at once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from meterway.bus.broker import EmbeddedBroker, embedded_broker
from meterway.bus.bus import EmbeddedBrokerConfig
from meterway.bus.directory import Device
from meterway.cloud.config import CloudConfig
from meterway.cloud.devices.directory import DeviceDirectory
from meterway.cloud.devices.mosquitto import MosquittoGuard
from meterway.cloud.devices.notes import DeviceNotes
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.store import Store
from meterway.core.errors import MeterwayError, TransientError
from meterway.core.hosts import in_url

SEEN_EVERY_S: Final = 30.0
RETRY_S: Final = 1.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def guarded_broker(
    config: EmbeddedBrokerConfig, store: Store, clock: Callable[[], datetime]
) -> AsyncIterator[EmbeddedBroker]:
    """Run the embedded broker for its own users and for the devices of the table.

    Raises:
        SetupError, TransientError: as ``EmbeddedBroker`` and ``DeviceDirectory.running``.
    """
    changed: asyncio.Queue[Device] = asyncio.Queue()
    notes = DeviceNotes(store, clock)
    directory = DeviceDirectory(store, changed.put_nowait)
    async with (
        notes.running(),
        directory.running(),
        embedded_broker(config, directory=directory, on_refusal=notes.on_refused) as broker,
    ):
        tasks = [
            asyncio.create_task(_end_changed(broker, changed), name="meterway.cloud.devices.end"),
            asyncio.create_task(_note_seen(broker, notes), name="meterway.cloud.devices.seen"),
        ]
        try:
            yield broker
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _end_changed(broker: EmbeddedBroker, changed: asyncio.Queue[Device]) -> None:
    """End the connections of devices that have other rights now; who still may, comes back by itself."""
    while True:
        device = await changed.get()
        try:
            if broker.callout is not None:
                await broker.callout.end(device.username)
        except TransientError as error:
            _log.warning("! the connection of %s is not ended yet: %s", device.username, error)
            changed.put_nowait(device)
            await asyncio.sleep(RETRY_S)


async def _note_seen(broker: EmbeddedBroker, notes: DeviceNotes) -> None:
    while True:
        try:
            await notes.write_seen(broker.callout.users if broker.callout is not None else ())
        except MeterwayError as error:
            _log.warning("! which devices are there is not written: %s", error)
        await asyncio.sleep(SEEN_EVERY_S)


def broker_for_devices(
    config: CloudConfig, embedded: EmbeddedBroker | None, mosquitto: MosquittoGuard | None = None
) -> BrokerForDevices | None:
    """Return what devices that enrol are told of the broker; None if nobody knows where it is."""
    pinned = pinned_ca_file(config)
    if config.devices.broker_url is not None:
        let_in = mosquitto.let_in if mosquitto is not None else None
        return BrokerForDevices(config.devices.broker_url, config.devices.ca_file, pinned, let_in)
    if embedded is None:
        return None
    own = embedded.config()
    parts = urlsplit(own.url)
    names = config.embedded_broker.names if config.embedded_broker is not None else ()
    host = in_url(names[0]) if names else parts.netloc.rpartition(":")[0]
    return BrokerForDevices(f"{parts.scheme}://{host}:{parts.port}", own.ca_file, pinned)


def pinned_ca_file(config: CloudConfig) -> Path | None:
    """Return the certificate that codes pin: of the authority that signs the cloud's own, if it does."""
    if not config.http.speaks_tls or config.http.certificate_file is not None or config.certificate_dir is None:
        return None
    return config.certificate_dir / "ca.pem"
