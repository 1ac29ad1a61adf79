"""Radio meters: who sends, which keys open it, what must not be believed, and each family's own telegram."""

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.adapter.config import MeterConfig
from meterway.adapter.mapping import Mapper
from meterway.core.config import load_config
from meterway.core.errors import SetupError
from meterway.core.obis import CURRENT, Obis
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.family import family_names, load_family
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual import encode_wmbus as radio
from meterway.meter.virtual.encode_mbus import BCD8, INT8, INT16, INT32, Header, Where, bcd, integer, text
from meterway.meter.wmbus import LIMIT_BYTES, WmbusDecoder
from meterway.plugins import make_decoder
from meterway.testing import check_codec
from support.wmbus import BERLIN, HEAT, KEY, KEYS, RECORDS, WATER, decode, decoder, kinds

WRONG = Keys(bytes(16))


def air(part: bytes, meter: Header = WATER) -> bytes:
    """Return what an iM871A hands on of a meter."""
    return radio.im871a(radio.linked(meter, part))


def clear(litres: int = 1, meter: Header = WATER) -> bytes:
    return air(radio.clear([bcd(b"\x13", BCD8, litres)], access=1), meter)


def mode_5(litres: int = 5, access: int = 1, key: bytes = KEY, meter: Header = WATER) -> bytes:
    return air(radio.mode_5(meter, [bcd(b"\x13", BCD8, litres)], key=key, access=access), meter)


def mode_7(counter: int, litres: int = 7, key: bytes = KEY, hop: int = 0) -> bytes:
    part = radio.mode_7(WATER, [bcd(b"\x13", BCD8, litres)], key=key, counter=counter, access=1)
    return air(radio.extended(part, access=1, control=0x20 | hop))


def in_session(records: list[bytes], *, key: bytes = KEY, hop: int = 0, full: bool = True) -> bytes:
    part = radio.without_header(records) if full else radio.compact(records)
    return air(radio.session(WATER, part, key=key, access=1, number=4711, control=0x20 | hop))


def only(items: list[Telegram | CodecError]) -> Telegram:
    [telegram] = items
    assert isinstance(telegram, Telegram), telegram
    return telegram


def test_frame_becomes_registers_and_the_meters_name() -> None:
    data = air(radio.clear(RECORDS, access=3, status=4))
    assert only(decode(data, NO_KEYS)) == Telegram(
        "wmbus",
        (
            Register(Obis(8, 0, 1, 0, 0), Decimal("1234.567"), "m3", None, "volume"),
            Register(Obis(8, 0, 2, 0, 0), Decimal("0.144"), "m3/h", None, "volume flow"),
            Register(Obis(8, 0, 97, 97, 1), Decimal(4), None, None, "status"),
        ),
        data,
        "8MWY1120264812",
    )


@pytest.mark.parametrize(
    ("data", "verified"),
    [(clear(), False), (mode_5(), False), (mode_7(1), True), (in_session(RECORDS), False)],
)
def test_only_a_mac_verifies_what_is_encrypted(data: bytes, verified: bool) -> None:
    """What is in the clear proves nothing where there is a key; where there is none, nobody expects a proof."""
    telegram = only(decode(data))
    assert (telegram.checked, telegram.verified) == (True, verified)
    assert only(decode(clear(), NO_KEYS)).verified


@pytest.mark.parametrize("data", [mode_5(), mode_7(1), in_session(RECORDS)])
def test_keys_that_are_missing_or_do_not_fit_are_named_once_in_ten_minutes(data: bytes) -> None:
    for keys, reason in ((NO_KEYS, "encrypted"), (WRONG, "bad-key")):
        made = decoder(keys)
        [error] = made.feed(data, 0.0)
        assert isinstance(error, CodecError)
        assert (error.reason, error.data) == (reason, data)
        assert str(error).startswith("the radio meter 8MWY1120264812 was heard, but ")
        assert made.feed(data, 599.0) == []
        assert kinds(made.feed(data, 601.0)) == [reason]


