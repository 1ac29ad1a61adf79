"""The P1 codec on captured telegrams: every line of every one, through the gate, and against another reader.

Where ours and dsmr-parser's differ, and why (each is let pass below by name):

- it must be told the dialect, and reads no line that this dialect does not name;
- states of switches and valves, and messages in hexadecimal, are numbers there if they have only decimal digits;
  here they are the texts that they are;
- units stay as sent there (``kwh``, ``kVAr``);
- the gas value of DSMR 2 stays under the code of its line, 24.3.0; here it has the code that the line names;
- the value of a gas meter that was never heard (time 632525252525S) is a number there.
"""

import logging
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.p1 import LIMIT_BYTES, P1Decoder
from meterway.meter.telegram import Register, Telegram
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
EVERY_CAPTURE = pytest.mark.parametrize("capture", capture_parameters("p1"))
DIALECTS = ("V2_2", "V4", "V5", "BELGIUM_FLUVIUS", "SWEDEN", "EON_HUNGARY", "LUXEMBOURG_SMARTY")


def decode(data: bytes) -> list[Telegram | CodecError]:
    decoder = P1Decoder(AMSTERDAM)
    return decoder.feed(data, 0.0) + decoder.idle(0.0)


def repaired(capture: Capture) -> bytes:
    """Return the capture with the checksum its bytes have: sources blank out numbers without counting anew."""
    if capture.about["crc"] != "bad":
        return capture.data
    body = capture.data[: capture.data.rindex(b"!") + 1]
    return body + b"%04X\r\n" % crc16_arc(body)


def telegram_of(capture: Capture) -> Telegram:
    [telegram] = decode(repaired(capture))
    assert isinstance(telegram, Telegram), telegram
    return telegram


@EVERY_CAPTURE
def test_every_line_becomes_a_register(capture: Capture) -> None:
    lines = re.findall(rb"(?m)^\d+-\d+:[0-9.:]+(?=\()", capture.data)
    registers = telegram_of(capture).registers
    assert len(registers) == len(lines)
    for line, register in zip(lines, registers, strict=True):
        groups = [int(group) for group in re.findall(rb"\d+", line)][:5]
        if groups[2:4] != [24, 3]:
            assert list(register.obis[:5]) == groups


@EVERY_CAPTURE
def test_checksum_is_judged_as_the_source_says(capture: Capture) -> None:
    [item] = decode(capture.data)
    if capture.about["crc"] == "bad":
        assert isinstance(item, CodecError)
        assert item.reason == "bad-checksum"
    else:
        assert isinstance(item, Telegram)
        assert item.checked == (capture.about["crc"] == "ok")


@EVERY_CAPTURE
def test_capture_passes_the_gate(capture: Capture) -> None:
    data = repaired(capture)
    if not data.endswith(b"\n"):
        data += b"\r\n"
    report = check_codec(lambda: P1Decoder(AMSTERDAM), data, limit_bytes=LIMIT_BYTES)
    assert (report.telegrams, report.errors) == (1, 0)


@EVERY_CAPTURE
def test_values_are_those_the_source_states(capture: Capture) -> None:
    values = {str(register.obis): register for register in telegram_of(capture).registers}
    stated = capture.about.get("expected", {})
    for tariff, energies in stated.get("electricity", {}).get("tariffs", {}).items():
        for name, quantity in (("received", 1), ("returned", 2)):
            if name in energies:
                register = next(values[code] for a in (0, 1) if (code := f"1-{a}:{quantity}.8.{tariff}*255") in values)
                scale = 1 if register.unit == "Wh" else 1000
                assert isinstance(register.value, Decimal)
                assert float(register.value * scale) == energies[name]
    for channel, meter in stated.get("mBus", {}).items():
        if "value" in meter:
            found = [r for r in values.values() if r.obis[:3] == (0, int(channel), 24) and r.obis.d == 2]
            assert [float(register.value) for register in found if isinstance(register.value, Decimal)] in (
                [meter["value"]],
                [],
            )


@EVERY_CAPTURE
def test_numbers_are_those_dsmr_parser_reads(capture: Capture) -> None:
    registers = telegram_of(capture).registers
    theirs = max((list(oracle_numbers(capture.data, dialect)) for dialect in DIALECTS), key=len)
    assert len(theirs) >= 2
    for pattern, channel, value, unit, at in theirs:
        found = [register for register in registers if matches(register, pattern, channel)]
        assert found, f"no register for {pattern}"
        if is_text(found[0]):
            continue
        assert value in [register.value for register in found]
        register = next(register for register in found if register.value == value)
        assert unit is None or str(register.unit).lower() == unit.lower()
        assert at is None or register.time == at


def oracle_numbers(data: bytes, dialect: str) -> Iterator[tuple[str, tuple[int, int], Decimal, str | None, Any]]:
    """Yield pattern of the code, groups A and B, value, unit and time of each number that dsmr-parser reads."""
    from dsmr_parser import telegram_specifications
    from dsmr_parser.objects import CosemObject, MBusObject
    from dsmr_parser.parsers import TelegramParser

    logging.getLogger("dsmr_parser").setLevel(logging.CRITICAL)
    parser = TelegramParser(getattr(telegram_specifications, dialect), apply_checksum_validation=False)
    text = data.decode("latin-1")
    try:
        telegram = parser.parse(text if text.endswith("\n") else text + "\r\n")
    except Exception:  # noqa: BLE001 - the wrong dialect raises whatever it meets
        return
    found = list(telegram.items())
    for device in getattr(telegram, "MBUS_DEVICES", ()):
        found += [(r"\d-\d:24\.[23]\.", value) for _, value in device if isinstance(value, MBusObject)]
    for named, item in found:
        pattern = r"\d-\d:24\.2\.1" if "24\\.3\\.0" in named else named
        if isinstance(item, CosemObject | MBusObject) and isinstance(item.value, Decimal | int):
            at = item.datetime if isinstance(item, MBusObject) and dialect != "V2_2" else None
            yield pattern, item.obis_id_code, Decimal(item.value), item.unit, at if isinstance(at, datetime) else None


def matches(register: Register, pattern: str, channel: tuple[int, int]) -> bool:
    obis = register.obis
    code = f"{obis.a}-{obis.b}:{obis.c}.{obis.d}.{obis.e}"
    return (obis.a, obis.b) == channel and re.match(pattern, f"{code}(0)\r\n") is not None


def is_text(register: Register) -> bool:
    switch_or_message = (register.obis.c, register.obis.d) in ((24, 4), (96, 3), (96, 13), (96, 14), (0, 2))
    return isinstance(register.value, str) and (switch_or_message or register.value.startswith("(6325"))


@pytest.mark.parametrize("capture", capture_parameters("p1_encrypted"))
def test_encrypted_capture_says_so_and_gives_no_reading(capture: Capture) -> None:
    items = decode(capture.data * 3)
    assert [item.reason for item in items if isinstance(item, CodecError)] == ["encrypted"] * 3
    assert len(items) == 3


@pytest.mark.parametrize("capture", capture_parameters("sml")[:3])
def test_another_protocol_gives_nothing(capture: Capture) -> None:
    assert decode(capture.data) == []
