"""The P1 codec: every dialect, every odd line, and what damage does. The telegrams are of our own making."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.p1 import LIMIT_BYTES, P1Decoder
from meterway.meter.p1_lines import instant
from meterway.meter.telegram import Register, Telegram

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
HEAD = "/MWY5\\TEST\r\n\r\n"
CLOCK = "0-0:1.0.0(260714183005S)\r\n"
ENERGY = "1-0:1.8.1(004321.098*kWh)\r\n"


def guarded(lines: str, head: str = HEAD) -> bytes:
    """Return a telegram with its checksum."""
    body = f"{head}{lines}!".encode("latin-1")
    return body + b"%04X\r\n" % crc16_arc(body)


def unguarded(lines: str, head: str = HEAD) -> bytes:
    """Return a telegram as DSMR 2 and 3 sends it."""
    return f"{head}{lines}!\r\n".encode("latin-1")


def decode(data: bytes, *, quiet: bool = True) -> list[Telegram | CodecError]:
    decoder = P1Decoder(AMSTERDAM)
    items = decoder.feed(data, 0.0)
    return items + decoder.idle(0.0) if quiet else items


def one(data: bytes, *, quiet: bool = True) -> Telegram:
    [item] = decode(data, quiet=quiet)
    assert isinstance(item, Telegram), item
    return item


def refused(data: bytes) -> CodecError:
    [item] = decode(data)
    assert isinstance(item, CodecError), item
    return item


def register(line: str) -> Register:
    """Return what one line becomes in a telegram whose checksum holds."""
    [found] = one(guarded(line + "\r\n")).registers
    return found


def test_telegram_has_identification_clock_registers_and_its_bytes() -> None:
    data = guarded(CLOCK + ENERGY)
    telegram = one(data, quiet=False)
    assert telegram.protocol == "p1"
    assert telegram.meter == "MWY5\\TEST"
    assert telegram.time == datetime(2026, 7, 14, 18, 30, 5, tzinfo=timezone(timedelta(hours=2)))
    assert telegram.checked
    assert telegram.raw == data.rstrip()
    assert telegram.registers == (
        Register(Obis(0, 0, 1, 0, 0), "260714183005S", None, telegram.time),
        Register(Obis(1, 0, 1, 8, 1), Decimal("4321.098"), "kWh"),
    )


def test_digits_are_kept_as_sent() -> None:
    value = register("1-0:1.8.1(000100.500*kWh)").value
    assert str(value) == "100.500"


@pytest.mark.parametrize(
    ("line", "obis", "value", "unit"),
    [
        ("1-0:1.7.0(00.212*kW)", Obis(1, 0, 1, 7, 0), Decimal("0.212"), "kW"),
        ("1-0:3.8.0(00000518.309*kVArh)", Obis(1, 0, 3, 8, 0), Decimal("518.309"), "kvarh"),
        ("1-0:3.7.0(0000.308*kVAr)", Obis(1, 0, 3, 7, 0), Decimal("0.308"), "kvar"),
        ("1-0:1.8.0(006545766*Wh)", Obis(1, 0, 1, 8, 0), Decimal(6545766), "Wh"),
        ("1-0:14.7.0(0000.051*kHz)", Obis(1, 0, 14, 7, 0), Decimal("0.051"), "kHz"),
        ("1-0:32.7.0(220.1*v)", Obis(1, 0, 32, 7, 0), Decimal("220.1"), "V"),
        ("1-0:1.8.1(123456.789*kwh)", Obis(1, 0, 1, 8, 1), Decimal("123456.789"), "kWh"),
        ("1-0:31.7.0.255(001*A)", Obis(1, 0, 31, 7, 0), Decimal(1), "A"),
        ("1-0:72:32.0(00003)", Obis(1, 0, 72, 32, 0), Decimal(3), None),
        ("1-0:13.7.0(4.556)", Obis(1, 0, 13, 7, 0), Decimal("4.556"), None),
        ("1-1:1.7.0(-01.622*kW)", Obis(1, 1, 1, 7, 0), Decimal("-1.622"), "kW"),
        ("0-3:24.1.0(012)", Obis(0, 3, 24, 1, 0), Decimal(12), None),
        ("0-0:96.7.21(00006)", Obis(0, 0, 96, 7, 21), Decimal(6), None),
        ("0-0:96.14.0(0002)", Obis(0, 0, 96, 14, 0), "0002", None),
        ("0-0:96.3.10(1)", Obis(0, 0, 96, 3, 10), "1", None),
        ("1-3:0.2.8(50)", Obis(1, 3, 0, 2, 8), "50", None),
        ("0-0:96.1.4(50217)", Obis(0, 0, 96, 1, 4), "50217", None),
        ("0-1:24.1.0()", Obis(0, 1, 24, 1, 0), "", None),
        ("1-0:98.1.0(12)", Obis(1, 0, 98, 1, 0), "12", None),
    ],
)
def test_a_line_becomes_a_register(line: str, obis: Obis, value: Decimal | str, unit: str | None) -> None:
    assert register(line) == Register(obis, value, unit)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("453030343700", "453030343700"),
        ("4530303437", "E0047"),
        ("00112233445566778899aabbccddeeff", "00112233445566778899AABBCCDDEEFF"),
        ("00000000000000000", "00000000000000000"),
        ("", ""),
        ("not hexadecimal", "not hexadecimal"),
        ("test-/-test", "test-/-test"),
        ("a (small) note", "a (small) note"),
        ("one)(two", "one)(two"),
    ],
)
def test_octet_strings_are_read_where_they_spell_text(sent: str, read: str) -> None:
    assert register(f"0-0:96.13.0({sent})").value == read
    assert register(f"0-2:96.1.0({sent})").value == read


def test_several_groups_stay_one_text() -> None:
    log = "(2)(0-0:96.7.19)(250311071500W)(0000000421*s)(260102235900W)(0000001860*s)"
    assert register(f"1-0:99.97.0{log}") == Register(Obis(1, 0, 99, 97, 0), log)
    assert register("1-1:31.4.0(100*A)(-063*A)") == Register(Obis(1, 1, 31, 4, 0), "(100*A)(-063*A)")
    assert register("0-0:98.1.0(260701000000S)(01.000*kW)").value == "(260701000000S)(01.000*kW)"


def test_value_of_a_gas_meter_has_its_own_time() -> None:
    for code in ("24.2.1", "24.2.3"):
        found = register(f"0-1:{code}(260118071000W)(00456.789*m3)")
        assert (found.value, found.unit) == (Decimal("456.789"), "m3")
        assert found.time == datetime(2026, 1, 18, 6, 10, tzinfo=UTC)


def test_heat_in_gigajoule() -> None:
    found = register("0-1:24.2.1(260215200523W)(240.860*GJ)")
    assert (found.value, found.unit) == (Decimal("240.860"), "GJ")


def test_value_without_a_real_time_is_no_number() -> None:
    """A meter that was never heard sends a number all the same; it must not pass for a value of now."""
    found = register("0-2:24.2.1(632525252525S)(00000.000*m3)")
    assert found == Register(Obis(0, 2, 24, 2, 1), "(632525252525S)(00000.000*m3)")


def test_clock_that_was_never_set_is_no_time() -> None:
    telegram = one(guarded("0-0:1.0.0(000000000000W)\r\n" + ENERGY))
    assert telegram.time is None
    assert telegram.registers[0].value == "000000000000W"


def test_clock_may_lack_its_letter() -> None:
    assert one(guarded("0-0:1.0.0(260714183005)\r\n")).time == datetime(2026, 7, 14, 16, 30, 5, tzinfo=UTC)
    assert one(guarded("0-0:1.0.0(2607141830)\r\n")).time is None


def test_gas_value_of_dsmr_2_stands_on_the_next_line() -> None:
    lines = "0-1:24.3.0(260214090000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n(03456.789)\r\n0-1:24.4.0(1)\r\n"
    gas, valve = one(unguarded(lines)).registers
    at = datetime(2026, 2, 14, 8, tzinfo=UTC)
    assert gas == Register(Obis(0, 1, 24, 2, 1), Decimal("3456.789"), "m3", at)
    assert valve.value == "1"


def test_line_ends_may_be_lf_alone() -> None:
    body = (HEAD + CLOCK + ENERGY + "!").replace("\r", "").encode()
    telegram = one(body + b"%04X\n" % crc16_arc(body))
    assert len(telegram.registers) == 2
    assert telegram.meter == "MWY5\\TEST"


def test_checksum_may_count_a_cr_that_was_lost_on_the_way() -> None:
    assert one(guarded(CLOCK + ENERGY).replace(b"\r", b"")).checked


def test_checksum_may_be_in_small_letters_and_without_leading_zeros() -> None:
    data = guarded(CLOCK + ENERGY)
    mark = data.rindex(b"!") + 1
    assert one(data[:mark] + data[mark:].lower()).checked
    found = next(
        telegram
        for number in range(1000)
        if (telegram := guarded(f"1-0:1.8.1({number:03}*kWh)\r\n")).partition(b"!")[2].startswith(b"0")
    )
    mark = found.rindex(b"!") + 1
    assert one(found[:mark] + found[mark:].lstrip(b"0")).checked


def test_telegram_is_complete_with_its_fourth_checksum_digit() -> None:
    assert one(guarded(ENERGY).rstrip(), quiet=False).checked


def test_telegram_without_line_end_is_complete_when_the_line_is_quiet() -> None:
    data = unguarded(ENERGY).rstrip()
    assert decode(data, quiet=False) == []
    assert not one(data).checked


def test_telegram_without_checksum_is_marked() -> None:
    telegram = one(unguarded(ENERGY))
    assert not telegram.checked
    assert telegram.raw == unguarded(ENERGY).rstrip()


def test_telegram_without_end_is_complete_where_dsmr_3_ends() -> None:
    """Iskra meters in Slovenia send no exclamation mark."""
    data = (HEAD + ENERGY + "0-0:96.13.0()\r\n0-1:24.4.0(1)\r\n").encode()
    telegram = one(data)
    assert not telegram.checked
    assert len(telegram.registers) == 3
    items = decode(data * 3, quiet=False)
    assert [item.raw for item in items if isinstance(item, Telegram)] == [data.rstrip()] * 2


@pytest.mark.parametrize(
    "lines",
    [
        ENERGY,
        CLOCK + ENERGY + "0-0:96.13.0()\r\n",
        ENERGY + "0-0:96.13.0()",
        "",
    ],
)
def test_telegram_that_breaks_off_is_truncated(lines: str) -> None:
    error = refused((HEAD + lines).encode())
    assert error.reason == "truncated"
    assert error.data == (HEAD + lines).rstrip().encode()


def test_meter_that_sent_an_end_owes_one() -> None:
    lines = ENERGY + "0-0:96.13.0()\r\n"
    items = decode(unguarded(lines) + (HEAD + lines).encode())
    assert [getattr(item, "reason", "telegram") for item in items] == ["telegram", "truncated"]


def test_meter_that_sent_a_checksum_owes_one() -> None:
    items = decode(guarded(ENERGY) + unguarded(ENERGY) + unguarded(ENERGY, "/OTH5\r\n\r\n"))
    assert [getattr(item, "reason", "telegram") for item in items] == ["telegram", "bad-checksum", "telegram"]


@pytest.mark.parametrize("version", ["1-3:0.2.8(50)\r\n", "0-0:96.1.4(50221)\r\n"])
def test_meter_that_names_a_version_owes_a_checksum(version: str) -> None:
    error = refused(unguarded(version + ENERGY))
    assert error.reason == "bad-checksum"
    assert "has no checksum, though its meter sends one" in str(error)


def test_wrong_checksum_is_refused_and_says_both() -> None:
    data = guarded(ENERGY)
    mark = data.rindex(b"!") + 1
    right = int(data[mark : mark + 4], 16)
    error = refused(data[:mark] + b"%04X\r\n" % (right ^ 1))
    assert error.reason == "bad-checksum"
    assert str(error).endswith(f"says checksum '{right ^ 1:04X}', its bytes give {right:04X}")
    assert error.data == data[:mark] + b"%04X" % (right ^ 1)


@pytest.mark.parametrize("checksum", ["12G4", "-0:1.8.0(0001234567890)", "12345", "????????????????????????"])
def test_checksum_that_is_no_number_is_refused(checksum: str) -> None:
    data = (HEAD + ENERGY + "!" + checksum + "\r\n").encode()
    assert refused(data).reason == "bad-checksum"


def test_bad_checksum_does_not_hide_the_next_telegram() -> None:
    bad = guarded(ENERGY).replace(b"4321", b"4322")
    items = decode(bad + guarded(CLOCK) + bad)
    assert [getattr(item, "reason", "telegram") for item in items] == ["bad-checksum", "telegram", "bad-checksum"]


@pytest.mark.parametrize("end", range(15, 64, 7))
def test_cut_telegram_does_not_hide_the_next(end: int) -> None:
    whole = guarded(CLOCK + ENERGY)
    cut, telegram = decode(whole[:end] + whole)
    assert isinstance(cut, CodecError)
    assert cut.reason == "truncated"
    assert isinstance(telegram, Telegram)
    assert telegram.raw == whole.rstrip()


@pytest.mark.parametrize(
    "line",
    [
        "1-0:1.8.1(004321.098*foo)",
        "1-0:1.8.1(0043x1.098*kWh)",
        "1-0:1.8.1(004321.098*kWh",
        "1-0:1.8.1 004321.098",
        "1-0:1.8.999(004321.098*kWh)",
        "0-1:24.2.1(260118071000W)(00456.789*foo)",
        "no line of a telegram",
        "0-0:96.13.0",
    ],
)
def test_odd_line_is_reported_and_the_others_are_kept(line: str) -> None:
    telegram, error = decode(guarded(CLOCK + line + "\r\n" + ENERGY))
    assert isinstance(telegram, Telegram)
    assert [str(found.obis) for found in telegram.registers] == ["0-0:1.0.0*255", "1-0:1.8.1*255"]
    assert isinstance(error, CodecError)
    assert error.reason == "bad-syntax"
    assert error.data == line.encode()
    assert str(error).startswith("a telegram has 1 line(s) of no known form, the first begins")


@pytest.mark.parametrize(
    "line", ["1-0:1.8.2(0043x1.098*kWh)", "1-0:1.8.2(0043x1)", "1-0:1.8.2(0043.*kWh)", "0-0:96.13.0(\x07)", "x"]
)
def test_odd_line_refuses_a_telegram_without_checksum(line: str) -> None:
    error = refused(unguarded(ENERGY + line + "\r\n"))
    assert error.reason == "bad-syntax"


@pytest.mark.parametrize("value", ["", "(03456.789*m3)", "(3456,789)", "(03456.789)(1)"])
def test_gas_line_of_dsmr_2_without_its_value_refuses_the_telegram(value: str) -> None:
    lines = ENERGY + f"0-1:24.3.0(260214090000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n{value}\r\n"
    assert refused(unguarded(lines)).reason == "bad-syntax"


def test_telegram_without_any_line_is_refused() -> None:
    """Some decoders take an encrypted telegram for an empty one."""
    assert refused(guarded("")).reason == "bad-syntax"
    assert refused(unguarded("")).reason == "bad-syntax"


@pytest.mark.parametrize("head", ["", "/MWY5\\TEST\r\n\r\n"])
def test_encrypted_telegram_says_so(head: str) -> None:
    header = b"\xdb\x08MWY\x00\x00\x00\x00\x42\x82\x04\xd1\x30"
    items = decode(head.encode() + header + bytes(range(128, 256)) * 9 + guarded(ENERGY))
    error, telegram = items
    assert isinstance(error, CodecError)
    assert error.reason == "encrypted"
    assert error.data == header
    assert "ask the grid operator for the key" in str(error)
    assert isinstance(telegram, Telegram)


def test_noise_is_skipped_and_counted() -> None:
    decoder = P1Decoder(AMSTERDAM)
    items = decoder.feed(b"\x00\xff?!\r\n" + guarded(ENERGY) + b"\r\nabc/" + guarded(ENERGY), 0.0)
    assert len(items) == 2
    assert decoder.skipped_bytes == 8
    assert decoder.buffered_bytes <= 2


def test_noise_without_end_is_counted_as_it_comes() -> None:
    decoder = P1Decoder(AMSTERDAM)
    for _ in range(100):
        assert decoder.feed(b"\x55" * 64, 0.0) == []
    assert decoder.skipped_bytes == 6400
    assert decoder.buffered_bytes == 0


def test_telegram_without_end_is_given_up_at_the_limit() -> None:
    decoder = P1Decoder(AMSTERDAM)
    items = decoder.feed((HEAD + ENERGY * 1000).encode(), 0.0)
    assert [item.reason for item in items if isinstance(item, CodecError)] == ["too-long"]
    assert decoder.buffered_bytes <= LIMIT_BYTES
    assert len(decoder.feed(guarded(ENERGY), 0.0)) == 1


def test_silence_discards_half_a_telegram() -> None:
    decoder = P1Decoder(AMSTERDAM)
    whole = guarded(CLOCK + ENERGY)
    decoder.feed(whole[:40], 0.0)
    assert [getattr(item, "reason", "") for item in decoder.idle(9.0)] == ["truncated"]
    assert decoder.buffered_bytes == 0
    assert decoder.idle(18.0) == []
    assert decoder.feed(whole[40:], 20.0) == []
    assert len(decoder.feed(whole, 30.0)) == 1


@pytest.mark.parametrize(
    ("digits", "zone", "utc"),
    [
        ("261025021500S", "Europe/Amsterdam", "2026-10-25T00:15:00+00:00"),
        ("261025021500W", "Europe/Amsterdam", "2026-10-25T01:15:00+00:00"),
        ("261025021500", "Europe/Amsterdam", "2026-10-25T00:15:00+00:00"),
        ("260329023000W", "Europe/Amsterdam", "2026-03-29T01:30:00+00:00"),
        ("260329023000S", "Europe/Amsterdam", "2026-03-29T00:30:00+00:00"),
        ("260115120000W", "Europe/Vilnius", "2026-01-15T10:00:00+00:00"),
        ("260115120000S", "Europe/Vilnius", "2026-01-15T09:00:00+00:00"),
        ("260715120000S", "UTC", "2026-07-15T11:00:00+00:00"),
        ("700101010000W", "Europe/Amsterdam", "1970-01-01T00:00:00+00:00"),
    ],
)
def test_the_letter_of_a_time_decides_the_offset(digits: str, zone: str, utc: str) -> None:
    at = instant(digits, ZoneInfo(zone))
    assert at == datetime.fromisoformat(utc)
    assert at is not None
    assert isinstance(at.tzinfo, timezone)


@pytest.mark.parametrize("digits", ["000000000000W", "632525252525S", "260230120000W", "260101240000W"])
def test_time_that_does_not_exist_is_none(digits: str) -> None:
    assert instant(digits, AMSTERDAM) is None


PIECES = st.sampled_from(
    [
        *(b"/", b"!", b"\r\n", b"\n!", b"(", b")", b"*", b"\xdb\x08", b"/MWY5\r\n", b"!\r\n", b"!1234\r\n"),
        guarded(CLOCK + ENERGY),
        unguarded(ENERGY),
        ENERGY.encode(),
        (HEAD + ENERGY + "0-0:96.13.0()\r\n").encode(),
        b"0-1:24.3.0(260214090000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n(03456.789)\r\n",
        b"\xdb\x08MWY\x00\x00\x00\x00\x42\x82\x04\xd1\x30",
    ]
)


@settings(max_examples=300)
@given(st.lists(PIECES | st.binary(max_size=20), max_size=20), st.lists(st.integers(1, 90), min_size=1, max_size=9))
def test_any_bytes_in_any_chunks_give_the_same_and_raise_nothing(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"".join(pieces)
    decoder = P1Decoder(AMSTERDAM)
    items: list[Telegram | CodecError] = []
    start = turn = 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        items += decoder.feed(data[start : start + size], 0.0)
        assert decoder.buffered_bytes <= LIMIT_BYTES
        start, turn = start + size, turn + 1
    items += decoder.idle(0.0)
    assert [substance(item) for item in items] == [substance(item) for item in decode(data)]


@given(st.text(alphabet="0123456789-:.*()!SWkWhm3\r\n", max_size=80))
def test_any_lines_give_finite_numbers_or_text(lines: str) -> None:
    for item in decode(guarded(lines)):
        for found in item.registers if isinstance(item, Telegram) else ():
            assert isinstance(found.value, str) or found.value.is_finite()
            assert found.time is None or found.time.tzinfo is not None


def substance(item: Telegram | CodecError) -> object:
    return item if isinstance(item, Telegram) else (item.reason, item.data, str(item))
