"""The IEC 62056-21 codec on captured readouts: every data set of every one, through the gate, with parity and without.

Two captures are themselves damaged, as their sources say; they are refused with the place of the damage. Two are
answers without any frame around them, which only silence ends; the gate feeds them in the frame that they had.
"""

import re
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.iec62056_21 import LIMIT_BYTES, PROTOCOL, ReadoutDecoder, block_check
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_iec62056_21 import with_even_parity
from meterway.plugins import make_decoder
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters

BERLIN = ZoneInfo("Europe/Berlin")
DAMAGED = {"easymeter_5t3dc1004": "1-0:1.7.0*255", "easymeter_broken": "  1-0:0.0.0*255"}
UNFRAMED = ("emh_p01_profile", "metcom_list1")
EVERY_CAPTURE = pytest.mark.parametrize("capture", capture_parameters("iec62056_21"))
WHOLE = pytest.mark.parametrize(
    "capture", [p for p in capture_parameters("iec62056_21") if p.values[0] is None or p.values[0].name not in DAMAGED]
)


def decode(data: bytes) -> list[Telegram | CodecError]:
    decoder = ReadoutDecoder(BERLIN)
    return decoder.feed(data, 0.0) + decoder.idle(0.0)


def telegrams_of(data: bytes) -> list[Telegram]:
    telegrams = []
    for item in decode(data):
        assert isinstance(item, Telegram), item
        telegrams.append(item)
    return telegrams


def framed(capture: Capture) -> bytes:
    """Return the capture; an answer without its frame in the one it had."""
    if capture.name not in UNFRAMED:
        return capture.data
    guarded = capture.data + b"\x03"
    return b"\x02" + guarded + bytes((block_check(guarded),))


@WHOLE
def test_every_data_set_becomes_a_register(capture: Capture) -> None:
    telegrams = telegrams_of(capture.data)
    codes = re.findall(rb"(?:^|[\n\x02)])((?:\d+-\d+:)?[0-9CFLP][0-9.CFLP]*(?:\*\d+)?)\(([^)]*)", capture.data)
    expected = []
    heat = any(register.obis.a == 6 for register in telegrams[0].registers)
    for code, value in codes:
        parsed = Obis.parse(code.decode(), a=6 if heat else 1)
        if parsed[2:4] != (99, 1):
            expected += [parsed] * (value.count(b"&") + 1 if b"*" in value else 1)
    if capture.name == "vzlogger_HagerEHZ_waitsync":
        expected = expected[1:]  # its head lacks the slash: no readout begins there
    rows = [telegram for telegram in telegrams if telegram.registers[0].obis[2:4] == (99, 1)]
    assert [r.obis for telegram in telegrams if telegram not in rows for r in telegram.registers] == expected


@WHOLE
def test_values_are_those_the_source_states(capture: Capture) -> None:
    telegrams = telegrams_of(capture.data)
    stated = {code: value for code, value in capture.about.get("expected", {}).items() if isinstance(value, list)}
    heat = any(register.obis.a == 6 for register in telegrams[0].registers)
    for code, (number, unit) in stated.items():
        obis = Obis.parse(code, a=6 if heat else 1)
        register = next(register for register in telegrams[0].registers if register.obis == obis)
        assert register.value == Decimal(number)
        assert (register.unit or "") == unit


@EVERY_CAPTURE
def test_checksum_is_judged_as_the_source_says(capture: Capture) -> None:
    items = decode(capture.data)
    if capture.name in DAMAGED:
        [error] = items
        assert isinstance(error, CodecError)
        assert error.reason == "bad-syntax"
        assert repr(DAMAGED[capture.name]) in str(error)
    else:
        assert [item.checked for item in items if isinstance(item, Telegram)] == [
            capture.about["bcc"] == "ok" for _ in items
        ]


@WHOLE
def test_capture_passes_the_gate(capture: Capture) -> None:
    data = framed(capture)
    count = len(telegrams_of(data))
    report = check_codec(lambda: ReadoutDecoder(BERLIN), data, limit_bytes=LIMIT_BYTES, rounds=8, weak_checksum=True)
    assert (report.telegrams, report.errors) == (count, 0)


@WHOLE
def test_capture_read_with_its_parity_gives_the_same_and_passes_the_gate(capture: Capture) -> None:
    if not capture.data.isascii():
        pytest.skip("has bytes of eight bits behind the readout")
    data = framed(capture)
    assert [(t.meter, t.time, t.registers, t.checked) for t in telegrams_of(with_even_parity(data))] == [
        (t.meter, t.time, t.registers, t.checked) for t in telegrams_of(data)
    ]
    check_codec(
        lambda: ReadoutDecoder(BERLIN), with_even_parity(data), limit_bytes=LIMIT_BYTES, rounds=3, weak_checksum=True
    )


@pytest.mark.parametrize(
    "capture", [p for p in capture_parameters("iec62056_21") if p.values[0] is None or p.values[0].about["bcc"] == "ok"]
)
def test_every_single_turned_bit_and_lost_byte_of_a_checked_readout_is_noticed(capture: Capture) -> None:
    data = capture.data[: capture.data.rindex(b"\x03") + 2]
    body = data.index(b"\x02") + 1
    [whole] = telegrams_of(data)
    step = max(1, len(data) // 150)
    for place in range(body, len(data), step):
        damaged = [data[:place] + data[place + 1 :]]
        damaged += [data[:place] + bytes((data[place] ^ 1 << bit,)) + data[place + 1 :] for bit in range(8)]
        for variant in damaged:
            for item in decode(variant):
                if isinstance(item, Telegram) and item.checked:
                    assert item.registers == whole.registers


@EVERY_CAPTURE
def test_capture_is_recognised(capture: Capture) -> None:
    if capture.name == "easymeter_broken":
        pytest.skip("damaged where it could be recognised")
    for data in (capture.data, with_even_parity(capture.data) if capture.data.isascii() else capture.data):
        found = recognise(data)
        assert found is not None
        assert found.protocol == PROTOCOL


@pytest.mark.parametrize("protocol", ["p1", "sml", "p1_encrypted", "mbus", "dlms_push"])
def test_other_protocols_are_not_taken_for_it(protocol: str) -> None:
    for parameter in capture_parameters(protocol):
        capture = parameter.values[0]
        if capture is None:
            pytest.skip("corpus not present")
        assert isinstance(capture, Capture)
        found = recognise(capture.data)
        assert found is None or found.protocol != PROTOCOL
        if protocol in ("p1", "sml", "p1_encrypted"):
            assert found is None or found.protocol == protocol.replace("_", "-")


@pytest.mark.parametrize("capture", capture_parameters("sml")[:3])
def test_another_protocol_gives_nothing(capture: Capture) -> None:
    assert not any(isinstance(item, Telegram) for item in decode(capture.data))


@pytest.mark.parametrize("capture", capture_parameters("p1")[:5])
def test_a_p1_telegram_with_its_checksum_is_no_readout(capture: Capture) -> None:
    assert not any(isinstance(item, Telegram) for item in decode(capture.data))


def test_the_codec_is_made_by_name() -> None:
    assert isinstance(make_decoder(MeterSetup.unknown(PROTOCOL, BERLIN)), ReadoutDecoder)
