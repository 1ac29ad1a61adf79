"""By what a reading is known, and when two readings say the same."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest

from meterway.core.identifiers import content_digest, foreign_identifier, reading_identifier
from meterway.core.reading import MeterReading, PropertyValue

METER = "5f0d8a52-8f5f-4f0a-9a3e-1c2d3e4f5a6b"
TIME = datetime(2026, 3, 1, 11, 30, 0, 123456, tzinfo=UTC)
IMPORT = PropertyValue("OBIS_1.8.0", Decimal("2345.670"), unit="kWh")
POWER = PropertyValue("OBIS_1.7.0", Decimal("0.300"), unit="kW")
TEXT = PropertyValue("OBIS_96.14.0", text_value="0002")


def identifier(*values: PropertyValue, time: datetime = TIME, meter_id: str = METER) -> UUID:
    return reading_identifier(meter_id, time, values or (IMPORT, POWER, TEXT))


def reading(**changes: object) -> MeterReading:
    made = MeterReading(identifier(), METER, TIME, (IMPORT, POWER, TEXT), sequence_number=5)
    return msgspec.structs.replace(made, **changes)


def test_an_identifier_is_fixed_for_ever() -> None:
    assert identifier() == UUID("019ca929-933b-7bb6-8b79-c7df7dd60094")


def test_an_identifier_has_the_layout_of_uuid_version_7() -> None:
    found = identifier()
    assert (found.version, found.variant) == (7, "specified in RFC 4122")
    assert found.int >> 80 == 1_772_364_600_123


def test_identifiers_sort_by_reading_time() -> None:
    times = [TIME + timedelta(milliseconds=step) for step in (0, 1, 2, 1000, 10**6)]
    found = [identifier(time=time) for time in times]
    assert found == sorted(found)


@pytest.mark.parametrize(
    "changed",
    [
        identifier(meter_id="other"),
        identifier(time=TIME + timedelta(microseconds=1)),
        identifier(IMPORT, POWER),
        identifier(IMPORT, POWER, PropertyValue("OBIS_96.14.0", text_value="0001")),
        identifier(PropertyValue("OBIS_1.8.0", Decimal("2345.671"), unit="kWh"), POWER, TEXT),
        identifier(PropertyValue("OBIS_1.8.0", Decimal("2345.670"), unit="Wh"), POWER, TEXT),
        identifier(PropertyValue("OBIS_1.8.0", Decimal("2345.670"), unit="kWh", date=TIME), POWER, TEXT),
    ],
)
def test_another_reading_has_another_identifier(changed: UUID) -> None:
    assert changed != identifier()


@pytest.mark.parametrize(
    "same",
    [
        identifier(TEXT, POWER, IMPORT),
        identifier(time=TIME.astimezone(timezone(timedelta(hours=5, minutes=30)))),
        identifier(PropertyValue("OBIS_1.8.0", Decimal("2345.67"), unit="kWh"), POWER, TEXT),
        identifier(PropertyValue("OBIS_1.8.0", Decimal("234567E-2"), unit="kWh"), POWER, TEXT),
    ],
)
def test_order_offset_and_trailing_zeros_do_not_make_another_reading(same: UUID) -> None:
    assert same == identifier()


def test_zero_has_one_spelling_and_long_numbers_count_to_the_last_digit() -> None:
    def of(number: str) -> UUID:
        return identifier(PropertyValue("OBIS_1.8.0", Decimal(number), unit="kWh"))

    assert of("0") == of("-0.000") == of("0E-30")
    assert of("1E+5") == of("100000.0")
    assert of("1" * 40 + "." + "1" * 40) != of("1" * 40 + "." + "1" * 39 + "2")


def test_a_text_cannot_pass_for_other_fields() -> None:
    one = identifier(PropertyValue("OBIS_96.13.0", text_value='a","b'))
    other = identifier(PropertyValue("OBIS_96.13.0", text_value="a"), PropertyValue("OBIS_96.13.1", text_value="b"))
    assert one != other


def test_a_foreign_identifier_depends_on_meter_time_and_text() -> None:
    first = foreign_identifier(METER, TIME, "abc")
    assert foreign_identifier(METER, TIME, "abc") == first
    assert first.int >> 80 == 1_772_364_600_123
    assert len({first, foreign_identifier(METER, TIME, "abd"), foreign_identifier("other", TIME, "abc")}) == 3


def test_the_digest_says_whether_two_readings_say_the_same() -> None:
    first = content_digest(reading())
    assert len(first) == 16
    assert content_digest(reading(sequence_number=6)) == first
    assert content_digest(reading(identifier=UUID(int=0))) == first
    assert content_digest(reading(property_values=(POWER, TEXT, IMPORT))) == first
    others = [
        content_digest(reading(meter_id="other")),
        content_digest(reading(reading_time=TIME + timedelta(microseconds=1))),
        content_digest(reading(fault_code="F1")),
        content_digest(reading(property_values=(IMPORT, POWER))),
    ]
    assert len({first, *others}) == 5
