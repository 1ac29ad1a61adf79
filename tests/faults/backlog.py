"""A concentrator that comes back with a million readings in its spool."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import asyncpg

from faults.load import until
from faults.rig import Rig
from faults.scenario import Result, Scenario
from meterway.cloud.postgres import Cluster
from meterway.core import topics, wire
from meterway.core.identifiers import reading_identifier
from meterway.core.reading import MeterReading, PropertyValue
from meterway.delivery.spool import Spool

METERS, READINGS = 1000, 1000
WITHIN_S = 700.0


class Drain(Rig):
    """The platform without meters: all readings are there already."""

    async def _start_meters(self) -> None:
        """Nobody speaks."""

    async def rows(self) -> tuple[int, int]:
        """Return how many readings are stored, and how many different meters and numbers they have."""
        connection = await asyncpg.connect(Cluster(self.options.data_dir / "postgres").dsn)
        try:
            row = await connection.fetchrow(
                "select count(*), count(distinct (meter_key, sequence_number)) from reading"
            )
        finally:
            await connection.close()
        assert row is not None
        return row[0], row[1]

    async def arrived(self) -> float:
        """Return how many readings the cloud says that it stored."""
        counters = await asyncio.to_thread(self.api.counters)
        return counters["meterway_ingest_stored_total"]


def payload(meter_id: str, number: int, end: datetime) -> bytes:
    """Return one reading: two registers and the power, a minute after the one before."""
    reading_time = end - timedelta(minutes=READINGS - number)
    values = (
        PropertyValue("OBIS_1.8.0", Decimal(1_000_000 + number) / 1000, unit="kWh"),
        PropertyValue("OBIS_2.8.0", Decimal(500_000 + number) / 1000, unit="kWh"),
        PropertyValue("OBIS_1.7.0", Decimal(number) / 1000, unit="kW"),
    )
    identifier = reading_identifier(meter_id, reading_time, values)
    return wire.encode(MeterReading(identifier, meter_id, reading_time, values, sequence_number=number))


async def fill(spool_dir: Path) -> None:
    """Put the backlog into the spool of the concentrator to come."""
    end = datetime.now(UTC).replace(microsecond=0)
    meter_ids = [str(UUID(int=number, version=4)) for number in range(1, METERS + 1)]
    reading_topics = [
        topics.concentrator_topic("demo", topics.smart_meter_topic(each, topics.SpecificTopic.READINGS))
        for each in meter_ids
    ]
    async with Spool(spool_dir) as spool:
        for number in range(1, READINGS + 1):
            for meter_id, topic in zip(meter_ids, reading_topics, strict=True):
                spool.append(topic, payload(meter_id, number, end))
            await spool.commit()


async def drain(folder: Path, _chance: random.Random) -> Result:
    """Let it drain into an empty cloud."""
    total = METERS * READINGS
    await fill(folder / "spool" / "concentrator")
    async with Drain(folder, {}) as rig:
        begun_s, before = time.monotonic(), await rig.arrived()

        async def drained() -> bool:
            return await rig.arrived() >= total

        await until(drained, "the backlog is drained", WITHIN_S)
        seconds = time.monotonic() - begun_s
        stored, different = await rig.rows()
    return Result(
        sent=total,
        stored=stored,
        lost=total - different,
        duplicated=stored - different,
        altered=0,
        note=f"{(total - before) / seconds:,.0f} readings/s",
    )


SCENARIOS = [Scenario("1,000,000 queued drain", "concentrator, cloud", "nats", drain)]
