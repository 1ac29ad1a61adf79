"""Completeness as the API shows it: per meter, per day, and the gaps. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from math import floor

import msgspec
from msgspec.structs import replace

from meterway.cloud.causes import Cause, Gap, Kind
from meterway.cloud.completeness import MeterDay, Span, expected, last_end, start_of
from meterway.core.errors import BadDataError

DEFAULT_DAYS = 7
LIMIT_DAYS = 366
LIMIT_GAPS = 1000
"""The most gaps of a meter in an answer: those in which most is missing."""

_DAY = timedelta(days=1)


class GapAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Missing readings of one kind and cause."""

    start: datetime
    """The reading before."""
    end: datetime
    """The reading after; the moment of asking if none came yet."""
    kind: Kind
    """not-read: the adapter had nothing to number. waiting: may still come. refused: the quarantine has it. lost: its
    number was skipped, and it is nowhere."""
    cause: Cause
    missing: int
    """Of the day, or of all days, that the gap is listed with."""
    detail: str | None
    """A sentence of the adapter or the concentrator of that time, or what was rejected."""
    first_sequence_number: int | None
    """Of the skipped numbers; null where none is."""
    last_sequence_number: int | None


class DayAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One meter on one day of UTC."""

    day: date
    expected: int | None
    """By the meter's interval; null where nobody said it."""
    stored: int
    """More than ``expected``, if the meter says more than its interval."""
    missing: int
    """Readings in gaps, of whatever kind."""
    lost: int
    """Those of the kind ``lost``."""
    percent: float | None
    """Of what is expected, rounded down: 100 only if nothing is missing."""
    gaps: tuple[GapAnswer, ...]
    """A gap of several days stands in each of them; skipped numbers stand in the first."""


class CompletenessSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One meter over all days; the fields as in a day."""

    meter_id: str
    name: str | None
    interval_s: float | None
    """How often a reading is expected, at last."""
    expected: int | None
    stored: int
    missing: int
    lost: int
    percent: float | None
    gaps: tuple[GapAnswer, ...]
    """In order of time; at most 1000, those in which most is missing."""


class CompletenessAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One meter, day by day."""

    first_day: date
    last_day: date
    as_of: datetime
    total: CompletenessSummary
    days: tuple[DayAnswer, ...]


class CompletenessList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of meters, ordered by id."""

    first_day: date
    last_day: date
    as_of: datetime
    content: tuple[CompletenessSummary, ...]
    next_after: str | None
    """Send as ``after`` for the next page; null at the end."""


def span_of(first: str | None, last: str | None, now: datetime) -> Span:
    """Return the days that are asked for; by default the last seven, today among them.

    Raises:
        BadDataError: a text is no day, or the days are in the wrong order, in the future or too many.
    """
    today = now.date()
    last_day = _day("to", last) if last else today
    first_day = _day("from", first) if first else last_day - _DAY * (DEFAULT_DAYS - 1)
    if first_day > last_day:
        raise _bad_span(f"`from` {first_day} is after `to` {last_day}: both are days, and both are counted")
    if first_day > today:
        raise _bad_span(f"`from` {first_day} is in the future (today is {today}, UTC)")
    if (last_day - first_day).days >= LIMIT_DAYS:
        raise _bad_span(f"`from` {first_day} to {last_day} are more than {LIMIT_DAYS} days: ask for fewer")
    return Span(first_day, last_day, now)


def day_answers(days: Sequence[MeterDay], gaps: Sequence[Gap], span: Span) -> tuple[DayAnswer, ...]:
    """Return a meter's days; ``days`` as ``pauses`` takes them, ``gaps`` what became of the pauses."""
    by_day = {each.day: each for each in days}
    interval_s = next((each.interval_s for each in reversed(days) if each.day < span.first), None)
    parts = _parts(gaps, span)
    last = last_end(days)
    answers = []
    for day in span.days():
        found = by_day.get(day)
        interval_s = (found and found.interval_s) or interval_s
        due = expected(day, days[0].stretches[0].start, last, span, interval_s) if last and interval_s else None
        answers.append(_day_answer(day, found, due, parts[day]))
    return tuple(answers)


def summary(
    meter_id: str, name: str | None, interval_s: float | None, days: Sequence[DayAnswer]
) -> CompletenessSummary:
    """Return a meter's days as one."""
    dues = [each.expected for each in days if each.expected is not None]
    due = sum(dues) if dues else None
    missing = sum(each.missing for each in days)
    return CompletenessSummary(
        meter_id=meter_id,
        name=name,
        interval_s=interval_s,
        expected=due,
        stored=sum(each.stored for each in days),
        missing=missing,
        lost=sum(each.lost for each in days),
        percent=_percent(missing, due),
        gaps=_joined(days),
    )


def _day_answer(day: date, found: MeterDay | None, due: int | None, parts: list[GapAnswer]) -> DayAnswer:
    stored = found.stored if found else 0
    if due is not None and stored >= due:  # a meter's clock skips a second now and then, and says another one twice
        parts = [each for each in parts if each.kind != "not-read" or each.missing > 1]
    missing = sum(each.missing for each in parts)
    if found and found.is_coarse and due is not None:  # not all of its pauses are known
        missing = max(missing, due - stored)
    return DayAnswer(
        day=day,
        expected=due,
        stored=stored,
        missing=missing,
        lost=sum(each.missing for each in parts if each.kind == "lost"),
        percent=_percent(missing, due),
        gaps=tuple(sorted(parts, key=lambda each: (each.start, each.kind))),
    )


def _parts(gaps: Sequence[Gap], span: Span) -> Mapping[date, list[GapAnswer]]:
    """Return what is missing on each day."""
    parts: defaultdict[date, list[GapAnswer]] = defaultdict(list)
    for gap in gaps:
        day, last = max(gap.start.date(), span.first), min(gap.end.date(), span.last)
        while day <= last:
            part = _part(gap, day, span)
            if part.missing:
                parts[day].append(part)
            day += _DAY
    return parts


def _part(gap: Gap, day: date, span: Span) -> GapAnswer:
    """Return a gap with what is missing of it on one day."""
    start, end = start_of(day), start_of(day + _DAY)
    if gap.numbers is not None:
        missing = gap.missing if day == max(gap.start.date(), span.first) else 0
    else:
        missing = gap.missing_before(end) - gap.missing_before(start)
    first, last = gap.numbers or (None, None)
    return GapAnswer(
        start=gap.start,
        end=gap.end,
        kind=gap.kind,
        cause=gap.cause,
        missing=missing,
        detail=gap.detail,
        first_sequence_number=first,
        last_sequence_number=last,
    )


def _joined(days: Sequence[DayAnswer]) -> tuple[GapAnswer, ...]:
    """Return the gaps of all days, each once."""
    found: dict[tuple[datetime, datetime, Kind, Cause], GapAnswer] = {}
    for gap in (gap for day in days for gap in day.gaps):
        key = (gap.start, gap.end, gap.kind, gap.cause)
        before = found.get(key)
        found[key] = replace(gap, missing=gap.missing + before.missing) if before else gap
    most = sorted(found.values(), key=lambda each: -each.missing)[:LIMIT_GAPS]
    return tuple(sorted(most, key=lambda each: (each.start, each.kind)))


def _percent(missing: int, due: int | None) -> float | None:
    return floor(10_000 * max(0, due - missing) / due) / 100 if due else None


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise _bad_span(f"`{name}` {text[:40]!r} is not a day, as 2026-11-23: {error}") from error


def _bad_span(message: str) -> BadDataError:
    return BadDataError(f"{message}.", reason="bad-span")
