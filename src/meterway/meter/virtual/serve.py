"""Serving virtual meters: many meters, one process, one event loop, in real time or faster."""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final, Literal

import msgspec

from meterway.core.errors import SetupError
from meterway.meter.virtual.counters import Counters
from meterway.meter.virtual.faults import FaultName, Faults, Sending
from meterway.meter.virtual.ledger import Ledger, LedgerLine
from meterway.meter.virtual.links import Link, PtyLink, SerialAddress, TcpAddress, TcpLink
from meterway.meter.virtual.meter import DEFAULT_BUILD, GAS_CHANNEL, Build, Kind, VirtualMeter
from meterway.meter.virtual.statement import Statement

LATE_LIMIT_S: Final = 2.0
"""A meter that is later than this leaves instants out (``ticks_skipped``), as a clock that stood still does."""

STOP_LIMIT_S: Final = 20.0
"""How long a stop waits for readers to take the end of a telegram."""

PAST_STEP_S: Final = 300
"""Seconds of the meters' time between two telegrams of the past (``Run.past_s``)."""

_PAST_PAUSE_S: Final = 0.02
"""Between two telegrams of the past on one line."""

_BATCH_LIMIT: Final = 500
"""Telegrams in a row before readers get a turn."""

_NAP_S: Final = (0.002, 0.1)
"""The shortest and the longest pause between two looks at the clock."""

_PORT_LIMIT: Final = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What to serve, and how."""

    kinds: tuple[Kind, ...] = (Kind.P1,)
    """Taken in turn by the meters."""
    count: int = 1
    seed: str = "1"
    zone: tzinfo = UTC
    build: Build = DEFAULT_BUILD
    tcp_port: int | None = 0
    """0 takes free ports; else the first meter's port, the others follow. None offers ptys."""
    host: str = "127.0.0.1"
    alias_folder: Path | None = None
    """Where symbolic links to the ptys are made, named by the meter id."""
    start_s: int | None = None
    """The meters' time at the start, as Unix time; None is now."""
    speed: float = 1.0
    """How many seconds pass for the meters while one passes on the wall."""
    interval_s: int = VirtualMeter.interval_s
    """Seconds of the meters' time from telegram to telegram."""
    faults: dict[FaultName, float] = field(default_factory=dict)
    past_s: int = 0
    """Meters with a clock (P1) first tell, quickly, what they would have said before the start, from so many seconds
    ago on, every ``PAST_STEP_S``."""
    duration_s: float | None = None
    """On the wall; None runs until stopped."""
    ledger: Path | None = None


class OfferedChannel(msgspec.Struct, frozen=True):
    """A meter behind another, on an M-Bus channel of its P1 port."""

    channel: int
    meter_id: str
    medium: Literal["gas", "water"]


class Offer(msgspec.Struct, frozen=True):
    """Where one meter can be read."""

    meter_id: str
    kind: str
    address: str
    """``tcp://127.0.0.1:8001``, or the path of a pty."""
    source: TcpAddress | SerialAddress
    """The same as the ``source`` table of an adapter's configuration."""
    interval_s: float
    """On the wall: the interval of the meter divided by the speed."""
    channels: tuple[OfferedChannel, ...] = ()


async def serve(run: Run, ready: Callable[[list[Offer]], None], stop: asyncio.Event) -> Counters:
    """Serve the meters until ``stop`` is set or ``run.duration_s`` is over; call ``ready`` once all can be read.

    Stops after a whole telegram on every line, unless a reader takes longer than ``STOP_LIMIT_S``.

    Raises:
        SetupError: a port is taken, no pty is to be had, the ledger cannot be written, the start is before 2020.
    """
    if run.tcp_port and run.tcp_port + run.count - 1 > _PORT_LIMIT:
        raise SetupError(f"{run.count} ports from {run.tcp_port} on exceed {_PORT_LIMIT}; --tcp 0 takes free ports")
    with Ledger(run.ledger) as ledger:
        serving = _Serving(run, ledger)
        try:
            for index in range(run.count):
                await serving.open(index)
            ready([line.offer(run) for line in serving.lines])
            past = asyncio.create_task(serving.tell_past(), name="meterway.meter.virtual.past")
            await serving.keep_time(stop)
            past.cancel()
            await serving.drain()
        finally:
            for line in serving.lines:
                await line.link.close()
    return serving.counters


class _Line:
    """One meter at its link."""

    def __init__(self, meter: VirtualMeter, link: Link, faults: Faults, ledger: Ledger, counters: Counters) -> None:
        self.meter = meter
        self.link = link
        self._faults = faults
        self._ledger = ledger
        self._counters = counters
        self.past: deque[int] = deque()
        """Instants before the start that are still to be told; until then nothing of the present is said."""

    def offer(self, run: Run) -> Offer:
        return Offer(
            meter_id=self.meter.meter_id,
            kind=self.meter.kind,
            address=str(self.link.address),
            source=self.link.address,
            interval_s=run.interval_s / run.speed,
            channels=tuple(
                OfferedChannel(number, channel_id, "gas" if number == GAS_CHANNEL else "water")
                for number, channel_id in self.meter.channels.items()
            ),
        )

    def tell_past(self, now_s: float) -> None:
        """Send the next telegram of the past, if there is someone to read it."""
        if self.past and self.link.awaited(now_s):
            self._send(self.past.popleft())

    def tick(self, instant_s: int, now_s: float) -> None:
        """Send the telegram of an instant, if there is someone to read it and the past has been told."""
        if self.past:
            return
        if not self.link.awaited(now_s):
            self._counters.ticks_unheard += 1
            return
        self._send(instant_s)

    def _send(self, instant_s: int) -> None:
        spoken = self.meter.tick(instant_s)
        sending = self._faults.send(spoken.telegram, instant_s)
        if not sending.data:
            self._counters.telegrams_silent += 1
            self._ledger.add(_telegram_line("silent", spoken.statement, sending))
            return
        self.link.send(sending.data, _Taken(self, spoken.statement, sending))

    def taken(self, statement: Statement, sending: Sending) -> None:
        counters = self._counters
        counters.bytes_sent += len(sending.data)
        if sending.whole:
            counters.telegrams_whole += 1
        else:
            counters.telegrams_spoilt += 1
        self._ledger.add(_telegram_line("whole" if sending.whole else "spoilt", statement, sending))


