"""What is asked of the database to tell how complete readings are, and its rows as the deciders take them. Pure."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import TypeVar

import msgspec

from meterway.cloud.causes import Quarantined, StateChange
from meterway.cloud.completeness import MeterDay, Span, Stretch
from meterway.cloud.query import Statement
from meterway.core import reports
from meterway.core.errors import BadDataError

LIMIT_FAULTS = 100_000
"""The most faults that are looked at for one answer; the newest. (So many are kept by default.)"""

_LONGEST_AGE_S = 100 * 365 * 86_400
"""What a stranger says is no number of seconds that a date stands."""

LIMIT_QUARANTINED = 1000
"""The most quarantined readings of one meter that are looked at; the newest."""

_METER = """
select m.meter_key, m.meter_id, m.name, m.description::text as description, c.concentrator_id,
       c.status::text as concentrator_status, c.status_time as concentrator_status_time
  from meter m left join concentrator c using (concentrator_id)
"""


Kind = TypeVar("Kind", bound=msgspec.Struct)


class MeterRow(msgspec.Struct, frozen=True):
    """A row of ``select_meter`` and ``select_meters``."""

    meter_key: int
    meter_id: str
    name: str | None
    description: str | None
    concentrator_id: str | None
    concentrator_status: str | None
    concentrator_status_time: datetime | None

    @property
    def interval_s(self) -> float | None:
        """How often a reading is expected, as the adapter says now."""
        described = _report(self.description, reports.MeterDescription)
        return described.interval_s if described else None

    @property
    def waiting_since(self) -> datetime | None:
        """Since when the oldest message waits in the concentrator's spool; None if none does."""
        status, at = _report(self.concentrator_status, reports.Status), self.concentrator_status_time
        if status is None or at is None or not status.counters.get("pending"):
            return None
        return at - timedelta(seconds=min(max(0, status.counters.get("oldest_age_s", 0)), _LONGEST_AGE_S))

    @property
    def damaged(self) -> int:
        """How many messages became unreadable in the concentrator's spool."""
        status = _report(self.concentrator_status, reports.Status)
        return status.counters.get("lost", 0) if status else 0


class DayRow(msgspec.Struct, frozen=True):
    """A row of ``select_days``."""

    meter_key: int
    day: date
    stored: int
    interval_s: float | None
    is_coarse: bool
    start_times: list[datetime]
    end_times: list[datetime]
    first_numbers: list[int | None]
    last_numbers: list[int | None]

    def meter_day(self) -> MeterDay:
        """Return what the row says."""
        columns = (self.start_times, self.end_times, self.first_numbers, self.last_numbers)
        interval_s = self.interval_s if self.interval_s and self.interval_s > 0 else None
        return MeterDay(self.day, self.stored, interval_s, self.is_coarse, tuple(map(Stretch, *columns)))


class ChangeRow(msgspec.Struct, frozen=True):
    """A row of ``select_changes``."""

    subject: str
    change_time: datetime
    state: str
    reason: str | None
    detail: str | None

    def change(self) -> StateChange:
        """Return what the row says."""
        return StateChange(self.change_time, self.state, self.reason, self.detail)


class FaultRow(msgspec.Struct, frozen=True):
    """A row of ``select_faults``."""

    meter_id: str
    fault_time: datetime
    reason: str


class NumberRow(msgspec.Struct, frozen=True):
    """A row of ``select_numbers``."""

    meter_key: int
    first_number: int
    last_number: int


class QuarantinedRow(msgspec.Struct, frozen=True):
    """A row of ``select_quarantined``."""

    meter_id: str
    received_time: datetime
    reason: str
    payload: bytes

    def quarantined(self) -> Quarantined:
        """Return what the row says; the number only where the payload is JSON that has one."""
        try:
            number = msgspec.json.decode(self.payload, type=_Numbered).sequence_number
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            number = None
        return Quarantined(self.received_time, self.reason, number)