def test_damage_or_forgery_is_told_from_a_wrong_key_once_the_key_has_fitted() -> None:
    assert kinds(decode(mode_5(1) + mode_5(2, key=bytes(16)) + mode_5(3))) == ["0.001", "bad-checksum", "0.003"]
    assert kinds(decode(mode_7(1, 1) + mode_7(2, 2, key=bytes(16)))) == ["0.001", "bad-checksum"]
    forged = bytearray(mode_7(2))
    content = bytes(forged[4:-2])
    assert kinds(decode(mode_7(1, 1) + radio.im871a(content[:-1] + b"\x00"))) == ["0.001", "bad-checksum"]


def test_less_protected_frames_are_refused_after_better_ones() -> None:
    assert kinds(decode(clear(1) + mode_5(2) + clear(3))) == ["0.001", "0.002", "downgraded"]
    assert kinds(decode(mode_7(1, 1) + mode_5(2) + clear(3) + mode_7(2, 4))) == [
        "0.001",
        "downgraded",
        "downgraded",
        "0.004",
    ]
    assert kinds(decode(in_session(RECORDS) + clear(3))) == ["1234.567", "downgraded"]


def test_clear_frame_that_says_it_is_encrypted_is_not_believed_where_there_is_a_key() -> None:
    part = bytes((0x7A, 1, 0, 0x10, 5)) + b"\x2f\x2f" + bcd(b"\x13", BCD8, 1) + b"\x2f" * 8
    assert kinds(decode(air(part))) == ["bad-key"]
    assert kinds(decode(air(part), NO_KEYS)) == ["0.001"]


def test_another_name_does_not_help_a_forger_where_the_address_is_known() -> None:
    other = Header(WATER.number, "ABC", 1, 7)
    assert kinds(decode(mode_5(2) + clear(3, other), address=WATER.number)) == ["0.002", "downgraded"]


def test_counter_of_mode_7_must_rise_and_repeaters_are_counted() -> None:
    made = decoder()
    data = mode_7(5, 1) + mode_7(5, 1, hop=0x10) + mode_7(5, 2) + mode_7(4, 3) + mode_7(6, 4)
    assert kinds(made.feed(data, 0.0)) == ["0.001", "replayed", "replayed", "0.004"]
    assert made.repeated_frames == 1


def test_mode_5_has_no_counter_so_repetitions_are_handed_on() -> None:
    assert kinds(decode(mode_5(1) * 2)) == ["0.001", "0.001"]


def test_repeaters_bit_does_not_disturb_a_session() -> None:
    sent = radio.session(WATER, radio.without_header(RECORDS), key=KEY, access=1, number=4711, control=0x20)
    repeated = sent[:1] + b"\x30" + sent[2:]
    assert kinds(decode(air(repeated))) == ["1234.567"]


@pytest.mark.parametrize("address", ["20264812", "202648125936" + "1107", "8mwy1120264812"])
def test_address_takes_one_meter_and_counts_the_others(address: str) -> None:
    if len(address) == 16:
        address = WATER.secondary[:4][::-1].hex() + WATER.secondary[4:].hex()
    made = decoder(NO_KEYS, address=address)
    techem = radio.im871a(radio.linked(HEAT, b"\xa0" + bytes(20)))
    assert kinds(made.feed(clear(1) + clear(2, HEAT) + mode_5(3, meter=HEAT) + techem, 0.0)) == ["0.001"]
    assert (made.other_frames, made.skipped_bytes) == (3, 0)
    assert kinds(decode(clear(1) + clear(2, HEAT), NO_KEYS)) == ["0.001", "0.002"]


def test_address_that_is_none_is_refused() -> None:
    with pytest.raises(SetupError, match="a radio meter's address is the 8 digits of its number"):
        decoder(address="4711")


def test_meter_behind_a_radio_module_goes_by_its_own_number() -> None:
    for part in (
        radio.clear(RECORDS, access=1, behind=HEAT),
        radio.mode_5(WATER, RECORDS, key=KEY, access=1, behind=HEAT),
    ):
        assert only(decode(air(part), address=HEAT.number)).meter == "6MWY0720264811"
        assert decode(air(part), address=WATER.number) == []


def test_compact_frame_waits_for_the_full_one_that_teaches_it() -> None:
    records = [
        integer(b"\xff\x21", INT16, 0),
        integer(b"\x13", INT32, 474240),
        text(b"\xfd\x0c", "MW"),
        integer(b"\x5b", INT8, -3, Where(function=2)),
    ]
    made = decoder()
    [error] = made.feed(in_session(records, full=False), 0.0)
    assert str(error).endswith("its compact frame is of a form that no full frame has taught yet; wait for one")
    [full] = made.feed(in_session(records), 1.0)
    [compact] = made.feed(in_session(records, full=False), 2.0)
    assert isinstance(full, Telegram)
    assert isinstance(compact, Telegram)
    assert compact.registers == full.registers
    assert [str(register.value) for register in compact.registers] == ["0", "474.240", "MW", "-3"]


