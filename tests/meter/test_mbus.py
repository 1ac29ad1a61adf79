"""M-Bus frames and headers: what is found in a stream, what a damaged frame does, who answers."""

from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.obis import CURRENT, Obis
from meterway.core.properties import catalogue
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.family import family_names, load_family
from meterway.meter.mbus import LIMIT_BYTES, MbusDecoder
from meterway.meter.mbus_frames import long_frame, short_frame
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual.encode_mbus import (
    BCD8,
    INT32,
    Header,
    bcd,
    encode_answer,
    encode_fixed,
    integer,
    plain_vif,
    text,
)
from meterway.plugins import make_decoder
from meterway.testing import check_codec
from support.mbus import BERLIN, HEAT, VOLUME_L, WATER, decode

ENERGY_KWH = b"\x06"
FRAME = encode_answer(HEAT, [bcd(ENERGY_KWH, BCD8, 4711), bcd(VOLUME_L, BCD8, 815)], address=17, access=3, status=4)


def only(data: bytes) -> Telegram:
    [telegram] = decode(data)
    assert isinstance(telegram, Telegram), telegram
    return telegram


def error(data: bytes) -> CodecError:
    [item] = decode(data)
    assert isinstance(item, CodecError), item
    return item


def reasons(data: bytes) -> list[str]:
    return [item.reason if isinstance(item, CodecError) else "telegram" for item in decode(data)]


def test_answer_becomes_registers_and_the_meters_name() -> None:
    assert only(FRAME) == Telegram(
        "mbus",
        (
            Register(Obis(6, 0, 1, 0, 0), Decimal(4711000), "Wh", None, "energy"),
            Register(Obis(6, 0, 2, 0, 0), Decimal("0.815"), "m3", None, "volume"),
            Register(Obis(6, 0, 97, 97, 1), Decimal(4), None, None, "status"),
        ),
        FRAME,
        "6MWY0720264711",
    )


def test_what_the_master_says_is_passed_over() -> None:
    decoder = MbusDecoder(BERLIN)
    said = short_frame(0x40, 1) + b"\xe5" + short_frame(0x7B, 1) + long_frame(0x53, 0xFD, b"\x52" + b"\xff" * 8)
    items = decoder.feed(said + FRAME + short_frame(0x5B, 1), 0.0)
    assert [item.raw for item in items if isinstance(item, Telegram)] == [FRAME]
    assert len(items) == 1
    assert decoder.skipped_bytes == 0


def test_damage_to_any_one_byte_is_always_noticed() -> None:
    for place in range(len(FRAME)):
        for value in range(256):
            spoilt = FRAME[:place] + bytes((value,)) + FRAME[place + 1 :]
            good = [item for item in decode(spoilt) if isinstance(item, Telegram)]
            assert [item.raw for item in good] == ([FRAME] if spoilt == FRAME else [])


def test_cut_answer_does_not_hide_the_next_one() -> None:
    for end in range(1, len(FRAME)):
        assert reasons(FRAME[:end] + FRAME * 2)[-2:] == ["telegram", "telegram"], end


