"""What the encoders write, the codecs read: the same values, to the last digit."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.p1 import P1Decoder
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual.encode_p1 import P1Line, encode_p1, p1_number, p1_text, p1_time
from meterway.meter.virtual.encode_sml import UNIT_V, UNIT_W, UNIT_WH, SmlEntry, encode_sml

AMSTERDAM = ZoneInfo("Europe/Amsterdam")

codes = st.builds(
    lambda c, e: f"1-0:{c}.8.{e}",
    st.sampled_from([1, 2]),
    st.integers(0, 9),
)


def only(items: list[Telegram | CodecError]) -> Telegram:
    (telegram,) = items
    assert isinstance(telegram, Telegram), telegram
    assert telegram.checked
    return telegram


def numbers(telegram: Telegram) -> dict[Obis, Register]:
    return {register.obis: register for register in telegram.registers if isinstance(register.value, Decimal)}


@given(
    st.dictionaries(codes, st.integers(0, 999_999_999), max_size=12),
    st.datetimes(datetime(2020, 1, 1), datetime(2060, 1, 1)).map(lambda moment: moment.replace(microsecond=0)),  # noqa: DTZ001
    st.lists(st.integers(1, 400), max_size=5),
)
@settings(deadline=None)
def test_p1_round_trip(counted: dict[str, int], moment: datetime, chunks: list[int]) -> None:
    instant = moment.replace(tzinfo=UTC).astimezone(AMSTERDAM)
    lines = [P1Line("1-3:0.2.8", "(50)"), P1Line("0-0:1.0.0", f"({p1_time(instant)})")]
    lines += [p1_number(code, value, 9, 3, "kWh") for code, value in counted.items()]
    data = encode_p1("MWY5\\2TEST", lines)
    decoder = P1Decoder(AMSTERDAM)
    items: list[Telegram | CodecError] = []
    for size in chunks:
        items += decoder.feed(data[:size], 0.0)
        data = data[size:]
    telegram = only(items + decoder.feed(data, 0.0))
    assert telegram.meter == "MWY5\\2TEST"
    assert telegram.time == instant
    decoded = numbers(telegram)
    for code, value in counted.items():
        assert decoded[Obis.parse(code)] == Register(Obis.parse(code), Decimal(value).scaleb(-3), "kWh")


def test_p1_numbers_have_the_digits_of_the_specification() -> None:
    assert p1_number("1-0:1.8.1", 4_426, 9, 3, "kWh").text == "(000004.426*kWh)"
    assert p1_number("1-0:32.7.0", 2301, 4, 1, "V").text == "(230.1*V)"
    assert p1_number("1-0:31.7.0", 7, 3, 0, "A").text == "(007*A)"
    assert p1_text("0-0:96.1.1", "MWY1").text == "(4D575931)"
    timed = p1_number("0-1:24.2.1", 107, 8, 3, "m3", time="(260329030000S)")
    assert timed == P1Line("0-1:24.2.1", "(260329030000S)(00000.107*m3)", Decimal("0.107"))


def test_a_p1_telegram_is_framed_as_the_specification_says() -> None:
    telegram = encode_p1("MWY5\\2TEST", [P1Line("1-3:0.2.8", "(50)")])
    assert telegram.startswith(b"/MWY5\\2TEST\r\n\r\n1-3:0.2.8(50)\r\n!")
    body, checksum = telegram[:-6], telegram[-6:]
    assert checksum == b"%04X\r\n" % crc16_arc(body)


def test_p1_time_tells_the_two_hours_at_the_end_of_summer_time_apart() -> None:
    summer = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert p1_time(summer.astimezone(AMSTERDAM)) == "261025023000S"
    assert p1_time((summer + timedelta(hours=1)).astimezone(AMSTERDAM)) == "261025023000W"


sml_numbers = st.tuples(
    st.binary(min_size=6, max_size=6),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([UNIT_W, UNIT_WH, UNIT_V]),
    st.integers(-6, 6),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.just(8),
).map(SmlEntry._make)
sml_octets = st.binary(min_size=1, max_size=60).map(lambda octets: SmlEntry(bytes((1, 0, 96, 1, 0, 255)), octets))


@given(
    st.lists(sml_numbers | sml_octets, min_size=1, max_size=40),
    st.integers(0, 2**40),
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
)
@settings(deadline=None)
def test_sml_round_trip(entries: list[SmlEntry], file_number: int, running_s: int, chunk: int) -> None:
    server_id = b"\x0a\x01MWY\x00\x1b\x1b\x1b\x1b"
    data = encode_sml(server_id, entries, file_number=file_number, running_s=running_s)
    assert len(data) % 4 == 0
    decoder = SmlDecoder()
    items: list[Telegram | CodecError] = []
    for start in range(0, len(data), chunk):
        items += decoder.feed(data[start : start + chunk], 0.0)
    telegram = only(items)
    assert telegram.meter == server_id.hex().upper()
    assert telegram.raw == data
    assert [register.obis for register in telegram.registers] == [Obis.from_bytes(entry.code) for entry in entries]
    for entry, register in zip(entries, telegram.registers, strict=True):
        if isinstance(entry.value, int):
            expected = Decimal(entry.value).scaleb(entry.scaler or 0)
            assert isinstance(register.value, Decimal)
            assert register.value == expected
