"""OBIS codes in every form that meters write."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis

groups = st.integers(0, 255)
codes = st.builds(Obis, groups, groups, groups, groups, groups, groups)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1-0:1.8.0*255", (1, 0, 1, 8, 0, 255)),
        ("1-0:1.8.0", (1, 0, 1, 8, 0, 255)),
        ("1-0:1.8.0.255", (1, 0, 1, 8, 0, 255)),
        ("1.0.1.8.0.255", (1, 0, 1, 8, 0, 255)),
        ("1.8.0", (1, 0, 1, 8, 0, 255)),
        ("1.8", (1, 0, 1, 8, 0, 255)),
        ("1-1:1.7.0", (1, 1, 1, 7, 0, 255)),
        ("0-1:24.2.1", (0, 1, 24, 2, 1, 255)),
        ("1.8.0*19", (1, 0, 1, 8, 0, 19)),
        ("1.6.1*00", (1, 0, 1, 6, 1, 0)),
        ("1.6.0&03", (1, 0, 1, 6, 0, 3)),
        ("1-0:1.8.0*96", (1, 0, 1, 8, 0, 96)),
        ("1-1:0.5.1.2", (1, 1, 0, 5, 1, 2)),
        ("1-0:72:32.0", (1, 0, 72, 32, 0, 255)),
        ("C.1", (1, 0, 96, 1, 0, 255)),
        ("C.1.0", (1, 0, 96, 1, 0, 255)),
        ("C.7.10", (1, 0, 96, 7, 10, 255)),
        ("1-1:C.7.1", (1, 1, 96, 7, 1, 255)),
        ("F.F", (1, 0, 97, 97, 0, 255)),
        ("F", (1, 0, 97, 97, 0, 255)),
        ("L.1", (1, 0, 98, 1, 0, 255)),
        ("P.01", (1, 0, 99, 1, 0, 255)),
        ("P.98", (1, 0, 99, 98, 0, 255)),
        ("0.0.0", (1, 0, 0, 0, 0, 255)),
        ("9.4", (1, 0, 9, 4, 0, 255)),
        ("129-129:199.130.3*255", (129, 129, 199, 130, 3, 255)),
    ],
)
def test_every_written_form_is_understood(text: str, code: tuple[int, ...]) -> None:
    assert Obis.parse(text) == code


def test_a_reduced_code_takes_medium_and_channel_from_its_reader() -> None:
    assert Obis.parse("6.8", a=6) == Obis(6, 0, 6, 8, 0)
    assert Obis.parse("1.8.0", b=2) == Obis(1, 2, 1, 8, 0)
    assert Obis.parse("1-0:1.8.0", a=6, b=2) == Obis(1, 0, 1, 8, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.",
        "1-0:1",
        "-1.8.0",
        "1.8.0 ",
        " 1.8.0",
        "1,8,0",
        "1.8.0*",
        "1.8.0*255*1",
        "1-0:",
        "1:1.8.0",
        "1:8.0",
        "X.1",
        "1.2.3.4.5.6.7",
        "1.8.0\n",
        "١.8.0",
        "1.8.0\x00",
        "0001.8.0",
        "G.1.0",
        "1-0:1.8.0*-1",
        "9" * 10_000,
    ],
)
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(BadDataError, match="is not an OBIS code such as") as caught:
        Obis.parse(text)
    assert caught.value.reason == "bad-obis"
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("text", ["256.8.0", "1-0:1.8.256", "1-0:1.8.0*256", "999-0:1.8.0", "1.0.1.8.0.999"])
def test_a_group_above_255_is_refused(text: str) -> None:
    with pytest.raises(BadDataError, match="has a value group outside 0 to 255"):
        Obis.parse(text)


def test_a_negative_group_is_refused() -> None:
    with pytest.raises(BadDataError, match=r"\(1, 0, -1, 8, 0, 255\) has a value group outside 0 to 255"):
        Obis(1, 0, -1, 8, 0)


def test_six_bytes_are_a_code() -> None:
    assert Obis.from_bytes(bytes.fromhex("0100010800ff")) == Obis(1, 0, 1, 8, 0)
    assert bytes(Obis(1, 0, 1, 8, 0)) == bytes.fromhex("0100010800ff")


@pytest.mark.parametrize("data", [b"", b"\1\0\1\x08\0", b"\1\0\1\x08\0\xff\0"])
def test_other_lengths_are_no_code(data: bytes) -> None:
    with pytest.raises(BadDataError, match=rf"an OBIS code is 6 bytes, not {len(data)}"):
        Obis.from_bytes(data)


def test_the_canonical_form_names_all_groups() -> None:
    assert str(Obis.parse("1.8.0")) == "1-0:1.8.0*255"
    assert f"{Obis.parse('C.1')}" == "1-0:96.1.0*255"


def test_the_reduced_form_names_quantity_type_and_tariff() -> None:
    assert Obis(1, 0, 1, 8, 2).reduced == "1.8.2"


def test_a_stored_value_is_not_current() -> None:
    assert Obis.parse("1.8.0").is_current
    assert not Obis.parse("1.8.0*19").is_current


@given(codes)
def test_every_code_survives_text_and_bytes(code: Obis) -> None:
    assert Obis.parse(str(code)) == code
    assert Obis.from_bytes(bytes(code)) == code


@given(codes, codes)
def test_codes_are_ordered_and_hashed_by_their_groups(one: Obis, other: Obis) -> None:
    assert (one < other) == (tuple(one) < tuple(other))
    assert (one == other) == (bytes(one) == bytes(other))
    assert hash(one) == hash(Obis(*one))


def test_a_copy_is_the_same_code() -> None:
    code = Obis(1, 0, 1, 8, 0)
    assert pickle.loads(pickle.dumps(code)) == code  # noqa: S301
    assert type(copy.deepcopy(code)) is Obis


@given(st.text(max_size=40))
def test_any_text_is_a_code_or_bad_data(text: str) -> None:
    try:
        code = Obis.parse(text)
    except BadDataError:
        return
    assert Obis.parse(str(code)) == code