def test_compact_frame_of_a_common_meter_needs_no_full_one() -> None:
    records = [integer(b"\xff\x20", INT16, 0), integer(b"\x13", INT32, 1), integer(b"\x13", INT32, 2, Where(storage=1))]
    records += [integer(vif, INT8, value, Where(function=2, storage=1)) for vif, value in ((b"\x5b", 9), (b"\x67", 21))]
    assert [str(r.value) for r in only(decode(in_session(records, full=False))).registers] == [
        "0",
        "0.001",
        "0.002",
        "9",
        "21",
    ]


def test_compact_frame_with_wrong_values_is_refused() -> None:
    records = [integer(b"\xff\x20", INT16, 0), integer(b"\x13", INT32, 1), integer(b"\x52\x3b"[1:], INT16, 2)]
    part = bytearray(radio.compact(records))
    part[-1] ^= 1
    made = decoder()
    made.feed(in_session(records), 0.0)
    [error] = made.feed(air(radio.session(WATER, bytes(part), key=KEY, access=1, number=1)), 1.0)
    assert str(error).endswith("the checksum of its compact data does not hold")


@pytest.mark.parametrize(
    ("part", "reason", "message"),
    [
        (b"\xa2" + bytes(20), "bad-syntax", "its CI field A2 announces the maker's own data"),
        (b"\x53" + bytes(20), "bad-syntax", "its CI field 53 announces no data of a meter"),
        (b"\x7a\x01", "bad-syntax", "its header breaks off"),
        (b"\x8c\x20", "bad-syntax", "its extended link layer breaks off"),
        (b"\x90\x0f\x00\x2c\x25", "bad-syntax", "its authentication layer breaks off"),
        (b"\x90\x02\x01\x40" + b"\x7a\x01\x00\x00\x00", "bad-syntax", "it is one of several fragments"),
        (b"\x7a\x01\x00\x20\x05" + bytes(16), "bad-syntax", "of 32 bytes of encrypted data only 16 are there"),
        (
            b"\x7a\x01\x00\x10\x07\x10" + bytes(16),
            "bad-syntax",
            "it is encrypted in mode 7, but has no message counter",
        ),
        (b"\x7a\x01\x00\x10\x08" + bytes(16), "encrypted", "its data are encrypted in mode 8, which is not known"),
        (b"\x6f\x01\x00\x00\x00\x05", "refused", "it says an error or alarm: 05"),
        (b"\x79\x01", "bad-syntax", "its compact data break off"),
        (radio.clear([b"\x04\x13\x00"], access=1), "bad-syntax", "the record 'volume' breaks off"),
        (b"\x8d\x20\x01" + bytes(8), "bad-checksum", "the checksum of its session does not hold"),
    ],
)
def test_what_cannot_be_used_says_why(part: bytes, reason: str, message: str) -> None:
    [error] = decode(air(part))
    assert isinstance(error, CodecError)
    assert error.reason == reason
    assert message in str(error)


