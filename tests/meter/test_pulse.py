from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.obis import Obis
from meterway.core.properties import Medium, catalogue
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.family import load_family, parse_family
from meterway.meter.pulse import LIMIT_BYTES, PulseDecoder, PulseState
from meterway.meter.pulse_input import PulseInput
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_pulse import WS_PER_KWH, encode_burst, encode_count, pulse_instants
from meterway.meter.virtual.profile import Household
from meterway.plugins import make_decoder
from meterway.testing import check_codec

FAMILIES = ["pulse-s0-electricity", "pulse-s0-gas", "pulse-s0-water"]
S0 = PulseInput(
    obis="1-0:1.8.0", unit="kWh", pulses_per_unit="1000", rate_obis="1-0:1.7.0", rate_unit="kW", debounce_s=0.03
)
LINES = msgspec.structs.replace(S0, signal="lines")


def values(items: list[Telegram | CodecError]) -> dict[str, str]:
    (telegram,) = (item for item in items if isinstance(item, Telegram))
    return {
        str(register.obis).removesuffix("*255"): f"{register.value} {register.unit}" for register in telegram.registers
    }


def counted(decoder: PulseDecoder) -> int:
    return decoder.state.count


def lines(decoder: PulseDecoder, *counts: int, begin: float = 0.0) -> list[Telegram | CodecError]:
    return [
        item for second, count in enumerate(counts) for item in decoder.feed(encode_count(count), begin + float(second))
    ]


def test_a_pulse_is_bytes_after_a_silence_however_it_bounces() -> None:
    decoder = PulseDecoder(S0, interval_s=60)
    for pulse in range(10):
        begin = pulse * 0.1
        decoder.feed(encode_burst(bounces=2), begin)
        decoder.feed(b"\xff", begin + 0.02)
        decoder.feed(b"\x80", begin + 0.04)
    assert counted(decoder) == 10
    assert decoder.skipped_bytes == 20


def test_a_line_that_is_all_noise_is_one_pulse() -> None:
    decoder = PulseDecoder(S0, interval_s=60)
    for step in range(1000):
        decoder.feed(b"\x00" * 64, step * 0.01)
    assert counted(decoder) == 1


def test_the_register_goes_on_from_the_dial_and_comes_at_its_interval() -> None:
    decoder = PulseDecoder(S0, interval_s=60, start=Decimal("12345.6"))
    found = [item for second in range(121) for item in decoder.feed(encode_burst(), float(second))]
    assert [str(item.registers[0].value) for item in found if isinstance(item, Telegram)] == ["12345.661", "12345.721"]
    assert values(found[:1]) == {"1-0:1.8.0": "12345.661 kWh", "1-0:1.7.0": "3.600 kW"}


def test_the_power_is_that_of_the_last_pulses_and_falls_while_none_comes() -> None:
    decoder = PulseDecoder(S0, interval_s=60)
    assert values(decoder.idle(0.0) + decoder.idle(60.0)) == {"1-0:1.8.0": "0.000 kWh"}
    decoder.feed(encode_burst(), 61.0)
    assert "1-0:1.7.0" not in values(decoder.idle(120.0)), "one pulse has no distance"
    decoder.feed(encode_burst(), 163.0)
    decoder.feed(encode_burst(), 175.0)
    assert values(decoder.idle(180.0))["1-0:1.7.0"] == "0.063 kW", "two pulses in 114 s"
    assert values(decoder.idle(240.0))["1-0:1.7.0"] == "0.055 kW", "it is less now"
    assert values(decoder.idle(3600.0))["1-0:1.7.0"] == "0.001 kW"


def test_a_decoder_that_was_not_asked_for_long_gives_one_telegram() -> None:
    decoder = PulseDecoder(S0, interval_s=60)
    decoder.idle(0.0)
    assert len(decoder.idle(1000.0)) == 1
    assert decoder.idle(1001.0) == []
    assert len(decoder.idle(1060.0)) == 1


@pytest.mark.parametrize(
    ("per_unit", "pulses", "value"),
    [("1000", 1, "0.001"), ("100", 7, "0.07"), ("375", 1, "0.002666"), ("375", 375, "1.000000"), ("0.5", 3, "6")],
)
def test_what_a_pulse_is_worth_is_exact(per_unit: str, pulses: int, value: str) -> None:
    decoder = PulseDecoder(msgspec.structs.replace(S0, pulses_per_unit=per_unit), interval_s=1)
    decoder.idle(0.0)
    decoder.state = PulseState(pulses)
    assert values(decoder.idle(1.0))["1-0:1.8.0"] == f"{value} kWh"


def test_counts_of_a_microcontroller_are_differences() -> None:
    decoder = PulseDecoder(LINES, interval_s=60)
    assert lines(decoder, 500, 500, 501, 505, 505) == []
    assert decoder.state == PulseState(5, 505)


def test_a_microcontroller_that_was_started_anew_counts_on() -> None:
    decoder = PulseDecoder(LINES, interval_s=60)
    errors = lines(decoder, 500, 507, 507, 2, 3, 3)
    assert [str(error) for error in errors] == ["a count of 507 pulses is followed by 2 after 1.0 s; it is not used"]
    assert decoder.state == PulseState(10, 3)


