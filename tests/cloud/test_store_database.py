"""Connections to the database: dead ones, and busy ones."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest

from faults.proxy import Link, link_to
from meterway.cloud.store import Store
from meterway.cloud.store.database import Database
from meterway.core.errors import TransientError
from support.cloud_http import put, reading, value
from support.postgres import Server

LIMIT_S = 2.0
SOCKET = ".s.PGSQL.5432"


@asynccontextmanager
async def linked(server: Server, dsn: str) -> AsyncIterator[tuple[str, Link]]:
    """Give the address of the database behind a link."""
    sockets = server.cluster.socket_dir
    with TemporaryDirectory(prefix="mwlink-") as front:
        async with link_to(sockets / SOCKET, random.Random(1), path=Path(front) / SOCKET) as link:
            yield dsn.replace(quote(str(sockets), safe="/"), quote(front, safe="/")), link


@pytest.mark.parametrize("as_it_is", ["used", "given back"])
async def test_a_dead_connection_is_dropped_and_made_anew(
    postgres_server: Server, database_dsn: str, as_it_is: str
) -> None:
    async with linked(postgres_server, database_dsn) as (dsn, link):
        database = await Database.connect(dsn, connections=1, lend_limit_s=LIMIT_S)

        async def borrow() -> None:
            async with database.connection() as connection:
                link.swallow()
                if as_it_is == "used":
                    await connection.fetch("select 1")

        with pytest.raises(TransientError):
            await borrow()
        await link.mend()
        assert (await database.fetch("select 1"))[0][0] == 1
        await database.close()


async def test_no_query_holds_up_readings(store: Store, database_dsn: str) -> None:
    async with await Store.connect(database_dsn, connections=2) as busy:
        queries = [asyncio.create_task(busy.fetch("select pg_sleep(600)")) for _ in range(3)]
        while len(await store.fetch("select from pg_stat_activity where query = 'select pg_sleep(600)'")) < 2:
            await asyncio.sleep(0.05)
        await put(busy, reading("m1", datetime.now(UTC), value("OBIS_1.8.0", "1.0", "kWh")))
        assert not any(query.done() for query in queries)
        for query in queries:
            query.cancel()
        await asyncio.gather(*queries, return_exceptions=True)
