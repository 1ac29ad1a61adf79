"""What a codec makes of a frame: the meter's own words, typed, before any mapping."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from meterway.core.obis import Obis


@dataclass(frozen=True, slots=True)
class Register:
    """One line of a telegram."""

    obis: Obis
    value: Decimal | str
    """A number with exactly the digits sent, scaled to ``unit``; or a text (octet strings as upper-case hex)."""
    unit: str | None = None
    """In the spelling of ``core.units``; None when the meter gave none."""
    time: datetime | None = None
    """Aware; where the line carries a time of its own (a gas value on a P1 port)."""


@dataclass(frozen=True, slots=True)
class Telegram:
    """One complete, checked message of a meter."""

    protocol: str
    """``p1``, ``sml``, ..."""
    registers: tuple[Register, ...]
    raw: bytes
    """The frame exactly as received."""
    meter: str = ""
    """How the meter calls itself: the P1 identification line, the SML server id as hex; empty if it does not."""
    time: datetime | None = None
    """Aware; the meter's own clock; None if it sends none."""
    checked: bool = True
    """False where the protocol carried no checksum, so that only plausibility protects the values."""
