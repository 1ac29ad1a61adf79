"""IEC 62056-21 readouts of our own making: every form of data set, every kind of frame, every kind of damage."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from operator import xor
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import Mapper
from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.family import family_names, load_family
from meterway.meter.iec62056_21 import LIMIT_BYTES, ReadoutDecoder, block_check, strip_parity
from meterway.meter.iec62056_21_access import Access
from meterway.meter.iec62056_21_lines import read_lines
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual.encode_iec62056_21 import (
    encode_block,
    encode_profile,
    encode_push,
    encode_readout,
    with_even_parity,
)
from meterway.plugins import make_decoder
from meterway.testing import check_codec

BERLIN = ZoneInfo("Europe/Berlin")
FAMILIES = [name for name in family_names() if name.startswith(("iec-", "heat-"))]
LINES = ("1-0:1.8.0*255(001234.567*kWh)", "1-0:16.7.0*255(-000042.50*W)", "1-0:96.5.5*255(80)")
PUSH = encode_push("MWY5TEST", LINES)
READOUT = encode_readout("MWY5TEST", LINES)


def decode(data: bytes) -> list[Telegram | CodecError]:
    decoder = ReadoutDecoder(BERLIN)
    return decoder.feed(data, 0.0) + decoder.idle(0.0)


def telegram_of(data: bytes) -> Telegram:
    [telegram] = decode(data)
    assert isinstance(telegram, Telegram), telegram
    return telegram


def refused(data: bytes) -> CodecError:
    [error] = decode(data)
    assert isinstance(error, CodecError), error
    return error


def reasons(data: bytes) -> list[str]:
    return [item.reason if isinstance(item, CodecError) else "telegram" for item in decode(data)]


def said(line: str, *, strict: bool = True) -> list[tuple[str, str, str | None]]:
    lines = read_lines(line, BERLIN, strict=strict)
    assert lines.odd == []
    return [(str(register.obis), str(register.value), register.unit) for register in lines.registers]


@pytest.mark.parametrize(
    ("line", "registers"),
    [
        ("1-0:1.8.0*255(001234.567*kWh)", [("1-0:1.8.0*255", "1234.567", "kWh")]),
        ("1-1:1.8.0(12*KWH)", [("1-1:1.8.0*255", "12", "kWh")]),
        ("1.8.0*19(0012.3)", [("1-0:1.8.0*19", "12.3", None)]),
        ("1.8.0&02(0012.3)", [("1-0:1.8.0*2", "12.3", None)]),
        ("32.7( 231*V)", [("1-0:32.7.0*255", "231", "V")]),
        ("1-0:21.7.0*255(+00115*W)", [("1-0:21.7.0*255", "115", "W")]),
        ("1-0:16.7.0*255(-00115.5*W)", [("1-0:16.7.0*255", "-115.5", "W")]),
        ("16.7.0(-.--*kW)", [("1-0:16.7.0*255", "", None)]),
        ("16.7.0(--.--)", [("1-0:16.7.0*255", "", None)]),
        ("2.8.0()", [("1-0:2.8.0*255", "", None)]),
        ("C.1.1(        )", [("1-0:96.1.1*255", "", None)]),
        ("0.0(     4711)", [("1-0:0.0.0*255", "4711", None)]),
        ("F.F(00000000)", [("1-0:97.97.0*255", "00000000", None)]),
        ("C.7.0(0003)", [("1-0:96.7.0*255", "3", None)]),
        ("C.51.1(0003)C.51.2(2601011200)", [("1-0:96.51.1*255", "3", None), ("1-0:96.51.2*255", "2601011200", None)]),
        ("0-0:96.8.0*255(00104443)", [("0-0:96.8.0*255", "00104443", None)]),
        ("0.3.0(1000*imp/kWh)", [("1-0:0.3.0*255", "1000", "1/kWh")]),
        ("C.8.1(00000600*secs)", [("1-0:96.8.1*255", "600", "s")]),
        ("1-1:0.5.1.2(80.000*kW)", [("1-1:0.5.1*2", "80.000", "kW")]),
        ("1-0:81.7.15*255(051*deg)", [("1-0:81.7.15*255", "51", "deg")]),
        ("C.2.1(00)( )", [("1-0:96.2.1*255", "(00)( )", None)]),
        ("P.98(1260704120000)(0020)()(0)", [("1-0:99.98.0*255", "(1260704120000)(0020)()(0)", None)]),
        (
            "6.8(0012.345*MWh)6.26(00456.78*m3)9.4(077.6*C&049.0*C)6.36(01-01)F(0)",
            [
                ("6-0:6.8.0*255", "12.345", "MWh"),
                ("6-0:6.26.0*255", "456.78", "m3"),
                ("6-0:9.4.0*255", "77.6", "degreeCelsius"),
                ("6-0:9.4.0*255", "49.0", "degreeCelsius"),
                ("6-0:6.36.0*255", "01-01", None),
                ("6-0:97.97.0*255", "0", None),
            ],
        ),
        ("6.8.0(000000.26*kvarh)", [("1-0:6.8.0*255", "0.26", "kvarh")]),
    ],
)
def test_data_set_becomes_its_registers(line: str, registers: list[tuple[str, str, str | None]]) -> None:
    assert said(line) == registers


@pytest.mark.parametrize(
    "line",
    [
        "1-0:1.7.0*255(00000001.100000000000.00*W)",
        "1.8.0(12,3*kWh)",
        "1.8.0(1.2.3*kWh)",
        "1.8.0(1234a.5)",
        "1.8.0(12.3*kWx)",
        "1.8.0(12.3*)",
        "1.8.0(12.*kWh)",
        "1.8.0*(12.3*kWh)",
        "1-0.8.0(12.3*kWh)",
        "1.8.0(--12*kWh)",
        "1.8.999(12.3*kWh)",
        "1.8.0 (12.3*kWh)",
        "1.8.0(12.3*kWh",
        "1.8.012.3*kWh)",
        "9.4(077.6*C&049.0)",
        "1.6.0(1.5*kW)(2613451299)",
        "0.2.0(\x07)",
        "text",
        "(1)",
    ],
)
def test_odd_data_set_refuses_a_readout_without_checksum_and_follows_one_with(line: str) -> None:
    assert refused(encode_push("MWY5TEST", [*LINES, line])).reason == "bad-syntax"
    items = decode(encode_readout("MWY5TEST", [*LINES, line]))
    if line == "0.2.0(\x07)":
        assert [getattr(item, "reason", "") for item in items] == ["bad-syntax"]
    elif line in ("1.8.0(1234a.5)", "1.6.0(1.5*kW)(2613451299)"):
        assert len(items) == 1
    else:
        telegram, error = items
        assert isinstance(telegram, Telegram)
        assert telegram.registers == telegram_of(READOUT).registers
        assert isinstance(error, CodecError)
        assert error.reason == "bad-syntax"
        assert line in error.data.decode("latin-1")


@pytest.mark.parametrize(
    ("lines", "utc"),
    [
        ("0.9.1(221044)\r\n0.9.2(260123)", "2026-01-23T21:10:44"),
        ("1-0:0.9.2*255(0220127)\r\n1-0:0.9.1*255(105644)", "2022-01-27T09:56:44"),
        ("0.9.2(1260704)\r\n0.9.1(1120000)", "2026-07-04T10:00:00"),
        ("0.9.2(2260704)\r\n0.9.1(2120000)", "2026-07-04T12:00:00"),
        ("0.9.1(16:40:56)\r\n0.9.2(17-11-06)", "2017-11-06T15:40:56"),
        ("0.9.4(260704120000)", "2026-07-04T10:00:00"),
        ("6.26(1*m3)9.36(2026-07-04&12:00:30)", "2026-07-04T10:00:30"),
        ("0.9.1(221044)\r\n0.9.2(21.12.22)", None),
        ("0.9.1(221044)", None),
        ("0.9.1(251044)\r\n0.9.2(260123)", None),
        ("0.9.4(000000000000)", None),
    ],
)
def test_the_meters_clock_is_understood(lines: str, utc: str | None) -> None:
    expected = None if utc is None else datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert read_lines(lines, BERLIN, strict=True).time == expected


@pytest.mark.parametrize("stamp", ["2607201845", "260720184500", "12607201845", "1260720184500", "26-07-20 18:45"])
def test_a_maximum_has_the_time_when_it_occurred(stamp: str) -> None:
    [register] = read_lines(f"1.6.1(03.125*kW)({stamp})", BERLIN, strict=True).registers
    assert register.value == Decimal("3.125")
    assert register.time == datetime(2026, 7, 20, 16, 45, tzinfo=UTC)


@pytest.mark.parametrize("stamp", ["0000000000", "00-00-00 00:00"])
def test_a_maximum_of_never_has_no_time(stamp: str) -> None:
    [register] = read_lines(f"1.6.1(00.000*kW)({stamp})", BERLIN, strict=True).registers
    assert (register.value, register.time) == (Decimal("0.000"), None)


def test_an_entry_of_a_log_has_its_time() -> None:
    [register] = read_lines("P.98(1260704120000)(0020)()(0)", BERLIN, strict=True).registers
    assert register.time == datetime(2026, 7, 4, 10, 0, tzinfo=UTC)


def test_a_load_profile_becomes_a_telegram_a_row_across_the_change_of_the_clocks() -> None:
    start = datetime(2026, 10, 25, 2, 45, tzinfo=BERLIN)
    rows = [[Decimal("0.125"), Decimal(number)] for number in range(3)]
    text = encode_profile(start, rows, [("1.5", "kW"), ("2.5", "kW")], period_min=15)
    data = encode_block([text.strip()])
    items = decode(data)
    first = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
    for index, item in enumerate(items):
        assert isinstance(item, Telegram)
        assert item.time == first + index * timedelta(minutes=15)
        assert item.registers[1:] == (
            Register(obis=item.registers[1].obis, value=Decimal("0.125"), unit="kW"),
            Register(obis=item.registers[2].obis, value=Decimal(index), unit="kW"),
        )
        assert item.raw == data
    assert len(items) == 3


@pytest.mark.parametrize(
    "profile",
    [
        "P.01(1260704001500)(00)(15)(2)(1.5)(kW)(2.5)(kW)\r\n(1)(2)\r\n(3)",
        "P.01(1260704001500)(00)(15)(1)(1.5)(kW)\r\n(1)\r\n(x)",
        "P.01(1260704001500)(00)(15)(9)(1.5)(kW)\r\n(1)",
        "P.01(1269904001500)(00)(15)(1)(1.5)(kW)\r\n(1)",
        "P.01(1260704001500)(00)(0)(1)(1.5)(kW)\r\n(1)",
        "P.01(1260704001500)(00)(15)(0)\r\n(1)",
        "P.01(1260704001500)(00)(15)(1)(1.5)(kWx)\r\n(1)",
    ],
)
def test_a_damaged_load_profile_is_odd(profile: str) -> None:
    assert read_lines(profile, BERLIN, strict=True).odd


def test_checksum_is_that_of_the_standard_and_may_be_any_character() -> None:
    for length in range(40):
        data = bytes(range(7, 7 + length))
        assert block_check(data) == reduce(xor, data, 0)
    checks = set()
    for number in range(1000):
        data = encode_readout(
            "MWY5TEST", [f"1.8.0(00{number:03d}.0*kWh)", f"0.0.0({number % 7}{chr(65 + number % 26)})"]
        )
        checks.add(data[-1])
        assert telegram_of(data).checked
        assert reasons(data + data) == ["telegram"] * 2
    assert {0x0A, 0x0D} & checks


@pytest.mark.parametrize("data", [PUSH, READOUT, encode_block(LINES), READOUT[:-2], PUSH.replace(b"\r\n", b"\n")])
def test_frames_of_every_kind_and_their_checksum(data: bytes) -> None:
    telegram = telegram_of(data)
    assert telegram.checked == (data[-2:-1] == b"\x03")
    assert telegram.meter == ("MWY5TEST" if data[:1] == b"/" else "")
    assert [str(register.value) for register in telegram.registers] == ["1234.567", "-42.50", "80"]
    assert telegram.raw in data
    assert telegram.protocol == "iec62056_21"
    assert telegram_of(with_even_parity(data)).registers == telegram.registers


def test_a_pushed_readout_is_there_with_its_last_byte() -> None:
    decoder = ReadoutDecoder(BERLIN)
    assert decoder.feed(PUSH[:-1], 0.0) == []
    assert len(decoder.feed(PUSH[-1:], 0.0)) == 1
    assert len(decoder.feed(READOUT, 0.0)) == 1
    assert decoder.buffered_bytes == 0


def test_bytes_of_wrong_parity_refuse_a_readout() -> None:
    spoilt = bytearray(with_even_parity(PUSH))
    spoilt[PUSH.index(b"1234")] ^= 0x01
    assert refused(bytes(spoilt)).reason == "bad-syntax"
    assert "wrong parity" in str(refused(bytes(spoilt)))
    spoilt = bytearray(with_even_parity(READOUT))
    spoilt[READOUT.index(b"5TEST")] ^= 0x01
    assert "wrong parity" in str(refused(bytes(spoilt)))
    assert strip_parity(with_even_parity(PUSH)) == PUSH


def test_letters_of_eight_bits_pass_where_a_checksum_guards_them() -> None:
    items = decode(encode_block([*LINES, "0.2.0(caf\xe9)"]))
    assert isinstance(items[0], Telegram)
    assert items[0].checked
    assert refused(encode_push("MWY5TEST", [*LINES, "0.2.0(caf\xe9)"])).reason == "bad-syntax"


def test_a_meter_that_sent_a_checksum_owes_one() -> None:
    assert reasons(READOUT + READOUT[:-2] + b"\r\n" + READOUT) == ["telegram", "bad-checksum", "telegram"]
    assert reasons(READOUT + encode_block(LINES)[:-2]) == ["telegram", "bad-checksum"]
    assert reasons(READOUT + PUSH) == ["telegram", "telegram"]


def test_bad_checksum_does_not_hide_the_next_readout() -> None:
    spoilt = READOUT.replace(b"1234", b"1235")
    assert reasons(spoilt + READOUT) == ["bad-checksum", "telegram"]
    assert reasons(READOUT[:-1] + READOUT) == ["bad-checksum", "telegram"]
    assert "says BCC" in str(decode(spoilt)[0])


@pytest.mark.parametrize("cut", [3, 14, 30, 60])
def test_a_cut_readout_does_not_hide_the_next(cut: int) -> None:
    for data in (PUSH, READOUT):
        items = decode(data[:cut] + data)
        assert isinstance(items[-1], Telegram)
        assert items[-1].registers == telegram_of(data).registers
        assert all(isinstance(item, CodecError) for item in items[:-1])


def test_what_the_reader_sends_is_noise() -> None:
    data = bytes(40) + b"/?!\r\n" + READOUT[:11] + b"\x06050\r\n" + READOUT[11:]
    telegram = telegram_of(data)
    assert telegram.checked
    assert telegram.meter == "MWY5TEST"


def test_the_end_of_a_p1_telegram_is_no_end_of_a_readout() -> None:
    assert "is it a P1 telegram?" in str(decode(PUSH.rstrip() + b"1A2B\r\n")[0])


def test_a_readout_without_end_is_given_up_at_the_limit() -> None:
    decoder = ReadoutDecoder(BERLIN)
    items = decoder.feed(b"/MWY5TEST\r\n\r\n" + b"1.8.0(1*kWh)\r\n" * 4000, 0.0)
    assert [item.reason for item in items if isinstance(item, CodecError)] == ["too-long"]
    assert decoder.buffered_bytes <= LIMIT_BYTES
    assert len(decoder.feed(PUSH, 0.0)) == 1


def test_noise_is_skipped_and_counted() -> None:
    decoder = ReadoutDecoder(BERLIN)
    assert len(decoder.feed(b"\x00\xff?\r\n" + PUSH + b"  4711\r\n" + PUSH, 0.0)) == 2
    assert decoder.skipped_bytes == 9


def test_a_readout_without_data_is_refused() -> None:
    assert refused(encode_push("MWY5TEST", [])).reason == "bad-syntax"


def test_silence_discards_half_a_readout() -> None:
    decoder = ReadoutDecoder(BERLIN)
    decoder.feed(PUSH[:50], 0.0)
    assert [getattr(item, "reason", "") for item in decoder.idle(5.0)] == ["truncated"]
    assert decoder.idle(6.0) == []
    assert len(decoder.feed(PUSH, 7.0)) == 1


def test_unknown_quirk_is_refused() -> None:
    with pytest.raises(SetupError, match="knows no quirk `loud`"):
        ReadoutDecoder(BERLIN, quirks=["loud"])


@pytest.mark.parametrize("data", [PUSH, READOUT, encode_block(LINES), with_even_parity(READOUT)])
def test_readouts_of_our_own_pass_the_gate(data: bytes) -> None:
    report = check_codec(lambda: ReadoutDecoder(BERLIN), data, limit_bytes=LIMIT_BYTES, rounds=30, weak_checksum=True)
    assert (report.telegrams, report.errors) == (1, 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_of_a_family_decodes_to_what_stands_beside_it(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    zone = ZoneInfo(family.timezone)
    decoder = make_decoder(MeterSetup(family=family, zone=zone))
    [telegram] = decoder.feed(family.sample.telegram, 0.0)
    assert isinstance(telegram, Telegram)
    stated = [(code, value, unit or None, *time) for code, value, unit, *time in family.sample.registers]
    found = [
        (str(r.obis).removesuffix("*255"), str(r.value), r.unit, *([r.time.isoformat()] if r.time else []))
        for r in telegram.registers
    ]
    assert found == stated
    assert telegram.checked == (family.sign_on is not None)
    assert decoder.skipped_bytes == 0
    recognised = recognise(family.sample.telegram)
    assert recognised is not None
    assert recognised.protocol == family.protocol
    report = check_codec(
        lambda: ReadoutDecoder(zone), family.sample.telegram, limit_bytes=LIMIT_BYTES, rounds=6, weak_checksum=True
    )
    assert (report.telegrams, report.errors) == (1, 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_says_how_its_meters_are_signed_on_to(name: str) -> None:
    family = load_family(name)
    access = Access.of(family, address="1", password="2")
    assert (access.mode == "D") == (family.sign_on is None)
    assert access.line.baud == (9600 if family.sign_on is None else 300)
    assert (access.line.data_bits, access.line.parity) == (7, "E")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("iec-hager-ehz", {"OBIS_1.8.1": "2345.6789 kWh", "OBIS_41.7.0": "-0.087 kW"}),
        ("iec-pafal-ec3", {"OBIS_1.8.0": "12345.67 kWh", "OBIS_2.8.0": "89.01 kWh"}),
        ("iec-ebz-dd3", {"OBIS_1.8.0": "4711.08154711 kWh", "OBIS_16.7.0": "-1.23456 kW"}),
        ("iec-landisgyr-e650", {"OBIS_1.8.0": "12345.6 kWh", "OBIS_1.6.0": "12.345 kW"}),
        (
            "heat-landisgyr-uh50",
            {"HEAT_energy": "12345 kWh", "HEAT_volume": "456.78 m3", "HEAT_maximum_power": "8.9 kW"},
        ),
    ],
)
def test_values_of_a_family_reach_their_properties_also_without_unit(name: str, values: dict[str, str]) -> None:
    family = load_family(name)
    assert family.sample is not None
    telegram = telegram_of(family.sample.telegram)
    mapper = Mapper(MeterConfig(id="m1", source=ReplaySource(file=Path("x"))), family)
    [mapped] = mapper.readings(telegram, datetime(2026, 11, 23, 12, tzinfo=UTC))
    found = {v.property_id: f"{v.numerical_value} {v.unit}" for v in mapped.reading.property_values}
    assert found | values == found


PIECES = st.sampled_from(
    [
        *(b"/", b"!", b"\r\n", b"!\r\n", b"(", b")", b"*", b"\x02", b"\x03", b"/MWY5\r\n", b"/MWY5\r\n\r\n", b"F.F(0)"),
        *(PUSH, READOUT, encode_block(LINES), READOUT[:-2], with_even_parity(READOUT), with_even_parity(PUSH)),
        LINES[0].encode(),
        b"F.F(00)\r\n1.8.0(1*kWh)\r\n",
        b"P.01(1260704001500)(00)(15)(1)(1.5)(kW)\r\n(1)\r\n(2)\r\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=20), max_size=20), st.lists(st.integers(1, 90), min_size=1, max_size=9))
def test_any_bytes_in_any_chunks_give_the_same_and_raise_nothing(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"".join(pieces)
    decoder = ReadoutDecoder(BERLIN)
    items: list[Telegram | CodecError] = []
    start = turn = 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        items += decoder.feed(data[start : start + size], 0.0)
        assert decoder.buffered_bytes <= LIMIT_BYTES
        start += size
        turn += 1
    items += decoder.idle(1.0)
    assert list(map(seen, items)) == list(map(seen, decode(data)))


def seen(item: Telegram | CodecError) -> object:
    return item if isinstance(item, Telegram) else (item.reason, item.data)


@given(
    st.lists(st.tuples(st.integers(1, 80), st.decimals(-(10**6), 10**6, places=3)), min_size=1, max_size=20),
    st.booleans(),
)
def test_what_is_encoded_is_decoded(values: list[tuple[int, Decimal]], push: bool) -> None:
    lines = [f"1-0:{c}.7.0*255({value:f}*W)" for c, value in values]
    encode = encode_push if push else encode_readout
    telegram = telegram_of(encode("MWY5TEST", lines))
    assert [(register.obis.c, register.value) for register in telegram.registers] == values