class _Taken:
    """Tells the line once, when the first reader has taken a telegram."""

    __slots__ = ("_line", "_sending", "_statement")

    def __init__(self, line: _Line, statement: Statement, sending: Sending) -> None:
        self._line: _Line | None = line
        self._statement = statement
        self._sending = sending

    def __call__(self) -> None:
        line, self._line = self._line, None
        if line:
            line.taken(self._statement, self._sending)


def _telegram_line(state: Literal["whole", "spoilt", "silent"], statement: Statement, sending: Sending) -> LedgerLine:
    return LedgerLine(
        meter_id=statement.meter_id,
        state=state,
        sent_time_s=time.time(),
        protocol=statement.protocol,
        n=statement.n,
        instant=statement.instant.isoformat(),
        fault=sending.fault,
        values={code: f"{value:f}" for code, value in statement.values.items()},
    )


class _Serving:
    """All meters of a run, and their time."""

    def __init__(self, run: Run, ledger: Ledger) -> None:
        self.counters = Counters()
        self.lines: list[_Line] = []
        self._run = run
        self._ledger = ledger
        self._start_s = int(time.time()) if run.start_s is None else run.start_s

    async def open(self, index: int) -> None:
        run = self._run
        kind = run.kinds[index % len(run.kinds)]
        meter = VirtualMeter(kind, run.seed, index, zone=run.zone, build=run.build)
        meter.household.electricity(self._start_s)  # a wrong start shows now, and the first telegram need not wait
        link = await self._link(index, meter.meter_id)
        faults = Faults(run.faults, kind, run.seed, index)
        line = _Line(meter, link, faults, self._ledger, self.counters)
        if kind is Kind.P1:
            first_s = self._start_s - run.past_s
            line.past.extend(range(first_s + -first_s % PAST_STEP_S, self._start_s, PAST_STEP_S))
        self.lines.append(line)

    async def _link(self, index: int, meter_id: str) -> Link:
        run = self._run

        def moved(came: bool, unread_bytes: int) -> None:  # noqa: FBT001 - one meaning, see links.Moved
            state: Literal["joined", "left"] = "joined" if came else "left"
            self._ledger.add(LedgerLine(meter_id, state, time.time(), unread_bytes=unread_bytes))

        if run.tcp_port is None:
            return PtyLink(self.counters, moved, run.alias_folder / meter_id if run.alias_folder else None)
        return await TcpLink.open(run.host, run.tcp_port and run.tcp_port + index, self.counters, moved)

    async def tell_past(self) -> None:
        """Have every meter tell its past."""
        clock = asyncio.get_running_loop().time
        while any(line.past for line in self.lines):
            for line in self.lines:
                line.tell_past(clock())
            await asyncio.sleep(_PAST_PAUSE_S)

    async def keep_time(self, stop: asyncio.Event) -> None:
        """Have every meter speak at its instants; spread them evenly over the interval."""
        run, clock = self._run, asyncio.get_running_loop().time
        first_s = self._start_s + -self._start_s % run.interval_s
        begun_s = clock()
        end_s = begun_s + run.duration_s if run.duration_s is not None else float("inf")
        step_s = run.interval_s / run.speed
        due = [(begun_s + step_s * index / run.count, index) for index in range(run.count)]
        turns = [0] * run.count
        while not stop.is_set() and (now_s := clock()) < end_s:
            for _ in range(_BATCH_LIMIT):
                due_s, index = due[0]
                if due_s > now_s:
                    break
                late = int((now_s - due_s) / step_s) if now_s - due_s > LATE_LIMIT_S else 0
                self.counters.ticks_skipped += late
                turn = turns[index] + late
                self.lines[index].tick(first_s + turn * run.interval_s, now_s)
                turns[index] = turn + 1
                heapq.heapreplace(due, (due_s + (late + 1) * step_s, index))
            self._ledger.flush()
            shortest_s, longest_s = _NAP_S
            await asyncio.sleep(min(max(due[0][0] - clock(), shortest_s), longest_s))

    async def drain(self) -> None:
        """Wait until every reader has taken the end of its telegram, but not for ever."""
        clock = asyncio.get_running_loop().time
        end_s = clock() + STOP_LIMIT_S
        while self._busy and clock() < end_s:  # noqa: ASYNC110 - many lines, no common event
            await asyncio.sleep(_NAP_S[0])
        self.counters.telegrams_cut_by_stop += self._busy

    @property
    def _busy(self) -> int:
        return sum(line.link.busy for line in self.lines)
