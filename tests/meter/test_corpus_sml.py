"""Every SML capture of the corpus: how many telegrams, which values, the gate, and pysml's word on each frame."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from sml import SmlBase, SmlSequence

from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_kermit
from meterway.meter.sml import LIMIT_BYTES, SmlDecoder
from meterway.meter.telegram import Register, Telegram
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters

COUNTS = {
    "DZG_DVS-7420.2V.G2_mtr0": (1, 5, "truncated"),
    "DZG_DVS-7420.2V.G2_mtr1": (4, 28, "truncated"),
    "DZG_DVS-7420.2V.G2_mtr1_error": (0, 0, *["truncated"] * 8),
    "DZG_DVS-7420.2V.G2_mtr2": (3, 15),
    "DZG_DVS-7420.2V.G2_mtr2_neg": (3, 15, "truncated"),
    "DrNeuhaus_SMARTY_ix-130": (12, 84, "truncated"),
    "EMH-ED300L_consumption": (1, 7, "truncated"),
    "EMH-ED300L_delivery": (2, 14, "truncated"),
    "EMH_eHZ-GW8E2A500AK2": (16, 96, "truncated"),
    "EMH_eHZ-HW8E2AWL0EK2P": (13, 91, "truncated"),
    "EMH_eHZ-IW8E2A5L0EK2P_with_error": (11, 99, "truncated"),
    "EMH_eHZ-IW8E2AWL0EK2P": (12, 84, "truncated"),
    "EMH_mME40-AE6AKF0K0": (12, 84, "truncated"),
    "EasyMeter_Q3A_A1064V1009": (6, 84, "bad-checksum", "bad-checksum", "bad-checksum", "truncated"),
    "HOLLEY_DTZ541-BDBA_with_PIN": (2, 8),
    "HOLLEY_DTZ541-BDBA_without_PIN": (1, 3),
    "ISKRA_MT175_D1A52-V22-K0t": (8, 104, "truncated"),
    "ISKRA_MT631-D2A51-V22-K0z_with_PIN": (4, 24),
    "ISKRA_MT631-D2A51-V22-K0z_without_PIN": (2, 10),
    "ISKRA_MT691_eHZ-MS2020": (19, 76, "truncated"),
    "ITRON_OpenWay-3.HZ": (1, 4),
    "ITRON_OpenWay-3.HZ_with_PIN": (5, 20),
    "ITRON_OpenWay-3.HZ_without_PIN": (2, 6),
    "eBZ_DD3_DD3BZ06DTA-SMZ1_without_PIN": (2, 10),
    "smllib_test_frames_0": (1, 4),
    "smllib_test_frames_10": (1, 5),
    "smllib_test_frames_4": (1, 4),
    "smllib_test_frames_5": (1, 10),
    "smllib_test_frames_7": (1, 30),
    "smllib_test_frames_8": (1, 10),
    "smllib_test_frames_9": (0, 0),
    "smllib_test_sml_stream_reader_0": (1, 20),
}
"""Telegrams, registers, and errors. Two captures give nothing: all frames of ``mtr1_error`` lack bytes in every
message, and ``frames_9`` has neither a frame nor a message whose checksum holds."""

VALUES = {
    "DZG_DVS-7420.2V.G2_mtr0": ("1-0:16.7.0", "215.99", "W"),
    "DZG_DVS-7420.2V.G2_mtr2_neg": ("1-0:16.7.0", "-105.50", "W"),
    "EMH-ED300L_delivery": ("1-0:15.7.0", "126.6", "W"),
    "EasyMeter_Q3A_A1064V1009": ("1-0:1.8.0", "2941645.7047", "Wh"),
    "HOLLEY_DTZ541-BDBA_without_PIN": ("1-0:1.8.0", "2324000", "Wh"),
    "ISKRA_MT175_D1A52-V22-K0t": ("1-0:16.7.0", "-4308", "W"),
    "ITRON_OpenWay-3.HZ": ("1-0:1.8.0", "8189594.9", "Wh"),
    "smllib_test_frames_4": ("1-0:1.17.0", "4050.8", "Wh"),
    "smllib_test_frames_7": ("1-0:2.8.0*96", "5500", "Wh"),
    "smllib_test_sml_stream_reader_0": ("1-0:31.7.0", "0.41", "A"),
}
"""One value of the first telegram; the sign of ``mtr2_neg`` is stated in its note."""

WITHOUT_PIN = [name for name in COUNTS if name.endswith("without_PIN")]


def decode(capture: Capture) -> list[Telegram | CodecError]:
    decoder = SmlDecoder()
    return decoder.feed(capture.data, 0.0) + decoder.idle(1.0)


def telegrams(capture: Capture) -> list[Telegram]:
    return [item for item in decode(capture) if isinstance(item, Telegram)]


@pytest.mark.parametrize("capture", capture_parameters("sml"))
def test_capture_gives_all_its_telegrams(capture: Capture) -> None:
    found = telegrams(capture)
    reasons = [item.reason for item in decode(capture) if isinstance(item, CodecError)]
    if capture.name in COUNTS:
        assert (len(found), sum(len(item.registers) for item in found), *reasons) == COUNTS[capture.name]
    if capture.name in VALUES:
        code, value, unit = VALUES[capture.name]
        [first] = [item for item in found[0].registers if item.obis == Obis.parse(code)]
        assert (str(first.value), first.unit) == (value, unit)


@pytest.mark.parametrize("capture", capture_parameters("sml"))
def test_every_telegram_is_checked_and_names_its_meter(capture: Capture) -> None:
    for telegram in telegrams(capture):
        assert telegram.checked
        assert telegram.raw in capture.data
        assert len(bytes.fromhex(telegram.meter)) >= 8
        ids = {item.value for item in telegram.registers if item.obis in (Obis(1, 0, 0, 0, 9), Obis(1, 0, 96, 1, 0))}
        assert ids <= {telegram.meter}


@pytest.mark.parametrize("capture", capture_parameters("sml"))
def test_meter_without_pin_sends_whole_kilowatt_hours_and_no_power(capture: Capture) -> None:
    if capture.name not in WITHOUT_PIN:
        return
    for telegram in telegrams(capture):
        energies = [item.value for item in telegram.registers if item.unit == "Wh"]
        assert energies
        assert all(isinstance(value, Decimal) and value % 1000 == 0 for value in energies)
        assert "W" not in {item.unit for item in telegram.registers}


@pytest.mark.parametrize("capture", capture_parameters("sml"))
def test_capture_passes_the_gate(capture: Capture) -> None:
    report = check_codec(SmlDecoder, capture.data, limit_bytes=LIMIT_BYTES, rounds=3)
    assert report.checked


def pysml_entries(raw: bytes) -> Iterator[dict[str, object]]:
    _, file = SmlBase.find_frame(raw)
    for message in file or ():
        if isinstance(message["messageBody"], dict):
            yield from message["messageBody"].get("valList", ())


def as_pysml(register: Register, theirs: object) -> object:
    """Return our value in the form that pysml has it in.

    It divides to floats, leaves out empty octet strings, and writes octets as bytes, server ids and keys as texts
    of its own.
    """
    if isinstance(register.value, Decimal):
        return float(register.value)
    if isinstance(theirs, bytes):
        return theirs if theirs in (register.value.encode(), _octets(register)) else register.value
    if register.obis[2:5] in ((0, 0, 9), (96, 1, 0)):
        return SmlSequence.decode_server_id(_octets(register))
    if register.obis[2:5] == (199, 130, 5):
        return register.value.lower()
    return register.value or None


def _octets(register: Register) -> bytes:
    try:
        return bytes.fromhex(str(register.value))
    except ValueError:
        return b""


@pytest.mark.parametrize("capture", capture_parameters("sml"))
def test_pysml_reads_the_same_values_in_every_frame_that_it_reads(capture: Capture) -> None:
    for telegram in telegrams(capture):
        entries = list(pysml_entries(telegram.raw))
        framed = telegram.raw.startswith(b"\x1b")
        kermit = crc16_kermit(telegram.raw[:-2]) == int.from_bytes(telegram.raw[-2:])
        assert bool(entries) == (framed and not kermit), "pysml needs a frame with an X.25 checksum"
        for register, theirs in zip(telegram.registers, entries, strict=bool(entries)):
            value = theirs.get("value")
            if isinstance(value, list):
                continue
            assert theirs["objName"] == str(register.obis)
            assert as_pysml(register, value) == value
            assert (theirs.get("unit") or None) == {"deg": "°"}.get(register.unit or "", register.unit)


def test_corpus_gives_as_many_telegrams_as_were_counted() -> None:
    found = [telegram for (capture,) in _present() for telegram in telegrams(capture) if capture.name in COUNTS]
    assert (len(found), sum(len(item.registers) for item in found)) == (149, 1054)


def _present() -> list[tuple[Capture]]:
    captures = [parameter.values for parameter in capture_parameters("sml")]
    if captures == [(None,)]:
        pytest.skip("corpus not present")
    return captures