def test_a_microcontroller_counts_on_while_the_adapter_does_not_run() -> None:
    decoder = PulseDecoder(LINES, interval_s=60)
    decoder.state = PulseState(1000, 500)
    lines(decoder, 620, 620)
    assert decoder.state == PulseState(1120, 620)


def test_a_damaged_count_counts_nothing() -> None:
    decoder = PulseDecoder(LINES, interval_s=60)
    errors = lines(decoder, 500, 501, 901, 502, 503, 3, 504, 504)
    assert decoder.state == PulseState(4, 504)
    assert {error.reason for error in errors if isinstance(error, CodecError)} == {"bad-syntax"}


def test_lines_cut_into_bytes_and_noise_between_them() -> None:
    decoder = PulseDecoder(LINES, interval_s=60)
    data = b"\xff\x00ab\r\n500\r\n12x\n501\n" + b"9" * 1000 + b"\n501\r\n501\n"
    for byte in data:
        assert decoder.feed(bytes((byte,)), 0.0) == []
        assert decoder.buffered_bytes <= LIMIT_BYTES
    assert decoder.state == PulseState(1, 501)


@pytest.mark.parametrize("signal", ["burst", "lines"])
def test_the_gate(signal: str) -> None:
    pulse = msgspec.structs.replace(S0, signal=signal)
    capture = b"".join(map(encode_count, range(500, 520)))
    report = check_codec(lambda: PulseDecoder(pulse, interval_s=60), capture, limit_bytes=LIMIT_BYTES)
    assert report.errors == 0


@given(st.lists(st.tuples(st.binary(max_size=80), st.floats(0, 100)), max_size=40), st.sampled_from(["burst", "lines"]))
def test_never_raises_and_never_falls(chunks: list[tuple[bytes, float]], signal: str) -> None:
    decoder = PulseDecoder(msgspec.structs.replace(S0, signal=signal), interval_s=10)
    now, before = 0.0, Decimal(0)
    for data, after_s in chunks:
        now += after_s
        for item in decoder.feed(data, now):
            if isinstance(item, Telegram):
                value = item.registers[0].value
                assert isinstance(value, Decimal)
                assert value >= before
                before = value
        assert decoder.buffered_bytes <= LIMIT_BYTES


@pytest.mark.parametrize("signal", ["burst", "lines"])
def test_a_virtual_household_is_counted_exactly(signal: str) -> None:
    household = Household("pulses/1", ZoneInfo("Europe/Berlin"), pv=False)
    begin_s = 1_790_000_000
    end_s = begin_s + 6 * 3600
    random = Random(1)
    decoder = PulseDecoder(msgspec.structs.replace(S0, signal=signal), interval_s=60)
    count = 0
    decoder.feed(encode_count(0) if signal == "lines" else b"", 0.0)
    for instant_s in pulse_instants(lambda s: household.electricity(s).import_ws, WS_PER_KWH // 1000, begin_s, end_s):
        count += 1
        now = instant_s - begin_s
        if signal == "lines":
            decoder.feed(encode_count(count), now)
            continue
        decoder.feed(encode_burst(bounces=random.randrange(3)), now)
        if random.random() < 0.5:
            decoder.feed(b"\xfe", now + 0.02)
    if signal == "lines":
        decoder.feed(encode_count(count), float(end_s - begin_s))
    per_pulse = WS_PER_KWH // 1000
    first, last = (household.electricity(second).import_ws // per_pulse for second in (begin_s, end_s))
    assert counted(decoder) == count == last - first > 100


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_pulses_name_a_register_of_their_medium(name: str) -> None:
    family = load_family(name)
    assert family.pulse is not None
    register = catalogue().for_obis(Obis.parse(family.pulse.obis))
    assert register is not None
    assert register.medium is Medium(family.meter_class.value.lower())
    assert register.unit == family.pulse.unit
    decoder = make_decoder(MeterSetup(family=family, zone=ZoneInfo(family.timezone)))
    decoder.feed(encode_burst(), 0.0)
    decoder.feed(encode_burst(), 10.0)
    (telegram,) = decoder.idle(family.interval_s)
    assert isinstance(telegram, Telegram)
    assert telegram.registers[0].value == 2 / Decimal(family.pulse.pulses_per_unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('pulses_per_unit = "many"', "is not a decimal number"),
        ('pulses_per_unit = "0"', "is not a decimal number"),
        ('unit = "kwatt"', "is none that Meterway knows"),
        ('rate_obis = "1-0:1.7.0"', "both or neither"),
        ('obis = "1-0:1.8.999"', "1.8.999|outside"),
    ],
)
def test_a_wrong_pulse_table_says_what_is_wrong(change: str, message: str) -> None:
    table = {"obis": '"1-0:1.8.0"', "unit": '"kWh"', "pulses_per_unit": '"1000"'}
    key, _, value = change.partition(" = ")
    table[key] = value
    text = 'title = "T"\nprotocol = "pulse"\ntimezone = "UTC"\ninterval_s = 60\n[pulse]\n'
    text += "".join(f"{name} = {setting}\n" for name, setting in table.items())
    with pytest.raises(Exception, match=f"(?s){message}"):
        parse_family(text, "t", where="t.toml")
