"""The write path: a batch of decided messages becomes rows, all of it in one transaction or none.

Locks are taken in the same order by every worker (meters by key, then readings by primary key), so that workers that
receive the same readings wait for each other and never deadlock.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
from msgspec.structs import replace

from meterway.cloud.store import aside, signatures
from meterway.cloud.store.database import Connection, Database, Row
from meterway.cloud.store.erased import leave_out_erased, version_of
from meterway.cloud.store.migrate import MONTHS_AHEAD, Month, add_partitions
from meterway.cloud.store.names import Meters, Names
from meterway.cloud.store.reports import Presence, store_reports
from meterway.cloud.store.rows import (
    Arrived,
    ArrivedFault,
    ArrivedReading,
    ArrivedReport,
    ReadingRows,
    Rejected,
    reading_rows,
)
from meterway.cloud.store.tenants import refuse_foreign
from meterway.core.columns import PropertySet, ReadingColumns, ValueColumns
from meterway.core.errors import BadDataError, TransientError
from meterway.core.identifiers import columns_digest

_LOCK_METERS = """
select count(*) from (
    select from meter join unnest($1::integer[], $2::text[]) as v (meter_key, meter_id) using (meter_key, meter_id)
    where claimed or not $3 order by meter_key for no key update of meter
) locked
"""

_NOTIFY_LIMIT_BYTES = 8000
"""PostgreSQL refuses a longer notification."""

_ROWS = """
with arrived as materialized (
    select meter_key, reading_time, reading_identifier, property_set_key, numbers::numeric[] as numerical_values,
           concentrator_id, sequence_number, fault_code, texts::text[] as text_values, times::timestamptz[] as dates,
           signature_verified, signed_payload, number
    from unnest($1::text::integer[], $2::text::timestamptz[], $3::text::uuid[], $4::text::integer[], $5::text::text[],
                $6::text::text[], $7::text::bigint[], $8::text::text[], $9::text::text[], $10::text::text[],
                $11::text::boolean[], $12::text::bytea[])
         with ordinality as v (meter_key, reading_time, reading_identifier, property_set_key, numbers,
                               concentrator_id, sequence_number, fault_code, texts, times,
                               signature_verified, signed_payload, number)
    order by meter_key, reading_time, reading_identifier, number
)
"""

_STORE = f"""
{_ROWS}, stored as (
    insert into reading (meter_key, reading_time, reading_identifier, sequence_number, fault_code, property_set_key,
                         numerical_values, text_values, dates, signature_verified, signed_payload)
    select meter_key, reading_time, reading_identifier, sequence_number, fault_code, property_set_key,
           numerical_values, text_values, dates, signature_verified, signed_payload
    from arrived
    on conflict do nothing returning meter_key, reading_time
), newest as (
    update meter m set last_reading_time = v.reading_time, last_reading_identifier = v.reading_identifier,
        last_sequence_number = v.sequence_number, last_fault_code = v.fault_code,
        last_property_set_key = v.property_set_key, last_numerical_values = v.numerical_values,
        last_text_values = v.text_values, last_dates = v.dates, last_stored_time = clock_timestamp(),
        concentrator_id = v.concentrator_id
    from (
        select distinct on (meter_key) * from arrived
        order by meter_key, reading_time desc, reading_identifier desc, number
    ) v
    where m.meter_key = v.meter_key and (m.last_reading_time is null or m.last_reading_time < v.reading_time)
), new as (
    select meter_key, (reading_time at time zone 'UTC')::date as day, count(*) as count from stored group by 1, 2
), noted as (
    insert into arrival (reading_count, meter_keys, reading_times, sequence_numbers, new_meter_keys, new_days,
                         new_counts)
    select count(*), array_agg(meter_key), array_agg(reading_time), array_agg(sequence_number),
           coalesce((select array_agg(meter_key order by meter_key, day) from new), '{{}}'),
           coalesce((select array_agg(day order by meter_key, day) from new), '{{}}'),
           coalesce((select array_agg(count order by meter_key, day) from new), '{{}}')
    from arrived
), told as (
    select string_agg(meter_key::text, ',' order by meter_key) as meter_keys
    from (select distinct meter_key from stored) changed
)
select (select count(*) from stored),
       (select pg_notify('reading_stored', case when length(meter_keys) < {_NOTIFY_LIMIT_BYTES} then meter_keys
                                             else '*' end)
        from told where meter_keys is not null)
"""  # noqa: S608 - the parts are ours
"""Stores what is new, and keeps the newest of each meter beside it (one that was stored before does no harm there: it
is not newer than what the meter knows). Of two with the same key the first is taken. Notes for the ledger what came."""

_DIFFERING = f"""
{_ROWS}
select number, r.fault_code, r.numerical_values, r.text_values, r.dates, property_ids, units
from arrived a join reading r using (meter_key, reading_time, reading_identifier)
join property_set s on s.property_set_key = r.property_set_key
where (a.property_set_key, a.fault_code, a.numerical_values, a.text_values, a.dates)
      is distinct from (r.property_set_key, r.fault_code, r.numerical_values, r.text_values, r.dates)
