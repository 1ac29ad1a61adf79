"""``Store``: what the rest of the cloud knows of the database."""

from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Self

from meterway.cloud.store import migrate
from meterway.cloud.store.database import Database, Row


class Store:
    """Readings, meters, and what could not become a reading. Safe to use from many tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def connect(cls, dsn: str, *, connections: int = 10) -> Self:
        """Connect to ``postgresql://...``; at most ``connections`` at once.

        Raises:
            TransientError: the server is not there (yet).
            SetupError: it refuses us, or is too old.
        """
        return cls(await Database.connect(dsn, connections=connections))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()

    async def migrate(self, *, now: datetime) -> None:
        """Bring the schema up to date and make the partitions of this month and the next ones.

        Raises:
            SetupError: the database was made by a newer Meterway.
        """
        await migrate.migrate(self._database)
        this = migrate.Month.of(now)
        await migrate.add_partitions(self._database, [this.after(count) for count in range(migrate.MONTHS_AHEAD + 1)])

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """Return the rows of one query; ``$1`` is the first of ``args``.

        Raises:
            TransientError: the database is away or busy.
            BadDataError: it refuses a value of ``args``.
        """
        return await self._database.fetch(sql, *args)

    def listen(self, channel: str) -> AsyncIterator[str]:
        """Yield the payloads that are notified on ``channel``.

        ``reading_stored`` carries the keys of the meters that have new readings, ``4,8,15``, or ``*`` when they are
        too many to name. See ``Database.listen`` for its bound.

        Raises:
            TransientError: the connection was lost; listen again.
        """
        return self._database.listen(channel)
