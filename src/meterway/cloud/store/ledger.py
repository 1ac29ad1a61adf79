"""The delivery ledger: what is stored, by meter and day, as stretches without a pause or a skipped number.

Ingest leaves one row a batch in ``arrival`` (``writer``). From there it is entered into ``meter_day``, many batches at
once, so that a meter that speaks every second costs one update for many readings.
"""

from datetime import date

from meterway.cloud.store.database import Connection, Database

LIMIT_STRETCHES = 500
"""The most stretches of a meter and day. With more, pauses below three minutes and skipped numbers of that day are not
kept (``is_coarse``); how many readings are stored is."""

PAUSE_INTERVALS = 1.5
"""Readings that are further apart than so many intervals have a pause between them."""

_READINGS = 40_000
"""About so many readings are entered in one transaction."""

_BATCHES = 2000
"""So many batches at most."""

_BACKLOG_DAYS = 20
"""So many meters' days of before the ledger are entered in one transaction."""

_COARSE_PAUSE_S = 86_400 / LIMIT_STRETCHES
"""Pauses of this length, of which a day cannot have more than ``LIMIT_STRETCHES``; also where no interval is known."""

_LOCK = 0x6D657465_6C656467
"""The advisory lock ("meteledg") of the worker that enters."""

_FROM_ARRIVALS = f"""
taken as (
    delete from arrival where arrival_key = any(array(
        select arrival_key from (
            select arrival_key, sum(reading_count) over (order by arrival_key) - reading_count as readings_before
            from (select arrival_key, reading_count from arrival order by arrival_key limit {_BATCHES}) oldest
        ) counted where readings_before < {_READINGS}
    )) returning *
), came as (
    select distinct meter_key, (reading_time at time zone 'UTC')::date as day, reading_time, sequence_number
    from taken, unnest(meter_keys, reading_times, sequence_numbers) as v (meter_key, reading_time, sequence_number)
), added as (
    select meter_key, day, count as stored
    from taken, unnest(new_meter_keys, new_days, new_counts) as v (meter_key, day, count)
)
"""  # noqa: S608 - the parts are ours

_FROM_BACKLOG = f"""
taken as (
    delete from ledger_backlog where (meter_key, day) in (
        select meter_key, day from ledger_backlog order by day desc, meter_key limit {_BACKLOG_DAYS}
    ) returning *
), came as (
    select distinct meter_key, day, reading_time, sequence_number
    from taken join reading using (meter_key)
    where reading_time >= day::timestamp at time zone 'UTC' and reading_time < (day + 1)::timestamp at time zone 'UTC'
    and stored_time < (select applied_time from schema_version where version = 2)
), added as (
    select meter_key, day, 1 as stored from came
)
"""  # noqa: S608 - the parts are ours

_FROM_STORED = """
taken as (
    select * from unnest($1::integer[], $2::date[]) as v (meter_key, day)
), came as (
    select distinct meter_key, day, reading_time, sequence_number
    from taken join reading using (meter_key)
    where reading_time >= day::timestamp at time zone 'UTC' and reading_time < (day + 1)::timestamp at time zone 'UTC'
), added as (
    select meter_key, day, 1 as stored from came
)
"""

