"""Every M-Bus capture of the corpus: its values beside libmbus' and pyMeterBus', what is refused, and the gate.

Where ours and libmbus' differ, and why (each is let pass below by name):

- a BCD number with digits above 9 is invalid here; there it is added up (``DDEBBD`` is 131.113);
- a date that does not exist (month 0, or marked invalid) is invalid here; there it is 2000-00-00 or 1900-01-00;
- the counters of the fixed structure are in m3 and Wh here, as all others; there in l and kWh;
- the marks "more records follow" and "manufacturer specific" without data are no registers here;
- times of operation stay in h or d here, and are in s there.

pyMeterBus moreover scales by floats, and leaves the meaning of most VIFEs out.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from meterway.meter.codec import CodecError
from meterway.meter.mbus import LIMIT_BYTES, MbusDecoder
from meterway.meter.mbus_values import INVALID
from meterway.meter.telegram import Register, Telegram
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters, captures
from support.mbus import BERLIN, decode

EVERY_CAPTURE = pytest.mark.parametrize("capture", capture_parameters("mbus"))
TO_BASE = {"s": 1, "min": 60, "h": 3600, "d": 86400}
NOT_MBUS = {"pymeterbus_manual_frame1": 0, "unsup_manual_frame4": 0}
"""Captures without an answer of a meter."""


def telegrams(capture: Capture) -> list[Telegram]:
    return [item for item in decode(capture.data) if isinstance(item, Telegram)]


@EVERY_CAPTURE
def test_every_good_answer_is_one_telegram_and_every_bad_one_an_error(capture: Capture) -> None:
    items = decode(capture.data)
    if capture.name in NOT_MBUS:
        assert items == []
        return
    [item] = items
    if capture.about.get("kind") == "error-frames":
        assert isinstance(item, CodecError)
        refused = capture.about.get("expected") is not None
        assert item.reason == ("refused" if refused else "bad-syntax")
    else:
        assert isinstance(item, Telegram)
        assert item.registers
        assert item.raw == capture.data


@EVERY_CAPTURE
def test_capture_passes_the_gate(capture: Capture) -> None:
    check_codec(lambda: MbusDecoder(BERLIN), capture.data, limit_bytes=LIMIT_BYTES, rounds=3, weak_checksum=True)


def stated(capture: Capture) -> list[dict[str, Any]]:
    return [record for record in capture.about.get("expected", {}).get("records", ()) if record["Value"] is not None]


def agrees(register: Register, record: dict[str, Any]) -> bool:
    said = record["Value"]
    if isinstance(register.value, str):
        written = register.value.replace(" ", "").lstrip("0") or "0"
        local = register.time.strftime("%Y-%m-%dT%H:%M:%SZ") if register.time else ""
        return said in (register.value, local) or written in (
            said.partition(".")[0],
            said.replace(" ", "").lstrip("0") or "0",
        )
    value = register.value * TO_BASE.get(register.unit or "", 1)
    if record.get("Unit") in ("kWh", "l", "reserved but historic"):
        value = value / 1000 if register.unit == "Wh" else value * 1000
    theirs = float(said)
    return abs(float(value) - theirs) <= max(1e-6, abs(theirs) * 1e-6)


@EVERY_CAPTURE
def test_values_are_those_libmbus_reads(capture: Capture) -> None:
    for telegram in telegrams(capture):
        registers = [register for register in telegram.registers if register.name != "status"]
        records = stated(capture)
        if not records:
            continue
        assert len(registers) == len(records)
        for register, record in zip(registers, records, strict=True):
            assert str(register.value).startswith(INVALID) or agrees(register, record), (register, record)


def test_all_but_five_values_are_equal_to_those_of_libmbus() -> None:
    equal, invalid = 0, []
    for capture in captures("mbus"):
        for telegram in telegrams(capture):
            registers = [register for register in telegram.registers if register.name != "status"]
            for register, record in zip(registers, stated(capture), strict=False):
                if str(register.value).startswith(INVALID):
                    invalid.append((register.value, record["Value"]))
                else:
                    equal += agrees(register, record)
    if not equal:
        pytest.skip("corpus not present")
    assert equal == 644
    assert sorted(invalid) == [
        ("invalid 0000", "2000-00-00"),
        ("invalid 0000", "2000-00-00"),
        ("invalid 17E915A1", "1900-01-00T00:00:00Z"),
        ("invalid DDDDEBBD", "13131113.000000"),
        ("invalid DDEBBD", "131.113000"),
    ]


SUFFIXES = {
    "_kwh": ("Wh", 1000),
    "_kvarh": ("Wh", 1000),
    "_kw": ("W", 1000),
    "_m3": ("m3", 1),
    "_m3h": ("m3/h", 1),
    "_v": ("V", 1),
    "_a": ("A", 1),
    "_c": ("degreeCelsius", 1),
    "_rh": ("%", 1),
    "_hca": (None, 1),
}
"""Unit and factor of the values that wmbusmeters' tests state; the reactive ones come as Wh and W."""

STATED_OTHERWISE = {"difference_c"}
"""A difference has the unit K here."""


def test_values_are_those_wmbusmeters_states() -> None:
    compared = 0
    for capture in captures("mbus"):
        if not capture.name.startswith("wmbusmeters_"):
            continue
        [telegram] = telegrams(capture)
        for key, said in capture.about["expected"].items():
            unit, factor = SUFFIXES.get("_" + key.rpartition("_")[2], ("", 0))
            if not factor or key in STATED_OTHERWISE or said is None:
                continue
            found = [
                float(r.value) / factor for r in telegram.registers if isinstance(r.value, Decimal) and r.unit == unit
            ]
            assert any(value == pytest.approx(said, rel=1e-6, abs=1e-6) for value in found), (capture.name, key, said)
            compared += 1
    if not compared:
        pytest.skip("corpus not present")
    assert compared > 150


def pymeterbus_values(data: bytes) -> Iterator[tuple[object, str]]:
    import meterbus

    for record in meterbus.load(data).records:
        yield record.value, str(record.unit)


@EVERY_CAPTURE
def test_numbers_are_those_pymeterbus_reads(capture: Capture) -> None:
    for telegram in telegrams(capture):
        if telegram.raw[6] != 0x72:
            continue
        registers = [register for register in telegram.registers if register.name != "status"]
        theirs = list(pymeterbus_values(capture.data))
        compared = 0
        for register, (value, unit) in zip(registers, theirs, strict=False):
            number = isinstance(register.value, Decimal) and isinstance(value, int | float | Decimal)
            if not number or unit in ("None", "MeasureUnit.NONE"):
                continue
            ours = float(register.value) * (TO_BASE.get(register.unit or "", 1) if "second" in unit.lower() else 1)
            assert ours == pytest.approx(float(value), rel=1e-5, abs=1e-6), (register, value, unit)  # type: ignore[arg-type]
            compared += 1
        assert compared or not theirs or len(registers) < 9
