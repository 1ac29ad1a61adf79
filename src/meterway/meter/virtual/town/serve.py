"""Serving a town: all its lines, one process, one event loop, in real time or as fast as the readers take it.

The meters' time runs ``speed`` times as fast as the wall's. It never overtakes a reader: where one has not taken a
telegram, time stands still for all, so that no telegram is left out; after ``STALL_LIMIT_S`` that reader is dropped,
and the ledger and the summary say so.
"""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.virtual.counters import Counters
from meterway.meter.virtual.ledger import Ledger
from meterway.meter.virtual.town.faults import FaultKind, FaultWish, next_clock_change_s, plan_faults
from meterway.meter.virtual.town.lines import ANYWHERE, Lines, Places, Ready
from meterway.meter.virtual.town.meter import TownMeter
from meterway.meter.virtual.town.record import Books, Summary
from meterway.meter.virtual.town.speak import SpeakingLine
from meterway.meter.virtual.town.town import Town
from meterway.meter.virtual.town.voices.catalogue import THROUGH

STALL_LIMIT_S: Final = 300.0
"""How long a reader may leave a telegram untaken before it is dropped. A busy adapter takes 16 KiB of a line in some
seconds, and the kernel asks for more only when four times as much is free."""
STOP_LIMIT_S: Final = 20.0
"""How long a stop waits for readers to take the end of a telegram."""
PAST_STEP_S: Final = 300
"""Seconds between two telegrams of the past."""
_PAST_PAUSE_S: Final = 0.02
_SPAN_S: Final = 600
"""Without an end, faults begin within so many seconds on the wall."""
_DAY_S: Final = 86_400
_BATCH_LIMIT: Final = 100
"""Telegrams in a row before readers get a turn."""
_NAP_S: Final = (0.002, 0.05)
_SAY_S: Final = 1.0
"""Between two reports of the progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TownRun:
    """How to serve a town."""

    town: Town
    places: Places = ANYWHERE
    start_s: int | None = None
    """The meters' time at the start, as Unix time; None is now."""
    speed: float = 1.0
    days: float | None = None
    """Of the meters' time; None runs until stopped."""
    duration_s: float | None = None
    """On the wall."""
    past_s: int = 0
    """Meters with a clock that send by themselves first tell, quickly, so many seconds before the start."""
    wait_s: float = 0.0
    """How long time stands still at the start until every meter that sends by itself has a reader."""
    interval_s: int = 1
    """Meters that send by themselves do not do it more often, in their own time."""
    faults: tuple[FaultWish, ...] = ()
    ledger: Path | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    time: datetime
    """The meters'."""
    telegrams: int
    faults: int


async def serve_town(
    run: TownRun, ready: Ready, stop: asyncio.Event, *, show: Callable[[Progress], None] = lambda _: None
) -> Summary:
    """Serve until ``stop`` is set or the run's time is over; call ``ready`` once all can be read.

    Raises:
        SetupError: a port is taken, no pty is to be had, the ledger cannot be written, a fault cannot be had, the
            start is before 2020.
    """
    with Ledger(run.ledger) as ledger:
        serving = _Serving(run, ledger, show)
        try:
            await serving.lines.open(run.town)
            ready(serving.lines.offers)
            await serving.run(stop)
        finally:
            await serving.lines.close()
    return serving.summary