FAMILIES = [name for name in family_names() if load_family(name).protocol == "wmbus"]
MAIN_VALUES = {
    "wmbus-water": ("WATER_volume_of_water", "1234.567", "m3"),
    "wmbus-heat": ("HEAT_energy", "31415", "kWh"),
    "wmbus-electricity": ("OBIS_1.8.0", "12345.678", "kWh"),
    "wmbus-gas": ("GAS_volume", "6543.21", "m3"),
    "wmbus-cost-allocator": ("HEAT_allocation_units", "1377", None),
    "wmbus-kamstrup-multical21": ("WATER_volume_of_water", "456.789", "m3"),
    "wmbus-apator-162": ("WATER_volume_of_water", "271.828", "m3"),
}
CONFIG = """
id = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
family = "{family}"
source = {{ type = "tcp", host = "127.0.0.1", port = 8001 }}
"""


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_of_a_family_decodes_to_what_stands_beside_it(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    setup = MeterSetup(family=family, zone=ZoneInfo(family.timezone), keys=family.sample.keys)
    made = make_decoder(setup)
    telegram = only(made.feed(family.sample.telegram, 0.0) + made.idle(0.0))
    written = [
        (str(r.obis).removesuffix(f"*{CURRENT}"), str(r.value), r.unit or "", r.time.isoformat() if r.time else None)
        for r in telegram.registers
    ]
    expected = [(*row[:3], row[3] if len(row) > 3 else None) for row in family.sample.registers]
    assert written == expected
    assert made.skipped_bytes == 0
    mapper = Mapper(load_config(CONFIG.format(family=name), MeterConfig, where="test"), family)
    [mapped] = mapper.readings(telegram, datetime(2026, 2, 14, 9, 0, tzinfo=UTC))
    values = {value.property_id: value for value in mapped.reading.property_values}
    property_id, number, unit = MAIN_VALUES[name]
    assert (values[property_id].numerical_value, values[property_id].unit) == (Decimal(number), unit)
    assert not mapper.unmapped


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_of_a_family_passes_the_gate(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    keys = family.sample.keys
    report = check_codec(
        lambda: decoder(keys, accept_repeats=True),
        family.sample.telegram,
        limit_bytes=LIMIT_BYTES,
        rounds=8,
        weak_checksum=name in {"wmbus-gas", "wmbus-cost-allocator"},
    )
    assert (report.telegrams, report.errors) == (1, 0)


@settings(max_examples=60)
@given(
    number=st.integers(0, 99_999_999),
    maker=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3).filter(
        lambda maker: maker not in {"APA", "BFW", "QDS", "ZRI"}
    ),
    litres=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=14),
    access=st.integers(0, 255),
    counter=st.integers(1, 2**32 - 1),
    protection=st.sampled_from(["clear", "5", "7", "session"]),
    framing=st.sampled_from(["im871a", "amber", "cul", "cul-b", "rtl_wmbus", "hex"]),
)
def test_what_is_encoded_is_decoded(  # noqa: PLR0917 - drawn by name
    number: int, maker: str, litres: list[int], access: int, counter: int, protection: str, framing: str
) -> None:
    meter = Header(f"{number:08d}", maker, 1, 7)
    records = [integer(b"\x13", INT32, value, Where(storage=n)) for n, value in enumerate(litres)]
    part = {
        "clear": lambda: radio.clear(records, access=access),
        "5": lambda: radio.mode_5(meter, records, key=KEY, access=access),
        "7": lambda: radio.mode_7(meter, records, key=KEY, counter=counter, access=access),
        "session": lambda: radio.session(
            meter, radio.without_header(records), key=KEY, access=access, number=counter & 0x1FFFFFFF
        ),
    }[protection]()
    content = radio.linked(meter, part)
    data = {
        "im871a": lambda: radio.im871a(content, rssi=access),
        "amber": lambda: radio.amber(content, rssi=access),
        "cul": lambda: radio.cul(radio.format_a(content)),
        "cul-b": lambda: radio.cul(radio.format_b(content), is_b=True),
        "rtl_wmbus": lambda: radio.rtl_wmbus(content),
        "hex": lambda: radio.hex_line(content),
    }[framing]()
    telegram = only(decode(data, KEYS))
    assert telegram.meter == f"8{maker}01{number:08d}"
    values = [register.value for register in telegram.registers if register.name != "status"]
    assert values == [Decimal(value).scaleb(-3) for value in litres]


@given(st.binary(max_size=200))
def test_any_content_raises_nothing(part: bytes) -> None:
    for ci in (b"", b"\x72", b"\x7a", b"\x79", b"\x8d", b"\x8f", b"\x90", b"\x8c\x20\x01\x90"):
        decode(radio.im871a(radio.linked(WATER, ci + part)))


def test_meters_not_heard_for_long_are_forgotten() -> None:
    made = WmbusDecoder(BERLIN)
    assert kinds(made.feed(mode_5(), 0.0) + made.feed(mode_5(), 0.0)) == ["encrypted"]
    for number in range(1024):
        made.feed(mode_5(meter=Header(f"{number:08d}", "MWY", 1, 7)), 0.0)
    assert kinds(made.feed(mode_5(), 0.0)) == ["encrypted"]
