"""A-XDR: every type, every prefix, and bytes that mean harm."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.meter.axdr import (
    LIMIT_DEPTH,
    CutError,
    DepthError,
    Element,
    Enum,
    GrammarError,
    read_elements,
    read_length,
    read_list_head,
)
from meterway.meter.virtual.encode_dlms import array, enum, int16, octets, structure, uint16, uint32, visible


def one(data: bytes) -> Element:
    [element], end = read_elements(data, 0, 1)
    assert end == len(data)
    return element


@pytest.mark.parametrize(
    ("hexadecimal", "expected"),
    [
        ("00", None),
        ("03ff", 255),
        ("040cabc0", b"\xab\xc0"),
        ("05fffffff6", -10),
        ("06fffffff6", 4294967286),
        ("0903010203", b"\x01\x02\x03"),
        ("0a024f4b", "OK"),
        ("0c03e282ac", "€"),
        ("0d42", 0x42),
        ("0fff", -1),
        ("108000", -32768),
        ("11ff", 255),
        ("12ffff", 65535),
        ("14ffffffffffffffff", -1),
        ("15ffffffffffffffff", (1 << 64) - 1),
        ("161e", 30),
        ("1741ba0000", Decimal("23.25")),
        ("173dcccccd", Decimal("0.1")),
        ("177fc00000", None),
        ("17ff800000", None),
        ("183fb999999999999a", Decimal("0.1")),
        ("1907e60605050c0028ff800000", bytes.fromhex("07e60605050c0028ff800000")),
        ("1a07e6060505", bytes.fromhex("07e6060505")),
        ("1b0c002800", bytes.fromhex("0c002800")),
        ("02020fff1621", [-1, 33]),
        ("0102020100020112000a", [[None], [10]]),
    ],
)
def test_element_of_every_type_is_read(hexadecimal: str, expected: Element) -> None:
    assert one(bytes.fromhex(hexadecimal)) == expected


def test_enum_is_told_from_a_number() -> None:
    assert isinstance(one(enum(30)), Enum)
    assert not isinstance(one(b"\x11\x1e"), Enum)


def test_long_strings_have_long_lengths() -> None:
    for size in (127, 128, 255, 256, 2000):
        assert one(octets(bytes(size))) == bytes(size)
        assert one(visible("x" * size)) == "x" * size


element = st.recursive(
    st.one_of(
        st.integers(0, 2**32 - 1).map(lambda value: (uint32(value), value)),
        st.integers(0, 2**16 - 1).map(lambda value: (uint16(value), value)),
        st.integers(-(2**15), 2**15 - 1).map(lambda value: (int16(value), value)),
        st.binary(max_size=300).map(lambda value: (octets(value), value)),
        st.text("AZaz09", max_size=40).map(lambda value: (visible(value), value)),
        st.just((b"\x00", None)),
    ),
    lambda inner: st.lists(inner, max_size=5).flatmap(
        lambda parts: st.sampled_from(
            [
                (structure(*(data for data, _ in parts)), [value for _, value in parts]),
                (array(*(data for data, _ in parts)), [value for _, value in parts]),
            ]
        )
    ),
    max_leaves=12,
)


@given(element)
def test_what_is_encoded_is_read_and_every_prefix_is_cut(encoded: tuple[bytes, Element]) -> None:
    data, value = encoded
    try:
        assert one(data) == value
    except DepthError:
        return
    for end in range(len(data)):
        with pytest.raises(CutError):
            read_elements(data[:end], 0, 1)


@given(st.binary(max_size=400))
def test_any_bytes_give_elements_or_a_grammar_error(data: bytes) -> None:
    try:
        found, end = read_elements(data, 0, 3)
    except GrammarError:
        return
    assert len(found) == 3
    assert end <= len(data)


def test_nesting_is_bounded() -> None:
    data = uint16(1)
    for _ in range(LIMIT_DEPTH):
        data = structure(data)
    one(data)
    with pytest.raises(DepthError, match="nested too deep"):
        one(structure(data))
    with pytest.raises(DepthError):
        read_elements(b"\x02\x01" * 3000 + b"\x00", 0, 1)


def test_huge_lengths_cost_nothing() -> None:
    for data in (
        b"\x01\x82\xff\xff",
        b"\x09\x82\xff\xff",
        b"\x02\x81\xff\x00",
        b"\x0a\x82\xff\xffab",
        b"\x04\x82\xff\xff",
    ):
        with pytest.raises(CutError):
            read_elements(data, 0, 1)
    for data in (b"\x09\x84\xff\xff\xff\xff", b"\x01\x83\x01\x00\x00", b"\x09\x80"):
        with pytest.raises(GrammarError):
            read_elements(data, 0, 1)


@pytest.mark.parametrize("tag", [0x07, 0x08, 0x0B, 0x0E, 0x13, 0x1C, 0x7E, 0xFF])
def test_tag_that_no_meter_pushes_is_refused(tag: int) -> None:
    with pytest.raises(GrammarError, match=f"no element begins at byte 0 \\(tag {tag:02x}\\)"):
        read_elements(bytes((tag,)) + bytes(9), 0, 1)


def test_list_head_and_length_say_where_they_end() -> None:
    assert read_list_head(structure(uint16(1), uint16(2)), 0) == (2, 2)
    assert read_length(b"\x82\x01\x00", 0) == (256, 3)
    with pytest.raises(GrammarError, match="no array or structure at byte 0"):
        read_list_head(uint16(1), 0)