_ENTER = f"""
, known as (
    select t.meter_key, t.day, coalesce(d.stored, 0) + t.stored as stored, coalesce(d.is_coarse, false) as is_coarse,
           coalesce((m.description->>'intervalS')::double precision, d.interval_s) as interval_s,
           d.start_times, d.end_times, d.first_numbers, d.last_numbers
    from (
        select meter_key, day, sum(stored)::bigint as stored
        from (select meter_key, day, 0 as stored from came union all select * from added) v group by meter_key, day
    ) t
    join meter m using (meter_key) left join meter_day d using (meter_key, day)
), stretch as (
    select meter_key, day, start_time, end_time, first_number, last_number
    from known, unnest(start_times, end_times, first_numbers, last_numbers)
         as v (start_time, end_time, first_number, last_number)
), piece as (
    select * from stretch
    union all
    select meter_key, day, reading_time, reading_time, sequence_number, sequence_number from came c
    where not exists (
        select from stretch s where s.meter_key = c.meter_key and s.day = c.day
        and c.reading_time between s.start_time and s.end_time
        and coalesce(c.sequence_number between s.first_number and s.last_number, true)
    )
), compared as (
    select piece.*, is_coarse, extract(epoch from start_time - max(end_time) over before) as pause_s,
           coalesce({PAUSE_INTERVALS} * case when interval_s > 0 then interval_s end, {_COARSE_PAUSE_S}) as limit_s,
           coalesce(first_number - lag(last_number) over by_time, 1) <> 1 as is_skipped
    from piece join known using (meter_key, day)
    window by_time as (partition by meter_key, day order by start_time, first_number),
           before as (by_time rows between unbounded preceding and 1 preceding)
), numbered as (
    select *, count(*) filter (where pause_s > limit_s or is_skipped) over by_time as fine,
           count(*) filter (where pause_s > {_COARSE_PAUSE_S}) over by_time as coarse
    from compared window by_time as (partition by meter_key, day order by start_time, first_number
                                     rows between unbounded preceding and current row)
), chosen as (
    select *, is_coarse or max(fine) over (partition by meter_key, day) >= {LIMIT_STRETCHES} as now_coarse from numbered
), joined as (
    select meter_key, day, now_coarse, min(start_time) as start_time, max(end_time) as end_time,
           case when not now_coarse then min(first_number) end as first_number,
           case when not now_coarse then max(last_number) end as last_number
    from chosen group by meter_key, day, now_coarse, case when now_coarse then coarse else fine end
), entered as (
    insert into meter_day (meter_key, day, stored, interval_s, is_coarse, start_times, end_times, first_numbers,
                           last_numbers)
    select meter_key, day, k.stored, k.interval_s, bool_or(now_coarse),
           array_agg(j.start_time order by j.start_time, j.first_number),
           array_agg(j.end_time order by j.start_time, j.first_number),
           array_agg(j.first_number order by j.start_time, j.first_number),
           array_agg(j.last_number order by j.start_time, j.first_number)
    from joined j join known k using (meter_key, day)
    group by meter_key, day, k.stored, k.interval_s
    on conflict (meter_key, day) do update
    set stored = excluded.stored, interval_s = excluded.interval_s, is_coarse = excluded.is_coarse,
        start_times = excluded.start_times, end_times = excluded.end_times,
        first_numbers = excluded.first_numbers, last_numbers = excluded.last_numbers
)
select (select count(*) from taken), (select count(*) from came)
"""  # noqa: S608 - the parts are ours


async def enter_arrivals(database: Database) -> None:
    """Enter all that ingest has stored until now.

    Raises:
        TransientError: the database is away; nothing is entered twice.
    """
    while True:
        batches, readings = await _enter(database, _FROM_ARRIVALS)
        if batches < _BATCHES and readings < _READINGS // 2:  # what was left meanwhile is for the next call
            return


async def enter_backlog(database: Database) -> bool:
    """Enter some of what was stored before there was a ledger; tell whether there was any."""
    days, _ = await _enter(database, _FROM_BACKLOG)
    return days > 0


async def forget_before(database: Database, day: date) -> None:
    """Remove what the ledger says of the days before ``day``, and the changes of state of then.

    The last change of each subject stays: it may hold still.
    """
    async with database.transaction() as connection:
        await lock(connection)
        await connection.execute("delete from meter_day where day < $1", day)
        await connection.execute(
            "delete from state_change c where change_time < $1::date::timestamp at time zone 'UTC' and exists "
            "(select from state_change n where n.subject = c.subject and n.change_time > c.change_time)",
            day,
        )


async def enter_anew(connection: Connection, meter_key: int, first: date, last: date) -> int:
    """Have the ledger say of a meter's days what is stored now; return how many days it had.

    The caller holds the lock of the ledger (``lock``) and of the meter.
    """
    while await connection.fetchval("select exists (select from arrival where $1 = any(meter_keys))", meter_key):
        await connection.execute(f"with {_FROM_ARRIVALS} {_ENTER}")
    gone = await connection.fetch(
        "delete from meter_day where meter_key = $1 and day between $2 and $3 returning day", meter_key, first, last
    )
    days = [row["day"] for row in gone]
    await connection.execute(
        "delete from ledger_backlog where meter_key = $1 and day between $2 and $3", meter_key, first, last
    )
    await connection.execute(f"with {_FROM_STORED} {_ENTER}", [meter_key] * len(days), days)
    return len(days)


async def _enter(database: Database, source: str) -> tuple[int, int]:
    """Enter from ``source``; return how many of its rows were taken, and how many readings were in them."""
    async with database.transaction() as connection:
        await lock(connection)
        await connection.execute("set local work_mem = '64MB'")  # else the sorts go to the disk, four times slower
        row = await connection.fetchrow(f"with {source} {_ENTER}")
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return row[0], row[1]


async def lock(connection: Connection) -> None:
    """Wait until nobody else changes the ledger; held until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