class _Serving:
    """All lines of a town, and their time."""

    def __init__(self, run: TownRun, ledger: Ledger, show: Callable[[Progress], None]) -> None:
        self._run = run
        self._show = show
        self._books = Books(ledger, Counters())
        self._start_s = _start_s(run)
        self._end_s = float("inf") if run.days is None else self._start_s + run.days * _DAY_S
        self._instant_s = float(self._start_s)
        """Where the meters' time is."""
        self._behind_s = 0.0
        self._begun_s = time.monotonic()
        self._stalled_s: float | None = None
        self._due: list[tuple[float, int]] = []
        self._events = self._plan()
        self.lines = Lines(run.places, self._clock, self._books, speed=run.speed, least_interval_s=run.interval_s)

    def _plan(self) -> list[tuple[int, TownMeter, int]]:
        """Give the meters their faults; return when, of whom and which, last first."""
        run, meters = self._run, list(self._run.town.meters)
        span_s = _span_s(run)
        planned = plan_faults(
            run.faults,
            meters,
            seed=run.town.seed,
            start_s=self._start_s,
            span_s=span_s,
            zone=run.town.zone,
        )
        for meter in meters:
            meter.faults = planned.get(meter.meter_id, ())
        by_id = {meter.meter_id: meter for meter in meters}
        found = [(each.begin_s, key, place) for key, faults in planned.items() for place, each in enumerate(faults)]
        return [(begin_s, by_id[key], place) for begin_s, key, place in sorted(found, reverse=True)]

    def _clock(self) -> int:
        return int(self._instant_s)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep time until the end."""
        await self._await_readers(stop)
        self._begun_s = time.monotonic()
        past = asyncio.create_task(self._tell_past(), name="meterway.meter.virtual.town.past")
        try:
            await self._keep_time(stop)
        finally:
            past.cancel()
        await self._drain()

    async def _await_readers(self, stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        until_s = clock() + self._run.wait_s
        waiting = list(self.lines.speaking)
        while waiting and clock() < until_s and not stop.is_set():
            waiting = [line for line in waiting if not line.link.awaited(clock())]
            await asyncio.sleep(_NAP_S[1])

    async def _tell_past(self) -> None:
        """Have the meters that have a past tell it; only then do they speak of the present."""
        clock = asyncio.get_running_loop().time
        first_s = self._start_s - self._run.past_s
        for index, line in enumerate(self.lines.speaking):
            if line.meter.voice and line.meter.voice.has_clock:
                line.past.extend(range(first_s + -first_s % PAST_STEP_S, self._start_s, PAST_STEP_S))
            if not line.past:
                self._join(index)
        while any(line.past for line in self.lines.speaking):
            for index, line in enumerate(self.lines.speaking):
                if line.past and not line.link.busy and line.speak(line.past[0], clock()):
                    last_s = line.past.popleft()
                    if not line.past and last_s + PAST_STEP_S < self._instant_s:
                        line.past.append(last_s + PAST_STEP_S)
                    elif not line.past:
                        self._join(index)
            await asyncio.sleep(_PAST_PAUSE_S)

    def _join(self, index: int) -> None:
        heapq.heappush(self._due, (self.lines.speaking[index].first_s(self._instant_s), index))

    async def _keep_time(self, stop: asyncio.Event) -> None:
        run = self._run
        clock = time.monotonic
        end_wall_s = float("inf") if run.duration_s is None else self._begun_s + run.duration_s
        shown_s = 0.0
        while not stop.is_set() and clock() < end_wall_s:
            await asyncio.sleep(_NAP_S[0] if self._stalled_s is not None else 0)
            wanted_s = min(self._start_s + (clock() - self._begun_s) * run.speed, self._end_s)
            is_up_to_date = self._speak_until(wanted_s)
            self._begin_faults()
            self._books.flush()
            self._behind_s = wanted_s - self._instant_s
            if clock() - shown_s > _SAY_S:
                shown_s = clock()
                self._show(self._progress)
            if is_up_to_date:
                if wanted_s >= self._end_s:
                    return
                shortest_s, longest_s = _NAP_S
                next_s = (self._due[0][0] - wanted_s) / run.speed if self._due else longest_s
                await asyncio.sleep(min(max(next_s, shortest_s), longest_s))

    def _speak_until(self, wanted_s: float) -> bool:
        """Have the meters speak, in the order of their instants; return whether the time has come to ``wanted_s``."""
        for _ in range(_BATCH_LIMIT):
            if not self._due or self._due[0][0] >= wanted_s:
                self._instant_s = max(self._instant_s, wanted_s)
                return True
            due_s, index = self._due[0]
            line = self.lines.speaking[index]
            now_s = time.monotonic()
            if line.link.busy and not self._has_stalled(line, now_s):
                return False
            self._stalled_s = None
            self._instant_s = max(self._instant_s, due_s)
            line.speak(int(due_s), now_s)
            heapq.heapreplace(self._due, (due_s + line.interval_s, index))
        return False

    def _has_stalled(self, line: SpeakingLine, now_s: float) -> bool:
        """Return whether the reader that all wait for has been dropped."""
        if self._stalled_s is None:
            self._stalled_s = now_s
        if now_s - self._stalled_s < STALL_LIMIT_S:
            return False
        line.link.drop()
        return True

    def _begin_faults(self) -> None:
        while self._events and self._events[-1][0] <= self._instant_s:
            _, meter, place = self._events.pop()
            self._books.event(meter, meter.faults[place])

    @property
    def _progress(self) -> Progress:
        counters = self._books.counters
        telegrams = counters.telegrams_whole + counters.telegrams_spoilt
        return Progress(datetime.fromtimestamp(self._instant_s, UTC), telegrams, self._books.begun.total())

    async def _drain(self) -> None:
        """Wait until every reader has taken the end of its telegram, but not for ever."""
        clock = asyncio.get_running_loop().time
        end_s = clock() + STOP_LIMIT_S
        while self.lines.busy and clock() < end_s:  # noqa: ASYNC110 - many lines, no common event
            await asyncio.sleep(_NAP_S[0])

    @property
    def summary(self) -> Summary:
        town, counters = self._run.town, self._books.counters
        protocols = Counter(meter.voice.protocol if meter.voice else THROUGH for meter in town.meters)
        return Summary(
            households=len(town.dwellings),
            meters=dict(sorted(protocols.items())),
            telegrams=counters.telegrams_whole + counters.telegrams_spoilt,
            telegrams_lost=counters.telegrams_silent,
            unheard=counters.ticks_unheard,
            bytes_sent=counters.bytes_sent,
            readers_dropped=counters.readers_dropped,
            faults=dict(self._books.begun),
            meters_time=datetime.fromtimestamp(int(self._instant_s), UTC).isoformat(),
            lasted_s=round(time.monotonic() - self._begun_s, 1),
            behind_s=round(self._behind_s, 1),
        )


def _start_s(run: TownRun) -> int:
    """Return the meters' time at the start: with the fault ``dst`` and no start, the eve of the next clock change."""
    if run.start_s is not None:
        return run.start_s
    now_s = int(time.time())
    if all(wish.kind is not FaultKind.DST for wish in run.faults):
        return now_s
    change_s = next_clock_change_s(now_s, run.town.zone)
    if change_s is None:
        raise SetupError(f"the clock never changes in {run.town.zone}; the fault dst needs another --zone")
    return change_s - _span_s(run) // 2


def _span_s(run: TownRun) -> int:
    """Return in how much of the meters' time all faults begin."""
    seconds_s = (run.duration_s or _SPAN_S) * run.speed if run.days is None else run.days * _DAY_S
    return max(int(seconds_s), 1)
