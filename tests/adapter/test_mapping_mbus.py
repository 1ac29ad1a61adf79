"""From a telegram of an M-Bus meter to a reading: each family's own telegram, whole."""

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from meterway.adapter.config import MeterConfig
from meterway.adapter.mapping import Mapper
from meterway.core.config import load_config
from meterway.meter.driver import MeterSetup
from meterway.meter.family import family_names, load_family
from meterway.meter.telegram import Telegram
from meterway.plugins import make_decoder

MAIN_VALUES = {
    "mbus-heat": ("HEAT_energy", "31415", "kWh"),
    "mbus-cooling": ("COOLING_energy", "22340", "kWh"),
    "mbus-water": ("WATER_volume_of_water", "1234.567", "m3"),
    "mbus-gas": ("GAS_volume", "6543.21", "m3"),
    "mbus-electricity": ("OBIS_1.8.0", "12345.678", "kWh"),
    "mbus-cost-allocator": ("HEAT_allocation_units", "1377", None),
    "mbus-schneider-iem3000": ("OBIS_14.7.0", "50.012", "Hz"),
    "mbus-ime-nemo": ("OBIS_14.7.0", "50.1", "Hz"),
    "mbus-elster-f90": ("HEAT_energy", "31415", "kWh"),
    "mbus-elster-water": ("WATER_volume_of_water", "1234.567", "m3"),
    "mbus-engelmann-sensostar": ("HEAT_energy", "31415", "kWh"),
    "mbus-itron-cf": ("HEAT_energy", "31415", "kWh"),
    "mbus-itron-cyble-gas": ("GAS_volume", "6543.21", "m3"),
    "mbus-itron-cyble-water": ("WATER_volume_of_water", "1234.567", "m3"),
    "mbus-kamstrup-electricity": ("OBIS_1.8.0", "12345.67", "kWh"),
    "mbus-kamstrup-multical": ("HEAT_energy", "31415", "kWh"),
    "mbus-sensus-pollutherm": ("HEAT_energy", "31415", "kWh"),
}

CONFIG = """
id = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
family = "{family}"
source = {{ type = "tcp", host = "127.0.0.1", port = 8001 }}
"""


@pytest.mark.parametrize("name", [name for name in family_names() if name.startswith("mbus-")])
def test_sample_of_a_family_becomes_one_reading_with_the_main_value(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    mapper = Mapper(load_config(CONFIG.format(family=name), MeterConfig, where="test"), family)
    [telegram] = make_decoder(MeterSetup(family=family, zone=ZoneInfo(family.timezone))).feed(
        family.sample.telegram, 0.0
    )
    assert isinstance(telegram, Telegram)
    [mapped] = mapper.readings(telegram, datetime(2026, 2, 14, 9, 0, tzinfo=UTC))
    values = {value.property_id: value for value in mapped.reading.property_values}
    property_id, number, unit = MAIN_VALUES[name]
    assert values[property_id].numerical_value == Decimal(number)
    assert values[property_id].unit == unit
    assert {str(obis) for obis in mapper.unmapped} <= {"1-130:12.0.0*255"}
