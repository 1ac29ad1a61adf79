"""Whose concentrators carry whose meters: none carries a meter of another tenant."""

from collections.abc import Sequence

from meterway.cloud.store.database import Database
from meterway.cloud.store.rows import Arrived, ArrivedFault, ArrivedReading, ArrivedReport, Rejected

_FOREIGN = """
select meter_id, v.concentrator_id from unnest($1::text[], $2::text[]) as v (meter_id, concentrator_id)
join meter m using (meter_id) left join concentrator c on c.concentrator_id = v.concentrator_id
where (select count(*) > 1 from tenant) and m.tenant_key <> coalesce(c.tenant_key, 1)
"""
"""With one tenant it looks at nothing. A concentrator that nobody gave to a tenant is the first one's."""


async def refuse_foreign(database: Database, batch: Sequence[Arrived]) -> list[Arrived]:
    """Return a batch in which what came through a concentrator of another tenant than its meter's is rejected.

    Raises:
        TransientError: the database is away.
    """
    pairs = sorted({pair for each in batch if (pair := _carried(each)) is not None})
    if not pairs:
        return list(batch)
    rows = await database.fetch(_FOREIGN, *zip(*pairs, strict=True))
    foreign = {(row["meter_id"], row["concentrator_id"]) for row in rows}
    if not foreign:
        return list(batch)
    return [_foreign(each) if _carried(each) in foreign else each for each in batch]


def _carried(each: Arrived) -> tuple[str, str] | None:
    """Return meter and concentrator of what speaks for a meter."""
    if isinstance(each, ArrivedReading):
        return each.reading.meter_id, each.concentrator_id
    if isinstance(each, ArrivedReport | ArrivedFault) and each.meter_id is not None:
        return each.meter_id, each.concentrator_id
    return None


def _foreign(each: Arrived) -> Rejected:
    meter_id, concentrator_id = _carried(each) or ("", "")
    return Rejected(
        each.topic,
        each.payload,
        "foreign-meter",
        f"meter {meter_id} is of another tenant than concentrator {concentrator_id}: if it is right, give the "
        "concentrator to that tenant (page People), then replay",
    )
