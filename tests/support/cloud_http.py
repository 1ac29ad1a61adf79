"""Readings of our own making in a real store, and the real HTTP server in front of it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
import pytest
from fastapi import FastAPI

from meterway.cloud.api import create_app
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from meterway.cloud.store.rows import Arrived, ArrivedFault, ArrivedReading, ArrivedReport, Rejected
from meterway.core import reports
from meterway.core.columns import ReadingColumns
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.topics import SpecificTopic, concentrator_topic, smart_meter_topic

CONCENTRATOR = "cellar"


def value(name: str, number: str | None = None, unit: str | None = None, *, text: str | None = None) -> PropertyValue:
    """Return a property value; ``number`` is written with its digits."""
    return PropertyValue(name, None if number is None else Decimal(number), text, unit)


def reading_id(meter_id: str, reading_time: datetime) -> UUID:
    """Return the identifier that ``reading`` gives."""
    return uuid5(NAMESPACE_URL, f"{meter_id}/{reading_time.isoformat()}")


def reading(
    meter_id: str,
    reading_time: datetime,
    *values: PropertyValue,
    sequence_number: int | None = None,
    fault_code: str | None = None,
) -> ArrivedReading:
    """Return a reading as it arrives."""
    return ArrivedReading(
        topic=concentrator_topic(CONCENTRATOR, smart_meter_topic(meter_id, SpecificTopic.READINGS)),
        payload=f"{meter_id} {reading_time.isoformat()}".encode(),
        concentrator_id=CONCENTRATOR,
        reading=ReadingColumns.of(
            MeterReading(
                reading_id(meter_id, reading_time), meter_id, reading_time, values, sequence_number, fault_code
            )
        ),
    )


def report(meter_id: str, content: reports.Status | reports.MeterDescription) -> ArrivedReport:
    """Return a status or a description as it arrives."""
    kind = SpecificTopic.STATUS if isinstance(content, reports.Status) else SpecificTopic.METER
    topic = concentrator_topic(CONCENTRATOR, smart_meter_topic(meter_id, kind))
    return ArrivedReport(topic, reports.encode(content), CONCENTRATOR, meter_id, kind)


def fault(meter_id: str, content: reports.Fault) -> ArrivedFault:
    """Return a fault as it arrives."""
    topic = concentrator_topic(CONCENTRATOR, smart_meter_topic(meter_id, SpecificTopic.FAULTS))
    return ArrivedFault(topic, reports.encode(content), CONCENTRATOR, meter_id, content)


def rejected(payload: bytes, *, meter_id: str = "m1", reason: str = "not-json", message: str = "bad") -> Rejected:
    """Return a message that goes to quarantine."""
    topic = concentrator_topic(CONCENTRATOR, smart_meter_topic(meter_id, SpecificTopic.READINGS))
    return Rejected(topic, payload, reason, message)


async def put(store: Store, *arrived: Arrived, now: datetime | None = None) -> None:
    """Store what arrived, as ingest does."""
    await store.commit_batch(list(arrived), now=now or datetime.now(UTC))


def series(meter_id: str, start: datetime, count: int, *, step_s: float = 60) -> list[ArrivedReading]:
    """Return ``count`` readings of power and register: 1.000 kW, counting from 100.000 kWh."""
    return [
        reading(
            meter_id,
            start + timedelta(seconds=step_s * index),
            value("OBIS_1.7.0", "1.000", "kW"),
            value("OBIS_1.8.0", f"{100 + index * step_s / 3600:.3f}", "kWh"),
            sequence_number=index + 1,
        )
        for index in range(count)
    ]


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Serve ``app`` on a free port; yields a client of it."""
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the HTTP interface on an empty store."""
    async with client_of(create_app(store)) as client:
        yield client


def ids(meters: Iterable[dict[str, object]]) -> list[object]:
    """Return the meter ids in an answer."""
    return [meter["meterId"] for meter in meters]
