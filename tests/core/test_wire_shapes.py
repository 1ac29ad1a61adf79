"""A known shape is a shorter way to the same reading: what care would refuse it refuses, what it stores is the same."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core import shapes, wire
from meterway.core.columns import ReadingColumns, ValueColumns
from meterway.core.errors import BadDataError
from meterway.core.properties import catalogue
from meterway.core.reading import PropertyValue
from meterway.core.shapes import Shapes

METER = "m-1"
NAMES = ["OBIS_1.8.0", "OBIS_2.8.0", "OBIS_1.7.0", "OBIS_32.7.0", "OBIS_13.7.0"]


def ours(numbers: list[str], **changes: Any) -> bytes:
    values = [
        {
            "operationalPropertyDefinition": {"propertyId": name},
            "numericalValue": index,
            "unit": catalogue().require(name).unit,
        }
        for index, name in enumerate(NAMES[: len(numbers)])
    ]
    values.append({"operationalPropertyDefinition": {"propertyId": "OBIS_96.14.0"}, "textValue": "0002"})
    message = {
        "meterReadingIdentifier": "019ca8f4-9d40-7abc-8def-0123456789ab",
        "readingTime": "2026-03-01T12:30:00+01:00",
        "sequenceNumber": 17,
        "propertyValues": values,
        "meterIndividual": {"meterIndividualId": METER},
    }
    return filled(json.dumps(message | changes, separators=(",", ":")), numbers)


def flat(numbers: list[str], **_: Any) -> bytes:
    values = [
        {
            "propertyName": name.removeprefix("OBIS_"),
            "numericalValue": str(index),
            "unit": catalogue().require(name).unit,
        }
        for index, name in enumerate(NAMES[: len(numbers)])
    ]
    return filled(
        json.dumps({"readingTime": "2026-03-01T12:30:00Z", "meterId": METER, "propertyValues": values}), numbers
    )


def filled(text: str, numbers: list[str]) -> bytes:
    """Return the JSON text with ``numbers`` in place of its numerical values."""
    left = iter(numbers)
    return re.sub(r'("numericalValue": ?"?)[0-9]+', lambda found: found[1] + next(left), text).encode()


Outcome = ReadingColumns | tuple[str, str]


def outcome(payload: bytes) -> Outcome:
    try:
        return wire.decode_columns(payload, meter_id=METER)
    except BadDataError as error:
        return error.reason, str(error)


@contextmanager
def known(*payloads: bytes) -> Iterator[Shapes]:
    """Have ``wire`` know the shapes of ``payloads`` alone."""
    before = wire._shapes
    wire._shapes = Shapes("numericalValue", before._decode)
    try:
        for payload in payloads * 2:
            outcome(payload)
        yield wire._shapes
    finally:
        wire._shapes = before


def with_care(payload: bytes) -> Outcome:
    with known():
        return outcome(payload)


def is_short(payload: bytes) -> bool:
    """Whether the values of ``payload`` need not be read with care."""
    envelope = wire._envelope(payload)
    return envelope is not None and bool(wire._shapes.find(wire._shapes.split(str(envelope.property_values, "utf-8"))))


@pytest.mark.parametrize("shape", [ours, flat])
def test_the_third_reading_of_a_shape_goes_the_short_way_and_says_the_same(shape: Any) -> None:
    payload = shape(["12345.678", "0.000", "-0.0", "230", "0.0000001"])
    with known(shape(["1", "2", "3", "4", "5"])):
        assert is_short(payload)
        found = outcome(payload)
    assert found == with_care(payload)
    assert isinstance(found, ReadingColumns)
    assert found.columns.numerical_values[:5] == ("12345.678", "0.000", "-0.0", "230", "0.0000001")
    assert str(found.reading().property_values[0].numerical_value) == "12345.678"


def test_a_shape_with_a_space_after_the_colon_is_known_too() -> None:
    spaced = json.dumps(json.loads(ours(["1", "2"])))
    with known(filled(spaced, ["3", "4"])):
        assert is_short(filled(spaced, ["5.5", "6.50"]))


TOKENS = [
    *("0", "-0", "-0.00", "1.50", "-12.5", "", "-", "01", "-01.5", "1.", ".5", "+1", "--1", "1e5", "1.5E-3", "1e400"),
    *("NaN", "-Infinity", "null", "true", "{}", "[1]", '"1"', "1 ", "1\t", " 1", "1_0", "1,5", "١", "\\u0031"),
    *('1,"numericalValue":2', '1,"unit":"V"', "1}", '1"', "1" * 18, "1" * 19, "0" * 19, "9" * 40, "9" * 41, "9" * 201),
    *("0." + "1" * 20, "0." + "1" * 21, "1" * 18 + "." + "1" * 20, "1" * 19 + ".5", "-0.0000001"),
]

tokens = (
    st.decimals(allow_nan=False, allow_infinity=False).map(str)
    | st.from_regex(r"-?[0-9]{1,45}(\.[0-9]{1,45})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.from_regex(r"[-+.0-9eE \"_,nul]{0,8}", fullmatch=True)
    | st.sampled_from(TOKENS)
)


def check_token(shape: Any, numbers: list[str]) -> None:
    payload, again = shape(numbers), shape(["8.25"] * len(numbers))
    with known(shape(["7"] * len(numbers)), payload):
        assert outcome(payload) == with_care(payload)
        assert outcome(again) == with_care(again)


@pytest.mark.parametrize("shape", [ours, flat])
@pytest.mark.parametrize("token", TOKENS)
def test_what_stands_in_place_of_a_number_is_read_as_with_care(shape: Any, token: str) -> None:
    check_token(shape, [token])
    check_token(shape, ["5", token, "6"])


@given(st.sampled_from([ours, flat]), st.lists(tokens, min_size=1, max_size=5))
def test_whatever_stands_in_place_of_numbers_is_read_as_with_care(shape: Any, numbers: list[str]) -> None:
    check_token(shape, numbers)


@given(st.integers(0, len(ours(["1", "2"])) - 1), st.integers(0, 7))
def test_a_flipped_bit_in_a_known_shape_is_read_as_with_care(position: int, bit: int) -> None:
    damaged = bytearray(ours(["1", "2"]))
    damaged[position] ^= 1 << bit
    with known(ours(["3", "4"]), bytes(damaged)):
        assert outcome(bytes(damaged)) == with_care(bytes(damaged))


ID = '"operationalPropertyDefinition":{"propertyId":"OBIS_%s"}'
ODD = {
    "a number given twice, and one with a space": [
        "{" + ID % "1.8.0" + ',"numericalValue":%s,"numericalValue":%s,"unit":"kWh"}',
        "{" + ID % "2.8.0" + ',"numericalValue" :7,"unit":"kWh"}',
    ],
    "a number that is overruled by the first probe": [
        "{" + ID % "1.8.0" + ',"numericalValue":%s,"numericalValue" :1,"unit":"kWh"}',
        "{" + ID % "2.8.0" + ',"numericalValue":%s,"unit":"kWh"}',
    ],
    "a number in a field that nobody knows": [
        "{" + ID % "1.8.0" + ',"x":{"numericalValue":%s},"numericalValue" :%s,"unit":"kWh"}'
    ],
    "a number in a text": [
        "{" + ID % "96.13.0" + ',"textValue":"\\"numericalValue\\":%s"}',
        "{" + ID % "1.8.0" + ',"numericalValue":%s,"unit":"kWh"}',
    ],
    "a name spelled with an escape": [
        "{" + ID % "1.8.0" + ',"numericalValu\\u0065":%s,"numericalValue":%s,"unit":"kWh"}'
    ],
    "a foreign unit": ["{" + ID % "1.8.0" + ',"numericalValue":%s,"unit":"Wh"}'],
    "an exponent behind the digits": ["{" + ID % "1.8.0" + ',"numericalValue":%se2,"unit":"kWh"}'],
    "a date": ["{" + ID % "1.8.0" + ',"numericalValue":%s,"unit":"kWh","date":"2026-03-01T12:00:00Z"}'],
}


@pytest.mark.parametrize("values", ODD.values(), ids=ODD.keys())
def test_an_odd_shape_is_never_known(values: list[str]) -> None:
    text = ours([]).decode()
    start, end = text.index("[") + 1, text.index("]")
    template = text[:start] + ",".join(values) + text[end:]
    count = template.count("%s")
    first, second = (template % numbers for numbers in (tuple(range(1, 1 + count)), tuple(range(50, 50 + count))))
    with known(first.encode(), second.encode(), first.encode()):
        for payload in (first.encode(), second.encode()):
            assert isinstance(with_care(payload), ReadingColumns)
            assert outcome(payload) == with_care(payload)
            assert not is_short(payload)


def test_values_that_stand_there_twice_are_read_with_care() -> None:
    text = ours(["1"]).decode()
    double = text[:-1] + ',"propertyValues":' + text[text.index("[") : text.index("]") + 1] + "}"
    bad_first = double.replace('"kWh"', '"V"', 1)
    bad_shape = double.replace('"propertyValues":[', '"propertyValues":[7,', 1)
    with known(text.encode(), double.encode()):
        for payload in (double, bad_first, bad_shape):
            assert outcome(payload.encode()) == with_care(payload.encode())
        assert outcome(bad_shape.encode()) == (
            "bad-shape",
            "not a reading: Expected `object`, got `int` - at `$.propertyValues[0]`",
        )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"readingTime": "2026-03-01T12:30:00"}, "naive-time"),
        ({"readingTime": "1970-03-01T12:30:00Z"}, "absurd-time"),
        ({"meterIndividual": {"meterIndividualId": "other"}}, "meter-mismatch"),
        ({"meterId": "other"}, "meter-mismatch"),
        ({"faultCode": "f" * 257}, "bad-text"),
        ({"sequenceNumber": -1}, "bad-shape"),
        ({"meterReadingIdentifier": 5}, "bad-shape"),
    ],
)
def test_what_is_wrong_outside_the_values_is_found_in_a_known_shape(changes: dict[str, Any], reason: str) -> None:
    payload = ours(["1"], **changes)
    with known(ours(["2"])):
        found = outcome(payload)
    assert found == with_care(payload)
    assert isinstance(found, tuple)
    assert found[0] == reason


def test_a_known_shape_without_identifier_has_the_same_one() -> None:
    payload = flat(["230.10", "100", "-0.0"])
    with known(flat(["1", "2", "3"])):
        assert is_short(payload)
        found = wire.decode(payload, meter_id=METER)
    with known():
        assert found == wire.decode(payload, meter_id=METER)
    assert found.identifier == wire.reading_identifier(METER, found.reading_time, found.property_values)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "LIMIT_SHAPES", 10)
    monkeypatch.setattr(shapes, "_LIMIT_SEEN", 20)
    columns = ValueColumns.of((PropertyValue("OBIS_1.8.0", Decimal(1), unit="kWh"),))
    memory = Shapes("n", lambda _: columns)
    for number in range(100):
        split = memory.split(f'{{"n":1,"text":"{number}"}}')
        assert memory.find(split) is None
        memory.learn(split, columns)
        memory.learn(split, columns)
        assert len(memory._shapes) <= 10
        assert len(memory._seen) <= 20
    long = memory.split('{"n":1,"text":"%s"}' % ("x" * shapes.LIMIT_SHAPE_CHARACTERS))
    memory.learn(long, columns)
    assert hash(long.key) not in memory._seen
