"""The town's own books: what was said by whom, and what went wrong, for the ledger and the summary."""

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from meterway.meter.virtual.counters import Counters
from meterway.meter.virtual.ledger import Ledger, LedgerLine
from meterway.meter.virtual.town.faults import EXPECTED, Fault, FaultKind
from meterway.meter.virtual.town.meter import TownMeter
from meterway.meter.virtual.town.shown import Values

State = Literal["whole", "spoilt", "silent"]

_ONLY_SOMETIMES: Final = (FaultKind.NOISE, FaultKind.LOSS)
"""Faults that do not hit every telegram while they hold."""


class Summary(msgspec.Struct, frozen=True):
    """What a run came to."""

    households: int
    meters: dict[str, int]
    """By protocol; ``through`` are those behind another."""
    telegrams: int
    """Handed completely to a reader, or given as an answer."""
    telegrams_lost: int
    """Swallowed by a fault."""
    unheard: int
    """Instants at which a meter would have spoken and nobody listened."""
    bytes_sent: int
    readers_dropped: int
    """Readers that did not take what they were sent for ``STALL_LIMIT_S``; each has a line in the ledger."""
    faults: dict[str, int]
    """By kind: those that have begun."""
    meters_time: str
    """Where the meters' time has come to, RFC 3339."""
    lasted_s: float
    """On the wall."""
    behind_s: float
    """How much of the meters' time was asked for by speed and duration and not reached, because readers or this
    machine were slower: nothing is left out, it takes longer."""


class Books:
    """Counts, and writes the ledger."""

    def __init__(self, ledger: Ledger, counters: Counters) -> None:
        self.counters = counters
        self.begun: Counter[str] = Counter()
        """Faults by kind."""
        self._ledger = ledger
        self._numbers: Counter[str] = Counter()

    def flush(self) -> None:
        """Hand the ledger's lines to the operating system."""
        self._ledger.flush()

    def number(self, meter: TownMeter) -> int:
        """Return the number of a meter's next telegram."""
        self._numbers[meter.meter_id] += 1
        return self._numbers[meter.meter_id]

    def line(self, meter: TownMeter, instant_s: int, values: Values, *, state: State, fault: str | None) -> LedgerLine:
        """Return the line of a telegram, before it is sent."""
        return LedgerLine(
            meter_id=meter.meter_id,
            state=state,
            sent_time_s=0,
            protocol=meter.voice.protocol if meter.voice else "",
            n=self.number(meter),
            instant=meter.time(instant_s).astimezone(UTC).isoformat(),
            fault=fault,
            values={code: f"{value:f}" for code, value in values.items()},
            truth=meter.truth(instant_s),
        )

    def sent(self, line: LedgerLine, size_bytes: int) -> None:
        """Take note of what has left, or was swallowed."""
        counters = self.counters
        counters.bytes_sent += size_bytes
        if line.state == "whole":
            counters.telegrams_whole += 1
        elif line.state == "spoilt":
            counters.telegrams_spoilt += 1
        else:
            counters.telegrams_silent += 1
        self._ledger.add(msgspec.structs.replace(line, sent_time_s=time.time()))

    def moved(self, meter: TownMeter, *, came: bool, unread_bytes: int) -> None:
        """Take note of a reader that came or went."""
        state: Literal["joined", "left"] = "joined" if came else "left"
        self._ledger.add(LedgerLine(meter.meter_id, state, time.time(), unread_bytes=unread_bytes))

    def event(self, meter: TownMeter, fault: Fault) -> None:
        """Take note of a fault that begins."""
        self.begun[fault.kind] += 1
        self._ledger.add(
            LedgerLine(
                meter_id=meter.meter_id,
                state="event",
                sent_time_s=time.time(),
                instant=_utc(fault.begin_s),
                fault=fault.kind,
                until="" if fault.end_s is None else _utc(fault.end_s),
                expects=EXPECTED[fault.kind],
            )
        )


def fault_names(meter: TownMeter, instant_s: int, *hit: FaultKind) -> str | None:
    """Return what is wrong with what a meter says at an instant: ``hit``, and all that holds; None: nothing."""
    holding = [fault.kind for fault in meter.faults if fault.kind not in _ONLY_SOMETIMES and fault.holds(instant_s)]
    return ",".join([*hit, *holding]) or None


def _utc(instant_s: int) -> str:
    return datetime.fromtimestamp(instant_s, UTC).isoformat()
