"""What adapters and concentrators say about themselves: the newest status and description of each."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from meterway.cloud.store.database import Connection
from meterway.cloud.store.history import store_changes
from meterway.cloud.store.rows import ArrivedFault, ArrivedReading, ArrivedReport
from meterway.core.topics import SpecificTopic

LIMIT_CONCENTRATORS = 100_000
"""So many concentrators are listed; the readings of further ones are stored all the same."""

SEEN_EVERY = timedelta(seconds=10)
"""How exact ``concentrator.last_seen_time`` is: written at most so often."""

_STATUS = """
update meter set status = v.report::jsonb, status_time = $3
from unnest($1::integer[], $2::text[]) as v (meter_key, report) where meter.meter_key = v.meter_key
"""

_DESCRIPTION = """
update meter set description = v.report::jsonb
from unnest($1::integer[], $2::text[]) as v (meter_key, report) where meter.meter_key = v.meter_key
"""

_CHANGED = "select pg_notify('reading_stored', $1)"
_LIMIT_NOTIFIED = 500
"""So many meters are named in a notification; more are said with ``*``."""

_CONCENTRATOR_STATUS = """
insert into concentrator (concentrator_id, last_seen_time, status, status_time)
select concentrator_id, $3, report::jsonb, $3 from unnest($1::text[], $2::text[]) as v (concentrator_id, report)
where (select count(*) from concentrator) < $4 or exists
    (select from concentrator c where c.concentrator_id = v.concentrator_id)
on conflict (concentrator_id) do update
set last_seen_time = excluded.last_seen_time, status = excluded.status, status_time = excluded.status_time
"""

_SEEN = """
insert into concentrator (concentrator_id, last_seen_time)
select concentrator_id, $2 from unnest($1::text[]) as v (concentrator_id)
where (select count(*) from concentrator) < $3 or exists
    (select from concentrator c where c.concentrator_id = v.concentrator_id)
on conflict (concentrator_id) do update set last_seen_time = excluded.last_seen_time
"""


async def store_reports(
    connection: Connection, reports: Sequence[ArrivedReport], meter_keys: Mapping[str, int], now: datetime
) -> None:
    """Store the last report of each sender and kind (an empty payload clears it), and changes of state."""
    statuses, descriptions, concentrators = {}, {}, {}
    for report in reports:
        text = report.payload.decode() or None
        if report.meter_id is None:
            concentrators[report.concentrator_id] = text
        elif report.specific_topic is SpecificTopic.STATUS:
            statuses[meter_keys[report.meter_id]] = text
        else:
            descriptions[meter_keys[report.meter_id]] = text
    if statuses:
        await connection.execute(_STATUS, list(statuses), list(statuses.values()), now)
    if descriptions:
        await connection.execute(_DESCRIPTION, list(descriptions), list(descriptions.values()))
    await store_changes(connection, reports, now)
    changed = sorted({*statuses, *descriptions})
    if changed:
        names = ",".join(map(str, changed)) if len(changed) <= _LIMIT_NOTIFIED else "*"
        await connection.execute(_CHANGED, names)
    if concentrators:
        ids = sorted(concentrators)
        await connection.execute(
            _CONCENTRATOR_STATUS, ids, [concentrators[each] for each in ids], now, LIMIT_CONCENTRATORS
        )


class Presence:
    """Notes when each concentrator was last heard."""

    def __init__(self) -> None:
        self._noted: dict[str, datetime] = {}

    async def note(
        self, connection: Connection, arrived: Sequence[ArrivedReading | ArrivedReport | ArrivedFault], now: datetime
    ) -> None:
        """Note that the senders of ``arrived`` were heard at ``now``."""
        if len(self._noted) > LIMIT_CONCENTRATORS:
            self._noted.clear()
        oldest = now - SEEN_EVERY
        due = sorted(
            {each.concentrator_id for each in arrived if self._noted.get(each.concentrator_id, oldest) <= oldest}
        )
        if due:
            await connection.execute(_SEEN, due, now, LIMIT_CONCENTRATORS)
            self._noted.update(dict.fromkeys(due, now))
