"""The adapter process: joins links, mapping, spool and bus."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from meterway.adapter.ask import Asked, Asker
from meterway.adapter.config import AdapterConfig, segments
from meterway.adapter.intake import Intake
from meterway.adapter.links import describe, open_link
from meterway.adapter.listen import Ear, Listener
from meterway.adapter.memory_file import MemoryFile
from meterway.adapter.outlet import Outlet
from meterway.adapter.plausibility import Plausibility
from meterway.adapter.prepare import Prepared, check_segment, prepare
from meterway.adapter.pulse_counter import PulseCounter
from meterway.adapter.raw import FOLDER, RawRings
from meterway.adapter.segment import LONGEST_DELAY_S, Segment
from meterway.adapter.signing import open_signer
from meterway.adapter.status import StatusSessions
from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core.signatures import key_text
from meterway.core.topics import receipt_topic
from meterway.delivery.metrics import Metrics, sending_metrics, serving_metrics
from meterway.delivery.relay import Relay
from meterway.delivery.spool import Spool

_log = logging.getLogger(__name__)

_FLUSH_S = 2.0
"""How long a stop waits for readings that waited for the telegram after them; a full spool does not take them."""
SILENT_INTERVALS = 3
"""A meter that is asked is not silent before so many of its intervals have passed."""


def memory_path(spool_dir: Path) -> Path:
    """Return the file in which plausibility remembers the meters: beside the spool's folder, as it outlives a spool."""
    return spool_dir.with_name(f"{spool_dir.name}-memory.json")


async def run(config: AdapterConfig, *, ready: Callable[[], None]) -> None:
    """Read all meters until cancelled; calls ``ready`` once the spool is open and the readers run.

    A broker that is away does not keep it from reading: readings wait in the spool.

    Raises:
        SetupError: as ``prepare``, ``check_segment`` and ``open_signer``; or the spool belongs to another process.
    """
    wall = partial(datetime.now, UTC)
    shared = [[prepare(meter) for meter in meters] for meters in segments(config.meters)]
    for meters in shared:
        check_segment(meters)
    async with AsyncExitStack() as stack:
        for decoder in (meter.decoder for meters in shared for meter in meters):
            if isinstance(decoder, PulseCounter):
                stack.callback(decoder.close)
        spool = await stack.enter_async_context(Spool(config.spool_dir, config.spool, count_topics=True))
        signer = open_signer(config.signing, config.spool_dir)
        if signer is not None:
            _log.info("readings are signed; the public key is %s", key_text(signer.public_key))

        def on_receipt(delivery: Delivery) -> None:
            relay.on_receipt(delivery.payload)
            delivery.ack()

        meter_ids = [meter_id for meters in shared for meter in meters for meter_id in meter.mapper.meter_ids]
        receipts = {receipt_topic(meter_id): on_receipt for meter_id in meter_ids}
        bus = await stack.enter_async_context(
            MqttBus(config.broker, f"{config.id}-adapter", at_most_once=receipts, clean_session=True)
        )
        relay = Relay(spool, bus, config.relay)

        def metrics() -> Metrics:
            gauges, counters = sending_metrics(spool.stats(), relay.stats(), limit_bytes=config.spool.limit_bytes)
            return Metrics({**gauges, "broker_connected": bus.connected, "meters": len(meter_ids)}, counters)

        await stack.enter_async_context(serving_metrics(config.metrics, metrics))
        sessions = await stack.enter_async_context(StatusSessions(config.broker, config.id, wall))
        outlet = Outlet(spool, sign=signer.sign if signer else None)
        rings = RawRings(config.spool_dir / FOLDER, config.raw_ring_bytes)
        memories = await stack.enter_async_context(MemoryFile(memory_path(config.spool_dir), meter_ids))

        def intake(meter: Prepared) -> Intake:
            plausibility = Plausibility(
                meter.family, meter.mapper.meter_ids, memories, interval_s=meter.config.interval_s
            )
            return Intake(
                meter.config,
                meter.family,
                outlet,
                sessions,
                mapper=meter.mapper,
                plausibility=plausibility,
                wall=wall,
                monotonic=time.monotonic,
                signing_key=key_text(signer.public_key) if signer else None,
            )

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay.run(), name=f"meterway.adapter.{config.id}.relay")
            tasks.create_task(rings.run(), name=f"meterway.adapter.{config.id}.rings")
            for meters in shared:
                intakes = [intake(meter) for meter in meters]
                reading = keep_reading(_loop(meters, intakes, config.broker, rings), intakes)
                tasks.create_task(reading, name=f"meterway.adapter.meter.{meters[0].config.id}")
            ready()


def _loop(
    meters: Sequence[Prepared], intakes: Sequence[Intake], broker: BrokerConfig, rings: RawRings
) -> Listener | Asker:
    """Return what reads the meters of one segment."""
    first = meters[0].config
    opening = rings.opening(partial(open_link, first.source, broker=broker), first.id)
    segment = Segment(where=describe(first.source), line=meters[0].family.line, open=opening)
    asked = [
        Asked(
            intake=intake,
            line=meter.family.line,
            make_master=meter.make_master,
            watchdog_s=max(meter.config.watchdog_s, SILENT_INTERVALS * intake.interval_s),
        )
        for meter, intake in zip(meters, intakes, strict=True)
        if meter.make_master is not None
    ]
    if asked:
        return Asker(segment, asked, monotonic=time.monotonic)
    ears = [
        Ear(intake=intake, decoder=meter.decoder, watchdog_s=meter.config.watchdog_s)
        for meter, intake in zip(meters, intakes, strict=True)
        if meter.decoder is not None
    ]
    return Listener(segment, ears, monotonic=time.monotonic)


async def keep_reading(loop: Listener | Asker, intakes: Sequence[Intake]) -> None:
    """Read the meters of one segment; whatever fails there must not stop the others, and is said in their status."""
    while True:
        try:
            for intake in intakes:
                await intake.open()
            await loop.run()
        except Exception as error:  # noqa: BLE001 - the last resort of a long-running process
            _log.exception("! meter %s: reading failed; again in %.0f s", intakes[0].meter_id, LONGEST_DELAY_S)
            for intake in intakes:
                intake.say("offline", f"a defect of Meterway ({type(error).__name__}); the adapter's log says more")
            await asyncio.sleep(LONGEST_DELAY_S)
        else:
            return
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    for intake in intakes:
                        await intake.flush()
