"""What goes wrong in a town, on demand: which meter, from when to when, and what a good system says about it.

    noise       stray bytes before telegrams, one in five
    loss        telegrams or answers that never leave, one in five
    silence     the meter says nothing for a while
    drift       its clock gains a second a minute
    swap        it is replaced: new serial number, registers that begin anew
    rollover    its register passes the highest number it can show, and begins again at 0
    dst         the clock on the wall changes while it is read
    wrong-key   it seals with another key than its owner was given
    zero        for a moment it shows 0 everywhere
    leak        water runs day and night

Seeded: the same town with the same faults has them in the same meters at the same instants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final, Protocol

from meterway.core.errors import SetupError
from meterway.meter.virtual.chance import chance

DEFAULT_SHARE: Final = 0.1
_DST_LOOK_DAYS: Final = 400
_LOST_OF: Final = 5
"""One telegram in so many meets ``noise`` or ``loss``, of a meter that has that fault."""


class FaultKind(StrEnum):
    NOISE = "noise"
    LOSS = "loss"
    SILENCE = "silence"
    DRIFT = "drift"
    SWAP = "swap"
    ROLLOVER = "rollover"
    DST = "dst"
    WRONG_KEY = "wrong-key"
    ZERO = "zero"
    LEAK = "leak"


EXPECTED: Final[Mapping[FaultKind, str]] = {
    FaultKind.NOISE: "every telegram is read as if there were no noise; the stray bytes are counted",
    FaultKind.LOSS: "the readings that were sent are there once each; the gaps are shown as gaps, nothing is made up",
    FaultKind.SILENCE: "the meter is said to be silent since then, and online again when it speaks again",
    FaultKind.DRIFT: "the meter's clock is said to be wrong, and by how much; its energy is right",
    FaultKind.SWAP: "another meter is installed: no negative and no huge consumption between the two",
    FaultKind.ROLLOVER: "the register has begun again at 0: consumption goes on as before",
    FaultKind.DST: "no reading is lost or doubled; this day has 23 or 25 hours",
    FaultKind.WRONG_KEY: "the key does not fit, and nothing that was decrypted with it is passed on",
    FaultKind.ZERO: "the zeros are doubtful and marked, no consumption is derived from them",
    FaultKind.LEAK: "the readings are right, and the flow at night never ends: water is leaking",
}
"""What a good system says."""

_ONE_OF: Final = (FaultKind.SWAP, FaultKind.ROLLOVER)
"""A meter has at most one of these."""
_FROM_THE_START: Final = (FaultKind.NOISE, FaultKind.LOSS, FaultKind.WRONG_KEY)
_FOR_EVER: Final = (FaultKind.DRIFT, FaultKind.SWAP, FaultKind.ROLLOVER, FaultKind.DST, *_FROM_THE_START)


@dataclass(frozen=True, slots=True)
class FaultWish:
    """What was asked for: ``leak:water=0.05``."""

    kind: FaultKind
    of: str = ""
    """A medium, protocol or family; empty: of all that can have it."""
    share: float = DEFAULT_SHARE
    """Of these meters; at least one has it, unless it is 0."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one meter."""

    kind: FaultKind
    begin_s: int
    """Unix time, as all instants of the town."""
    end_s: int | None = None
    """None: it stays."""

    def holds(self, instant_s: int) -> bool:
        return self.begin_s <= instant_s and (self.end_s is None or instant_s < self.end_s)


class Faulty(Protocol):
    """What the plan must know of a meter."""

    @property
    def meter_id(self) -> str: ...
    @property
    def can_have(self) -> frozenset[FaultKind]: ...
    @property
    def classes(self) -> frozenset[str]:
        """Medium, protocol, family."""

    @property
    def interval_s(self) -> int: ...


def parse_wishes(texts: Sequence[str]) -> tuple[FaultWish, ...]:
    """Return what texts such as ``noise``, ``swap=0.2`` and ``leak:water=0.05`` ask for.

    Raises:
        SetupError: an unknown kind, or a share outside 0 to 1.
    """
    return tuple(map(_parse_wish, texts))