"""  # noqa: S608 - as above
"""Those that are there with something else; perhaps only with their values in another order. Numbers are compared as
numbers; the sequence number is not content (docs/adr/0003-identifier-from-content.md)."""


@dataclass(slots=True)
class Committed:
    """What became of a batch."""

    stored: int = 0
    """Readings that are new."""
    duplicate: int = 0
    """Readings that were there already with the same content, and conflicts and faults that were known."""
    conflict: int = 0
    """Readings whose identifier is there with other content: kept aside."""
    erased: int = 0
    """Readings and faults of a time that was erased: not stored again."""
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
        self.erased += other.erased
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
        """Commit; once more with nothing remembered if a meter or a partition is gone.

        Nothing is remembered either after the database was away: what comes back may be a restored one.
        """
        try:
            return await self._commit(batch, now)
        except TransientError:
            self._forget()
            raise
        except _StaleNamesError:
            self._forget()
        try:
            return await self._commit(batch, now)
        except _StaleNamesError as error:
            raise TransientError("meters, readings or partitions are being removed while readings arrive") from error

    def _forget(self) -> None:
        self._names.forget()
        self._partitions.clear()

    async def _commit(self, batch: Sequence[Arrived], now: datetime) -> Committed:
        """Commit in one transaction.

        Raises:
            BadDataError: the database refuses something in the batch; nothing is stored.
            _StaleNamesError: something that was remembered is gone; nothing is stored.
        """
        admitted = await leave_out_erased(self._database, batch)
        batch = admitted.batch
        meters = await self._names.meters(dict(filter(None, map(_meter_of, batch))))
        kinds = _by_kind(await refuse_foreign(self._database, batch), meters)
        if kinds.readings:
            judged = await signatures.judge(self._database, kinds.readings)
            kinds.readings[:] = judged.readings
            kinds.rejected.extend(judged.rejected)
        rows = await self._rows(kinds.readings, meters) if kinds.readings else None
        result = Committed(rejected=kinds.rejected, erased=admitted.erased)
        async with self._database.transaction() as connection:
            if meters.keys:
                await _lock_meters(connection, meters)
            if await version_of(connection) != admitted.version:
                raise _StaleNamesError("readings were erased meanwhile")
            if rows is not None:
                await self._store_readings(connection, kinds.readings, rows, result)
            if kinds.reports:
                await store_reports(connection, kinds.reports, meters.keys, now)
                result.reports = len(kinds.reports)
            await self._set_aside(connection, kinds, result)
            await self._presence.note(connection, (*kinds.readings, *kinds.reports, *kinds.faults), now)
        return result

    async def _rows(self, readings: Sequence[ArrivedReading], meters: Meters) -> ReadingRows:
        """Return the rows of readings, and see that there is a place for them."""
        sets = await self._names.property_sets({each.reading.columns.property_set for each in readings})
        times = [each.reading.reading_time for each in readings]
        months = {Month.of(min(times)), Month.of(max(times))}
        await self._ensure_partitions(months if len(months) == 1 else map(Month.of, times))
        return reading_rows(readings, meters.keys, sets)

    async def _ensure_partitions(self, months: Iterable[Month]) -> None:
        missing = set(months) - self._partitions
        if missing:
            await add_partitions(self._database, missing)
            self._partitions |= missing

    async def _store_readings(
        self, connection: Connection, readings: Sequence[ArrivedReading], rows: ReadingRows, result: Committed
    ) -> None:
        result.stored = await _store(connection, rows)
        if result.stored < len(readings):
            conflicts = await _conflicts(connection, readings, rows)
            result.conflict = await aside.add_conflicts(connection, conflicts) if conflicts else 0
            result.duplicate += len(readings) - result.stored - result.conflict
            self._trimmer.note("conflict", conflicts)

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
    """Lock the meters of a batch, and see that each key still is that meter's: a restored database may have others."""
    keys, ids = list(meters.keys.values()), list(meters.keys)
    if await connection.fetchval(_LOCK_METERS, keys, ids, meters.strict) < len(keys):
        raise _StaleNamesError("a meter is gone, has another key, or is no longer claimed")


async def _store(connection: Connection, rows: ReadingRows) -> int:
    """Store readings; return how many are new."""
    try:
        return int(await connection.fetchval(_STORE, *rows))
    except asyncpg.CheckViolationError as error:  # PostgreSQL's word for "no partition of relation found for row"
        raise _StaleNamesError("a partition is gone") from error


async def _conflicts(
    connection: Connection, readings: Sequence[ArrivedReading], rows: ReadingRows
) -> list[ArrivedReading]:
    """Return those of ``readings`` whose identifier is there with other content."""
    found = [(readings[row["number"] - 1], row) for row in await connection.fetch(_DIFFERING, *rows)]
    return [
        arrived
        for arrived, row in found
        if columns_digest(_stored(arrived.reading, row)) != columns_digest(arrived.reading)
    ]


def _stored(reading: ReadingColumns, row: Row) -> ReadingColumns:
    """Return what is stored with the key of ``reading``."""
    numbers = [None if number is None else format(number, "f") for number in row["numerical_values"]]
    columns = ValueColumns(
        PropertySet(tuple(row["property_ids"]), tuple(row["units"])),
        tuple(numbers),
        row["text_values"] and tuple(row["text_values"]),
        row["dates"] and tuple(row["dates"]),
    )
    return replace(reading, columns=columns, fault_code=row["fault_code"])
