"""The data model as values: equal, hashable, unchangeable."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from meterway.core.reading import MeterReading, PropertyValue

VALUE = PropertyValue("OBIS_1.8.0", Decimal("1.5"), unit="kWh")


def reading() -> MeterReading:
    return MeterReading(UUID(int=7), "m1", datetime(2026, 1, 1, tzinfo=UTC), (VALUE,))


def test_equal_content_is_an_equal_reading_with_the_same_hash() -> None:
    assert reading() == reading()
    assert hash(reading()) == hash(reading())
    assert len({reading(), reading()}) == 1


def test_a_reading_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable type: 'MeterReading'"):
        reading().meter_id = "m2"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable type: 'PropertyValue'"):
        VALUE.unit = "Wh"  # type: ignore[misc]


def test_a_reading_keeps_digits_that_compare_equal() -> None:
    assert str(PropertyValue("OBIS_1.8.0", Decimal("1.50"), unit="kWh").numerical_value) == "1.50"
