"""``Store``: what the rest of the cloud knows of the database."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from types import TracebackType
from typing import Self
from uuid import UUID

from meterway.cloud.access.viewer import Viewer
from meterway.cloud.store import erased_again, erasure, ledger, migrate, proofs, removal, retention
from meterway.cloud.store.aside import Bounds, storable_reason
from meterway.cloud.store.database import Database, Row
from meterway.cloud.store.names import LIMIT_UNCLAIMED_METERS, Names
from meterway.cloud.store.rows import Arrived, Rejected
from meterway.cloud.store.writer import Committed, Writer

WRITE_CONNECTIONS = 2
"""Those of the write path (ingest and a replay): no query holds up readings, nor the dead connections of queries."""

WRITE_LIMIT_S = 30.0
"""A batch that takes longer to commit is given up and committed again, on another connection; it takes milliseconds."""


class Store:
    """Readings, meters, and what could not become a reading. Safe to use from many tasks."""

    def __init__(self, database: Database, writing: Database, writer: Writer) -> None:
        self._database = database
        self._writing = writing
        self._writer = writer

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        connections: int = 10,
        strict: bool = False,
        limit_unclaimed_meters: int = LIMIT_UNCLAIMED_METERS,
        bounds: Bounds | None = None,
    ) -> Self:
        """Connect to ``postgresql://...``; at most ``connections`` at once, and ``WRITE_CONNECTIONS`` to write.

        ``strict`` refuses readings of meters that nobody claimed; else such meters are registered, up to
        ``limit_unclaimed_meters``. ``bounds`` limits what is kept beside the readings.

        Raises:
            TransientError: the server is not there (yet).
            SetupError: it refuses us, or is too old.
        """
        database = await Database.connect(dsn, connections=connections)
        try:
            writing = await Database.connect(dsn, connections=WRITE_CONNECTIONS, lend_limit_s=WRITE_LIMIT_S)
        except BaseException:
            await database.close()
            raise
        names = Names(writing, strict=strict, limit_unclaimed=limit_unclaimed_meters)
        return cls(database, writing, Writer(writing, names=names, bounds=bounds or Bounds()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._writing.close()
        await self._database.close()

    def gauges(self) -> dict[str, float]:
        """Return numbers of the connections to the database, by the names of metrics."""
        writing = self._writing.gauges()
        return {name: value + writing[name] for name, value in self._database.gauges().items()}

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

    async def fetch_as(self, viewer: Viewer, sql: str, *args: object) -> list[Row]:
        """Return the rows of one query that ``viewer`` may see.

        Raises:
            As ``fetch``; SetupError too if the viewer may not read one of the tables at all.
        """
        if viewer.sees_everything:
            return await self._database.fetch(sql, *args)
        return await self._database.fetch_limited(viewer.settings, sql, *args)

    def listen(self, channel: str, *, greet: bool = False) -> AsyncIterator[str]:
        """Yield the payloads that are notified on ``channel``.

        ``reading_stored`` carries the keys of the meters that have new readings, ``4,8,15``, or ``*`` when they are
        too many to name. See ``Database.listen`` for its bound.

        Raises:
            TransientError: the connection was lost; listen again.
        """
        return self._database.listen(channel, greet=greet)

    async def commit_batch(self, batch: Sequence[Arrived], *, now: datetime) -> Committed:
        """Store a batch of decided messages durably and notify ``reading_stored``; idempotent.

        The key of a reading is meter, reading time and identifier. One that is there with the same content is a
        duplicate; with other content it is kept aside as a conflict. What the database refuses goes to quarantine
        alone; nothing else of the batch is lost. (That an identifier comes again with another reading time is not
        noticed: a unique key across the monthly partitions must contain the time.)

        Raises:
            TransientError: the database is away; commit the batch again later.
            SetupError: the database is not ours, or too new or old.
        """
        return await self._writer.commit(batch, now=now)

    async def delete_readings(
        self, identifiers: Sequence[UUID], *, meter_id: str | None = None, tenant_key: int | None = None
    ) -> list[Row]:
        """Delete readings, and what shows their values; see ``removal``.

        Raises:
            TransientError: the database is away; all are deleted, or none.
        """
        return await removal.delete_readings(self._database, identifiers, meter_id=meter_id, tenant_key=tenant_key)

    async def begin_erasure(
        self, subject: erasure.Subject, *, reason: str, tenant_key: int | None, by_account: int | None, now: datetime
    ) -> int:
        """Note what is to be erased, which is not stored again from now on; return the key of the erasure.

        Raises:
            TransientError: the database is away; nothing is noted.
        """
        return await erasure.begin(
            self._database, subject, reason=reason, tenant_key=tenant_key, by_account=by_account, now=now
        )

    async def erase(self, *, now: datetime) -> int:
        """Do what was begun, and prove it; return how many erasures were finished. See ``erasure``.

        Raises:
            TransientError: the database is away; call again.
        """
        return await erasure.work(self._database, now=now)

    async def recount_erased(self, erasure_key: int) -> Mapping[str, int]:
        """Return how many rows there are now, by table, of what was erased.

        Raises:
            TransientError: the database is away.
        """
        return await erasure.recount(self._database, erasure_key)

    async def broken_proof(self) -> int | None:
        """Return the key of the first erasure whose proof does not follow from the one before; None if all do.

        Raises:
            TransientError: the database is away.
        """
        return await proofs.broken_proof(self._database)

    async def erase_again(self, remembered: Sequence[Row]) -> int:
        """Begin the erasures that a restored database does not know; return how many. ``erase`` does them.

        Raises:
            TransientError: the database is away; none is begun.
        """
        return await erased_again.erase_again(self._database, remembered)

    async def retain(self, *, now: datetime) -> Counter[str]:
        """Remove what is older than is kept; return how many rows of which table. See ``retention``.

        Raises:
            TransientError: the database is away; the rest is for the next time.
        """
        return await retention.retain(self._database, now=now)

    async def enter_arrivals(self) -> None:
        """Enter into the delivery ledger all that was stored until now.

        Raises:
            TransientError: the database is away; nothing is lost or entered twice.
        """
        await ledger.enter_arrivals(self._database)

    async def enter_backlog(self) -> bool:
        """Enter some of what was stored before there was a ledger; tell whether there was any.

        Raises:
            TransientError: as above.
        """
        return await ledger.enter_backlog(self._database)

    async def forget_ledger(self, before: date) -> None:
        """Remove what the ledger says of the days (UTC) before ``before``.

        Raises:
            TransientError: as above.
        """
        await ledger.forget_before(self._database, before)

    async def quarantined(self, quarantine_keys: Sequence[int]) -> list[Row]:
        """Return ``quarantine_key``, ``topic``, ``payload`` and ``size_bytes`` of what is in quarantine.

        Raises:
            TransientError: the database is away.
        """
        return await self._database.fetch(
            "select quarantine_key, topic, payload, size_bytes from quarantine where quarantine_key = any($1) "
            "order by quarantine_key",
            list(quarantine_keys),
        )

    async def release(self, quarantine_keys: Sequence[int]) -> None:
        """Remove what was replayed from quarantine.

        Raises:
            TransientError: the database is away.
        """
        await self._database.fetch("delete from quarantine where quarantine_key = any($1)", list(quarantine_keys))

    async def hold(self, still_bad: Sequence[tuple[int, Rejected]]) -> None:
        """Note the reason why each is still in quarantine.

        Raises:
            TransientError: the database is away.
        """
        await self._database.fetch(
            "update quarantine q set reason = v.reason, message = v.message "
            "from unnest($1::bigint[], $2::text[], $3::text[]) as v (quarantine_key, reason, message) "
            "where q.quarantine_key = v.quarantine_key",
            [key for key, _ in still_bad],
            [storable_reason(rejected.reason) for _, rejected in still_bad],
            [storable_reason(rejected.message) for _, rejected in still_bad],
        )
