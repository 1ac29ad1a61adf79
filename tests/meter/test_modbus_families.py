"""Families of Modbus meters: their samples, the virtual meters of their maps, and the captures of the corpus."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.meter.family import Family, family_names, load_family
from meterway.meter.modbus_frames import FUNCTION_CODES, Question, QuestionReader, encode_question
from meterway.meter.modbus_map import ModbusMap
from meterway.meter.modbus_master import replay
from meterway.meter.modbus_values import text
from meterway.meter.telegram import Telegram
from support.corpus import Capture, capture_parameters

FAMILIES = [name for name in family_names() if name.startswith("modbus-")]


def mapped(name: str) -> tuple[Family, ModbusMap]:
    family = load_family(name)
    assert family.modbus is not None
    return family, family.modbus


def sample(family: Family) -> bytes:
    assert family.sample is not None
    return family.sample.telegram


def test_the_families_to_ship_are_there() -> None:
    eastron = {f"modbus-eastron-{name}" for name in ("sdm630", "sdm230", "sdm120", "sdm72")}
    gavazzi = {f"modbus-carlo-gavazzi-{name}" for name in ("em24", "em340", "em540")}
    assert {*eastron, *gavazzi, "modbus-sunspec"} <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_of_a_family_is_read_as_what_stands_beside_it(name: str) -> None:
    family, table = mapped(name)
    [telegram] = replay(table, sample(family))
    assert isinstance(telegram, Telegram)
    assert family.sample is not None
    expected = [(code, value, unit or None) for code, value, unit in family.sample.registers]
    assert [(str(r.obis).removesuffix("*255"), str(r.value), r.unit) for r in telegram.registers] == expected
    assert (telegram.protocol, telegram.time, telegram.checked) == ("modbus", None, True)
    assert telegram.raw == sample(family)
    assert telegram.meter.endswith(str(telegram.registers[-1].value))
    assert family.is_asked
    assert family.protocol == "modbus"


@pytest.mark.parametrize("name", FAMILIES)
def test_no_prefix_of_a_sample_gives_a_value_that_is_not_in_it(name: str) -> None:
    family, table = mapped(name)
    [whole] = replay(table, sample(family))
    assert isinstance(whole, Telegram)
    for end in range(0, len(sample(family)), 7):
        for item in replay(table, sample(family)[:end]):
            assert not isinstance(item, Telegram) or set(item.registers) <= set(whole.registers)


@given(st.sampled_from(FAMILIES), st.binary(max_size=600), st.data())
@settings(max_examples=150, deadline=None)
def test_replay_never_raises(name: str, noise: bytes, data: st.DataObject) -> None:
    family, table = mapped(name)
    good = sample(family)
    at = data.draw(st.integers(0, len(good)))
    for garbage in (noise, good[:at] + noise, good[:at] + noise + good[at:]):
        replay(table, garbage)


@pytest.mark.parametrize("capture", capture_parameters("modbus"))
def test_captures_are_understood(capture: Capture) -> None:
    if "req" in capture.name:
        [question] = QuestionReader("rtu").feed(capture.data)
        assert question == Question(1, FUNCTION_CODES["input"], 0, 2)
        assert encode_question(question, "rtu") == capture.data
    else:
        _, table = mapped("modbus-sunspec")
        words = [int.from_bytes(capture.data[at : at + 2], "big") for at in range(0, len(capture.data) - 1, 2)]
        common = table.models[0]
        assert words[:4] == [0x5375, 0x6E53, 1, 66]
        places = [place for place in common.identity if 2 + place.end <= len(words)]
        said = [text(words[2 + place.address : 2 + place.end]) for place in places]
        assert said[:2] == ["SMA", "SB3.6-1AV-41"]
        assert "".join(said[2:]).isdecimal()
