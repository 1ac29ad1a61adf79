import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meterway.adapter.config import ChannelConfig, MeterConfig, ReplaySource
from meterway.adapter.mapping import LIMIT_UNMAPPED, MappedReading, Mapper
from meterway.core import wire
from meterway.core.channels import channel_meter_id
from meterway.core.errors import BadDataError, SetupError
from meterway.core.obis import Obis
from meterway.core.reading import MeterReading, PhysicalMeterClass
from meterway.meter.family import ObisRule, load_family
from meterway.meter.telegram import Register, Telegram

ARRIVAL = datetime(2026, 11, 23, 9, 15, tzinfo=UTC)
CLOCK = datetime(2026, 11, 23, 9, 14, 58, tzinfo=UTC)
CAPTURED = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def meter(**keys: object) -> MeterConfig:
    return MeterConfig(id="m1", source=ReplaySource(file=Path("x")), **keys)  # type: ignore[arg-type]


def register(code: str, value: str, unit: str | None = None, time: datetime | None = None) -> Register:
    number: Decimal | str = Decimal(value) if value.lstrip("-").replace(".", "", 1).isdigit() else value
    return Register(Obis.parse(code), number, unit, time)


def telegram(*registers: Register, time: datetime | None = CLOCK) -> Telegram:
    return Telegram("p1", registers, b"raw", time=time)


def mapped(config: MeterConfig, *registers: Register, time: datetime | None = CLOCK) -> list[MeterReading]:
    mapper = Mapper(config, load_family("p1-generic"))
    return [each.reading for each in mapper.readings(telegram(*registers, time=time), ARRIVAL)]


def numbers(reading: MeterReading) -> dict[str, tuple[str, str | None]]:
    return {value.property_id: (str(value.numerical_value), value.unit) for value in reading.property_values}


def test_a_register_keeps_its_digits_and_gets_the_catalogues_unit() -> None:
    (reading,) = mapped(meter(), register("1-0:1.8.0", "12345678.9", "Wh"), register("1-0:1.7.0", "0.412", "kW"))
    assert numbers(reading) == {"OBIS_1.8.0": ("12345.6789", "kWh"), "OBIS_1.7.0": ("0.412", "kW")}
    assert reading.reading_time == CLOCK


def test_the_configurations_rule_comes_before_the_catalogue() -> None:
    rules: dict[str, str | ObisRule] = {
        "1-0:1.8.0": "OBIS_2.8.0",
        "1-0:16.7.0": ObisRule(factor="-1"),
        "1-0:1.7.0": ObisRule(ignore=True),
    }
    (reading,) = mapped(
        meter(mapping=rules),
        register("1-0:1.8.0", "1.000", "kWh"),
        register("1-0:16.7.0", "0.5", "kW"),
        register("1-0:1.7.0", "9", "kW"),
    )
    assert numbers(reading) == {"OBIS_2.8.0": ("1.000", "kWh"), "OBIS_16.7.0": ("-0.5", "kW")}


def test_what_the_meter_does_not_know_is_added() -> None:
    (reading,) = mapped(meter(static={"SITE_household_size": 3}), register("1-0:1.8.0", "1", "kWh"))
    assert numbers(reading)["SITE_household_size"] == ("3", None)


def test_a_gas_value_becomes_a_reading_of_its_own_meter_at_its_own_time() -> None:
    registers = (
        register("1-0:1.8.0", "1", "kWh"),
        register("0-1:24.1.0", "3"),
        register("0-1:24.2.1", "00123.456", "m3", CAPTURED),
    )
    main, gas = mapped(meter(channels=(ChannelConfig(channel=1, id="gas-1"),)), *registers)
    assert numbers(main) == {"OBIS_1.8.0": ("1", "kWh")}
    assert (gas.meter_id, gas.reading_time) == ("gas-1", CAPTURED)
    assert numbers(gas)["GAS_volume_corrected"] == ("123.456", "m3")


def test_a_meter_behind_without_configuration_gets_an_id_that_stays() -> None:
    registers = (register("0-2:24.1.0", "7"), register("0-2:24.2.1", "5.5", "m3", CAPTURED))
    (water,) = mapped(meter(), *registers)
    assert water.meter_id == channel_meter_id("m1", 2)
    assert numbers(water)["WATER_volume_of_water"] == ("5.5", "m3")


def test_another_meter_on_a_channel_changes_what_its_values_mean() -> None:
    mapper = Mapper(meter(), load_family("p1-generic"))
    values = [register("0-1:24.2.1", "5.5", "m3", CAPTURED)]
    gas = mapper.readings(telegram(register("0-1:24.1.0", "3"), *values), ARRIVAL)
    water = mapper.readings(telegram(register("0-1:24.1.0", "7"), *values), ARRIVAL)
    assert [value.property_id for value in gas[0].reading.property_values] == ["GAS_volume_corrected"]
    assert [value.property_id for value in water[0].reading.property_values] == ["WATER_volume_of_water"]
    assert mapper.class_of(water[0].reading.meter_id) is PhysicalMeterClass.WATER


