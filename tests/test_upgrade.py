"""What the previous release left behind is taken over: its database (schema 1), and its spools.

The spool in ``fixtures/spool-a6e26a5`` was written by the code of commit a6e26a5; ``fixtures/make_spool.py`` says how.
"""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest

from meterway.cloud.api import create_app
from meterway.cloud.store import Store
from meterway.cloud.store.migrate import migrations
from meterway.cloud.store.rows import ArrivedReading
from meterway.core import wire
from meterway.delivery.config import SpoolConfig
from meterway.delivery.look import look
from meterway.delivery.spool import Spool
from support.cloud_http import client_of, put, series

FIXTURES = Path(__file__).parent / "fixtures"
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
KEPT = ("meter_id", "claimed", "name", "last_sequence_number", "last_numerical_values", "status")


@pytest.fixture
async def old_dsn(database_dsn: str) -> str:
    """A database as the previous release left it, with rows in every table."""
    (version, name, sql), *_ = migrations()
    connection = await asyncpg.connect(database_dsn)
    try:
        await connection.execute(
            "create table schema_version (version integer primary key, name text not null, "
            "applied_time timestamptz not null default now())"
        )
        await connection.execute(sql)
        await connection.execute("insert into schema_version (version, name) values ($1, $2)", version, name)
        await _fill(connection)
    finally:
        await connection.close()
    return database_dsn


async def _fill(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Write what that release wrote: 10 days of quarter-hours, two of which were never read."""
    months = {moment.replace(day=1, hour=0) for moment in (NOW - 12 * DAY, NOW)}
    for start in sorted(months):
        end = (start + 32 * DAY).replace(day=1)
        partition = f"reading_{start:%Y_%m}"
        await connection.execute(f"create table {partition} (like reading including all)")
        await connection.execute(
            f"alter table reading attach partition {partition} for values from ('{start}') to ('{end}')"
        )
    await connection.execute(
        """
        insert into property_set (property_ids, units) values ('{OBIS_1.7.0,OBIS_1.8.0}', '{kW,kWh}');
        insert into meter (meter_id, claimed, name, concentrator_id, last_sequence_number, last_numerical_values,
                           last_property_set_key, last_reading_time, status, description)
        values ('m1', true, 'Flat 3', 'cellar', 958, '{1.000,340.000}', 1, now(), '{"state": "online"}',
                '{"intervalS": 900}');
        insert into concentrator (concentrator_id) values ('cellar');
        insert into conflict (digest, meter_id, reading_time, reading_identifier, topic, payload)
        values ('\\x01', 'm1', now(), gen_random_uuid(), 't', 'p');
        insert into quarantine (digest, topic, payload, size_bytes, reason, message)
        values ('\\x02', 't', '\\x00ff', 2, 'not-json', 'bad');
        insert into fault (digest, concentrator_id, meter_id, fault_time, reason, message, data)
        values ('\\x03', 'cellar', 'm1', now(), 'bad-checksum', 'wrong', '\\x2f');
        """
    )
    for index, each in enumerate(_readings()):
        await connection.execute(
            "insert into reading (meter_key, reading_time, reading_identifier, sequence_number, property_set_key, "
            "numerical_values, stored_time) "
            "values (1, $1, $2, $3, 1, $4::text[]::numeric[], now() - interval '1 hour')",
            each.reading.reading_time,
            each.reading.identifier,
            index + 1,
            list(each.reading.columns.numerical_values),
        )


def _readings() -> list[ArrivedReading]:
    readings = series("m1", NOW - 10 * DAY, 960, step_s=900)
    return [*readings[:100], *readings[102:]]


async def _rows(store: Store) -> list[tuple[object, ...]]:
    tables = [
        f"select {', '.join(KEPT)} from meter",
        "select * from reading order by reading_time",
        *(f"select * from {table}" for table in ("property_set", "concentrator", "conflict", "quarantine", "fault")),
    ]
    return [tuple(map(str, row)) for sql in tables for row in await store.fetch(sql)]


async def test_the_database_of_the_previous_release_keeps_its_data_and_gets_a_ledger(old_dsn: str) -> None:
    async with await Store.connect(old_dsn) as store:
        before = await _rows(store)
        assert len(before) == 1 + 958 + 5
        await store.migrate(now=NOW)
        after = await _rows(store)  # new columns come last
        assert [row[: len(old)] for row, old in zip(after, before, strict=True)] == before
        async with client_of(create_app(store)) as client:
            waiting = await client.get("/v1/meters/m1/completeness")
            assert (waiting.status_code, waiting.json()["reason"]) == (503, "ledger-building")
            # Stored by the new release while the ledger of before is still being made; two are there already.
            await put(store, *_readings()[-2:], *_following(3))
            while await store.enter_backlog():
                pass
            total = await _total(client, (NOW - 10 * DAY).date())
    assert (total["stored"], total["missing"], total["lost"]) == (961, 2, 0)
    (gap,) = total["gaps"]
    assert (gap["kind"], gap["missing"]) == ("not-read", 2)


def _following(count: int) -> list[ArrivedReading]:
    """The next readings, with the numbers that follow 958."""
    made = series("m1", NOW, count, step_s=900)
    return [
        msgspec.structs.replace(each, reading=msgspec.structs.replace(each.reading, sequence_number=959 + index))
        for index, each in enumerate(made)
    ]


async def _total(client: httpx.AsyncClient, first: date) -> dict[str, Any]:
    answer = await client.get("/v1/meters/m1/completeness", params={"from": first.isoformat()})
    assert answer.status_code == 200, answer.text
    total: dict[str, Any] = answer.json()["total"]
    return total


async def test_a_spool_of_the_previous_release_is_sent_and_counted_on(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(FIXTURES / "spool-a6e26a5", folder)
    waiting = look(folder)
    assert waiting is not None
    assert waiting.messages == 3
    async with Spool(folder, SpoolConfig(), count_topics=True) as spool:
        records = await spool.take(10, 1 << 20)
        readings = [wire.decode(record.payload, meter_id=record.topic.split("/")[1]) for record in records]
        assert [(each.meter_id, each.sequence_number) for each in readings] == [("m0", 2), ("m1", 2), ("m0", 3)]
        assert [str(each.property_values[0].numerical_value) for each in readings] == [
            "12345.200",
            "12345.300",
            "12345.400",
        ]
        state = spool.topic_state("smartMeterMessage/m0/readings")
        assert (state.appended, state.mark) == (3, bytes([4]) * 16)
        position = spool.append("smartMeterMessage/m0/readings", b"next", mark=b"m")
        await spool.commit(position)
        assert spool.topic_state("smartMeterMessage/m0/readings").appended == 4
        spool.done([*(record.number for record in records), position])
        assert spool.pending == 0
