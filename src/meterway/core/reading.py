"""The data model: what a meter said, in the words of the specification.

Frozen, exact, without dictionaries, and no work for the garbage collector, since a store holds thousands. Names on
the wire are made in ``wire.py`` only. ``msgspec.structs.replace`` makes a changed copy.
Source: Open Meter Data Platform, chapter "Data model".
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec


class PhysicalMeterClass(StrEnum):
    """What a meter measures."""

    ELECTRICITY = "ELECTRICITY"
    GAS = "GAS"
    WATER = "WATER"
    HEAT = "HEAT"


class PropertyValue(msgspec.Struct, frozen=True, gc=False):
    """One value of one operational property; exactly one of the two values is set."""

    property_id: str
    """An id of the catalogue, ``OBIS_1.8.0``."""
    numerical_value: Decimal | None = None
    """Finite; with exactly the digits that the meter sent."""
    text_value: str | None = None
    unit: str | None = None
    """In the spelling of ``core.units``, of a dimension that the catalogue allows for the property; None for texts and
    pure numbers."""
    date: datetime | None = None
    """Aware; only where the value has a time of its own, as the gas value of a P1 port."""


class MeterReading(msgspec.Struct, frozen=True, gc=False):
    """What one meter said at one moment."""

    identifier: UUID
    """Stable: the same reading, read or sent again, has the same identifier. Begins with the reading time."""
    meter_id: str
    reading_time: datetime
    """Aware."""
    property_values: tuple[PropertyValue, ...]
    sequence_number: int | None = None
    """Counts a meter's readings from 1 without gaps (a foreign sender may begin at 0); None from those that do not
    count."""
    fault_code: str | None = None
    """Why this reading is doubtful; None when it is not."""