def test_what_a_meter_behind_says_again_is_the_very_reading_until_it_says_something_else() -> None:
    mapper = Mapper(meter(), load_family("p1-generic"))

    def gas(value: str, at: datetime) -> MappedReading:
        own = register("1-0:1.8.0", "1", "kWh")
        device = register("0-1:24.1.0", "3")
        said = telegram(own, device, register("0-1:24.2.1", value, "m3", at))
        return mapper.readings(said, ARRIVAL)[1]

    first, again = gas("1.5", CLOCK), gas("1.5", CLOCK)
    used, later = gas("1.6", CLOCK), gas("1.6", CLOCK + timedelta(minutes=5))
    assert again is first
    assert [numbers(each.reading)["GAS_volume_corrected"] for each in (first, used)] == [("1.5", "m3"), ("1.6", "m3")]
    assert len({each.reading.identifier for each in (first, used, later)}) == 3


def test_serial_numbers_clock_history_and_empty_texts_are_left_out() -> None:
    (reading,) = mapped(
        meter(),
        register("0-0:96.1.1", "E0012345"),
        register("0-0:1.0.0", "261123101458W"),
        register("1-0:1.8.0*19", "0.9", "kWh"),
        register("0-0:96.13.0", ""),
        register("1-0:1.8.0", "1", "kWh"),
    )
    assert list(numbers(reading)) == ["OBIS_1.8.0"]


def test_a_telegram_without_any_quantity_is_no_reading() -> None:
    assert mapped(meter(), register("0-0:96.14.0", "2")) == []


def test_codes_that_nothing_covers_are_listed() -> None:
    mapper = Mapper(meter(), load_family("p1-generic"))
    mapper.readings(telegram(register("1-0:199.199.0", "1"), register("1-0:1.8.0", "1", "kWh")), ARRIVAL)
    assert mapper.unmapped == {Obis.parse("1-0:199.199.0")}


def test_a_unit_of_another_dimension_is_not_passed_as_good() -> None:
    mapper = Mapper(meter(), load_family("p1-generic"))
    (found,) = mapper.readings(telegram(register("1-0:1.8.0", "1", "V"), register("1-0:2.8.0", "1", "kWh")), ARRIVAL)
    assert list(numbers(found.reading)) == ["OBIS_2.8.0"]
    assert mapper.unmapped == {Obis.parse("1-0:1.8.0")}


def test_a_meter_without_a_clock_gets_the_arrival_and_never_the_same_twice() -> None:
    mapper = Mapper(meter(), load_family("p1-generic"))
    silent = replace(telegram(register("1-0:1.8.0", "1", "kWh")), time=None)
    first, second = (mapper.readings(silent, ARRIVAL)[0] for _ in range(2))
    assert first.reading.reading_time == ARRIVAL
    assert second.reading.reading_time == ARRIVAL + timedelta(microseconds=1)
    assert first.reading.identifier != second.reading.identifier
    assert not first.has_clock


def test_the_same_telegram_read_again_is_the_same_reading() -> None:
    values = (register("1-0:1.8.0", "1.000", "kWh"),)
    (first,), (second,) = mapped(meter(), *values), mapped(meter(), *values)
    assert first.identifier == second.identifier


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"mapping": {"1.8.0": "OBIS_NONE"}}, "meter m1: property 'OBIS_NONE' is not in the catalogue"),
        ({"static": {"SITE_nothing": 1}}, "meter m1: property 'SITE_nothing' is not in the catalogue"),
    ],
)
def test_a_rule_for_a_property_that_does_not_exist_stops_with_its_name(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        Mapper(meter(**keys), load_family("p1-generic"))


def test_a_channel_that_the_family_does_not_have_is_an_error() -> None:
    config = meter(channels=(ChannelConfig(channel=1, id="gas-1"),))
    family = load_family("p1-generic")
    no_channels = type(family)(
        title=family.title, protocol="p1", timezone=family.timezone, interval_s=1, channels=0, name="plain"
    )
    with pytest.raises(SetupError, match="family plain has no channel 1"):
        Mapper(config, no_channels)


def test_a_clock_before_1970_gives_a_reading_that_wire_refuses() -> None:
    never_set = datetime(1969, 12, 31, 23, tzinfo=UTC)
    (reading,) = mapped(meter(), register("1-0:1.8.0", "1", "kWh"), time=never_set)
    with pytest.raises(BadDataError, match="1969-12-31T23:00:00"):
        wire.encode(reading)


def test_a_flood_of_codes_does_not_grow_the_memory() -> None:
    mapper = Mapper(meter(), load_family("p1-generic"))
    tracemalloc.start()
    try:
        for first in range(0, 60_000, 2000):
            codes = (Obis(1, 200, *divmod(number, 250), 0) for number in range(first, first + 2000))
            mapper.readings(telegram(*(Register(code, Decimal(1)) for code in codes)), ARRIVAL)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(mapper.unmapped) == LIMIT_UNMAPPED
    assert held_bytes < 4_000_000