def _parse_wish(text: str) -> FaultWish:
    head, equals, share = text.partition("=")
    name, _, of = head.partition(":")
    if name not in set(FaultKind):
        raise SetupError(f"fault {name!r} is unknown; there are {', '.join(FaultKind)}")
    try:
        wish = FaultWish(FaultKind(name), of, float(share) if equals else DEFAULT_SHARE)
    except ValueError:
        raise SetupError(f"fault {text!r} needs a share from 0 to 1, such as {name}=0.2") from None
    if not 0 <= wish.share <= 1:
        raise SetupError(f"fault {text!r}: the share of meters lies between 0 and 1")
    return wish


def plan_faults(
    wishes: Sequence[FaultWish], meters: Sequence[Faulty], *, seed: str, start_s: int, span_s: int, zone: tzinfo
) -> dict[str, tuple[Fault, ...]]:
    """Return the faults of each meter that has any, by its id; they begin between a fifth and the middle of the span.

    Raises:
        SetupError: no meter can have a fault that was asked for; no clock changes in the span.
    """
    planned: dict[str, tuple[Fault, ...]] = {}
    for wish in wishes:
        able = [meter for meter in meters if _fits(wish, meter, planned.get(meter.meter_id, ()))]
        if not able:
            of = f" of {wish.of}" if wish.of else ""
            raise SetupError(f"no meter{of} in this town can have the fault {wish.kind}; another profile or seed may")
        able.sort(key=lambda meter: chance(1 << 62, seed, wish.kind, meter.meter_id))
        number = max(round(wish.share * len(able)), 1) if wish.share else 0
        for meter in able[:number]:
            fault = _fault(wish.kind, meter, seed=seed, start_s=start_s, span_s=span_s, zone=zone)
            planned[meter.meter_id] = (*planned.get(meter.meter_id, ()), fault)
    return planned


def _fits(wish: FaultWish, meter: Faulty, has: Sequence[Fault]) -> bool:
    """Return whether a meter can have what is wished for, beside the faults that it ``has``."""
    taken = wish.kind in _ONE_OF and any(fault.kind in _ONE_OF for fault in has)
    return wish.kind in meter.can_have and (not wish.of or wish.of in meter.classes) and not taken


def _fault(kind: FaultKind, meter: Faulty, *, seed: str, start_s: int, span_s: int, zone: tzinfo) -> Fault:
    if kind is FaultKind.DST:
        return Fault(kind, clock_change_s(start_s, start_s + span_s, zone))
    if kind in _FROM_THE_START:
        return Fault(kind, start_s)
    interval_s = meter.interval_s
    begin_s = start_s + span_s // 5 + chance(max(span_s * 3 // 10, 1), seed, kind, "begin", meter.meter_id)
    if kind in _FOR_EVER:
        return Fault(kind, begin_s)
    lasts_s = 2 * interval_s if kind is FaultKind.ZERO else max(span_s // 5, 4 * interval_s)
    return Fault(kind, begin_s, begin_s + lasts_s)


def clock_change_s(start_s: int, end_s: int, zone: tzinfo) -> int:
    """Return the Unix time of the first change of the clock in ``zone`` after ``start_s`` and up to ``end_s``.

    Raises:
        SetupError: there is none.
    """
    found = next_clock_change_s(start_s, zone)
    if found is None or found > end_s:
        raise SetupError("the clock does not change while the town runs; choose --start on the eve of a change")
    return found


def next_clock_change_s(start_s: int, zone: tzinfo) -> int | None:
    """Return the Unix time of the next change of the clock in ``zone``; None where there is none in a year."""
    start = datetime.fromtimestamp(start_s, UTC)
    offset = start.astimezone(zone).utcoffset()
    for day in range(1, _DST_LOOK_DAYS):
        if (start + timedelta(days=day)).astimezone(zone).utcoffset() == offset:
            continue
        low, high = start_s + (day - 1) * 86_400, start_s + day * 86_400
        while high - low > 1:
            middle = (low + high) // 2
            same = datetime.fromtimestamp(middle, UTC).astimezone(zone).utcoffset() == offset
            low, high = (middle, high) if same else (low, middle)
        return high
    return None


def meets(faults: Sequence[Fault], kind: FaultKind, instant_s: int, *words: str | int) -> bool:
    """Return whether ``noise`` or ``loss`` hits what is said at an instant."""
    holds = any(fault.kind is kind and fault.holds(instant_s) for fault in faults)
    return holds and chance(_LOST_OF, kind, instant_s, *words) == 0
