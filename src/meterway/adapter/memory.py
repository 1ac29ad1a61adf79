"""What plausibility remembers of the meters: levels of registers, who the meter is, how its clock was. Pure data.

It is small on purpose: one level a register, no history, and of serial numbers only a digest. ``memory_file`` keeps it
across restarts. A property that a meter stops sending stays remembered, so a changed set of properties loses nothing.
"""

from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

LIMIT_REGISTERS: Final = 128
"""So many registers of one meter are remembered; further ones are not held against what they were before."""
LIMIT_NAMES: Final = 32
"""So many names (serial numbers, kinds of telegram) of one meter are remembered; the oldest is forgotten."""
LIMIT_RECENT: Final = 8
"""So many verdicts are remembered, for readings that are read again."""
LIMIT_SAID: Final = 256
"""So many doubts are remembered as said; beyond that one may be said twice."""


class Level(msgspec.Struct):
    """What a register stood at, and when that was new."""

    value: Decimal
    seen: datetime
    """When the telegram arrived in which it was seen first."""
    seen_clock: datetime | None = None
    """The same by the meter's clock, if it has one."""
    is_first: bool = False
    """Whether nothing came before it, so that it may be older than it was seen."""


class RegisterMemory(msgspec.Struct):
    level: Level | None = None
    """The last trusted value."""
    candidate: Level | None = None
    """The last doubted value: if the next one agrees with it and not with the level, it becomes the level."""
    unit: str | None = None


class ClockMemory(msgspec.Struct):
    said_s: float | None = None
    """How far the clock was off when that was said last; None: it was right."""
    last: datetime | None = None
    """What it said last."""


class MeterMemory(msgspec.Struct):
    registers: dict[str, RegisterMemory] = msgspec.field(default_factory=dict)
    """By property id."""
    identity: dict[str, str] = msgspec.field(default_factory=dict)
    """Where a meter names itself (an OBIS code, or empty for the telegram's head): digest of the name."""
    new_identity: dict[str, str] = msgspec.field(default_factory=dict)
    """The names of another meter that spoke last; if it speaks again, it is the one."""
    clock: ClockMemory = msgspec.field(default_factory=ClockMemory)
    recent: dict[str, str | None] = msgspec.field(default_factory=dict)
    """Fault codes of the last readings, by identifier."""
    said: list[str] = msgspec.field(default_factory=list)
    """Doubts that hold and were reported."""
    shapes: list[str] = msgspec.field(default_factory=list)
    """Digests of the kinds of telegram that the meter sends, where telegrams have no checksum."""

    def register(self, property_id: str, unit: str | None) -> RegisterMemory | None:
        """Return what is remembered of a register; None if there are too many. Another unit is another register."""
        known = self.registers.get(property_id)
        if known is None or known.unit != unit:
            if known is None and len(self.registers) >= LIMIT_REGISTERS:
                return None
            known = self.registers[property_id] = RegisterMemory(unit=unit)
        return known

    def decided(self, identifier: str, code: str | None) -> None:
        """Remember a verdict."""
        self.recent.pop(identifier, None)
        self.recent[identifier] = code
        while len(self.recent) > LIMIT_RECENT:
            del self.recent[next(iter(self.recent))]


class Memories:
    """What is remembered of all meters of an adapter."""

    def __init__(self, meters: dict[str, MeterMemory] | None = None) -> None:
        self.meters = {} if meters is None else meters
        self.is_changed = False
        """Whether anything was learnt since it was saved."""
        self.is_urgent = False
        """Whether a loss of it would be missed: a doubt, a new level."""

    def of(self, meter_id: str) -> MeterMemory:
        """Return what is remembered of a meter."""
        known = self.meters.get(meter_id)
        if known is None:
            known = self.meters[meter_id] = MeterMemory()
        return known
