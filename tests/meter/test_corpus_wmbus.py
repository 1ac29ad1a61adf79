"""Every capture of wireless M-Bus in the corpus: its values beside those that wmbusmeters' tests state, and the gate.

All are frames whose checksums a receiver removed, most were decrypted before; some have two bytes of a receiver's
behind them. What is not read, and why, is listed here by name:

- Techem and Apator send their own data under CI fields of their own (A0 to B7): not OMS, and left to wmbusmeters as a
  separate process;
- of one encrypted capture the corpus does not have the key; one is encrypted in mode 2;
- of three compact frames the corpus has no full frame, or the checksum does not hold.

Of the values beside a telegram that is read, those that differ are: history and temperatures in data of the maker's own
(BFW, BMeters, Qundis, Zenner), the most negative integer, which is invalid here, and a reactive energy (EM24) whose
decimal factor wmbusmeters leaves out.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

import pytest

from meterway.meter.codec import CodecError
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.telegram import Telegram
from meterway.meter.virtual import encode_wmbus as radio
from meterway.meter.wmbus import LIMIT_BYTES
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters, captures
from support.wmbus import decoder

EVERY_CAPTURE = pytest.mark.parametrize("capture", capture_parameters("wmbus"))

NOT_OMS = re.compile(r"(apator08|apator172|apatoreitn|compact5|fhkvdataiii|tsd2|vario451)_\d+")
REASONS = {"actislink_0": "encrypted", "hydrus_2": "encrypted", "kamwater_6": "bad-syntax", "kamwater_7": "bad-syntax"}
REASONS["engelmann_faw_1"] = "bad-syntax"
OWN_DATA = re.compile(r"(bfw240radio|hydroclimav2)_\d+")
"""Their totals stand in data of the maker's own, which are handed on as hex digits."""

SUFFIXES: dict[str, set[tuple[str | None, int]]] = {
    "_kwh": {("Wh", 1000), ("J", 3_600_000)},
    "_kvarh": {("varh", 1000)},
    "_kw": {("W", 1000)},
    "_gj": {("J", 1_000_000_000)},
    "_m3": {("m3", 1)},
    "_m3h": {("m3/h", 1)},
    "_v": {("V", 1)},
    "_a": {("A", 1)},
    "_c": {("degreeCelsius", 1), ("K", 1)},
    "_rh": {("%", 1)},
    "_hca": {(None, 1)},
}


def keys(capture: Capture) -> Keys:
    key = capture.about.get("key")
    return Keys(bytes.fromhex(key)) if key else NO_KEYS


def items(capture: Capture) -> list[Telegram | CodecError]:
    made = decoder(keys(capture))
    return made.feed(capture.data, 0.0) + made.idle(0.0)


def reason(capture: Capture) -> str:
    """Return why the capture is not read; empty if it is."""
    return "bad-syntax" if NOT_OMS.fullmatch(capture.name) else REASONS.get(capture.name, "")


@EVERY_CAPTURE
def test_every_capture_is_one_telegram_or_is_known_not_to_be(capture: Capture) -> None:
    [item] = items(capture)
    if reason(capture):
        assert isinstance(item, CodecError)
        assert item.reason == reason(capture)
        return
    assert isinstance(item, Telegram), item
    assert item.registers
    assert item.raw == capture.data


@EVERY_CAPTURE
def test_capture_passes_the_gate_as_a_receiver_hands_it_on(capture: Capture) -> None:
    """A frame without its checksums has nothing to find damage by; so each is put into the message of an iM871A."""
    data = radio.im871a(capture.data[1:])
    check_codec(lambda: decoder(keys(capture), accept_repeats=True), data, limit_bytes=LIMIT_BYTES, rounds=1)


@EVERY_CAPTURE
def test_bare_capture_is_the_same_in_any_chunks_and_no_prefix_raises(capture: Capture) -> None:
    whole = items(capture)
    for size in (1, 7, 64):
        made = decoder(keys(capture))
        parts = [capture.data[at : at + size] for at in range(0, len(capture.data), size)]
        found = [item for part in parts for item in made.feed(part, 0.0)] + made.idle(0.0)
        assert [getattr(item, "registers", None) for item in found] == [
            getattr(item, "registers", None) for item in whole
        ]
    for end in range(0, len(capture.data), 3):
        made = decoder(keys(capture))
        made.feed(capture.data[:end], 0.0)
        made.idle(0.0)
        assert made.buffered_bytes == 0


def stated(capture: Capture) -> Iterator[tuple[str, float, set[tuple[str | None, int]]]]:
    for key, said in capture.about["expected"].items():
        units = SUFFIXES.get("_" + key.rpartition("_")[2])
        if units and isinstance(said, int | float):
            yield key, float(said), units


def is_said(telegram: Telegram, said: float, units: set[tuple[str | None, int]]) -> bool:
    return any(
        float(register.value) / factor == pytest.approx(said, rel=1e-6, abs=1e-6)
        for register in telegram.registers
        for unit, factor in units
        if isinstance(register.value, Decimal) and register.unit == unit
    )


def test_values_are_those_wmbusmeters_states() -> None:
    totals = said_totals = equal = compared = 0
    missing: set[str] = set()
    for capture in captures("wmbus"):
        telegram = next((item for item in items(capture) if isinstance(item, Telegram)), None)
        first_total = True
        for key, said, units in stated(capture):
            is_equal = telegram is not None and is_said(telegram, said, units)
            if key.startswith("total") and first_total:
                first_total = False
                said_totals += 1
                totals += is_equal
                if telegram is not None and not is_equal:
                    missing.add(capture.name)
            compared += telegram is not None
            equal += is_equal
    if not compared:
        pytest.skip("corpus not present")
    assert (totals, said_totals) == (154, 171)
    assert {name for name in missing if not OWN_DATA.fullmatch(name)} == set()
    assert (equal, compared) == (826, 1100)
