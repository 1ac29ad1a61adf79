"""Why readings are missing: a pause, and what was reported meanwhile, become gaps with a kind and a cause. Pure.

Numbers tell what time cannot. The adapter counts a meter's readings without gaps before they are sent, so

- numbers go on where time is missing: nothing was read, and nothing is lost (``not-read``);
- numbers are skipped: those readings existed. They are ``refused`` if the quarantine has them, ``waiting`` if they may
  still be in a spool, else ``lost``.

What it does not do: prove. A cause is what the reports of that time say; clocks of meters and adapters differ.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Literal, TypeAlias

from meterway.cloud.completeness import Pause

Kind: TypeAlias = Literal["not-read", "waiting", "refused", "lost"]
Cause: TypeAlias = Literal[
    "meter-silent",
    "telegram-rejected",
    "wrong-key",
    "adapter-off",
    "link-down",
    "concentrator-off",
    "in-spool",
    "quarantined",
    "expired",
    "counting-restarted",
    "unknown",
]

_SLIP = 1e-6
"""Of an interval: instants that are equal but for rounding are equal."""

IN_FLIGHT = timedelta(minutes=15)
"""A message without a receipt is sent again within ten minutes (``delivery``): what is younger may still come."""

KEY_REASONS = frozenset({"bad-key", "encrypted"})
EXPIRED_REASONS = frozenset({"past-time"})

_SLACK_LEAST_S, _SLACK_MOST_S = 2.0, 60.0
"""How far the clocks of meter and adapter may lie apart: an interval, within these bounds."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """From ``time`` on, an adapter said this of its meter, or a concentrator of itself."""

    time: datetime
    state: str
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class FaultNote:
    """A telegram was rejected."""

    time: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A reading that was refused; ``number`` is None where it cannot be read."""

    time: datetime
    reason: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was reported of a meter, each in order of time."""

    states: Sequence[StateChange] = ()
    concentrator_states: Sequence[StateChange] = ()
    faults: Sequence[FaultNote] = ()
    quarantined: Sequence[Quarantined] = ()
    numbers: Sequence[range] = ()
    """The numbers that came on any day."""
    waiting_since: datetime | None = None
    """The oldest message in the concentrator's spool; None if it is empty."""
    damaged: int = 0
    """Messages that became unreadable in the concentrator's spool."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing readings of one kind and cause."""

    start: datetime
    end: datetime
    kind: Kind
    cause: Cause
    missing: int
    detail: str | None = None
    numbers: tuple[int, int] | None = None
    """The first and the last of the numbers that are skipped there, with those of another cause between."""
    interval_s: float | None = None

    def missing_before(self, moment: datetime) -> int:
        """How many of them were due before ``moment``."""
        if moment <= self.start:
            return 0
        if moment >= self.end or self.interval_s is None:
            return self.missing
        return min(self.missing, ceil((moment - self.start).total_seconds() / self.interval_s - _SLIP) - 1)


def gaps_of(pause: Pause, evidence: Evidence, now: datetime) -> list[Gap]:
    """Return what is missing in a pause; nothing, if all numbers that it skips came at another time."""
    skipped = _without(pause.skipped, evidence.numbers)
    gaps = _skipped(pause, skipped, evidence, now) if skipped else []
    missed = max(0, pause.missed - _count(skipped))
    if missed:
        kind, cause, detail = _not_read(pause, evidence)
        gaps.append(Gap(pause.start, pause.end, kind, cause, missed, detail, interval_s=pause.interval_s))
    return gaps


def _without(skipped: range, numbers: Sequence[range]) -> list[range]:
    """Return what is left of ``skipped`` without ``numbers``."""
    left = []
    start = skipped.start
    for each in sorted(numbers, key=lambda known: known.start):
        if each.start > start:
            left.append(range(start, min(each.start, skipped.stop)))
        start = max(start, each.stop)
        if start >= skipped.stop:
            break
    else:
        left.append(range(start, skipped.stop))
    return [each for each in left if each]


def _count(ranges: Sequence[range]) -> int:
    return sum(each.stop - each.start for each in ranges)


def _skipped(pause: Pause, skipped: list[range], evidence: Evidence, now: datetime) -> list[Gap]:
    """Say of the skipped numbers where they are."""
    total = _count(skipped)
    known = {each.number: each for each in evidence.quarantined if any(each.number in every for every in skipped)}
    unreadable = [each for each in evidence.quarantined if each.number is None and each.time >= pause.start]
    refused = Counter(map(_refused, [*known.values(), *unreadable[: total - len(known)]]))
    absent = total - refused.total()
    if absent:
        refused[_absent(pause, evidence, now)] += absent
    numbers = (skipped[0].start, skipped[-1].stop - 1)
    return [
        Gap(pause.start, pause.end, kind, cause, count, detail, numbers)
        for (kind, cause, detail), count in refused.items()
    ]


