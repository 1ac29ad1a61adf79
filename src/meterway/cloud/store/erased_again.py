"""What a restored database has to erase again, because the one that it replaces had erased it since the backup."""

from collections.abc import Sequence

from meterway.cloud.store.database import Database, Row

_FACTS = ("tenant_key", "subject_kind", "subject_digest", "reason", "by_account", "requested_time")

_REMEMBERED = """
select e.*, array_agg(meter_digest) filter (where meter_digest is not null) as digests,
       array_agg(from_time) filter (where meter_digest is not null) as starts,
       array_agg(until_time) filter (where meter_digest is not null) as ends,
       array_agg(is_forgotten) filter (where meter_digest is not null) as forgotten
from erasure e left join erased_span using (erasure_key) group by e.erasure_key order by e.erasure_key
"""

_AGAIN = """
insert into erasure (tenant_key, subject_kind, subject_digest, reason, by_account, requested_time)
select $1::integer, $2::text, $3::bytea, $4::text, $5::integer, $6::timestamptz
where not exists (select from erasure where subject_digest = $3 and requested_time = $6)
returning erasure_key
"""

_AGAIN_SPANS = """
insert into erased_span (erasure_key, meter_digest, from_time, until_time, is_forgotten)
select $1, * from unnest($2::bytea[], $3::timestamptz[], $4::timestamptz[], $5::boolean[])
"""


async def remembered(database: Database) -> list[Row]:
    """Return what was erased, or is to be, so that it can be erased again in a database that is restored.

    Raises:
        TransientError: the database is away.
    """
    (row,) = await database.fetch("select to_regclass('erased_span') is not null as has_any")
    return await database.fetch(_REMEMBERED) if row["has_any"] else []


async def erase_again(database: Database, remembered_rows: Sequence[Row]) -> int:
    """Begin erasures that this database does not know; return how many. ``work`` does them.

    Raises:
        TransientError: the database is away; none is begun.
    """
    begun = 0
    async with database.transaction() as connection:
        for row in remembered_rows:
            key = await connection.fetchval(_AGAIN, *(row[name] for name in _FACTS))
            if key is not None:
                begun += 1
                spans = [row[name] for name in ("digests", "starts", "ends", "forgotten")]
                await connection.execute(_AGAIN_SPANS, key, *spans)
    return begun
