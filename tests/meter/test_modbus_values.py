"""Registers to numbers and texts and back: types, word orders, scales, "no value"; the map's own checks."""

from decimal import Decimal
from itertools import pairwise
from math import inf, isfinite, nan
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.errors import SetupError
from meterway.meter.family import Family, parse_family
from meterway.meter.modbus_map import LIMIT_REGISTERS, ModbusMap, Place, Spot, Type, WordOrder, spans
from meterway.meter.modbus_values import number, scaled, text
from meterway.meter.virtual.modbus_slave import encode

HEAD = 'title = "T"\nprotocol = "modbus"\ntimezone = "UTC"\ninterval_s = 10\n[modbus]\n'
ONE = 'values = [{ address = 0, type = "int16", obis = "1-0:32.7.0", unit = "V" }]\n'
ORDERS = st.sampled_from(["big", "swapped"])
INTEGERS: list[Type] = ["int16", "uint16", "int32", "uint32", "int64", "uint64"]
MARKERS = {"int16": -(1 << 15), "int32": -(1 << 31), "int64": -(1 << 63)}


def words(data: bytes, order: WordOrder = "big") -> list[int]:
    found = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
    return found if order == "big" else found[::-1]


def place(kind: Type, length: int = 0) -> Place:
    return Place(address=0, type=kind, length=length)


def family(table: str) -> Family:
    return parse_family(HEAD + table, "test", where="test.toml")


def modbus(table: str) -> ModbusMap:
    found = family(table).modbus
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "order", "contents", "expected"),
    [
        ("int16", "big", [0xFFFF], "-1"),
        ("int16", "big", [0x7FFF], "32767"),
        ("uint16", "big", [0xFFFE], "65534"),
        ("int32", "big", [0xFFFF, 0xFFFE], "-2"),
        ("int32", "swapped", [0xFFFE, 0xFFFF], "-2"),
        ("int32", "swapped", [0x000A, 0x0000], "10"),
        ("uint32", "big", [0x8000, 0x0000], "2147483648"),
        ("int64", "swapped", [1, 2, 0, 0], "131073"),
        ("uint64", "big", [0x8000, 0, 0, 1], "9223372036854775809"),
        ("float32", "big", [0x4368, 0xCCCD], "232.8"),
        ("float32", "swapped", [0xCCCD, 0x4368], "232.8"),
        ("float32", "big", [0x8000, 0x0000], "0"),
        ("float32", "big", [0x4B80, 0x0000], "16777216"),
        ("float64", "big", [0x3FB9, 0x9999, 0x9999, 0x999A], "0.1"),
        ("acc32", "big", [0, 1], "1"),
    ],
)
def test_numbers_are_exact(kind: Type, order: WordOrder, contents: list[int], expected: str) -> None:
    assert str(number(contents, kind, order)) == expected


@pytest.mark.parametrize("order", ["big", "swapped"])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("int16", "8000"),
        ("uint16", "ffff"),
        ("int32", "80000000"),
        ("uint32", "ffffffff"),
        ("int64", "8000000000000000"),
        ("uint64", "ffffffffffffffff"),
        ("acc32", "00000000"),
        ("acc32", "ffffffff"),
        ("acc64", "0000000000000000"),
        ("float32", pack(">f", nan).hex()),
        ("float32", "ffc00001"),
        ("float32", pack(">f", inf).hex()),
        ("float32", pack(">f", -inf).hex()),
        ("float64", pack(">d", nan).hex()),
        ("float64", pack(">d", -inf).hex()),
    ],
)
def test_what_is_not_implemented_is_no_number(kind: Type, content: str, order: WordOrder) -> None:
    assert number(words(bytes.fromhex(content), order), kind, order) is None


def test_a_family_has_contents_of_its_own_that_are_no_value() -> None:
    ranges = ((0x7FFF0000, 0x7FFFFFFF),)
    assert number([0xFFFF, 0x7FFF], "int32", "swapped", ranges) is None
    assert number([0x1234, 0x7FFF], "int32", "swapped", ranges) is None
    assert number([0xFFFF, 0x7FFE], "int32", "swapped", ranges) == 0x7FFEFFFF


@pytest.mark.parametrize(
    ("value", "scale", "power", "expected"),
    [
        ("2314", "0.1", None, "231.4"),
        ("-1", "0.001", None, "-0.001"),
        ("5", "-1", None, "-5"),
        ("968", "0.01", "-1", "0.968"),
        ("7", "1", "3", "7000"),
        ("7", "1", "-10", "7E-10"),
        ("7", "1", "11", None),
        ("7", "1", "-11", None),
        ("7", "1", "-32768", None),
        ("9223372036854775807", "0.1", "10", "9223372036854775807000000000"),
    ],
)
def test_scales_are_exact(value: str, scale: str, power: str | None, expected: str | None) -> None:
    found = scaled(Decimal(value), Decimal(scale), None if power is None else Decimal(power))
    assert found == (None if expected is None else Decimal(expected))
    if found is not None:
        exponent = found.as_tuple().exponent
        assert isinstance(exponent, int)
        assert exponent <= 0


def test_texts_end_with_what_pads_them() -> None:
    assert text(words(b"SN 12 \0\0\0\0")) == "SN 12"
    assert text(words(b"  AB\0Cxx")) == "AB"
    assert text(words(b"\x01\x02AB")) == ""
    assert text([0, 0]) == ""


@given(st.sampled_from(INTEGERS), ORDERS, st.data())
def test_integers_survive_the_round_trip(kind: Type, order: WordOrder, data: st.DataObject) -> None:
    bits = int(kind.removeprefix("u").removeprefix("int"))
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    value = data.draw(st.integers(low, high))
    contents = encode(Decimal(value), place(kind), order)
    assert len(contents) == bits // 16
    unimplemented = value == MARKERS.get(kind, high)
    assert number(contents, kind, order) == (None if unimplemented else value)


