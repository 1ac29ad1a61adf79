"""What is kept beside the readings: quarantine, conflicts and faults. Each is bounded.

At a bound the oldest of the concentrator that has most go first: who floods pushes out nothing of the others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from meterway.cloud.store.database import Connection, Database
from meterway.cloud.store.rows import PAYLOAD_LIMIT_BYTES, ArrivedFault, ArrivedReading, Rejected, storable
from meterway.core.receipts import digest
from meterway.core.reports import FAULT_DATA_LIMIT_BYTES

MESSAGE_LIMIT_CHARACTERS = 2000
"""A longer reason or message is cut."""

_TRIM_STEPS = 100
"""A bound is looked after when a hundredth of it was added, so it is passed by at most so much (for each worker)."""

_TRIM_LOCK = 0x6D657465_7472696D
"""The advisory lock ("metetrim") of the worker that trims."""

_QUARANTINE = """
insert into quarantine (digest, topic, payload, size_bytes, reason, message, seen_count)
select * from unnest($1::bytea[], $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])
on conflict (digest) do update
set seen_count = quarantine.seen_count + excluded.seen_count, reason = excluded.reason, message = excluded.message
returning xmax = 0 as added
"""

_CONFLICT = """
insert into conflict (digest, meter_id, reading_time, reading_identifier, topic, payload)
select * from unnest($1::bytea[], $2::text[], $3::timestamptz[], $4::uuid[], $5::text[], $6::bytea[])
on conflict do nothing returning conflict_key
"""

_FAULT = """
insert into fault (digest, concentrator_id, meter_id, fault_time, reason, message, data)
select * from unnest($1::bytea[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::bytea[])
on conflict do nothing returning fault_key
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept, for each of quarantine, conflicts and faults."""

    rows: int = 100_000
    bytes: int = 1024 * 1024 * 1024


async def add_rejected(connection: Connection, rejected: Sequence[Rejected]) -> int:
    """Put messages into quarantine, or count them there; return how many are new."""
    seen = Counter(each.digest for each in rejected)
    by_digest = sorted({each.digest: each for each in rejected}.items())
    rows = await connection.fetch(
        _QUARANTINE,
        [key for key, _ in by_digest],
        [storable(each.topic) for _, each in by_digest],
        [each.payload[:PAYLOAD_LIMIT_BYTES] for _, each in by_digest],
        [len(each.payload) for _, each in by_digest],
        [storable_reason(each.reason) for _, each in by_digest],
        [storable_reason(each.message) for _, each in by_digest],
        [seen[key] for key, _ in by_digest],
    )
    return sum(row["added"] for row in rows)


async def add_conflicts(connection: Connection, conflicts: Sequence[ArrivedReading]) -> int:
    """Keep readings aside whose identifier is taken by another content; return how many are new."""
    by_digest = sorted({digest(each.topic, each.payload): each for each in conflicts}.items())
    rows = await connection.fetch(
        _CONFLICT,
        [key for key, _ in by_digest],
        [each.reading.meter_id for _, each in by_digest],
        [each.reading.reading_time for _, each in by_digest],
        [each.reading.identifier for _, each in by_digest],
        [each.topic for _, each in by_digest],
        [each.payload[:PAYLOAD_LIMIT_BYTES] for _, each in by_digest],
    )
    return len(rows)


async def add_faults(connection: Connection, faults: Sequence[ArrivedFault]) -> int:
    """Keep what adapters and concentrators rejected; return how many are new."""
    by_digest = sorted({digest(each.topic, each.payload): each for each in faults}.items())
    rows = await connection.fetch(
        _FAULT,
        [key for key, _ in by_digest],
        [each.concentrator_id for _, each in by_digest],
        [each.meter_id for _, each in by_digest],
        [each.fault.time for _, each in by_digest],
        [storable_reason(each.fault.reason) for _, each in by_digest],
        [storable_reason(each.fault.message) for _, each in by_digest],
        [each.fault.data[:FAULT_DATA_LIMIT_BYTES] for _, each in by_digest],
    )
    return len(rows)


class Trimmer:
    """Keeps quarantine, conflicts and faults within their bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._rows: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._due = {"quarantine", "conflict", "fault"}

    def note(self, table: str, added: Sequence[ArrivedReading | ArrivedFault | Rejected]) -> None:
        """Tell that at most ``added`` was added to ``table``."""
        self._rows[table] += len(added)
        self._bytes[table] += sum(len(each.payload[:PAYLOAD_LIMIT_BYTES]) for each in added)
        bounds = self._bounds
        if self._rows[table] * _TRIM_STEPS >= bounds.rows or self._bytes[table] * _TRIM_STEPS >= bounds.bytes:
            self._due.add(table)

    async def trim(self, database: Database) -> int:
        """Remove the oldest rows beyond the bounds of the tables that are due; return how many.

        One worker at a time does so; the others leave it to that one.

        Raises:
            TransientError: the database is away; the tables stay due.
        """
        removed = 0
        for table in sorted(self._due):
            async with database.transaction() as connection:
                if await connection.fetchval("select pg_try_advisory_xact_lock($1)", _TRIM_LOCK):
                    removed += await self._trim(connection, table)
            self._rows[table] = self._bytes[table] = 0
            self._due.discard(table)
        return removed

    async def _trim(self, connection: Connection, table: str) -> int:
        column, sender = ("data", "concentrator_id") if table == "fault" else ("payload", "split_part(topic, '/', 2)")
        return int(
            await connection.fetchval(
                f"""
                with placed as (
                    select {table}_key as key, octet_length({column}) as byte_count,
                           row_number() over (partition by {sender} order by {table}_key desc) as place
                    from {table}
                ), ranked as (
                    select key, row_number() over fair as row_count, sum(byte_count) over fair as byte_count
                    from placed window fair as (order by place, key desc)
                ), gone as (
                    delete from {table} using ranked
                    where {table}_key = key and (row_count > $1 or byte_count > $2) returning 1
                ) select count(*) from gone
                """,  # noqa: S608 - the names are ours
                self._bounds.rows,
                self._bounds.bytes,
            )
        )


def storable_reason(text: str) -> str:
    """Return a reason or message as it can be stored."""
    return storable(text[:MESSAGE_LIMIT_CHARACTERS])
