"""Captures of JSON devices: the values that stand in them, and the gate."""

from zoneinfo import ZoneInfo

import pytest

from meterway.meter.family import load_family
from meterway.meter.json_documents import JsonDecoder
from meterway.meter.telegram import Telegram
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters

EVERY_CAPTURE = pytest.mark.parametrize("capture", capture_parameters("mqtt_json") + capture_parameters("http_json"))
LIMIT_BYTES = 8192

EXPECTED: dict[str, tuple[str, dict[str, tuple[str, str | None]]]] = {
    "tasmota_energy_plug": (
        "json-tasmota-energy",
        {
            "1.8.0": ("0.003", "kWh"),
            "16.7.0": ("26", "W"),
            "9.7.0": ("25", "VA"),
            "13.7.0": ("0.06", None),
            "12.7.0": ("239", "V"),
            "11.7.0": ("0.106", "A"),
        },
    ),
    "shelly_em1": (
        "json-shelly-em",
        {
            "1.8.0": ("0", "Wh"),
            "2.8.0": ("0", "Wh"),
            "16.7.0": ("951.2", "W"),
            "9.7.0": ("951.9", "VA"),
            "13.7.0": ("1", None),
            "12.7.0": ("236.1", "V"),
            "11.7.0": ("4.029", "A"),
            "14.7.0": ("50", "Hz"),
        },
    ),
    "homewizard_p1": (
        "json-homewizard-p1",
        {
            "1.8.1": ("19055.287", "kWh"),
            "1.8.2": ("19505.815", "kWh"),
            "2.8.1": ("0.002", "kWh"),
            "2.8.2": ("0.007", "kWh"),
            "16.7.0": ("997", "W"),
        },
    ),
    "shelly_pro3em_emdata": ("json-shelly-pro3em", {}),
}
"""By capture: its family, and its values by code. The last holds energies of minutes (EMData.GetData): no register."""


def decoder(capture: Capture) -> JsonDecoder:
    family = load_family(EXPECTED[capture.name][0])
    assert family.json is not None
    return JsonDecoder(family.json, ZoneInfo(family.timezone), limit_bytes=LIMIT_BYTES)


@EVERY_CAPTURE
def test_values_are_those_of_the_capture(capture: Capture) -> None:
    made = decoder(capture)
    items = [*made.feed(capture.data, 0.0), *made.idle(0.0)]
    _, expected = EXPECTED[capture.name]
    found = {}
    for item in items:
        assert isinstance(item, Telegram), str(item)
        found.update({register.obis.reduced: (str(register.value), register.unit) for register in item.registers})
    assert found == expected
    assert bool(items) == bool(expected)


@EVERY_CAPTURE
def test_capture_passes_the_gate(capture: Capture) -> None:
    line = capture.data.strip() + b"\n"
    report = check_codec(lambda: decoder(capture), line, limit_bytes=LIMIT_BYTES, weak_checksum=True)
    assert (report.telegrams, report.errors) == (int(bool(EXPECTED[capture.name][1])), 0)
