"""A reading as parallel columns: what a store keeps, and all that ingest needs to know of a reading.

Numbers stay the text that was sent, since a store takes digits, not ``Decimal``; so a reading of a known shape costs
hardly anything for each value (see ``shapes``).
"""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Self
from uuid import UUID

import msgspec

from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.units import digits


class PropertySet(NamedTuple):
    """Which properties a reading has, in order, and their units."""

    property_ids: tuple[str, ...]
    units: tuple[str | None, ...]


class ValueColumns(msgspec.Struct, frozen=True, gc=False):
    """The values of a reading, as columns that are parallel to ``property_set``."""

    property_set: PropertySet
    numerical_values: tuple[str | None, ...]
    """Decimal digits with a point, no exponent; None where the value is a text."""
    text_values: tuple[str | None, ...] | None = None
    """None where no value is a text."""
    dates: tuple[datetime | None, ...] | None = None
    """None where no value has a time of its own."""

    @classmethod
    def of(cls, values: tuple[PropertyValue, ...]) -> Self:
        """Return the columns of values."""
        numbers = [value.numerical_value for value in values]
        texts = [value.text_value for value in values]
        dates = [value.date for value in values]
        count = len(values)
        return cls(
            PropertySet(tuple([value.property_id for value in values]), tuple([value.unit for value in values])),
            tuple([None if number is None else digits(number) for number in numbers]),
            None if texts.count(None) == count else tuple(texts),
            None if dates.count(None) == count else tuple(dates),
        )

    def values(self) -> tuple[PropertyValue, ...]:
        """Return the values with these columns."""
        names, units = self.property_set
        none = (None,) * len(names)
        numbers = [None if number is None else Decimal(number) for number in self.numerical_values]
        return tuple(map(PropertyValue, names, numbers, self.text_values or none, units, self.dates or none))


class ReadingColumns(msgspec.Struct, frozen=True, gc=False):
    """A ``MeterReading``, its values as columns."""

    identifier: UUID
    meter_id: str
    reading_time: datetime
    """Aware."""
    columns: ValueColumns
    sequence_number: int | None = None
    fault_code: str | None = None

    @classmethod
    def of(cls, reading: MeterReading) -> Self:
        """Return the columns of a reading."""
        return cls(
            reading.identifier,
            reading.meter_id,
            reading.reading_time,
            ValueColumns.of(reading.property_values),
            reading.sequence_number,
            reading.fault_code,
        )

    def reading(self) -> MeterReading:
        """Return the reading with these columns."""
        return MeterReading(
            self.identifier,
            self.meter_id,
            self.reading_time,
            self.columns.values(),
            self.sequence_number,
            self.fault_code,
        )
