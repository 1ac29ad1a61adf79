"""What was erased does not come back: what lies in an erased time is not stored, whoever sends it again."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from meterway.cloud.store.database import Connection, Database
from meterway.cloud.store.rows import Arrived, ArrivedFault, ArrivedReading

_VERSION = "select coalesce(max(erased_span_key), 0) from erased_span"

_SPANS = """
select meter_id, from_time, until_time from unnest($1::text[]) as v (meter_id)
join erased_span on meter_digest = sha256(convert_to(meter_id, 'UTF8'))
"""


class Admitted(NamedTuple):
    """A batch without what was erased."""

    batch: list[Arrived]
    erased: int
    """How many messages were left out."""
    version: int
    """Of the erasures that were looked at; a later one has a higher number."""


async def leave_out_erased(database: Database, batch: Sequence[Arrived]) -> Admitted:
    """Return a batch without what lies in an erased time of its meter.

    Raises:
        TransientError: the database is away.
    """
    (row,) = await database.fetch(_VERSION)
    version: int = row[0]
    meter_ids = sorted({dated[0] for each in batch if (dated := _dated(each)) is not None}) if version else []
    spans: dict[str, list[tuple[datetime, datetime]]] = {}
    if meter_ids:
        for meter_id, start, end in await database.fetch(_SPANS, meter_ids):
            spans.setdefault(meter_id, []).append((start, end))
    kept = [each for each in batch if not _is_erased(each, spans)] if spans else list(batch)
    return Admitted(kept, len(batch) - len(kept), version)


async def version_of(connection: Connection) -> int:
    """Return the version of the erasures, as ``Admitted.version``."""
    version: int = await connection.fetchval(_VERSION)
    return version


def _dated(each: Arrived) -> tuple[str, datetime] | None:
    """Return of which meter and time a message is; None where it says neither."""
    if isinstance(each, ArrivedReading):
        return each.reading.meter_id, each.reading.reading_time
    if isinstance(each, ArrivedFault) and each.meter_id is not None:
        return each.meter_id, each.fault.time
    return None


def _is_erased(each: Arrived, spans: dict[str, list[tuple[datetime, datetime]]]) -> bool:
    dated = _dated(each)
    return dated is not None and any(start <= dated[1] < end for start, end in spans.get(dated[0], ()))
