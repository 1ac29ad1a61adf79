"""The write path: a batch of decided messages becomes rows, all of it in one transaction or none.

Locks are taken in the same order by every worker (meters by key, then readings by primary key), so that workers that
receive the same readings wait for each other and never deadlock.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter

import asyncpg

from meterway.cloud.store import aside
from meterway.cloud.store.database import Connection, Database
from meterway.cloud.store.migrate import MONTHS_AHEAD, Month, add_partitions
from meterway.cloud.store.names import Meters, Names
from meterway.cloud.store.reports import Presence, store_reports
from meterway.cloud.store.rows import (
    Arrived,
    ArrivedFault,
    ArrivedReading,
    ArrivedReport,
    ReadingRow,
    Rejected,
    newest_by_meter,
    notification,
    property_set,
    reading_row,
)
from meterway.core.errors import BadDataError, TransientError

_by_primary_key = itemgetter(0, 1, 2)

_LOCK_METERS = """
select count(*) from (
    select from meter where meter_key = any($1) and (claimed or not $2) order by meter_key for no key update
) locked
"""

_INSERT = """
insert into reading (meter_key, reading_time, reading_identifier, sequence_number, fault_code, property_set_key,
                     numerical_values, text_values, dates, content_digest)
select a, b, c, d, e, f, g::numeric[], h::text[], i::timestamptz[], j
from unnest($1::integer[], $2::timestamptz[], $3::uuid[], $4::bigint[], $5::text[], $6::integer[],
            $7::text[], $8::text[], $9::text[], $10::bytea[]) as v (a, b, c, d, e, f, g, h, i, j)
on conflict do nothing
"""

_UPDATE_METERS = """
update meter m set last_reading_time = b, last_reading_identifier = c, last_sequence_number = d, last_fault_code = e,
    last_property_set_key = f, last_numerical_values = g::numeric[], last_text_values = h::text[],
    last_dates = i::timestamptz[], last_stored_time = clock_timestamp(), concentrator_id = k
from unnest($1::integer[], $2::timestamptz[], $3::uuid[], $4::bigint[], $5::text[], $6::integer[],
            $7::text[], $8::text[], $9::text[], $10::text[]) as v (a, b, c, d, e, f, g, h, i, k)
