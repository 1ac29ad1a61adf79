"""Two other libraries read the same numbers from what the encoders write."""

from decimal import Decimal
from zoneinfo import ZoneInfo

from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import TelegramParser
from sml import SmlBase

from meterway.meter.virtual.meter import Kind, VirtualMeter

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
NOON = 1_781_690_400


def test_dsmr_parser_reads_our_p1() -> None:
    for index in range(5):
        spoken = VirtualMeter(Kind.P1, "oracle", index, zone=AMSTERDAM).tick(NOON + 86_411 * index)
        stated = spoken.statement.values
        read = TelegramParser(telegram_specifications.V5).parse(spoken.telegram.decode())
        assert read.ELECTRICITY_USED_TARIFF_1.value == stated["1-0:1.8.1*255"]
        assert read.ELECTRICITY_USED_TARIFF_2.value == stated["1-0:1.8.2*255"]
        assert read.ELECTRICITY_DELIVERED_TARIFF_2.value == stated["1-0:2.8.2*255"]
        assert read.CURRENT_ELECTRICITY_USAGE.value == stated["1-0:1.7.0*255"]
        assert read.INSTANTANEOUS_VOLTAGE_L3.value == stated["1-0:72.7.0*255"]
        assert read.P1_MESSAGE_TIMESTAMP.value == spoken.statement.instant
        gas, water = (device.MBUS_METER_READING for device in read.MBUS_DEVICES)
        assert (gas.value, gas.unit) == (stated["0-1:24.2.1*255"], "m3")
        assert (water.value, water.unit) == (stated["0-2:24.2.1*255"], "m3")


def test_pysml_reads_our_sml() -> None:
    for index in range(5):
        spoken = VirtualMeter(Kind.SML, "oracle", index, zone=AMSTERDAM).tick(NOON + 86_411 * index)
        size, messages = SmlBase.parse_frame(spoken.telegram)
        assert size == len(spoken.telegram)
        read = {
            str(entry["objName"]): Decimal(str(entry["value"]))
            for entry in messages[1]["messageBody"]["valList"]
            if "unit" in entry
        }
        assert read == spoken.statement.values
