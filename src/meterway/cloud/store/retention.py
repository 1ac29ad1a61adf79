"""Removing what is older than is kept: whole readings, or one property of them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from meterway.cloud.store.database import Connection, Database
from meterway.cloud.store.erasure import EVER, SLICE
from meterway.cloud.store.migrate import Month
from meterway.cloud.store.removal import renew_newest

ALL = "*"
"""Stands for whole readings where a property is named."""

_LOCK = 0x6D657465_72657465
"""The advisory lock ("metereten") of the worker that removes."""

_PARTITIONS = """
select c.relname as name from pg_inherits join pg_class c on c.oid = inhrelid
where inhparent = 'reading'::regclass order by 1
"""

_OLD_METERS = """
select meter_key, meter_id from meter m where tenant_key = $1 and exists (
    select from reading r where r.meter_key = m.meter_key and reading_time < $2)
order by meter_key
"""

_WITHOUT = """
with old as (
    select property_set_key, property_ids, units, array(
        select i from generate_subscripts(property_ids, 1) i where property_ids[i] <> $1 order by i) as kept
    from property_set where $1 = any(property_ids)
), wanted as (
    select property_set_key as old_key, kept, array(select property_ids[i] from unnest(kept) i) as ids,
           array(select units[i] from unnest(kept) i) as units
    from old
), made as (
    insert into property_set (property_ids, units)
    select distinct ids, units from wanted w where cardinality(ids) > 0 and not exists (
        select from property_set s where s.property_ids = w.ids and s.units = w.units)
    returning property_set_key, property_ids, units
)
select old_key, kept, (
    select property_set_key from (select * from made union all
                                  select property_set_key, property_ids, units from property_set) s
    where s.property_ids = w.ids and s.units = w.units limit 1) as new_key
from wanted w
"""
"""The sets that have a property: which positions are left, and the set that has only those (null: nothing is left)."""

_TAKE_OUT = """
update reading r set property_set_key = v.new_key,
    numerical_values = array(select numerical_values[i] from unnest(v.kept) i),
    text_values = case when text_values is not null then array(select text_values[i] from unnest(v.kept) i) end,
    dates = case when dates is not null then array(select dates[i] from unnest(v.kept) i) end,
    signature_verified = null, signed_payload = null
from (select $4::integer as old_key, $5::integer as new_key, $6::integer[] as kept) v
where meter_key = $1 and reading_time >= $2 and reading_time < $3 and property_set_key = v.old_key
"""

_ASIDE = {
    "conflict": "meter_id = any($1) and reading_time < $2",
    "fault": "meter_id = any($1) and fault_time < $2",
    "quarantine": "split_part(topic, '/', 4) = any($1) and received_time < $2",
}


async def retain(database: Database, *, now: datetime) -> Counter[str]:
    """Remove what is older than the rules say; return how many rows of which table changed or went.

    One worker at a time does so; for others there is nothing to do.

    Raises:
        TransientError: the database is away; what is done is done, the rest is for the next time.
    """
    done: Counter[str] = Counter()
    async with database.connection() as guard:
        if not await guard.fetchval("select pg_try_advisory_lock($1)", _LOCK):
            return done
        try:
            rules = await guard.fetch("select tenant_key, property_id, keep_days from retention order by 1, 2")
            done += await _drop_partitions(guard, now)
            for tenant_key, property_id, keep_days in rules:
                before = now - timedelta(days=keep_days)
                if property_id == ALL:
                    done += await _remove_readings(database, tenant_key, before)
                else:
                    done += await _remove_property(database, tenant_key, property_id, before)
        finally:
            await guard.execute("select pg_advisory_unlock($1)", _LOCK)
    return done


async def _drop_partitions(connection: Connection, now: datetime) -> Counter[str]:
    """Drop the months of which no tenant keeps anything: faster than deleting, and the space is free at once."""
    longest = await connection.fetchval(
        "select max(keep_days) from retention where property_id = $1 having count(*) = (select count(*) from tenant)",
        ALL,
    )
    if longest is None:
        return Counter()
    kept = Month.of(now - timedelta(days=longest)).partition
    old = [row["name"] for row in await connection.fetch(_PARTITIONS) if row["name"] < kept]
    for name in old:
        await connection.execute(f"drop table {name}")
    return Counter(partition=len(old))


async def _remove_readings(database: Database, tenant_key: int, before: datetime) -> Counter[str]:
    done: Counter[str] = Counter()
    for meter_key, _ in await database.fetch(_OLD_METERS, tenant_key, before):
        start = EVER
        while (first := await _first_after(database, meter_key, start, before)) is not None:
            start = min(first + SLICE, before)
            done["reading"] += await _change(
                database,
                meter_key,
                "delete from reading where meter_key = $1 and reading_time >= $2 and reading_time < $3",
                first,
                start,
            )
    return done + await _remove_aside(database, tenant_key, before)


async def _remove_property(database: Database, tenant_key: int, property_id: str, before: datetime) -> Counter[str]:
    """Take one property out of the readings before ``before``; a reading that has nothing else goes."""
    sets = await database.fetch(_WITHOUT, property_id)
    if not sets:
        return Counter()
    done: Counter[str] = Counter()
    old_keys = [row["old_key"] for row in sets]
    for meter_key, _ in await database.fetch(_OLD_METERS, tenant_key, before):
        start = EVER
        while (first := await _first_after(database, meter_key, start, before, old_keys)) is not None:
            start = min(first + SLICE, before)
            for old_key, kept, new_key in sets:
                if new_key is None:
                    done["reading"] += await _change(
                        database,
                        meter_key,
                        "delete from reading where meter_key = $1 and reading_time >= $2 and reading_time < $3 "
                        "and property_set_key = $4",
                        first,
                        start,
                        old_key,
                    )
                else:
                    done["value"] += await _change(database, meter_key, _TAKE_OUT, first, start, old_key, new_key, kept)
    return done + await _remove_aside(database, tenant_key, before, only=("conflict",))


async def _first_after(
    database: Database, meter_key: int, start: datetime, before: datetime, sets: Sequence[int] = ()
) -> datetime | None:
    (row,) = await database.fetch(
        "select min(reading_time) from reading where meter_key = $1 and reading_time >= $2 and reading_time < $3 "
        "and (cardinality($4::integer[]) = 0 or property_set_key = any($4))",
        meter_key,
        start,
        before,
        list(sets),
    )
    first: datetime | None = row[0]
    return first


async def _change(database: Database, meter_key: int, sql: str, *args: object) -> int:
    async with database.transaction() as connection:
        await connection.execute("select from meter where meter_key = $1 for no key update", meter_key)
        changed = int((await connection.execute(sql, meter_key, *args)).rpartition(" ")[2])
        if changed:
            await renew_newest(connection, [meter_key])
    return changed


async def _remove_aside(
    database: Database, tenant_key: int, before: datetime, only: Sequence[str] = tuple(_ASIDE)
) -> Counter[str]:
    """Remove what was kept aside of a tenant's meters; a payload holds all properties."""
    done: Counter[str] = Counter()
    rows = await database.fetch("select meter_id from meter where tenant_key = $1", tenant_key)
    for table in only:
        async with database.transaction() as connection:
            gone = await connection.execute(
                f"delete from {table} where {_ASIDE[table]}",  # noqa: S608 - ours
                [row["meter_id"] for row in rows],
                before,
            )
        done[table] += int(gone.rpartition(" ")[2])
    return done
