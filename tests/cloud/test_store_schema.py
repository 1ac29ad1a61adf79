"""The schema: migrations by many workers at once, and partitions at the edges of months."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from meterway.cloud.store import Store
from meterway.cloud.store.migrate import Month, migrations
from meterway.core.errors import BadDataError, SetupError, TransientError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


async def test_many_workers_migrate_at_once_and_each_migration_is_applied_once(database_dsn: str) -> None:
    stores = [await Store.connect(database_dsn, connections=2) for _ in range(6)]
    try:
        await asyncio.gather(*(store.migrate(now=NOW) for store in stores))
        rows = await stores[0].fetch("select version from schema_version order by version")
    finally:
        for store in stores:
            await store.close()
    assert [row["version"] for row in rows] == [number for number, _, _ in migrations()]


async def test_partitions_exist_for_this_month_and_two_more(database_dsn: str) -> None:
    async with await Store.connect(database_dsn) as store:
        await store.migrate(now=NOW)
        rows = await store.fetch(
            "select c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bound from pg_inherits "
            "join pg_class c on c.oid = inhrelid where inhparent = 'reading'::regclass order by 1"
        )
    assert [row["name"] for row in rows] == ["reading_2026_11", "reading_2026_12", "reading_2027_01"]
    assert rows[1]["bound"] == "FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2027-01-01 00:00:00+00')"


async def test_a_database_of_a_newer_version_is_refused(database_dsn: str) -> None:
    async with await Store.connect(database_dsn) as store:
        await store.migrate(now=NOW)
        await store.fetch("insert into schema_version (version, name) values (9999, 'later')")
        with pytest.raises(SetupError, match="the database has schema 9999, this Meterway knows"):
            await store.migrate(now=NOW)


def test_a_month_is_one_of_utc() -> None:
    east = datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert Month.of(east) == Month(2026, 11)
    assert Month(2026, 12).after() == Month(2027, 1)
    assert Month(2026, 11).after(14) == Month(2028, 1)
    assert Month(2026, 11).partition == "reading_2026_11"


async def test_a_database_that_is_away_is_a_transient_error() -> None:
    with pytest.raises(TransientError, match="the database is away"):
        await Store.connect("postgresql://nobody@127.0.0.1:1/none")


async def test_a_wrong_password_is_a_setup_error(database_dsn: str) -> None:
    user, rest = database_dsn.split(":", 2)[1:3]
    wrong = f"postgresql:{user}:wrong@{rest.split('@')[1]}"
    with pytest.raises(SetupError, match="password authentication failed"):
        await Store.connect(wrong)


async def test_a_refused_value_is_bad_data(store: Store) -> None:
    with pytest.raises(BadDataError, match="the database refuses a value") as caught:
        await store.fetch("select $1::text", "a\0b")
    assert caught.value.reason == "refused-by-database"


async def test_a_listener_hears_what_is_notified(store: Store) -> None:
    heard = store.listen("reading_stored")
    first = asyncio.ensure_future(anext(heard))
    while not first.done():
        await store.fetch("select pg_notify('reading_stored', '4,8')")
        await asyncio.wait([first], timeout=0.05)
    assert await first == "4,8"
    await heard.aclose()  # type: ignore[attr-defined]
