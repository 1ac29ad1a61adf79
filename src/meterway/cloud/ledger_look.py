"""Looks into the ledger: gathers days, pauses and what was reported meanwhile. Joins the deciders and the store."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from meterway.cloud.causes import Evidence, FaultNote, Gap, Quarantined, StateChange, gaps_of
from meterway.cloud.completeness import MeterDay, Pause, Span, pauses
from meterway.cloud.ledger_answers import CompletenessSummary, DayAnswer, day_answers, summary
from meterway.cloud.ledger_query import (
    ChangeRow,
    DayRow,
    FaultRow,
    MeterRow,
    NumberRow,
    QuarantinedRow,
    rows_as,
    select_changes,
    select_days,
    select_faults,
    select_numbers,
    select_quarantined,
)
from meterway.cloud.query import Statement
from meterway.cloud.store import Row

Fetch: TypeAlias = Callable[[Statement], Awaitable[list[Row]]]

_SLACK = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class MeterLedger:
    """What the ledger says of one meter in a span."""

    days: tuple[DayAnswer, ...]
    total: CompletenessSummary


@dataclass(slots=True)
class _Reported:
    """What was reported of the meters that have pauses, by meter, number or subject."""

    changes: Mapping[str, list[StateChange]] = field(default_factory=lambda: defaultdict(list))
    faults: Mapping[str, list[FaultNote]] = field(default_factory=lambda: defaultdict(list))
    quarantined: Mapping[str, list[Quarantined]] = field(default_factory=lambda: defaultdict(list))
    numbers: Mapping[int, list[range]] = field(default_factory=lambda: defaultdict(list))


async def look(fetch: Fetch, meters: Sequence[MeterRow], span: Span) -> list[MeterLedger]:
    """Return what the ledger says of ``meters``, in their order; one query for all of each kind of evidence.

    What takes long is done in a thread: others are served meanwhile.
    """
    rows = await fetch(select_days([meter.meter_key for meter in meters], span))
    days, found = await asyncio.to_thread(_pauses, rows, meters, span)
    reported = await _reported(fetch, [meter for meter in meters if found[meter.meter_key]], found, span)
    return await asyncio.to_thread(
        lambda: [_ledger(meter, days[meter.meter_key], found[meter.meter_key], reported, span) for meter in meters]
    )


def _ledger(
    meter: MeterRow, days: Sequence[MeterDay], found: Sequence[Pause], reported: _Reported, span: Span
) -> MeterLedger:
    evidence = Evidence(
        states=reported.changes[meter.meter_id],
        concentrator_states=reported.changes[f"concentrator/{meter.concentrator_id}"],
        faults=reported.faults[meter.meter_id],
        quarantined=reported.quarantined[meter.meter_id],
        numbers=reported.numbers[meter.meter_key],
        waiting_since=meter.waiting_since,
        damaged=meter.damaged,
    )
    gaps: list[Gap] = [gap for pause in found for gap in gaps_of(pause, evidence, span.now)]
    answers = day_answers(days, gaps, span)
    return MeterLedger(answers, summary(meter.meter_id, meter.name, meter.interval_s, answers))


def _pauses(
    rows: list[Row], meters: Sequence[MeterRow], span: Span
) -> tuple[Mapping[int, list[MeterDay]], Mapping[int, list[Pause]]]:
    """Return the days and the pauses of each meter."""
    days: defaultdict[int, list[MeterDay]] = defaultdict(list)
    for row in rows_as(map(Row.items, rows), DayRow):
        days[row.meter_key].append(row.meter_day())
    return days, {meter.meter_key: pauses(days[meter.meter_key], span) for meter in meters}


async def _reported(
    fetch: Fetch, meters: Sequence[MeterRow], found: Mapping[int, Sequence[Pause]], span: Span
) -> _Reported:
    reported = _Reported()
    if not meters:
        return reported
    subjects = [meter.meter_id for meter in meters]
    subjects += sorted({f"concentrator/{meter.concentrator_id}" for meter in meters if meter.concentrator_id})
    start = min(pause.start for pauses in found.values() for pause in pauses)
    for change in rows_as(map(Row.items, await fetch(select_changes(subjects, start, span.now))), ChangeRow):
        reported.changes[change.subject].append(change.change())
    ids = [meter.meter_id for meter in meters]
    for fault in rows_as(map(Row.items, await fetch(select_faults(ids, start - _SLACK, span.end + _SLACK))), FaultRow):
        reported.faults[fault.meter_id].append(FaultNote(fault.fault_time, fault.reason))
    skipping = [meter for meter in meters if any(pause.skipped for pause in found[meter.meter_key])]
    if skipping:
        for number in rows_as(
            map(Row.items, await fetch(select_numbers([meter.meter_key for meter in skipping]))), NumberRow
        ):
            reported.numbers[number.meter_key].append(range(number.first_number, number.last_number + 1))
        for each in rows_as(
            map(Row.items, await fetch(select_quarantined([meter.meter_id for meter in skipping]))), QuarantinedRow
        ):
            reported.quarantined[each.meter_id].append(each.quarantined())
    return reported
