"""Readings on the wire: three shapes in, one out, and nothing but BadDataError for the rest."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core import wire
from meterway.core.errors import BadDataError
from meterway.core.properties import OperationalProperty, catalogue
from meterway.core.reading import MeterReading, PropertyValue

METER = "5f0d8a52-8f5f-4f0a-9a3e-1c2d3e4f5a6b"
TIME = datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=1)))
READING = MeterReading(
    identifier=UUID("019ca8f4-9d40-7abc-8def-0123456789ab"),
    meter_id=METER,
    reading_time=TIME,
    property_values=(
        PropertyValue("OBIS_1.8.0", Decimal("2345.670"), unit="kWh"),
        PropertyValue("OBIS_1.7.0", Decimal("0.300"), unit="kW"),
        PropertyValue("OBIS_96.14.0", text_value="0002"),
        PropertyValue("OBIS_13.7.0", Decimal("0.98")),
    ),
    sequence_number=17,
)


def ours(**changes: Any) -> bytes:
    message = {
        "meterReadingIdentifier": str(READING.identifier),
        "readingTime": "2026-03-01T12:30:00+01:00",
        "sequenceNumber": 17,
        "faultCode": None,
        "propertyValues": [value()],
        "meterIndividual": {"meterIndividualId": METER},
    }
    return json.dumps({key: inner for key, inner in (message | changes).items() if inner != "absent"}).encode()


def value(**changes: Any) -> dict[str, Any]:
    definition = {"propertyId": "OBIS_1.8.0"}
    return {"operationalPropertyDefinition": definition, "numericalValue": 2345.67, "unit": "kWh"} | changes


def flat(**changes: Any) -> bytes:
    message = {
        "readingTime": "2026-03-01T12:30:00+01:00",
        "meterId": METER,
        "propertyValues": [
            {"propertyName": "1.8.0", "numericalValue": "2345.670", "unit": "kWh"},
            {"propertyName": "1.7.0", "numericalValue": "300", "unit": "W"},
        ],
    }
    return json.dumps(message | changes).encode()


def decode(payload: bytes) -> MeterReading:
    return wire.decode(payload, meter_id=METER)


def refusal(payload: bytes, *, meter_id: str = METER) -> tuple[str, str]:
    with pytest.raises(BadDataError) as caught:
        wire.decode(payload, meter_id=meter_id)
    assert len(str(caught.value)) < 300
    return caught.value.reason, str(caught.value)


def raw_number(text: str) -> bytes:
    return ours(propertyValues=[value(numericalValue=0)]).replace(
        b'"numericalValue": 0', b'"numericalValue": ' + text.encode()
    )


def test_our_shape_is_the_one_of_the_design() -> None:
    assert json.loads(wire.encode(READING)) == {
        "meterReadingIdentifier": "019ca8f4-9d40-7abc-8def-0123456789ab",
        "readingTime": "2026-03-01T12:30:00+01:00",
        "sequenceNumber": 17,
        "faultCode": None,
        "propertyValues": [
            {
                "operationalPropertyDefinition": {"propertyId": "OBIS_1.8.0"},
                "numericalValue": 2345.67,
                "unit": "kWh",
            },
            {"operationalPropertyDefinition": {"propertyId": "OBIS_1.7.0"}, "numericalValue": 0.3, "unit": "kW"},
            {"operationalPropertyDefinition": {"propertyId": "OBIS_96.14.0"}, "textValue": "0002"},
            {"operationalPropertyDefinition": {"propertyId": "OBIS_13.7.0"}, "numericalValue": 0.98},
        ],
        "meterIndividual": {"meterIndividualId": METER},
    }


def test_numbers_keep_the_digits_that_the_meter_sent() -> None:
    payload = wire.encode(READING)
    assert b'"numericalValue":2345.670,' in payload
    assert [str(v.numerical_value) for v in decode(payload).property_values] == ["2345.670", "0.300", "None", "0.98"]


@pytest.mark.parametrize(
    ("number", "spelled"),
    [
        ("1E+5", b"100000"),
        ("1E-7", b"0.0000001"),
        ("-0.0", b"-0.0"),
        ("-2.50E+3", b"-2500"),
        ("1E+39", b"1" + b"0" * 39),
    ],
)
def test_no_number_is_written_with_an_exponent(number: str, spelled: bytes) -> None:
    reading = msgspec.structs.replace(
        READING, property_values=(PropertyValue("OBIS_1.8.0", Decimal(number), unit="kWh"),)
    )
    payload = wire.encode(reading)
    assert b'"numericalValue":' + spelled + b"," in payload
    assert decode(payload).property_values[0].numerical_value == Decimal(number)


def test_a_float32_trap_does_not_exist() -> None:
    assert decode(raw_number("16777217")).property_values[0].numerical_value == 16_777_217
    assert decode(raw_number("123456789012345678.123456789")).property_values[0].numerical_value == Decimal(
        "123456789012345678.123456789"
    )


def test_numbers_with_an_exponent_are_read() -> None:
    assert str(decode(raw_number("1.5e3")).property_values[0].numerical_value) == "1500"
    assert decode(raw_number("15E-1")).property_values[0].numerical_value == Decimal("1.5")


def test_the_flat_shape_of_the_reference_implementation_is_read() -> None:
    reading = decode(flat())
    assert reading.meter_id == METER
    assert reading.reading_time == TIME
    assert reading.sequence_number is None
    assert reading.property_values == (
        PropertyValue("OBIS_1.8.0", Decimal("2345.670"), unit="kWh"),
        PropertyValue("OBIS_1.7.0", Decimal("0.300"), unit="kW"),
    )


def test_a_flat_reading_sent_again_has_the_same_identifier_and_another_one_has_not() -> None:
    first = decode(flat()).identifier
    assert decode(flat()).identifier == first
    assert decode(flat(readingTime="2026-03-01T11:30:00Z")).identifier == first
    assert decode(flat(readingTime="2026-03-01T12:30:01+01:00")).identifier != first
    other = [{"propertyName": "1.8.0", "numericalValue": "2345.671", "unit": "kWh"}]
    assert decode(flat(propertyValues=other)).identifier != first


@pytest.mark.parametrize(
    "text", ["1,5", "", " 1", "1_0", "0x1F", "NaN", "Infinity", "--1", "1e", "١", "1" * 300, "1e9999"]
)
def test_a_string_that_is_no_number_is_refused_in_the_flat_shape(text: str) -> None:
    values = [{"propertyName": "1.8.0", "numericalValue": text, "unit": "kWh"}]
    reason, message = refusal(flat(propertyValues=values))
    assert reason == "bad-number"
    assert "$.propertyValues[0]" in message


@pytest.mark.parametrize("text", ["000133.40", "+133.4", "133.4", "1334e-1"])
def test_numbers_in_strings_may_be_written_as_meters_do(text: str) -> None:
    values = [{"propertyName": "1.8.0", "numericalValue": text, "unit": "kWh"}]
    assert decode(flat(propertyValues=values)).property_values[0].numerical_value == Decimal("133.4")


def test_a_number_in_a_string_is_refused_in_our_shape() -> None:
    reason, message = refusal(ours(propertyValues=[value(numericalValue="2345.67")]))
    assert (reason, message) == (
        "bad-number",
        'numericalValue "2345.67" is not a number - at `$.propertyValues[0]`',
    )


@pytest.mark.parametrize("name", ["physicalMeterType", "physicalMeter"])
def test_the_nested_shape_of_the_specification_is_read(name: str) -> None:
    meter_type = {"physicalElementName": "Any", "physicalElementIsVirtual": False, "physicalMeterClass": "ELECTRICITY"}
    definition = {"propertyId": "OBIS_32.7.0", "propertyDescription": "Any text", "allowedUnits": ["V"]}
    payload = ours(
        meterReadingIdentifier="no-uuid-at-all",
        faultCode="F1",
        propertyValues=[
            {
                "unit": "V",
                "date": "2026-03-01T12:29:59Z",
                "numericalValue": 231.0,
                "operationalPropertyDefinition": definition,
            }
        ],
        meterIndividual={"meterIndividualId": METER, "householdId": "ignored", name: meter_type},
    )
    reading = decode(payload)
    assert reading.fault_code == "F1"
    assert reading.property_values == (
        PropertyValue(
            "OBIS_32.7.0",
            Decimal("231.0"),
            unit="V",
            date=datetime(2026, 3, 1, 12, 29, 59, tzinfo=UTC),
        ),
    )


def test_an_identifier_that_is_no_uuid_gives_a_stable_one_that_begins_with_the_time() -> None:
    first = decode(ours(meterReadingIdentifier="abc")).identifier
    assert decode(ours(meterReadingIdentifier="abc", faultCode="x")).identifier == first
    assert decode(ours(meterReadingIdentifier="abd")).identifier != first
    assert first.version == 7
    assert first.int >> 80 == int(TIME.timestamp() * 1000)


def test_a_missing_identifier_is_derived_from_the_content() -> None:
    reading = decode(ours(meterReadingIdentifier="absent"))
    assert reading.identifier == wire.reading_identifier(METER, TIME, reading.property_values)


def test_ids_and_units_come_out_in_the_spelling_of_the_catalogue() -> None:
    values = [{"propertyName": "1-0:1.8.0*255", "numericalValue": "7", "unit": "W*h"}]
    assert decode(flat(propertyValues=values)).property_values == (
        PropertyValue("OBIS_1.8.0", Decimal("0.007"), unit="kWh"),
    )


@pytest.mark.parametrize(
    ("name", "number", "unit", "stored", "stored_unit"),
    [
        ("OBIS_1.8.0", "1500", "Wh", "1.500", "kWh"),
        ("OBIS_1.8.0", "1.5", "MWh", "1500", "kWh"),
        ("OBIS_1.8.0", "12345.678", "kWh", "12345.678", "kWh"),
        ("OBIS_1.7.0", "-412", "W", "-0.412", "kW"),
        ("HEAT_energy", "3.60", "GJ", "1000.00", "kWh"),
        ("HEAT_energy", "1", "MJ", "0.2777777777777777777777777777777778", "kWh"),
        ("HEAT_energy", "0.0000001", "MJ", "0.0000000277777777777777777777777777777778", "kWh"),
        ("OBIS_1.8.0", "1e-40", "Wh", "0." + "0" * 40, "kWh"),
        ("SITE_connection_power", "3.60", "kVA", "3.60", "kVA"),
    ],
)
def test_numbers_of_one_property_have_one_unit(
    name: str, number: str, unit: str, stored: str, stored_unit: str
) -> None:
    values = [{"propertyName": name, "numericalValue": number, "unit": unit}]
    for _ in range(3):
        (found,) = decode(flat(propertyValues=values)).property_values
        assert found.numerical_value is not None
        assert (format(found.numerical_value, "f"), found.unit) == (stored, stored_unit)
    assert decode(wire.encode(decode(flat(propertyValues=values)))).property_values == (found,)


def test_a_number_too_large_for_its_usual_unit_is_refused() -> None:
    values = [{"propertyName": "1.8.0", "numericalValue": "1e39", "unit": "GWh"}]
    assert refusal(flat(propertyValues=values))[0] == "bad-number"


def test_what_is_encoded_has_the_usual_unit_too() -> None:
    given = msgspec.structs.replace(READING, property_values=(PropertyValue("OBIS_1.8.0", Decimal(1500), unit="Wh"),))
    assert b'"numericalValue":1.500,"unit":"kWh"' in wire.encode(given)


def test_one_and_a_half_kwh_and_1500_wh_are_the_same_reading() -> None:
    one = [{"propertyName": "1.8.0", "numericalValue": "1500", "unit": "Wh"}]
    other = [{"propertyName": "1.8.0", "numericalValue": "1.5", "unit": "kWh"}]
    assert decode(flat(propertyValues=one)).identifier == decode(flat(propertyValues=other)).identifier


def test_a_reading_without_a_meter_id_is_the_one_of_its_topic() -> None:
    assert decode(ours(meterIndividual="absent")).meter_id == METER
    assert decode(ours(meterIndividual={})).meter_id == METER


@pytest.mark.parametrize("payload", [ours(), flat(), ours(meterId="other")])
def test_another_meter_in_the_payload_than_in_the_topic_is_refused(payload: bytes) -> None:
    reason, message = refusal(payload, meter_id="another")
    assert reason == "meter-mismatch"
    assert message.startswith("the payload names meter '")
    assert message.endswith("the topic 'another'")


def test_unknown_fields_are_ignored() -> None:
    assert decode(ours(newThing={"a": [1]}, propertyValues=[value(quality="good")])).sequence_number == 17


@pytest.mark.parametrize(
    ("payload", "reason", "message"),
    [
        (b"", "not-json", "not JSON: Input data was truncated"),
        (b"garbage", "not-json", "not JSON: JSON is malformed"),
        (ours()[:-1], "not-json", "not JSON: Input data was truncated"),
        (b"\xff\xfe", "not-utf8", "not UTF-8: invalid start byte at byte 0"),
        (ours(x="y").replace(b'"y"', b'"\xff"'), "not-utf8", "not UTF-8: invalid start byte"),
        (b" " * (wire.LIMIT_PAYLOAD_BYTES + 1), "too-large", "at most 262144 bytes, this one 262145"),
        (b"[]", "bad-shape", "Expected `object`, got `array`"),
        (b'{"x":' + b"[" * 100_000, "bad-shape", "nested too deeply"),
        (ours(readingTime="absent"), "bad-shape", "missing required field `readingTime`"),
        (ours(propertyValues="absent"), "bad-shape", "missing required field `propertyValues`"),
        (ours(propertyValues=7), "bad-shape", "Expected `array`, got `int` - at `$.propertyValues`"),
        (ours(propertyValues=[value(), 7]), "bad-shape", "at `$.propertyValues[1]`"),
        (ours(propertyValues=[value(unit=7)]), "bad-shape", "at `$.propertyValues[0].unit`"),
        (ours(readingTime="yesterday"), "bad-shape", "at `$.readingTime`"),
        (ours(readingTime=1772364600), "bad-shape", "Expected `datetime`, got `int` - at `$.readingTime`"),
        (ours(readingTime="2026-03-01T12:30:00"), "naive-time", "no offset from UTC - at `$.readingTime`"),
        (ours(readingTime="1999-12-31T23:59:59Z"), "absurd-time", "not in the years 2000 to 2100"),
        (ours(readingTime="2101-01-01T00:00:00Z"), "absurd-time", "not in the years 2000 to 2100"),
        (ours(readingTime="0001-01-01T00:00:00+14:00"), "absurd-time", "not in the years 2000 to 2100"),
        (ours(propertyValues=[value(date="2026-03-01T12:30:00")]), "naive-time", "at `$.propertyValues[0]`"),
        (ours(propertyValues=[value(date="1970-01-01T00:00:00Z")]), "absurd-time", "at `$.propertyValues[0]`"),
        (ours(sequenceNumber=-1), "bad-shape", "at `$.sequenceNumber`"),
        (ours(sequenceNumber=2**63), "bad-shape", "at `$.sequenceNumber`"),
        (ours(sequenceNumber="1"), "bad-shape", "at `$.sequenceNumber`"),
        (ours(faultCode="a\0b"), "bad-text", "faultCode contains NUL"),
        (ours(faultCode="f" * 257), "bad-text", "faultCode has 257 characters, at most 256 are kept"),
        (ours(meterReadingIdentifier=5), "bad-shape", "at `$.meterReadingIdentifier`"),
        (ours(propertyValues=[]), "empty", "without values - at `$.propertyValues`"),
        (ours(propertyValues=[value()] * 513), "too-many-values", "at most 512 values, this one 513"),
        (ours(propertyValues=[value(), value()]), "repeated-property", "second time - at `$.propertyValues[1]`"),
        (ours(propertyValues=[{}]), "bad-shape", "neither operationalPropertyDefinition nor propertyName"),
        (ours(propertyValues=[value(operationalPropertyDefinition={})]), "bad-shape", "`propertyId`"),
        (
            ours(propertyValues=[value(operationalPropertyDefinition={"propertyId": "OBIS_0.8.15"})]),
            "unknown-property",
            "property 'OBIS_0.8.15' is not in the catalogue - at `$.propertyValues[0]`",
        ),
        (ours(propertyValues=[value(unit="kW")]), "bad-unit", "'kW' is no unit of OBIS_1.8.0, which has kWh"),
        (ours(propertyValues=[value(unit=None)]), "bad-unit", "OBIS_1.8.0 needs a unit: kWh"),
        (ours(propertyValues=[value(numericalValue=None)]), "bad-shape", "OBIS_1.8.0 has no value"),
        (ours(propertyValues=[value(textValue="x")]), "bad-shape", "has both a number and a text"),
        (
            ours(propertyValues=[value(numericalValue=None, textValue="much")]),
            "bad-number",
            "OBIS_1.8.0 is a number, not a text",
        ),
        (raw_number("true"), "bad-number", "numericalValue true is not a number"),
        (raw_number("[1]"), "bad-number", "numericalValue [1] is not a number"),
        (raw_number("{}"), "bad-number", "numericalValue {} is not a number"),
        (raw_number("NaN"), "bad-number", "NaN is no number in JSON"),
        (raw_number("-Infinity"), "bad-number", "Infinity is no number in JSON"),
        (raw_number("1e40"), "bad-number", "more than 40 digits"),
        (raw_number("1e-41"), "bad-number", "more than 40 digits"),
        (raw_number("1e999999999999999999999"), "bad-number", "out of all bounds"),
        (raw_number("1e-999999999999999999999"), "bad-number", "out of all bounds"),
        (raw_number("1" * 41), "bad-number", "more than 40 digits"),
        (raw_number("0." + "1" * 41), "bad-number", "more than 40 digits"),
        (raw_number("1" * 201), "bad-number", "numericalValue has 201 characters"),
        (raw_number("01"), "not-json", "invalid number"),
        (raw_number("1."), "not-json", "invalid number"),
    ],
)
def test_what_is_wrong_is_named_with_its_reason(payload: bytes, reason: str, message: str) -> None:
    found, text = refusal(payload)
    assert (found, message in text) == (reason, True), text


def text_value(text: str) -> bytes:
    definition = {"propertyId": "OBIS_96.13.0"}
    return ours(propertyValues=[{"operationalPropertyDefinition": definition, "textValue": text}])


@pytest.mark.parametrize("text", ["", "Grüße ⚡", "x" * 4096, '"\\\n'])
def test_texts_arrive_as_they_were(text: str) -> None:
    assert decode(text_value(text)).property_values[0].text_value == text


@pytest.mark.parametrize(("text", "message"), [("a\0", "textValue contains NUL"), ("x" * 4097, "has 4097 characters")])
def test_texts_that_storage_cannot_keep_are_refused(text: str, message: str) -> None:
    reason, found = refusal(text_value(text))
    assert reason == "bad-text"
    assert message in found


def test_a_text_has_no_unit() -> None:
    definition = {"propertyId": "OBIS_96.13.0"}
    values = [{"operationalPropertyDefinition": definition, "textValue": "x", "unit": "V"}]
    assert refusal(ours(propertyValues=values))[0] == "bad-unit"
    values = [{"operationalPropertyDefinition": definition, "textValue": "x", "unit": ""}]
    assert decode(ours(propertyValues=values)).property_values[0].unit is None


def test_a_state_may_be_a_number() -> None:
    definition = {"propertyId": "OBIS_96.14.0"}
    values = [{"operationalPropertyDefinition": definition, "numericalValue": 2}]
    assert decode(ours(propertyValues=values)).property_values == (PropertyValue("OBIS_96.14.0", Decimal(2)),)


def test_a_sender_may_count_from_zero() -> None:
    assert decode(ours(sequenceNumber=0)).sequence_number == 0
    assert decode(ours(sequenceNumber=2**63 - 1)).sequence_number == 2**63 - 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reading_time": datetime(2026, 3, 1)}, "naive-time"),  # noqa: DTZ001
        ({"reading_time": datetime(1990, 3, 1, tzinfo=UTC)}, "absurd-time"),
        ({"property_values": ()}, "empty"),
        ({"property_values": (PropertyValue("OBIS_1.8.0", Decimal("NaN"), unit="kWh"),)}, "bad-number"),
        ({"property_values": (PropertyValue("OBIS_1.8.0", Decimal("1E+99"), unit="kWh"),)}, "bad-number"),
        ({"property_values": (PropertyValue("OBIS_1.8.0", Decimal(1), unit="V"),)}, "bad-unit"),
        ({"property_values": (PropertyValue("nonsense", Decimal(1)),)}, "unknown-property"),
        ({"property_values": READING.property_values * 2}, "repeated-property"),
        ({"property_values": (PropertyValue("OBIS_96.13.0", text_value="\ud800"),)}, "bad-text"),
        ({"fault_code": "x\0"}, "bad-text"),
        ({"sequence_number": 2**63}, "bad-shape"),
        ({"sequence_number": -1}, "bad-shape"),
    ],
)
def test_what_decode_would_refuse_is_not_encoded(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadDataError) as caught:
        wire.encode(msgspec.structs.replace(READING, **changes))
    assert caught.value.reason == reason


def test_a_reading_too_large_for_the_wire_is_not_encoded() -> None:
    texts = [d.property_id for d in catalogue() if d.kind.may_be_text][:80]
    values = tuple(PropertyValue(name, text_value="x" * 4096) for name in texts)
    with pytest.raises(BadDataError) as caught:
        wire.encode(msgspec.structs.replace(READING, property_values=values))
    assert caught.value.reason == "too-large"


numbers = st.builds(
    lambda digits, decimals: Decimal(digits).scaleb(-decimals, context=Context(prec=100)),
    st.integers(1 - 10**40, 10**40 - 1) | st.integers(-(10**9), 10**9),
    st.integers(0, 40),
)
times = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001
    datetime(2100, 12, 30),  # noqa: DTZ001
    timezones=st.builds(timezone, st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes))),
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@st.composite
def property_values(draw: st.DrawFn, definition: OperationalProperty) -> PropertyValue:
    date = draw(st.none() | times)
    if definition.kind.may_be_text and draw(st.booleans()):
        return PropertyValue(definition.property_id, text_value=draw(texts), date=date)
    return PropertyValue(definition.property_id, draw(numbers), unit=definition.unit, date=date)


@st.composite
def readings(draw: st.DrawFn) -> MeterReading:
    definitions = draw(st.lists(st.sampled_from(list(catalogue())), min_size=1, max_size=20, unique_by=id))
    return MeterReading(
        identifier=draw(st.uuids()),
        meter_id=draw(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)),
        reading_time=draw(times),
        property_values=tuple(draw(property_values(definition)) for definition in definitions),
        sequence_number=draw(st.none() | st.integers(0, 2**63 - 1)),
        fault_code=draw(st.none() | texts),
    )


@given(readings())
def test_every_reading_comes_back_equal(reading: MeterReading) -> None:
    payload = wire.encode(reading)
    back = wire.decode(payload, meter_id=reading.meter_id)
    assert back == reading
    assert back.reading_time.utcoffset() == reading.reading_time.utcoffset()
    assert wire.encode(back) == payload
    assert wire.content_digest(back) == wire.content_digest(reading)


@given(readings())
def test_what_is_encoded_is_json_for_everyone(reading: MeterReading) -> None:
    message = json.loads(wire.encode(reading), parse_float=Decimal, parse_int=Decimal)
    numbers = [value.get("numericalValue") for value in message["propertyValues"]]
    assert numbers == [value.numerical_value for value in reading.property_values]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reading_or_bad_data(payload: bytes) -> None:
    with pytest.raises(BadDataError):
        decode(payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["readingTime", "sequenceNumber", "faultCode", "propertyValues", "meterIndividual", "meterId"]),
    json_values,
)
def test_any_json_in_any_field_is_a_reading_or_bad_data(name: str, inner: object) -> None:
    try:
        reading = decode(ours(**{name: inner}))
    except BadDataError as error:
        assert error.reason  # noqa: PT017
    else:
        assert reading.meter_id == METER


@given(
    st.sampled_from(["operationalPropertyDefinition", "propertyName", "numericalValue", "textValue", "unit", "date"]),
    json_values,
    st.booleans(),
)
def test_any_json_in_a_value_is_a_reading_or_bad_data(name: str, inner: object, is_flat: bool) -> None:
    changed = value(**{name: inner})
    if is_flat:
        changed |= {"operationalPropertyDefinition": None, "propertyName": "1.8.0", name: inner}
    try:
        reading = decode(ours(propertyValues=[changed]))
    except BadDataError as error:
        assert error.reason  # noqa: PT017
    else:
        assert wire.decode(wire.encode(reading), meter_id=METER) == reading


@given(st.integers(0, len(ours()) - 1), st.integers(0, 7))
def test_a_flipped_bit_never_does_worse_than_bad_data(position: int, bit: int) -> None:
    damaged = bytearray(ours())
    damaged[position] ^= 1 << bit
    try:
        decode(bytes(damaged))
    except BadDataError as error:
        assert error.reason  # noqa: PT017