where m.meter_key = a and (m.last_reading_time is null or m.last_reading_time < b)
"""

_DIFFERING = """
select v.n from unnest($1::integer[], $2::timestamptz[], $3::uuid[], $4::bytea[]) with ordinality as v (a, b, c, j, n)
join reading r on r.meter_key = a and r.reading_time = b and r.reading_identifier = c and r.content_digest <> j
"""


@dataclass(slots=True)
class Committed:
    """What became of a batch."""

    stored: int = 0
    """Readings that are new."""
    duplicate: int = 0
    """Readings that were there already with the same content, and conflicts and faults that were known."""
    conflict: int = 0
    """Readings whose identifier is there with other content: kept aside."""
    reports: int = 0
    faults: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    """What went to quarantine."""
    removed: int = 0
    """Rows of the quarantine, the conflicts or the faults that went because a bound was reached, oldest first."""

    def add(self, other: "Committed") -> None:
        """Count ``other`` too."""
        self.stored += other.stored
        self.duplicate += other.duplicate
        self.conflict += other.conflict
        self.reports += other.reports
        self.faults += other.faults
        self.rejected += other.rejected
        self.removed += other.removed


class _StaleNamesError(Exception):
    """A meter or a partition that we remembered is gone."""


class Writer:
    """Commits batches. Many workers may commit the same readings at once: each is stored once."""

    def __init__(self, database: Database, *, names: Names, bounds: aside.Bounds) -> None:
        self._database = database
        self._names = names
        self._trimmer = aside.Trimmer(bounds)
        self._presence = Presence()
        self._partitions: set[Month] = set()
        self._month: Month | None = None

    async def commit(self, batch: Sequence[Arrived], *, now: datetime) -> Committed:
        """Store a batch. When it returns, all of it is durable; what the database refuses is in quarantine.

        Raises:
            TransientError: the database is away; some, none or all is stored, and committing it again is harmless.
            SetupError: the database is not ours, or too new or old.
        """
        month = Month.of(now)
        if month != self._month:
            await self._ensure_partitions(month.after(count) for count in range(MONTHS_AHEAD + 1))
            self._month = month
        result = await self._commit_halving(batch, now)
        with suppress(TransientError):  # the batch is safe; the tables stay due
            result.removed = await self._trimmer.trim(self._database)
        return result

    async def _commit_halving(self, batch: Sequence[Arrived], now: datetime) -> Committed:
        """Commit; halve a batch that is refused until the message that is to blame stands alone."""
        try:
            return await self._commit_known(batch, now)
        except BadDataError as error:
            if len(batch) == 1:
                bad = batch[0]
                return await self._commit_known([Rejected(bad.topic, bad.payload, error.reason, str(error))], now)
        middle = len(batch) // 2
        result = await self._commit_halving(batch[:middle], now)
        result.add(await self._commit_halving(batch[middle:], now))
        return result

    async def _commit_known(self, batch: Sequence[Arrived], now: datetime) -> Committed:
        """Commit; once more with nothing remembered if a meter or a partition is gone."""
        try:
            return await self._commit(batch, now)
        except _StaleNamesError:
            self._names.forget()
            self._partitions.clear()
        try:
            return await self._commit(batch, now)
        except _StaleNamesError as error:
            raise TransientError("meters or partitions are being removed while their readings arrive") from error

    async def _commit(self, batch: Sequence[Arrived], now: datetime) -> Committed:
        """Commit in one transaction.

        Raises:
            BadDataError: the database refuses something in the batch; nothing is stored.
            _StaleNamesError: something that was remembered is gone; nothing is stored.
        """
        meters = await self._names.meters(dict(filter(None, map(_meter_of, batch))))
        kinds = _by_kind(batch, meters)
        rows = await self._rows(kinds.readings, meters)
        result = Committed(rejected=kinds.rejected)
        async with self._database.transaction() as connection:
            if meters.keys:
                await _lock_meters(connection, meters)
            if rows:
                await self._store_readings(connection, rows, result)
            if kinds.reports:
                await store_reports(connection, kinds.reports, meters.keys, now)
                result.reports = len(kinds.reports)
            await self._set_aside(connection, kinds, result)
            await self._presence.note(connection, (*kinds.readings, *kinds.reports, *kinds.faults), now)
        return result

    async def _rows(self, readings: Sequence[ArrivedReading], meters: Meters) -> list[ReadingRow]:
        """Return the rows of readings, in the order of their primary keys, and see that there is a place for them."""
        if not readings:
            return []
        shapes = [property_set(each.reading) for each in readings]
        sets = await self._names.property_sets(dict.fromkeys(shapes))
        rows = [
            reading_row(each, meters.keys[each.reading.meter_id], sets[shape])
            for each, shape in zip(readings, shapes, strict=True)
        ]
        times = [row.reading_time for row in rows]
        months = {Month.of(min(times)), Month.of(max(times))}
        await self._ensure_partitions(months if len(months) == 1 else map(Month.of, times))
        rows.sort(key=_by_primary_key)
        return rows

    async def _ensure_partitions(self, months: Iterable[Month]) -> None:
        missing = set(months) - self._partitions
        if missing:
            await add_partitions(self._database, missing)
            self._partitions |= missing

    async def _store_readings(self, connection: Connection, rows: Sequence[ReadingRow], result: Committed) -> None:
        columns = _columns(rows)
        digests: list[object] = [row.content_digest for row in rows]
        result.stored = await _insert(connection, [*columns, digests])
        if result.stored < len(rows):
            found = await connection.fetch(_DIFFERING, *columns[:3], digests)
            conflicts = [rows[row["n"] - 1].arrived for row in found]
            result.conflict = await aside.add_conflicts(connection, conflicts) if conflicts else 0
            result.duplicate += len(rows) - result.stored - result.conflict
            self._trimmer.note("conflict", conflicts)
        if result.stored:
            # Those that were there already do no harm here: none is newer than the newest that the meter knows.
            newest = newest_by_meter(rows)
            through = [row.arrived.concentrator_id for row in newest]
            await connection.execute(_UPDATE_METERS, *_columns(newest), through)
            await connection.execute(
                "select pg_notify('reading_stored', $1)", notification([row.meter_key for row in newest])
            )

    async def _set_aside(self, connection: Connection, kinds: "_Kinds", result: Committed) -> None:
        if kinds.faults:
            result.faults = await aside.add_faults(connection, kinds.faults)
            result.duplicate += len(kinds.faults) - result.faults
            self._trimmer.note("fault", kinds.faults)
        if kinds.rejected:
            await aside.add_rejected(connection, kinds.rejected)
            self._trimmer.note("quarantine", kinds.rejected)


@dataclass(frozen=True, slots=True)
class _Kinds:
    """A batch, sorted by kind; what belongs to a meter that is refused is among the rejected."""

    readings: list[ArrivedReading] = field(default_factory=list)
    reports: list[ArrivedReport] = field(default_factory=list)
    faults: list[ArrivedFault] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def _by_kind(batch: Sequence[Arrived], meters: Meters) -> _Kinds:
    kinds = _Kinds()
    for each in batch:
        pair = _meter_of(each)
        if pair and pair[0] not in meters.keys:
            refusal = meters.refusal(pair[0])
            kinds.rejected.append(Rejected(each.topic, each.payload, refusal.reason, str(refusal)))
        elif isinstance(each, ArrivedReading):
            kinds.readings.append(each)
        elif isinstance(each, ArrivedReport):
            kinds.reports.append(each)
        elif isinstance(each, ArrivedFault):
            kinds.faults.append(each)
        else:
            kinds.rejected.append(each)
    return kinds


def _meter_of(arrived: Arrived) -> tuple[str, str] | None:
    """Return the meter that must be known before ``arrived`` is stored, and the concentrator it was heard through."""
    if isinstance(arrived, ArrivedReading):
        return arrived.reading.meter_id, arrived.concentrator_id
    if isinstance(arrived, ArrivedReport) and arrived.meter_id is not None:
        return arrived.meter_id, arrived.concentrator_id
    return None


async def _lock_meters(connection: Connection, meters: Meters) -> None:
    if await connection.fetchval(_LOCK_METERS, list(meters.keys.values()), meters.strict) < len(meters.keys):
        raise _StaleNamesError("a meter is gone, or no longer claimed")


async def _insert(connection: Connection, columns: Sequence[list[object]]) -> int:
    """Insert readings; return how many are new."""
    try:
        tag = await connection.execute(_INSERT, *columns)
    except asyncpg.CheckViolationError as error:  # PostgreSQL's word for "no partition of relation found for row"
        raise _StaleNamesError("a partition is gone") from error
    return int(tag.rpartition(" ")[2])


def _columns(rows: Sequence[ReadingRow]) -> list[list[object]]:
    """Return the nine columns that ``reading`` and the newest reading of ``meter`` have in common."""
    readings = [row.arrived.reading for row in rows]
    return [
        [row.meter_key for row in rows],
        [row.reading_time for row in rows],
        [reading.identifier for reading in readings],
        [reading.sequence_number for reading in readings],
        [reading.fault_code for reading in readings],
        [row.property_set_key for row in rows],
        [row.numerical_values for row in rows],
        [row.text_values for row in rows],
        [row.dates for row in rows],
    ]