def test_frame_with_a_good_sum_and_another_frame_in_it_is_refused() -> None:
    inner = FRAME[:-2]
    whole = long_frame(0x08, 17, FRAME[6:30] + inner)
    begin = whole[:7]
    spoilt = whole.replace(inner[:7], begin)
    spoilt = spoilt[:-2] + bytes((sum(spoilt[4:-2]) & 0xFF, 0x16))
    assert reasons(spoilt)[0] == "truncated"


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (FRAME[:-2] + b"\x00\x16", "bad-checksum", "the M-Bus frame of 33 bytes fails its checksum"),
        (FRAME[:-1] + b"\x17", "bad-checksum", "the M-Bus frame of 33 bytes has no stop byte 16 at its end"),
        (FRAME[:-3], "truncated", "an M-Bus frame of 33 bytes broke off after 30"),
        (
            long_frame(0x08, 5, b"\x70\x08"),
            "refused",
            "the M-Bus meter at address 5 answers: application busy",
        ),
        (long_frame(0x08, 5, b"\x70"), "refused", "the M-Bus meter at address 5 answers: an error without a number"),
        (long_frame(0x08, 5, b"\x71\x03"), "refused", "the M-Bus meter at address 5 answers with alarm flags 03"),
        (
            long_frame(0x08, 5, b"\x51\x03"),
            "bad-syntax",
            "the M-Bus meter at address 5 answers with CI 51, which is no data",
        ),
        (
            long_frame(0x08, 5, b"\x72\x03"),
            "bad-syntax",
            "the M-Bus frame of 10 bytes has a good checksum, but its header has 1 bytes instead of 12",
        ),
        (
            long_frame(0x08, 5, b"\x73\x03"),
            "bad-syntax",
            "the M-Bus frame of 10 bytes has a good checksum, but its fixed data have 1 bytes instead of 16",
        ),
        (
            long_frame(0x08, 5, b"\x72" + HEAT.secondary + b"\x01\x00\x20\x05" + b"\x5a" * 32),
            "encrypted",
            "the M-Bus frame of 53 bytes has a good checksum, but its data are encrypted (mode 5), which needs a key",
        ),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes, reason: str, message: str) -> None:
    found = error(data)
    assert (found.reason, str(found)) == (reason, message)


def test_fixed_structure_has_two_counters() -> None:
    data = encode_fixed("87654321", (6531, 69), b"\x05\x69", address=1, access=16)
    telegram = only(data)
    assert telegram.meter == "87654321"
    assert [(str(r.obis), str(r.value), r.unit) for r in telegram.registers] == [
        ("6-0:1.0.0*255", "6531000", "Wh"),
        ("6-0:2.0.0*255", "0.069", "m3"),
        ("6-0:97.97.1*255", "0", None),
    ]


def test_fixed_structure_with_a_stored_counter_and_with_two_of_a_kind() -> None:
    stored = only(encode_fixed("87654321", (1, 135), b"\xe9\x7e", address=1, access=0))
    assert [str(r.obis) for r in stored.registers] == ["8-0:1.0.0*255", "8-0:1.0.0*1", "8-0:97.97.1*255"]
    twice = only(encode_fixed("87654321", (1, 135), b"\xe9\x69", address=1, access=0))
    assert [(str(r.obis), str(r.value)) for r in twice.registers[:2]] == [
        ("8-0:1.0.0*255", "0.001"),
        ("8-135:105.0.0*255", "0.135"),
    ]
    binary = only(encode_fixed("87654321", (7, 0), b"\xf5\x7f", address=1, access=0, status=3))
    assert [(r.name, str(r.value)) for r in binary.registers] == [("volume flow, storage 1", "7"), ("status", "3")]


def test_highest_byte_first_means_the_same() -> None:
    records = bcd(ENERGY_KWH, BCD8, 4711)[:2] + bytes.fromhex("00004711") + b"\x04\x13" + (815).to_bytes(4, "big")
    secondary = HEAT.secondary
    header = secondary[3::-1] + secondary[5:3:-1] + secondary[6:]
    telegram = only(long_frame(0x08, 17, b"\x76" + header + b"\x03\x04\x00\x00" + records))
    assert telegram.registers == only(FRAME).registers
    assert telegram.meter == "6MWY0720264711"


def test_short_header_and_none_have_no_name_and_codes_of_no_medium() -> None:
    records = integer(ENERGY_KWH, INT32, 12)
    for body in (b"\x78" + records, b"\x7a\x01\x00\x00\x00" + records):
        telegram = only(long_frame(0x08, 1, body))
        assert telegram.meter == ""
        assert str(telegram.registers[0].obis) == "15-128:0.0.0*255"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (WATER, "8MWY0720264712"),
        (Header("20264712", "MWY", 0xA1, 0x02), "1MWYA120264712"),
        (Header("20264712", "MWY", 1, 0x00), "FMWY0120264712"),
        (Header("20264712", "MWY", 1, 0x0A), "5MWY0120264712"),
    ],
)
def test_meters_name_tells_medium_maker_version_and_number(header: Header, name: str) -> None:
    assert only(encode_answer(header, [], address=1, access=1)).meter == name


