"""Deleting readings, and all that shows their values: the meter's newest reading, and conflicts about them.

The delivery ledger stays as it is: it tells what was delivered, and a deleted reading was. (So it is no gap. One that
is sent again afterwards, which happens within seconds if at all, is stored again.)
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from meterway.cloud.store.database import Connection, Database, Row

_EVER = (datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION_WITH_TIME = 7
_SLACK = timedelta(milliseconds=2)

_FIND = """
select m.meter_key, m.meter_id, r.reading_time, r.reading_identifier
from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as w (identifier, from_time, until_time)
cross join (select meter_key, meter_id from meter
            where ($4::text is null or meter_id = $4) and ($5::integer is null or tenant_key = $5)) m
join reading r on r.meter_key = m.meter_key and r.reading_identifier = w.identifier
                  and r.reading_time >= w.from_time and r.reading_time < w.until_time
"""

_LOCK = "select 1 from meter where meter_key = any($1::integer[]) order by meter_key for no key update"

_DELETE = """
with gone as (
    delete from reading r using unnest($1::integer[], $2::timestamptz[], $3::uuid[]) as v (key, at, identifier)
    where r.meter_key = v.key and r.reading_time = v.at and r.reading_identifier = v.identifier
    returning r.meter_key, r.reading_time, r.reading_identifier
), aside as (
    delete from conflict c using gone join meter m using (meter_key)
    where c.meter_id = m.meter_id and c.reading_identifier = gone.reading_identifier
)
select m.meter_id, gone.reading_time, gone.reading_identifier from gone join meter m using (meter_key)
order by 1, 2, 3
"""

_NEWEST = """
update meter m set last_reading_time = n.reading_time, last_reading_identifier = n.reading_identifier,
    last_sequence_number = n.sequence_number, last_fault_code = n.fault_code,
    last_property_set_key = n.property_set_key, last_numerical_values = n.numerical_values,
    last_text_values = n.text_values, last_dates = n.dates
from unnest($1::integer[]) as k (meter_key) left join lateral (
    select * from reading r where r.meter_key = k.meter_key
    order by r.reading_time desc, r.reading_identifier desc limit 1
) n on true
where m.meter_key = k.meter_key
"""


async def delete_readings(
    database: Database, identifiers: Sequence[UUID], *, meter_id: str | None, tenant_key: int | None
) -> list[Row]:
    """Delete readings by their identifiers; return ``meter_id``, ``reading_time``, ``reading_identifier`` of each.

    Only of ``meter_id`` and of the tenant, if given. An identifier that tells its time is found at once; any other
    only by looking through all readings of the meter, or of all meters.

    Raises:
        TransientError: the database is away; all are deleted, or none.
    """
    spans = [_span(identifier) for identifier in identifiers]
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    async with database.transaction() as connection:
        found = await connection.fetch(_FIND, list(identifiers), starts, ends, meter_id, tenant_key)
        if not found:
            return []
        keys = sorted({row["meter_key"] for row in found})
        await connection.execute(_LOCK, keys)
        gone = await connection.fetch(
            _DELETE,
            [row["meter_key"] for row in found],
            [row["reading_time"] for row in found],
            [row["reading_identifier"] for row in found],
        )
        await renew_newest(connection, keys)
        await connection.execute("select pg_notify('reading_stored', $1)", ",".join(map(str, keys)))
    return gone


async def renew_newest(connection: Connection, meter_keys: Sequence[int]) -> None:
    """Have meters, which the caller has locked, know their newest reading of those that are left."""
    await connection.execute(_NEWEST, list(meter_keys))


def _span(identifier: UUID) -> tuple[datetime, datetime]:
    """Return when the reading may have been: UUIDs of version 7 begin with its time in milliseconds."""
    if identifier.version != _VERSION_WITH_TIME:
        return _EVER
    try:
        at = _EPOCH + timedelta(milliseconds=identifier.int >> 80)
        return at - _SLACK, at + _SLACK
    except OverflowError:
        return _EVER