class _Numbered(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a refused reading."""

    sequence_number: int | None = None


def select_backlog() -> Statement:
    """Return the statement that has a row if the ledger of the time before it is not complete yet."""
    return Statement("select 1 from ledger_backlog limit 1", ())


def select_meter(meter_id: str) -> Statement:
    """Return the statement for one meter and the concentrator it is heard through."""
    return Statement(f"{_METER} where m.meter_id = $1", (meter_id,))


def select_meters(after: str, limit: int) -> Statement:
    """Return the statement for ``limit`` meters whose id follows ``after``."""
    return Statement(f"{_METER} where m.meter_id > $1 order by m.meter_id limit $2::bigint", (after, limit))


def select_days(meter_keys: Sequence[int], span: Span) -> Statement:
    """Return the statement for the days of a span, with the last one before it and the first after it."""
    return Statement(
        """
        select d.* from unnest($1::integer[]) as k (meter_key), lateral (
            (select * from meter_day d where d.meter_key = k.meter_key and day < $2::date order by day desc limit 1)
            union all
            (select * from meter_day d where d.meter_key = k.meter_key and day between $2::date and $3::date)
            union all
            (select * from meter_day d where d.meter_key = k.meter_key and day > $3::date order by day limit 1)
        ) d order by meter_key, day
        """,
        (list(meter_keys), span.first, span.last),
    )


def select_changes(subjects: Sequence[str], start: datetime, end: datetime) -> Statement:
    """Return the statement for changes of state from ``start`` on, with the last one before it."""
    return Statement(
        """
        select c.* from unnest($1::text[]) as s (subject), lateral (
            (select * from state_change c where c.subject = s.subject and change_time < $2
             order by change_time desc, state_change_key desc limit 1)
            union all
            (select * from state_change c where c.subject = s.subject and change_time >= $2 and change_time <= $3)
        ) c order by subject, change_time, state_change_key
        """,
        (list(subjects), start, end),
    )


def select_faults(meter_ids: Sequence[str], start: datetime, end: datetime) -> Statement:
    """Return the statement for when telegrams of meters were rejected, and why.

    A fault without bytes is a doubt about a reading that came, or says that a meter gave no answer.
    """
    return Statement(
        "select * from (select meter_id, fault_time, reason from fault where meter_id = any($1::text[]) "
        "and fault_time between $2 and $3 and octet_length(data) > 0 order by fault_time desc limit $4::bigint) newest "
        "order by fault_time",
        (list(meter_ids), start, end, LIMIT_FAULTS),
    )


def select_quarantined(meter_ids: Sequence[str]) -> Statement:
    """Return the statement for the refused readings of meters."""
    return Statement(
        """
        select q.* from unnest($1::text[]) as m (meter_id), lateral (
            select m.meter_id, received_time, reason, payload from quarantine
            where split_part(topic, '/', 4) = m.meter_id and topic like '%/readings'
            order by quarantine_key desc limit $2::bigint
        ) q
        """,
        (list(meter_ids), LIMIT_QUARANTINED),
    )


def select_numbers(meter_keys: Sequence[int]) -> Statement:
    """Return the statement for the numbers of all readings of meters, on whatever day."""
    return Statement(
        "select meter_key, first_number, last_number from meter_day, unnest(first_numbers, last_numbers) "
        "as v (first_number, last_number) where meter_key = any($1::integer[]) and first_number is not null",
        (list(meter_keys),),
    )


def rows_as(rows: Iterable[Iterable[tuple[str, object]]], kind: type[Kind]) -> list[Kind]:
    """Return rows, each as its items, as ``kind``; columns that it does not name are left out."""
    return msgspec.convert([dict(row) for row in rows], list[kind])  # type: ignore[valid-type]


def _report(text: str | None, kind: type[reports.Report]) -> reports.Report | None:
    try:
        return reports.decode(text.encode(), kind) if text else None
    except BadDataError:  # stored by another version
        return None
