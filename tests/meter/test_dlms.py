"""DLMS push: transports, block transfer, layouts, clocks, and what a hostile line sends."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.axdr import GrammarError
from meterway.meter.codec import CodecError
from meterway.meter.dlms import LIMIT_BYTES
from meterway.meter.dlms_bare import BareReader
from meterway.meter.dlms_layout import PushList, clock
from meterway.meter.dlms_mbus import encode_frames
from meterway.meter.dlms_segments import LIMIT_MESSAGE_BYTES
from meterway.meter.family import parse_family
from meterway.meter.hdlc import encode_frame
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual.encode_dlms import (
    array,
    attributes,
    coded,
    date_time,
    described,
    encode_blocks,
    encode_hdlc,
    encode_notification,
    enum,
    flat,
    int16,
    octets,
    structure,
    uint16,
    uint32,
    visible,
)
from meterway.testing import check_codec
from support.dlms import IMPORT, METER, NOON, VIENNA, VOLTAGE, WH, V, decode, decoder, kinds, one, push

APDU = push()
REGISTERS = (
    Register(METER, "1MWY0000000042"),
    Register(IMPORT, Decimal(12345678), "Wh"),
    Register(VOLTAGE, Decimal("231.1"), "V"),
)


def blocks(apdu: bytes, most_bytes: int = 30) -> list[bytes]:
    """Return the frames of a block transfer; only the first has an LLC header."""
    parts = encode_blocks(apdu, most_bytes=most_bytes)
    return [
        encode_frame((b"" if place else b"\xe6\xe7\x00") + part, destination=b"\xce\xff", source=b"\x03")
        for place, part in enumerate(parts)
    ]


def notify(*elements: bytes) -> bytes:
    return encode_hdlc(encode_notification(7, structure(*elements), date_time(NOON)))


@pytest.mark.parametrize(
    ("data", "checked"),
    [
        (encode_hdlc(APDU), True),
        (encode_hdlc(APDU, most_bytes=30), True),
        (b"".join(blocks(APDU)), True),
        (encode_frames(APDU), False),
        (encode_frames(APDU, most_bytes=30), False),
        (APDU, False),
        (b"\xe6\xe7\x00" + APDU, False),
    ],
    ids=["hdlc", "segments", "blocks", "m-bus", "m-bus segments", "bare", "bare with LLC"],
)
def test_push_is_read_from_every_transport(data: bytes, checked: bool) -> None:
    telegram = one(data)
    assert telegram.registers == REGISTERS
    assert (telegram.protocol, telegram.meter, telegram.time) == ("dlms", "1MWY0000000042", NOON)
    assert (telegram.checked, telegram.verified) == (checked, True)
    assert telegram.raw in data
    report = check_codec(decoder, data, limit_bytes=LIMIT_BYTES, rounds=40)
    assert (report.telegrams, report.errors, report.checked) == (1, 0, checked)


def test_time_of_a_notification_may_be_missing_tagged_or_an_octet_string() -> None:
    body = structure(*coded([(IMPORT, uint32(5), (0, WH))]))
    for head, expected in (
        (b"\x00", None),
        (b"\x0c" + date_time(NOON), NOON),
        (b"\x09\x0c" + date_time(NOON), NOON),
        (b"\x19" + date_time(NOON), NOON),
    ):
        assert one(encode_hdlc(b"\x0f\0\0\0\1" + head + body)).time == expected
    assert kinds(decode(encode_hdlc(b"\x0f\0\0\0\1\x05" + body))) == ["bad-syntax"]


def test_event_notification_is_one_value() -> None:
    descriptor = (3).to_bytes(2, "big") + bytes(IMPORT) + b"\x02"
    assert one(encode_hdlc(b"\xc2\x00" + descriptor + uint32(77))).registers[0].obis == IMPORT
    assert one(encode_hdlc(b"\xc2\x01\x0c" + date_time(NOON) + descriptor + uint32(77))).time == NOON


def test_new_message_ends_the_one_that_is_open() -> None:
    first = encode_hdlc(push(1), most_bytes=30)
    cut = first[: first.index(b"\x7e\x7e") + 1]
    assert kinds(decode(cut + encode_hdlc(push(2), most_bytes=30))) == ["truncated", "2"]


def test_pieces_of_two_messages_are_never_put_together() -> None:
    one_, two = blocks(push(1)), blocks(push(2))
    assert len(one_) == 3
    assert kinds(decode(one_[0] + two[2])) == ["truncated"]
    assert kinds(decode(two[1] + two[2])) == ["truncated", "truncated"]
    assert kinds(decode(one_[0] + one_[1] + b"".join(two))) == ["truncated", "2"]
    made = decoder()
    assert made.feed(one_[0] + one_[1], 0.0) == []
    assert kinds(made.feed(two[2], 60.0)) == ["truncated", "truncated"]
    segments = encode_frames(push(1), most_bytes=30)
    assert set(kinds(decode(segments[36:]))) == {"truncated"}


def test_block_that_comes_twice_is_taken_once() -> None:
    first, second, third = blocks(push(1))
    assert kinds(decode(first + second + second + third)) == ["1"]


def test_message_that_never_ends_is_given_up() -> None:
    endless = encode_frame(b"\xe6\xe7\x00" + APDU, destination=b"\x01", source=b"\x01", segmented=True)
    more = encode_frame(bytes(500), destination=b"\x01", source=b"\x01", segmented=True)
    made = decoder()
    reasons = kinds(made.feed(endless, 0.0))
    for _ in range(40):
        reasons += kinds(made.feed(more, 0.0))
        assert made.buffered_bytes <= LIMIT_BYTES
    assert reasons[0] == "too-long"
    assert set(reasons[1:]) == {"truncated"}
    assert kinds(made.feed(encode_hdlc(push(3)), 0.0)) == ["3"]


@pytest.mark.parametrize(
    "body",
    [
        b"\x02\x01" * 3000,
        b"\x02\x82\xff\xff" + bytes(500),
        b"\x09\x82\xff\xff",
        b"\x02\x02\x16\x01\x01\x7f\x02\x02\x00" + bytes(30),
        structure(b"\x13\x00"),
        structure(octets(bytes(IMPORT)), uint32(1)) + b"\x00",
        structure(),
        structure(uint32(1)),
        structure(octets(b"x")) * 2,
        uint32(5),
        b"",
    ],
)
def test_body_that_means_harm_is_an_error_and_the_next_is_read(body: bytes) -> None:
    head = b"\x0f\0\0\0\1\x00"
    limit = LIMIT_MESSAGE_BYTES - 600
    items = decode(encode_hdlc(head + body[:limit], most_bytes=500) + encode_hdlc(push(3)))
    assert kinds(items)[-1] == "3"
    assert all(isinstance(item, CodecError) and item.reason in {"bad-syntax", "too-deep"} for item in items[:-1])
    assert len(items) == 2


def test_values_before_a_cut_are_kept_where_a_checksum_holds() -> None:
    assert kinds(decode(encode_hdlc(APDU[:-4]))) == ["12345678", "bad-syntax"]
    assert kinds(decode(encode_frames(APDU[:-4]))) == ["bad-syntax"]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        (flat([(IMPORT, uint32(5), None), (VOLTAGE, uint16(2311), (-1, V))]), ["5 unscaled", "231.1 V"]),
        ([visible("Meterway_1"), *flat([(IMPORT, uint32(5), (1, WH))]), b"\0", b"\0"], ["Meterway_1 None", "50 Wh"]),
        ([octets(date_time(NOON)), *flat([(IMPORT, uint32(5), (0, WH))]), octets(b"4711")],
         ["2026-06-05T12:00:40+02:00 None", "5 Wh", "4711 None"]),
        (described([(40, Obis(0, 6, 25, 9, 0), b""), (3, IMPORT, uint32(5)), (1, METER, octets(b"\xff\x00"))]),
         ["5 unscaled", "FF00 None"]),
        (coded([(Obis(1, 0, 13, 7, 0), int16(998), (-3, 255)), (Obis(0, 0, 96, 3, 10), enum(1), None)]),
         ["0.998 None", "1 None"]),
        (coded([(IMPORT, b"\x17\x3d\xcc\xcc\xcd", (3, WH)), (IMPORT, b"\0", None), (METER, visible("1\0\0"), None)]),
         ["100 Wh", "1 None"]),
        (coded([(IMPORT, uint32(5), (0, 45))]), ["5 dlms-45"]),
    ],
)  # fmt: skip
def test_every_layout_is_read(elements: list[bytes], expected: list[str]) -> None:
    found = one(notify(*elements)).registers
    assert [f"{item.value} {item.unit}" for item in found] == expected


def test_attributes_with_class_and_index_are_read() -> None:
    body = attributes([(1, METER, octets(b"42")), (3, IMPORT, uint32(5)), (71, Obis(0, 0, 17, 0, 0), uint32(9))])
    telegram = one(encode_hdlc(encode_notification(1, body)))
    assert [(str(item.value), item.unit) for item in telegram.registers] == [
        ("42", None),
        ("5", "unscaled"),
        ("9", "unscaled"),
    ]


def test_scaler_and_time_may_be_objects_of_their_own() -> None:
    gas = Obis(0, 1, 24, 2, 1)
    objects = [
        structure(uint16(class_id), octets(bytes(obis)), bytes((0x0F, attribute)), uint16(0))
        for class_id, obis, attribute in (
            (40, Obis(0, 6, 25, 9, 0), 2),
            (4, gas, 2),
            (4, gas, 3),
            (4, gas, 5),
            (1, gas, 1),
        )
    ]
    unit = structure(b"\x0f\xfd", enum(13))
    values = [uint32(78901), unit, octets(date_time(NOON - timedelta(minutes=5))), octets(bytes(gas))]
    [register] = one(notify(array(*objects), *values)).registers
    assert register == Register(gas, Decimal("78.901"), "m3", NOON - timedelta(minutes=5))


LISTS = (
    PushList(
        text="MWY",
        positions=(("1-0:1.7.0",), ("0-0:96.1.0", "1-0:1.8.0", "1-0:32.7.0")),
        units={"1.7": ("W", 0), "1.8": ("Wh", 1), "32.7": ("V", -1)},
    ),
)


def test_positions_give_values_their_meaning() -> None:
    registers = one(notify(octets(b"MWY1"), uint32(5), uint16(2311)), lists=LISTS).registers
    assert [(str(item.obis), str(item.value), item.unit) for item in registers] == [
        ("0-0:96.1.0*255", "MWY1", None),
        ("1-0:1.8.0*255", "50", "Wh"),
        ("1-0:32.7.0*255", "231.1", "V"),
    ]
    assert one(notify(uint32(5)), lists=LISTS).registers[0].unit == "W"


def test_element_that_nobody_knows_is_left_out_and_a_state_is_no_measured_number() -> None:
    rule = PushList(positions=(("0-0:96.3.10", "", "1-0:1.7.0"),), units={"1.7": ("W", 0)})
    registers = one(notify(enum(1), array(uint16(7)), uint32(5)), lists=(rule,)).registers
    assert [(str(item.obis), str(item.value), item.unit) for item in registers] == [
        ("0-0:96.3.10*255", "1", None),
        ("1-0:1.7.0*255", "5", "W"),
    ]
    [error] = decode(notify(uint16(1), array(uint16(7)), uint32(5)), lists=(rule,))
    assert isinstance(error, CodecError)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ((231, 228, 3), ("231", "228", "3")),
        ((2311, 2283, 30), ("231.1", "228.3", "3.0")),
        ((23112, 22834, 300), ("231.12", "228.34", "3.00")),
        ((0, 0, 0), ("0", "0", "0")),
    ],
)
def test_highest_voltage_tells_how_finely_all_of_them_are_sent(sent: Sequence[int], expected: Sequence[str]) -> None:
    rule = PushList(units={"32.7": ("V", 0), "52.7": ("V", 0), "72.7": ("V", 0)}, mains_v=230)
    pairs = [(Obis(1, 0, c, 7, 0), uint16(volts), None) for c, volts in zip((32, 52, 72), sent, strict=True)]
    registers = one(notify(*flat(pairs)), lists=(rule,)).registers
    assert [(str(item.value), item.unit) for item in registers] == [(volts, "V") for volts in expected]


def test_voltage_that_no_mains_have_stays_as_sent() -> None:
    rule = PushList(units={"32.7": ("V", 0)}, mains_v=230)
    [register] = one(notify(*flat([(VOLTAGE, uint16(65_000), None)])), lists=(rule,)).registers
    assert (str(register.value), register.unit) == ("65000", "unscaled")
    [register] = one(notify(*flat([(VOLTAGE, uint16(2_311), (0, V))])), lists=(rule,)).registers
    assert (str(register.value), register.unit) == ("2311", "V")


def test_values_without_codes_are_refused_where_nothing_says_what_they_are() -> None:
    for elements in (
        [uint32(5)],
        [octets(b"MWY1"), uint32(5), octets(b"x")],
        [octets(b"MWY1"), uint32(5), uint16(1), uint16(2)],
    ):
        [error] = decode(notify(*elements), lists=LISTS if len(elements) > 1 else ())
        assert isinstance(error, CodecError)
        assert "values come without OBIS codes; the family of the meter must say what they are" in str(error)


def test_units_of_a_family_fill_in_for_its_own_lists_only() -> None:
    elements = flat([(METER, octets(b"MWY1"), None), (IMPORT, uint32(5), None)])
    assert one(notify(*elements), lists=LISTS).registers[1].unit == "Wh"
    others = flat([(METER, octets(b"ABC1"), None), (IMPORT, uint32(5), None)])
    assert one(notify(*others), lists=LISTS).registers[1].unit == "unscaled"
    anyones = (PushList(units={"1.8": ("Wh", 0)}),)
    assert one(notify(*others), lists=anyones).registers[1].unit == "Wh"
    assert one(notify(*flat([(IMPORT, uint32(5), (3, WH))])), lists=anyones).registers[0].value == 5000


@pytest.mark.parametrize(
    ("push_table", "message"),
    [
        ('[push]\npositions = [["1-0:1.8.999"]]\n', "1-0:1.8.999|outside 0 to 255"),
        ('[push.units]\n"1.8" = ["kilowatts", 0]\n', 'units are like "1.8"'),
        ('[push.units]\n"1.8.0" = ["Wh", 0]\n', 'units are like "1.8"'),
        ("[push]\nposition = []\n", "position"),
    ],
)
def test_wrong_list_in_a_family_says_what_is_wrong(push_table: str, message: str) -> None:
    text = 'title = "Test"\nprotocol = "dlms"\ntimezone = "Europe/Vienna"\ninterval_s = 1\n'
    with pytest.raises(SetupError, match=f"(?s)^test.toml: .*{message}"):
        parse_family(text + push_table, "test", where="test.toml")


@pytest.mark.parametrize(
    ("hexadecimal", "expected"),
    [
        ("07ea0605050c0028ffff8880", "2026-06-05T12:00:40+02:00"),
        ("07ea0605050c0028ff800000", "2026-06-05T12:00:40+02:00"),
        ("07ea0105010c00ffff8000ff", "2026-01-05T12:00:00+01:00"),
        ("07ea0a190702002800800080", "2026-10-25T02:00:40+02:00"),
        ("07ea0a190702002800800000", "2026-10-25T02:00:40+01:00"),
        ("07ea0605050c00280a000000", "2026-06-05T12:00:40.100000+00:00"),
        ("ffff0605050c0028ff800000", None),
        ("07ea0d05050c0028ff800000", None),
        ("07ea0605050c0028ff7fff00", None),
        ("07eaff05050c0028ff800000", None),
        ("07ea0605", None),
    ],
)  # fmt: skip
def test_clock_is_read_with_or_without_its_deviation(hexadecimal: str, expected: str | None) -> None:
    found = clock(bytes.fromhex(hexadecimal), VIENNA)
    assert (found.isoformat() if found else None) == expected


@given(st.integers(978_307_200, 4_070_908_800), st.booleans())
@example(1_824_940_800, False)
def test_clock_that_is_encoded_is_read(unix_s: int, with_deviation: bool) -> None:
    time = datetime.fromtimestamp(unix_s, VIENNA)
    found = clock(date_time(time, with_deviation=with_deviation), VIENNA)
    assert found is not None
    assert found.timestamp() == unix_s  # Python calls no time in an hour that comes twice equal to one of another zone


value = st.one_of(
    st.integers(0, 2**32 - 1).map(uint32), st.integers(0, 2**16 - 1).map(uint16), st.binary(max_size=20).map(octets)
)
entry = st.tuples(
    st.tuples(st.integers(0, 15), *[st.integers(0, 255)] * 4).map(lambda groups: Obis(*groups)),
    value,
    st.one_of(st.none(), st.tuples(st.integers(-6, 6), st.sampled_from([27, 30, 33, 35]))),
)


@settings(max_examples=60)
@given(st.lists(entry, min_size=1, max_size=12), st.integers(20, 200), st.booleans())
def test_what_is_encoded_is_decoded_in_every_transport(
    values: list[tuple[Obis, bytes, tuple[int, int] | None]], most_bytes: int, side_by_side: bool
) -> None:
    elements = flat(values) if side_by_side else coded(values)
    apdu = encode_notification(7, structure(*elements), date_time(NOON))
    telegrams = [
        one(encode_hdlc(apdu)),
        one(encode_hdlc(apdu, most_bytes=most_bytes)),
        one(b"".join(blocks(apdu, most_bytes))),
        one(encode_frames(apdu, most_bytes=most_bytes)),
    ]
    assert [register.obis for register in telegrams[0].registers] == [obis for obis, _, _ in values]
    assert {telegram.registers for telegram in telegrams} == {telegrams[0].registers}


@given(
    st.lists(
        st.one_of(st.binary(max_size=80), st.sampled_from([encode_hdlc(APDU), *blocks(APDU), encode_frames(APDU)]))
    )
)
def test_any_bytes_raise_nothing_and_stay_bounded(parts: list[bytes]) -> None:
    made = decoder()
    for part in parts:
        items = made.feed(part, 0.0)
        assert all(item.registers == REGISTERS for item in items if isinstance(item, Telegram) and item.checked)
        assert made.buffered_bytes <= LIMIT_BYTES
    made.idle(1.0)
    assert made.buffered_bytes == 0


def test_noise_is_counted_and_flags_are_none() -> None:
    made = decoder()
    made.feed(b"noise" + encode_hdlc(APDU) + b"\x7e\x7e" + b"more" + encode_hdlc(APDU), 0.0)
    made.idle(1.0)
    assert made.skipped_bytes == 9


def test_slow_drip_of_garbage_stays_bounded() -> None:
    made = decoder()
    for _ in range(3 * LIMIT_BYTES):
        made.feed(b"\x0f", 0.0)
        assert made.buffered_bytes <= LIMIT_BYTES
    assert made.idle(1.0) == []


def test_bare_push_is_out_when_the_next_begins() -> None:
    made = decoder()
    assert made.feed(push(1), 0.0) == []
    assert kinds(made.feed(push(2), 0.0)) == ["1"]
    assert kinds(made.feed(push(3)[:40], 0.0)) == ["2"]
    assert kinds(made.feed(push(3)[40:], 0.0)) == []
    assert kinds(made.idle(1.0)) == ["3"]
    assert made.skipped_bytes == 0


def test_bare_push_that_is_cut_by_the_next_gives_no_reading() -> None:
    for end in range(1, len(APDU)):
        assert kinds(decode(APDU[:end] + push(2) + push(3))) == ["2", "3"]


def test_a_full_buffer_is_not_searched_anew_with_every_byte() -> None:
    """Damaged heads of frames come in pieces of 11 bytes; each looks like the beginning of a bare push."""
    tries: list[int] = []

    def end_of(data: bytes, at: int) -> int:
        tries.append(at)
        raise GrammarError(f"no push within {len(data)} bytes")

    reader = BareReader(end_of)
    for _ in range(10_000):
        reader.feed(b"\xdb\x08ABC\x82\xff\xff\0\0\0")
        assert reader.buffered_bytes <= LIMIT_MESSAGE_BYTES
    assert len(tries) < 5000


def test_bare_pushes_are_not_looked_for_once_a_frame_was_seen() -> None:
    made = decoder()
    assert kinds(made.feed(encode_hdlc(push(1)), 0.0)) == ["1"]
    assert made.feed(push(2), 0.0) + made.idle(1.0) == []
    assert made.skipped_bytes == len(push(2))
