"""What a fault scenario is, and what it found."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from faults.truth import GOOD, Truth, Verdict


class CannotRunError(Exception):
    """Something that the scenario needs is not on this machine; says what, and how to get it."""


class Expect(Enum):
    """What the run makes of a scenario's figures."""

    NOTHING_LOST = "the platform"
    """Lost, duplicated and altered must be 0; they count in the last line."""
    FOUND_WRONG = "broken on purpose"
    """Something must be lost or duplicated, or the oracle sees nothing."""
    WHATEVER = "peers"
    """Other software, shown beside ours; counts in nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The row of a scenario."""

    sent: int
    """Readings accepted at the edge: on the adapter's disk, or acknowledged to a peer's sender."""
    stored: int
    """Rows of them in the cloud's database."""
    lost: int
    duplicated: int
    altered: int
    """Stored readings that say something else than what was accepted, or that nobody sent."""
    recovery_s: float | None = None
    """From the end of the fault (of a SIGKILL: from the signal on) until readings accepted after it are stored; None if
    not asked."""
    refused: int = 0
    """What was refused at the edge, loudly and unacknowledged (a full disk)."""
    note: str = ""

    @property
    def is_right(self) -> bool:
        return self.sent > 0 and (self.lost, self.duplicated, self.altered) == (0, 0, 0)


Run = Callable[[Path, random.Random], Awaitable[Result]]
"""Does it once, in an empty folder; all that is random comes from the second argument."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault at one component."""

    fault: str
    """``SIGKILL``"""
    component: str
    """What it happens to: ``concentrator``."""
    engine: str
    """What brokers, or what database: ``nats``."""
    run: Run
    expect: Expect = Expect.NOTHING_LOST
    quick: bool = False
    """Whether ``--quick`` runs it."""

    @property
    def name(self) -> str:
        return f"{self.fault} {self.component} {self.engine}"


def result_of(truth: Truth, verdict: Verdict, recovery_s: float | None = None, note: str = "") -> Result:
    """Return the row for what the oracle found; what stands in quarantine or in conflict is altered."""
    return Result(
        sent=truth.total,
        stored=truth.total - verdict.missing,
        lost=verdict.missing,
        duplicated=verdict.duplicated,
        altered=verdict.altered + verdict.invented + verdict.conflicts + verdict.quarantined,
        recovery_s=recovery_s,
        note=note if verdict == GOOD else f"{note} {verdict}".strip(),
    )
