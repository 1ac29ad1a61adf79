"""The face of every pull protocol: a master says what to do on the line, and does nothing itself.

    effects = master.start(now)
    while the last effect is not Done:
        carry out the effects in order
        when bytes come:             effects = master.feed(data, now)
        when the deadline passes:    effects = master.on_timeout(now)

What a master does: it asks, checks, repeats, gives up in time, and says why. What it does not: open, wait, read a
clock. What its driver must do: carry out the effects in the order given; hand over bytes that came meanwhile
afterwards; call ``on_timeout`` when a deadline has passed, no earlier and not much later. ``now`` is a monotonic
time in seconds. A master never raises on wire data; after ``Done`` it is of no further use.
"""

from dataclasses import dataclass, field
from typing import Protocol

from meterway.core.errors import MeterwayError
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.telegram import Telegram


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes."""

    data: bytes = field(repr=False)
    """May hold a password: never in a log."""


@dataclass(frozen=True, slots=True)
class SetLine:
    """Set the serial line anew, once the last bit of everything sent before has left it.

    A link without a serial line of its own (a TCP gateway) that cannot do this is of no use for this meter.
    """

    line: Line


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so long before the next effect; bytes that come meanwhile are kept."""

    seconds_s: float


@dataclass(frozen=True, slots=True)
class Deadline:
    """Call ``on_timeout`` when so long has passed since the effects before this one were carried out.

    Replaces the deadline before it; there is none after ``Done``.
    """

    seconds_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """The session is over; the line may be used by another."""

    error: MeterwayError | None = None
    """Why it failed; None: everything asked for was handed over."""


Effect = Send | SetLine | Wait | Deadline | Done
Steps = list[Effect | Telegram | CodecError]
"""In order: what to do, what was read, what was damaged."""


class Master(Protocol):
    """A pull protocol, for one session with one meter."""

    def start(self, now: float) -> Steps:
        """Begin the session."""

    def feed(self, data: bytes, now: float) -> Steps:
        """Take the next bytes from the line; an empty list: go on reading until the deadline."""

    def on_timeout(self, now: float) -> Steps:
        """Tell that the deadline has passed."""
