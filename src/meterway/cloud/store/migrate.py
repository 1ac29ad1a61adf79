"""The schema: numbered migrations, and the monthly partitions of the readings."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import resources
from typing import NamedTuple, Self

from meterway.cloud.store.database import Connection, Database
from meterway.core.errors import SetupError

MONTHS_AHEAD = 2
"""Partitions are made for this month and so many after it, before they are needed."""

_LOCK = 0x6D657465_72776179
"""The advisory lock ("meterway") that lets one worker at a time change the schema."""


class Month(NamedTuple):
    """A month in UTC: [``start``, ``end``)."""

    year: int
    month: int

    @classmethod
    def of(cls, moment: datetime) -> Self:
        """Return the month in which an aware moment lies."""
        moment = moment.astimezone(UTC)
        return cls(moment.year, moment.month)

    def after(self, count: int = 1) -> "Month":
        """Return the month ``count`` months later."""
        years, month = divmod(self.year * 12 + self.month - 1 + count, 12)
        return Month(years, month + 1)

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def partition(self) -> str:
        """The name of its partition."""
        return f"reading_{self.year:04}_{self.month:02}"


def migrations() -> list[tuple[int, str, str]]:
    """Return number, name and SQL of each migration, in order."""
    found = []
    for file in resources.files("meterway.cloud").joinpath("migrations").iterdir():
        name = re.fullmatch(r"(\d{4})_\w+\.sql", file.name)
        if name:
            found.append((int(name[1]), file.name, file.read_text(encoding="utf-8")))
    return sorted(found)


async def migrate(database: Database) -> None:
    """Bring the schema up to date; several workers may do so at once, each migration is applied once.

    Raises:
        SetupError: the database was made by a newer Meterway, or our user may not make the role of viewers.
    """
    async with database.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            "create table if not exists schema_version "
            "(version integer primary key, name text not null, applied_time timestamptz not null default now())"
        )
        current = await connection.fetchval("select coalesce(max(version), 0) from schema_version")
        known = migrations()
        if current > known[-1][0]:
            raise SetupError(
                f"the database has schema {current}, this Meterway knows {known[-1][0]}: install the newer Meterway"
            )
        for version, name, sql in known:
            if version > current:
                await connection.execute(sql)
                await connection.execute("insert into schema_version (version, name) values ($1, $2)", version, name)
        await _grant_viewers(connection)


async def _grant_viewers(connection: Connection) -> None:
    """Make the role of viewers and give it its rights, where they are missing."""
    await connection.execute(resources.files("meterway.cloud").joinpath("migrations", "viewer.sql").read_text("utf-8"))


async def add_partitions(database: Database, months: Iterable[Month]) -> None:
    """Make the partitions of ``months`` that are missing; readers and writers of the others are not held up."""
    async with database.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        for month in sorted(set(months)):
            await _add_partition(connection, month)


async def _add_partition(connection: Connection, month: Month) -> None:
    if await connection.fetchval("select to_regclass($1)", month.partition) is not None:
        return
    # Made on its own and then attached: CREATE TABLE ... PARTITION OF would lock all readings against everybody.
    await connection.execute(f"create table {month.partition} (like reading including all)")
    await connection.execute(
        f"alter table reading attach partition {month.partition} "
        f"for values from ('{month.start.isoformat()}') to ('{month.after().start.isoformat()}')"
    )
