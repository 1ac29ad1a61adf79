"""Changes of state that adapters report of their meters and concentrators of themselves: why readings were missing."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby, zip_longest

from meterway.cloud.store.aside import storable_reason
from meterway.cloud.store.database import Connection
from meterway.cloud.store.rows import ArrivedReport
from meterway.core.errors import BadDataError
from meterway.core.reports import Status, decode
from meterway.core.topics import SpecificTopic

LIMIT_CHANGES_A_DAY = 500
"""The most changes of a meter or concentrator that are kept within 24 hours; further ones are not."""

_CHANGE = """
insert into state_change (subject, change_time, state, since, reason, detail)
select v.subject,
       case when v.since > coalesce(last.change_time, '-infinity') and v.since < $6 then v.since else $6 end,
       v.state, v.since, v.reason, v.detail
from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[])
     as v (subject, state, since, reason, detail)
left join lateral (
    select state, since, change_time from state_change c where c.subject = v.subject
    order by change_time desc, state_change_key desc limit 1
) last on true
where (last.state, last.since) is distinct from (v.state, v.since) and $7 > (
    select count(*) from state_change c where c.subject = v.subject and c.change_time > $6 - interval '1 day'
)
"""
"""A last will says ``since`` its connection began, which is not when it ended: then the time is when it arrived."""


async def store_changes(connection: Connection, reports: Sequence[ArrivedReport], now: datetime) -> None:
    """Note which of ``reports``, in the order of arrival, tell another state than the one before of the same sender."""
    said = sorted(filter(None, map(_said, reports)), key=lambda pair: pair[0])
    changes = [
        _changes([status for _, status in group], subject) for subject, group in groupby(said, lambda pair: pair[0])
    ]
    for together in zip_longest(*changes):  # one of each sender at a time, because each is compared with the one before
        rows = [each for each in together if each is not None]
        await connection.execute(
            _CHANGE,
            [subject for subject, _ in rows],
            [status.state for _, status in rows],
            [status.since for _, status in rows],
            [_text(status.reason) for _, status in rows],
            [_text(status.detail) for _, status in rows],
            now,
            LIMIT_CHANGES_A_DAY,
        )


def _changes(statuses: Sequence[Status], subject: str) -> list[tuple[str, Status]]:
    """Return the first of each stretch in which the same is said."""
    return [(subject, next(same)) for _, same in groupby(statuses, lambda status: (status.state, status.since))]


def _said(report: ArrivedReport) -> tuple[str, Status] | None:
    """Return who says what, if it is a status."""
    if report.specific_topic is not SpecificTopic.STATUS:
        return None
    try:
        return report.meter_id or f"concentrator/{report.concentrator_id}", decode(report.payload, Status)
    except BadDataError:  # an empty one clears the status; others are refused before they come here
        return None


def _text(text: str | None) -> str | None:
    return None if text is None else storable_reason(text)
