"""Names and their keys: meters and property sets, looked up once and remembered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meterway.cloud.store.database import Database
from meterway.core.columns import PropertySet
from meterway.core.errors import BadDataError

REMEMBERED_LIMIT = 200_000
"""So many meters and so many property sets are remembered; at the bound all are forgotten and asked for again."""

LIMIT_UNCLAIMED_METERS = 100_000
"""So many meters of each tenant register by themselves; readings of others go to quarantine (``too-many-meters``)."""

_REGISTER = """
insert into meter (meter_id, concentrator_id, tenant_key)
select meter_id, concentrator_id, tenant_key from (
    select meter_id, concentrator_id, coalesce(c.tenant_key, 1) as tenant_key,
           row_number() over (partition by coalesce(c.tenant_key, 1) order by meter_id) as place
    from unnest($1::text[], $2::text[]) as v (meter_id, concentrator_id)
    left join concentrator c using (concentrator_id)
) new left join (
    select tenant_key, count(*) as unclaimed from meter where not claimed group by tenant_key
) there using (tenant_key)
where place <= $3 - coalesce(unclaimed, 0)
order by meter_id
on conflict do nothing
"""

_ADD_SETS = """
insert into property_set (property_ids, units) select $1, $2
where not exists (select from property_set where property_ids = $1 and units = $2)
on conflict do nothing
"""


@dataclass(frozen=True, slots=True)
class Meters:
    """The keys of the meters of one batch; those that are not in it are refused."""

    keys: Mapping[str, int]
    strict: bool
    limit_unclaimed: int

    def refusal(self, meter_id: str) -> BadDataError:
        """Return why a meter that has no key has none."""
        if self.strict:
            return BadDataError(
                f"meter {meter_id} is not claimed and [ingest] strict is on: claim it, then replay",
                reason="unclaimed-meter",
            )
        return BadDataError(
            f"meter {meter_id} is unknown and there are {self.limit_unclaimed} unclaimed meters already: "
            "claim or delete some, or raise [ingest] limit_unclaimed_meters, then replay",
            reason="too-many-meters",
        )


class Names:
    """Keys of meters and property sets. What is not remembered is looked up, and registered if it is new."""

    def __init__(self, database: Database, *, strict: bool, limit_unclaimed: int) -> None:
        """``strict`` accepts claimed meters only; else new ones are registered, up to ``limit_unclaimed``."""
        self._database = database
        self._strict = strict
        self._limit_unclaimed = limit_unclaimed
        self._meters: dict[str, int] = {}
        self._sets: dict[PropertySet, int] = {}

    def forget(self) -> None:
        """Look everything up again: something that was remembered is gone."""
        self._meters.clear()
        self._sets.clear()

    async def meters(self, wanted: Mapping[str, str]) -> Meters:
        """Return the keys of ``wanted`` (meter id to the concentrator that it was heard through).

        Raises:
            TransientError: the database is away.
        """
        known = self._meters
        missing = sorted(wanted.keys() - known.keys())
        if missing:
            if len(known) + len(missing) > REMEMBERED_LIMIT:
                known.clear()
                missing = sorted(wanted)
            await self._look_up(missing)
            still = [meter_id for meter_id in missing if meter_id not in known]
            if still and not self._strict:
                through = [wanted[meter_id] for meter_id in still]
                await self._database.fetch(_REGISTER, still, through, self._limit_unclaimed)
                await self._look_up(still)
        keys = {meter_id: known[meter_id] for meter_id in wanted if meter_id in known}
        return Meters(keys, self._strict, self._limit_unclaimed)

    async def property_sets(self, wanted: Iterable[PropertySet]) -> Mapping[PropertySet, int]:
        """Return a mapping that has the keys of at least ``wanted``.

        Raises:
            TransientError: the database is away.
            BadDataError: the database refuses an id or a unit.
        """
        missing = [each for each in wanted if each not in self._sets]
        if missing and len(self._sets) > REMEMBERED_LIMIT:
            self._sets.clear()
        for each in missing:
            ids, units = list(each.property_ids), list(each.units)
            await self._database.fetch(_ADD_SETS, ids, units)
            rows = await self._database.fetch(
                "select property_set_key from property_set where property_ids = $1 and units = $2", ids, units
            )
            self._sets[each] = rows[0]["property_set_key"]
        return self._sets

    async def _look_up(self, meter_ids: list[str]) -> None:
        rows = await self._database.fetch(
            "select meter_id, meter_key from meter where meter_id = any($1) and (claimed or not $2)",
            meter_ids,
            self._strict,
        )
        self._meters.update((row["meter_id"], row["meter_key"]) for row in rows)
