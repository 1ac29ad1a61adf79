"""The adapter process: joins sources, mapping, spool and bus."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

from meterway.adapter.config import AdapterConfig, MeterConfig
from meterway.adapter.mapping import Mapper
from meterway.adapter.outlet import Outlet
from meterway.adapter.reader import LONGEST_DELAY_S, MeterReader
from meterway.adapter.status import StatusSessions
from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core.errors import SetupError
from meterway.core.topics import receipt_topic
from meterway.core.zones import find_zone
from meterway.delivery.relay import Relay
from meterway.delivery.spool import Spool
from meterway.meter.codec import Decoder
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family
from meterway.meter.keys import load_keys
from meterway.plugins import find_family, make_decoder

_log = logging.getLogger(__name__)


async def run(config: AdapterConfig, *, ready: Callable[[], None]) -> None:
    """Read all meters until cancelled; calls ``ready`` once the spool is open and the readers run.

    A broker that is away does not keep it from reading: readings wait in the spool.

    Raises:
        SetupError: a family or property is unknown, a key file cannot be used, or the spool belongs to another process.
    """
    wall = partial(datetime.now, UTC)
    prepared = []
    for meter in config.meters:
        family = find_family(meter.family)
        if family.is_asked:
            raise SetupError(
                f"meter {meter.id}: a meter of family {family.name} must be asked, and the adapter of this release "
                "only listens; `meterway decode` reads what such a meter has answered"
            )
        prepared.append((meter, family, Mapper(meter, family), _decoder(meter, family)))
    async with AsyncExitStack() as stack:
        spool = await stack.enter_async_context(Spool(config.spool_dir, config.spool, count_topics=True))

        def on_receipt(delivery: Delivery) -> None:
            relay.on_receipt(delivery.payload)
            delivery.ack()

        receipts = {
            receipt_topic(meter_id): on_receipt for _, _, mapper, _ in prepared for meter_id in mapper.meter_ids
        }
        bus = await stack.enter_async_context(MqttBus(config.broker, f"{config.id}-adapter", at_most_once=receipts))
        relay = Relay(spool, bus, config.relay)
        sessions = await stack.enter_async_context(StatusSessions(config.broker, config.id, wall))
        outlet = Outlet(spool)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay.run(), name=f"meterway.adapter.{config.id}.relay")
            for meter, family, mapper, decoder in prepared:
                reader = MeterReader(
                    meter, family, outlet, sessions, mapper=mapper, decoder=decoder, wall=wall, monotonic=time.monotonic
                )
                tasks.create_task(keep_reading(meter.id, reader), name=f"meterway.adapter.meter.{meter.id}")
            ready()


def _decoder(meter: MeterConfig, family: Family) -> Decoder:
    """Return the decoder of a meter, with its keys."""
    keys = load_keys(meter.key_file, meter.authentication_key_file)
    zone = find_zone(meter.timezone or family.timezone)
    return make_decoder(MeterSetup(family=family, zone=zone, keys=keys))


async def keep_reading(meter_id: str, reader: MeterReader) -> None:
    """Read one meter; whatever fails there must not stop the others, and is said in its status."""
    while True:
        try:
            await reader.run()
        except Exception as error:  # noqa: BLE001 - the last resort of a long-running process
            _log.exception("! meter %s: reading failed; trying again in %.0f s", meter_id, LONGEST_DELAY_S)
            reader.say_failed(type(error).__name__)
            await asyncio.sleep(LONGEST_DELAY_S)
        else:
            return
