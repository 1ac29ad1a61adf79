"""The data model: what a meter said, in the words of the specification.

Frozen, exact, without dictionaries. Names on the wire are made in ``wire.py`` only.
Source: Open Meter Data Platform, chapter "Data model".
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID


class PhysicalMeterClass(StrEnum):
    """What a meter measures."""

    ELECTRICITY = "ELECTRICITY"
    GAS = "GAS"
    WATER = "WATER"
    HEAT = "HEAT"


@dataclass(frozen=True, slots=True)
class PropertyValue:
    """One value of one operational property; exactly one of the two values is set."""

    property_id: str
    """An id of the catalogue, ``OBIS_1.8.0``."""
    numerical_value: Decimal | None = None
    """Finite; with exactly the digits that the meter sent."""
    text_value: str | None = None
    unit: str | None = None
    """A unit that the catalogue allows for the property; None for texts and pure numbers."""
    date: datetime | None = None
    """Aware; only where the value has a time of its own, as the gas value of a P1 port."""


@dataclass(frozen=True, slots=True)
class MeterReading:
    """What one meter said at one moment."""

    identifier: UUID
    """Stable: the same reading, read or sent again, has the same identifier. Begins with the reading time."""
    meter_id: str
    reading_time: datetime
    """Aware."""
    property_values: tuple[PropertyValue, ...]
    sequence_number: int | None = None
    """Counts a meter's readings from 1 without gaps; None from foreign senders that do not count."""
    fault_code: str | None = None
    """Why this reading is doubtful; None when it is not."""
