"""SML messages: values, times, grammar, quirks, and the families that use them."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.family import family_names, load_family
from meterway.meter.sml import LIMIT_BYTES, QUIRKS, SmlDecoder
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual.encode_sml import UNIT_WH, SmlEntry, encode_sml
from meterway.testing import check_codec
from support.sml import (
    ABSENT,
    FRAME,
    IMPORT,
    LIST,
    MAKER,
    OTHER,
    POWER,
    POWER_OF_PHASE_1,
    POWER_WITHOUT_SIGN,
    SERVER,
    WH,
    W,
    decode,
    entry,
    frame,
    get_list,
    integer,
    kinds,
    message,
    octets,
    one,
    register,
    sequence,
)

SML_FAMILIES = [name for name in family_names() if name.startswith("sml-")]


def test_telegram_has_values_scaled_exactly_and_the_server_id() -> None:
    telegram = one(FRAME)
    assert telegram == Telegram(
        "sml",
        (Register(Obis(1, 0, 1, 8, 0), Decimal("1234567.8"), "Wh"),),
        FRAME,
        "0A014D57590000001267",
    )


def test_virtual_meters_encoding_is_understood() -> None:
    data = encode_sml(SERVER, [SmlEntry(IMPORT, 987654321, UNIT_WH, -1, status=0x1C0104)], file_number=3, running_s=88)
    assert one(data).registers == (Register(Obis(1, 0, 1, 8, 0), Decimal("98765432.1"), "Wh"),)


@pytest.mark.parametrize(
    ("number", "size", "signed", "scaler", "expected"),
    [
        (2324, 2, True, 3, "2324000"),
        (0, 1, False, -1, "0.0"),
        (1500, 2, True, -1, "150.0"),
        (-1, 1, True, 0, "-1"),
        (-1875, 3, True, -2, "-18.75"),
        ((1 << 64) - 1, 8, False, -8, "184467440737.09551615"),
        (-(1 << 63), 8, True, -128, "-9.223372036854775808E-110"),
        (255, 1, False, None, "255"),
    ],
)
def test_number_keeps_its_digits(number: int, size: int, signed: bool, scaler: int | None, expected: str) -> None:
    found = register(entry(IMPORT, integer(number, size, signed=signed), unit=WH, scaler=scaler))
    assert str(found.value) == expected


@pytest.mark.parametrize(
    ("code", "expected"), [(27, "W"), (30, "Wh"), (35, "V"), (13, "m3"), (None, None), (255, None), (45, "dlms-45")]
)
def test_unit_is_spelled_as_everywhere(code: int | None, expected: str | None) -> None:
    assert register(entry(IMPORT, integer(1, 1), unit=code)).unit == expected


@pytest.mark.parametrize(
    ("code", "data", "expected"),
    [
        (MAKER, b"MWY", "MWY"),
        (MAKER, b"MWY\x01", "4D575901"),
        (bytes((129, 129, 199, 130, 3, 255)), b"MWY", "MWY"),
        (bytes((1, 0, 96, 1, 0, 255)), b"12345678", "3132333435363738"),
        (bytes((1, 0, 0, 0, 0, 255)), b"1MWY0047110815", "1MWY0047110815"),
        (bytes((129, 129, 199, 130, 5, 255)), bytes(range(48)), bytes(range(48)).hex().upper()),
        (bytes((1, 0, 0, 2, 0, 0)), b"1.02", "1.02"),
        (MAKER, b"", ""),
    ],
)
def test_octet_string_is_hexadecimal_unless_its_code_names_a_text(code: bytes, data: bytes, expected: str) -> None:
    assert register(entry(code, octets(data))).value == expected


def test_boolean_is_0_or_1_and_a_list_is_its_bytes() -> None:
    listed = sequence(integer(1, 1, signed=False), integer(7, 1, signed=False))
    entries = [entry(POWER, b"\x42\xff"), entry(POWER, b"\x42\x00"), entry(POWER, listed, signature=octets(b"sig"))]
    values = [item.value for item in one(frame(get_list(*entries))).registers]
    assert values == [Decimal(1), Decimal(0), "7262016207"]


UNIX_S = 1_790_000_000
INSTANT = datetime.fromtimestamp(UNIX_S, UTC)


def local(offset_min: int, summer_min: int) -> bytes:
    parts = sequence(integer(UNIX_S, 4, signed=False), integer(offset_min, 2), integer(summer_min, 2))
    return sequence(integer(3, 1, signed=False), parts)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (ABSENT, None),
        (sequence(integer(1, 1, signed=False), integer(UNIX_S, 4, signed=False)), None),
        (integer(UNIX_S, 4, signed=False), None),
        (sequence(integer(2, 1, signed=False), integer(UNIX_S, 4, signed=False)), INSTANT),
        (sequence(integer(2, 1, signed=False), integer(-5, 4)), None),
        (sequence(integer(2, 1, signed=False), integer(1 << 62, 8, signed=False)), None),
        (local(60, 60), INSTANT.astimezone(timezone(timedelta(hours=2)))),
        (local(24 * 60, 0), None),
    ],
)
def test_only_a_clock_gives_a_time(time: bytes, expected: datetime | None) -> None:
    telegram = one(frame(get_list(entry(IMPORT, integer(1, 1), unit=WH, time=time), time=time)))
    assert telegram.time == telegram.registers[0].time == expected
    if expected:
        assert telegram.time
        assert telegram.time.utcoffset() == expected.utcoffset()


def test_file_with_two_lists_is_two_telegrams() -> None:
    second = get_list(entry(POWER, integer(7, 1), unit=W), server=b"\x0a" * 10)
    items = decode(frame(LIST, second))
    assert kinds(items) == ["1234567.8", "7"]
    assert [item.meter for item in items if isinstance(item, Telegram)] == [SERVER.hex().upper(), "0A" * 10]


def test_file_without_a_list_is_an_error_that_says_so() -> None:
    data = frame(message(0x0201, sequence(ABSENT)))
    [error] = decode(data)
    assert isinstance(error, CodecError)
    assert str(error) == "the SML frame of 36 bytes has a good checksum, but there is no SML_GetList.Res in it"
    assert (error.reason, error.data) == ("bad-syntax", data)


DEEP = integer(1, 1)
for _level in range(200):
    DEEP = sequence(DEEP)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (get_list(entry(IMPORT, DEEP)), "too-deep"),
        (message(0x0B01, DEEP), "too-deep"),
        (message(0x0701, b"\xff\x8f\x8f\x0f" + b"\x01" * 8), "bad-syntax"),
        (message(0x0701, sequence(ABSENT, octets(SERVER), ABSENT, ABSENT, b"\xff\x8f\x0f")), "bad-syntax"),
        (message(0x0101, b"\xff\x8f\x8f\x0f"), "bad-syntax"),
        (message(0x0101, b"\x8f\x8f\x8f\x0f"), "bad-syntax"),
        (message(0x0101, b"\x8f\x8f\x8f\x8f\x0f"), "bad-syntax"),
        (message(0x0101, b"\x80\x01"), "bad-syntax"),
        (message(0x0101, b"\x61"), "bad-syntax"),
        (message(0x0101, b"\x6a" + bytes(9)), "bad-syntax"),
        (message(0x0101, b"\x30"), "bad-syntax"),
        (LIST.replace(integer(-1, 1), integer(1 << 62, 8)), "bad-syntax"),
        (get_list(entry(b"\x01\x00", integer(1, 1))), "bad-syntax"),
        (get_list(sequence(ABSENT)), "bad-syntax"),
        (message(0x0701, ABSENT), "bad-syntax"),
        (message(0x0701, sequence(*[ABSENT] * 6)), "bad-syntax"),
        (message(0x0701, sequence(ABSENT, integer(1, 1), *[ABSENT] * 5)), "bad-syntax"),
        (message(0x0701, sequence(ABSENT, octets(SERVER), *[ABSENT] * 5)), "bad-syntax"),
        (b"\x77\x01", "bad-syntax"),
        (b"\x76\x01\x62\x00\x62\x00\x01", "bad-syntax"),
        (LIST[:-1] + b"\x01", "bad-syntax"),
        (LIST[:-6], "bad-syntax"),
    ],
)  # fmt: skip
def test_what_does_not_follow_the_grammar_is_an_error(content: bytes, reason: str) -> None:
    data = frame(content)
    [error, telegram] = decode(data + OTHER)
    assert isinstance(error, CodecError)
    assert (error.reason, error.data) == (reason, data)
    assert str(error).startswith(f"the SML frame of {len(data)} bytes has a good checksum, but ")
    assert isinstance(telegram, Telegram)


def test_telegrams_before_a_grammar_error_are_kept() -> None:
    assert kinds(decode(frame(LIST, b"\x77\x01"))) == ["1234567.8", "bad-syntax"]


def dzg(number: int, power: bytes, *, status: int | None = None, code: bytes = POWER, more: bytes = b"") -> bytes:
    server = b"\x0a\x01DZG\x00" + number.to_bytes(4, "big")
    energy = entry(IMPORT, integer(5, 4, signed=False), unit=WH, status=status)
    return frame(get_list(*[energy, entry(code, power, unit=W, scaler=-2), *([more] if more else [])], server=server))


IMPORTING, EXPORTING = 0x1C0104, 0x1C6904
SHORT = bytes.fromhex("538025")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (dzg(43_210_000, SHORT), "328.05"),
        (dzg(56_000_001, bytes.fromhex("528f")), "1.43"),
        (dzg(43_210_000, bytes.fromhex("54812345")), "84631.73"),
        (dzg(43_210_000, bytes.fromhex("53 1234")), "46.60"),
        (dzg(43_210_000, bytes.fromhex("55fffe1393")), "-1260.61"),
        (dzg(60_123_456, SHORT), "-327.31"),
        (dzg(40_221_297, SHORT, status=EXPORTING), "-327.31"),
        (dzg(50_071_463, SHORT, status=IMPORTING, code=POWER_OF_PHASE_1), "328.05"),
        (dzg(50_071_463, SHORT, status=IMPORTING, more=entry(POWER_OF_PHASE_1, SHORT, unit=W, scaler=-2)), "-327.31"),
        (frame(get_list(entry(IMPORT, integer(5, 1), status=IMPORTING), entry(POWER, SHORT, unit=W, scaler=-2))),
         "-327.31"),
    ],
    ids=["number", "one byte", "three bytes", "positive", "four bytes", "corrected", "exports", "single phase",
         "several powers", "another maker"],
)  # fmt: skip
def test_wrongly_marked_power_of_dzg_meters_is_put_right(data: bytes, expected: str) -> None:
    assert str(one(data).registers[1].value) == expected


def test_quirk_unsigned_power_holds_for_any_meter() -> None:
    assert str(register(entry(POWER, SHORT, unit=W, scaler=-2), quirks=["unsigned-power"]).value) == "328.05"
    assert register(entry(IMPORT, integer(-5, 1), unit=WH), quirks=["unsigned-power"]).value == -5


@pytest.mark.parametrize(("status", "expected"), [(0x1A2, "-1234.5"), (0x182, "1234.5"), (None, "1234.5")])
def test_quirk_power_sign_in_status_gives_the_power_its_sign(status: int | None, expected: str) -> None:
    entries = [
        entry(IMPORT, integer(5, 4), unit=WH, status=status),
        entry(POWER_WITHOUT_SIGN, integer(12345, 4), unit=W, scaler=-1),
    ]
    data = frame(get_list(*entries))
    assert str(one(data, quirks=["power-sign-in-status"]).registers[1].value) == expected
    assert str(one(data).registers[1].value) == "1234.5"


def test_unknown_quirk_is_refused_with_those_there_are() -> None:
    with pytest.raises(SetupError) as caught:
        SmlDecoder(quirks=["unsigned"])
    assert str(caught.value) == (
        "the SML codec knows no quirk `unsigned`; known are power-sign-in-status, unsigned-power"
    )


def test_families_of_sml_meters_are_there() -> None:
    makers = {"dzg", "easymeter", "ebz", "emh", "holley", "iskra", "itron", "logarex"}
    assert makers <= {name.split("-")[1] for name in SML_FAMILIES}
    assert {quirk for name in SML_FAMILIES for quirk in load_family(name).quirks} == QUIRKS


@pytest.mark.parametrize("name", SML_FAMILIES)
def test_sample_of_a_family_decodes_to_what_stands_beside_it_and_passes_the_gate(name: str) -> None:
    family = load_family(name)
    assert (family.protocol, family.line.baud) == ("sml", 9600)
    assert family.sample
    telegram = one(family.sample.telegram, quirks=family.quirks)
    found = [(item.obis, str(item.value), item.unit or "") for item in telegram.registers]
    assert found == [(Obis.parse(code), value, unit) for code, value, unit in family.sample.registers]
    report = check_codec(lambda: SmlDecoder(quirks=family.quirks), family.sample.telegram, limit_bytes=LIMIT_BYTES)
    assert (report.telegrams, report.errors) == (1, 0)