def test_frame_of_our_own_passes_the_gate() -> None:
    whole = [bcd(ENERGY_KWH, BCD8, 4711), text(plain_vif("bar"), "7"), integer(VOLUME_L, INT32, -5)]
    capture = FRAME + encode_answer(WATER, whole, address=2, access=9, rest=b"\x68\x10\xe5") + b"\xe5"
    report = check_codec(lambda: MbusDecoder(BERLIN), capture, limit_bytes=LIMIT_BYTES, weak_checksum=True)
    assert (report.telegrams, report.errors) == (2, 0)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=252), ci=st.sampled_from([0x72, 0x76, 0x73, 0x77, 0x78, 0x7A, 0x70, 0x71, 0x00]))
def test_no_content_of_a_whole_frame_raises(body: bytes, ci: int) -> None:
    decoder = MbusDecoder(ZoneInfo("Europe/Berlin"))
    items = decoder.feed(long_frame(0x08, 1, bytes((ci,)) + body), 0.0) + decoder.idle(0.0)
    assert items
    assert decoder.buffered_bytes == 0


@settings(max_examples=200, deadline=None)
@given(records=st.lists(st.binary(min_size=2, max_size=12), max_size=12), header=st.sampled_from([HEAT, WATER]))
def test_no_records_raise_and_what_passes_has_codes_and_names(records: list[bytes], header: Header) -> None:
    for item in decode(encode_answer(header, records, address=1, access=1)):
        if isinstance(item, Telegram):
            assert all(register.name and isinstance(register.obis, Obis) for register in item.registers)
            assert all(r.value.is_finite() for r in item.registers if isinstance(r.value, Decimal))


def test_master_frame_can_be_fed_in_any_piece_sizes() -> None:
    decoder = MbusDecoder(BERLIN)
    stream = (b"\x10\x5b" + FRAME) * 3
    found = [item for start in range(0, len(stream), 3) for item in decoder.feed(stream[start : start + 3], 0.0)]
    assert [item.raw for item in found if isinstance(item, Telegram)] == [FRAME] * 3
    assert decoder.skipped_bytes == 6


FAMILIES = [name for name in family_names() if name.startswith("mbus-")]


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_of_a_family_decodes_to_what_stands_beside_it(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    assert (family.line.baud, family.line.parity) == (2400, "E")
    telegram = only(family.sample.telegram)
    written = [
        (str(r.obis).removesuffix("*255"), str(r.value), r.unit or "", *([r.time.isoformat()] if r.time else []))
        for r in telegram.registers
    ]
    assert written == list(family.sample.registers)
    report = check_codec(
        lambda: MbusDecoder(BERLIN), family.sample.telegram, limit_bytes=LIMIT_BYTES, rounds=3, weak_checksum=True
    )
    assert report.telegrams == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_every_present_value_of_a_sample_has_a_property_or_is_named_as_none(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    for register in only(family.sample.telegram).registers:
        rule = family.obis.get(str(register.obis).removesuffix("*255"))
        if register.obis.f != CURRENT or register.obis[2:5] in ((1, 0, 0), (0, 9, 2), (96, 1, 0), (12, 0, 0)):
            continue
        found = catalogue().require(rule.property) if rule and rule.property else catalogue().for_obis(register.obis)
        assert found or (rule and rule.ignore), register
        assert not found or register.unit is None or found.check_unit(register.unit)


def test_families_of_mbus_are_there() -> None:
    media = {"heat", "cooling", "water", "gas", "electricity", "cost-allocator"}
    assert {f"mbus-{medium}" for medium in media} <= set(FAMILIES)


def test_mbus_is_recognised_among_the_protocols() -> None:
    found = recognise(FRAME)
    assert found is not None
    assert found.protocol == "mbus"
    [telegram] = make_decoder(MeterSetup.unknown("mbus", BERLIN)).feed(FRAME, 0.0)
    assert telegram == only(FRAME)