def _refused(refused: Quarantined) -> tuple[Kind, Cause, str | None]:
    cause: Cause = "expired" if refused.reason in EXPIRED_REASONS else "quarantined"
    return "refused", cause, f"refused as {refused.reason}"


def _absent(pause: Pause, evidence: Evidence, now: datetime) -> tuple[Kind, Cause, str | None]:
    """Say of a number that nobody has whether it may still come."""
    through, meter = _last(evidence.concentrator_states), _last(evidence.states)
    if through is not None and through.state == "offline":
        return "waiting", "concentrator-off", through.detail
    if evidence.waiting_since is not None and evidence.waiting_since <= pause.end:
        return "waiting", "in-spool", None
    if meter is not None and meter.state == "offline" and meter.reason != "link":
        return "waiting", "adapter-off", meter.detail
    if now - pause.end < IN_FLIGHT:
        return "waiting", "in-spool", "on its way, or to be sent again"
    damaged = f"{evidence.damaged} messages became unreadable in the concentrator's spool" if evidence.damaged else None
    return "lost", "unknown", damaged


def _not_read(pause: Pause, evidence: Evidence) -> tuple[Kind, Cause, str | None]:
    """Say why a meter gave no reading though no number is missing."""
    through = _last(evidence.concentrator_states)
    if pause.is_open and through is not None and through.state == "offline":
        return "waiting", "concentrator-off", through.detail
    if pause.is_open and evidence.waiting_since is not None and evidence.waiting_since <= pause.end:
        return "waiting", "in-spool", None
    cause, detail = _why_silent(pause, evidence)
    return "not-read", cause, detail


def _why_silent(pause: Pause, evidence: Evidence) -> tuple[Cause, str | None]:
    half_s = (pause.end - pause.start).total_seconds() / 2
    off: list[tuple[Cause, float, str | None]] = [
        (
            "adapter-off",
            *_spent(pause, evidence.states, lambda each: each.state == "offline" and each.reason != "link"),
        ),
        ("link-down", *_spent(pause, evidence.states, lambda each: each.state == "offline" and each.reason == "link")),
        ("concentrator-off", *_spent(pause, evidence.concentrator_states, lambda each: each.state == "offline")),
    ]
    for cause, spent_s, detail in off:
        if spent_s >= half_s > 0:
            return cause, detail
    slack = timedelta(seconds=min(max(pause.interval_s or 0, _SLACK_LEAST_S), _SLACK_MOST_S))
    first = bisect_right(evidence.faults, pause.start - slack, key=_time)
    last = bisect_left(evidence.faults, pause.end + slack, key=_time)
    reasons = Counter(each.reason for each in evidence.faults[first:last])
    if reasons:
        said = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
        return ("wrong-key" if reasons.keys() & KEY_REASONS else "telegram-rejected"), said
    for cause, spent_s, detail in off:
        if spent_s > 0:
            return cause, detail
    if pause.restarted:
        return "counting-restarted", "the sequence numbers began again: the adapter's spool was replaced"
    quiet_s, detail = _spent(pause, evidence.states, lambda each: each.state in ("silent", "waiting"))
    known = bool(evidence.states) and evidence.states[0].time <= pause.end
    return ("meter-silent", detail if quiet_s else None) if known else ("unknown", None)


def _spent(
    pause: Pause, states: Sequence[StateChange], wanted: Callable[[StateChange], bool]
) -> tuple[float, str | None]:
    """Return how many seconds of a pause were spent in states that are ``wanted``, and what was said last of these."""
    spent_s, detail = 0.0, None
    first = max(0, bisect_right(states, pause.start, key=_time) - 1)
    there = states[first : bisect_left(states, pause.end, key=_time)]
    ends = [*(each.time for each in there[1:]), pause.end]
    for each, end in zip(there, ends, strict=False):  # without states there are none to end
        overlap_s = (end - max(each.time, pause.start)).total_seconds()
        if overlap_s > 0 and wanted(each):
            spent_s, detail = spent_s + overlap_s, each.detail
    return spent_s, detail


def _time(reported: StateChange | FaultNote) -> datetime:
    return reported.time


def _last(states: Sequence[StateChange]) -> StateChange | None:
    return states[-1] if states else None
