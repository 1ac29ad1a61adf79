"""What a virtual meter has said: the truth that stored readings are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    """The numbers in one telegram."""

    meter_id: str
    protocol: str
    """``p1`` or ``sml``."""
    n: int
    """Counts the telegrams that this meter has made, from 1; a restart begins anew."""
    instant_s: int
    """The meter's own time, as Unix time."""
    values: Mapping[str, Decimal]
    """By canonical OBIS code (``1-0:1.8.0*255``), with exactly the digits and in the unit of the telegram."""

    @property
    def instant(self) -> datetime:
        """The meter's own time, in UTC."""
        return datetime.fromtimestamp(self.instant_s, UTC)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One telegram, and what it says."""

    telegram: bytes
    statement: Statement