@given(st.floats(width=32), ORDERS)
def test_floats_survive_the_round_trip_with_the_fewest_digits(value: float, order: WordOrder) -> None:
    found = number(words(pack(">f", value), order), "float32", order)
    assert (found is None) == (not isfinite(value))
    if found is not None:
        assert pack(">f", float(found)) == pack(">f", value + 0.0)
        assert len(found.normalize().as_tuple().digits) <= 9
        assert encode(found, place("float32"), order) == words(pack(">f", value + 0.0), order)


@given(st.floats(width=64), ORDERS)
def test_long_floats_survive_the_round_trip(value: float, order: WordOrder) -> None:
    found = number(words(pack(">d", value), order), "float64", order)
    assert (None if found is None else float(found)) == (value if isfinite(value) else None)


@given(st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4), st.sampled_from([*INTEGERS, "float32", "float64"]))
def test_any_contents_are_a_finite_number_or_none(contents: list[int], kind: Type) -> None:
    found = number(contents[: place(kind).registers], kind, "swapped")
    assert found is None or found.is_finite()


def test_a_number_without_room_is_refused_by_the_encoder() -> None:
    with pytest.raises(ValueError, match="40000 has no room in register 0, int16"):
        encode(Decimal(40000), place("int16"), "big")


def test_none_is_encoded_as_not_implemented() -> None:
    assert encode(None, place("int16"), "big") == [0x8000]
    assert encode(None, place("uint32"), "big") == [0xFFFF, 0xFFFF]
    assert encode(None, place("acc32"), "big") == [0, 0]
    assert number(encode(None, place("float32"), "swapped"), "float32", "swapped") is None
    assert encode("AB", place("string", 2), "big") == [0x4142, 0]


SPOTS = st.builds(
    Spot, st.sampled_from(["holding", "input"]), st.integers(0, 400), st.integers(1, 4), st.just("")
)  # fmt: skip


@given(st.lists(SPOTS, max_size=40), st.integers(4, LIMIT_REGISTERS), st.integers(0, 30))
def test_questions_cover_all_values_and_keep_their_bounds(spots: list[Spot], most: int, gap: int) -> None:
    found = spans(spots, most_registers=most, most_gap=gap)
    assert sorted(spot for span in found for spot in span.spots) == sorted(spots)
    for span in found:
        assert 1 <= span.registers <= most
        covered = {at for spot in span.spots for at in range(spot.address, spot.address + spot.registers)}
        asked = set(range(span.address, span.address + span.registers))
        assert covered <= asked
        assert all(spot.function == span.function for spot in span.spots)
        assert all(after - before <= gap + 1 for before, after in pairwise(sorted(covered)))


def test_neighbours_are_asked_for_at_once() -> None:
    spots = [Spot("input", at, 2, "") for at in (0, 2, 4, 12, 70)]
    assert [(s.address, s.registers) for s in spans(spots, most_registers=125, most_gap=0)] == [
        (0, 6),
        (12, 2),
        (70, 2),
    ]
    assert [(s.address, s.registers) for s in spans(spots, most_registers=125, most_gap=6)] == [(0, 14), (70, 2)]
    assert [(s.address, s.registers) for s in spans(spots, most_registers=4, most_gap=99)] == [
        (0, 4),
        (4, 2),
        (12, 2),
        (70, 2),
    ]


def test_a_map_makes_its_family_one_that_is_asked() -> None:
    assert family(ONE).is_asked


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "a register map has either `values`, or `bases` and `models`"),
        (ONE + "bases = [0]\n", "a register map has either"),
        ("bases = [0]\n", "a register map has either"),
        (ONE.replace("int16", "int8"), "int8"),
        (ONE.replace('"1-0:32.7.0"', '"32.7.300"'), "OBIS"),
        (ONE.replace('"V"', '"volt"'), "register 0: there is no unit 'volt'"),
        (ONE.replace(" }", ', scale = "0" }'), "register 0: scale '0' is not a number"),
        (ONE.replace(" }", ', scale = "x" }'), "register 0: scale 'x' is not a number"),
        (ONE.replace("address = 0", "address = 65536"), "65535"),
        (ONE.replace("int16", "int32").replace("address = 0", "address = 65535"), "65535: 2 registers cannot be read"),
        (ONE.replace("int16", "string"), "a string, and nothing else, has a `length`"),
        (ONE.replace("int16", "int64") + "most_registers = 3\n", "register 0: 4 registers cannot be read at once"),
        (ONE + "unit_id = 256\n", "unit_id"),
        (ONE + 'framing = "ascii"\n', "framing"),
        (ONE + "most_gaps = 3\n", "did you mean `most_gap`"),
    ],
)
def test_a_wrong_map_says_what_is_wrong(table: str, message: str) -> None:
    with pytest.raises(SetupError, match=f"(?s)^test.toml: .*{message}"):
        family(table)


def test_unit_ids_are_those_of_the_framing() -> None:
    table = modbus(ONE + "unit_id = 7\n")
    assert (table.unit(""), table.unit(" 12 "), table.unit("247")) == (7, 12, 247)
    assert (table.unit("0", "tcp"), table.unit("255", "tcp")) == (0, 255)
    for wrong in ("0", "248", "-1", "1.5", "zwei", "１", "1" * 5000):
        with pytest.raises(SetupError, match="is no Modbus unit id; write a number from 1 to 247"):
            table.unit(wrong)
