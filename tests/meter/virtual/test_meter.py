"""Virtual meters: telegrams that the codecs accept and that state exactly what the statement says."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from meterway.meter.codec import Decoder
from meterway.meter.p1 import P1Decoder
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.meter import Build, Kind, VirtualMeter, meter_id

VIENNA = ZoneInfo("Europe/Vienna")
NOON = int(datetime(2026, 6, 17, 10, 0, tzinfo=UTC).timestamp())
AUTUMN_CHANGE = int(datetime(2026, 10, 25, 1, 0, tzinfo=UTC).timestamp())
SPRING_CHANGE = int(datetime(2026, 3, 29, 1, 0, tzinfo=UTC).timestamp())


def decoder_for(kind: Kind) -> Decoder:
    return P1Decoder(VIENNA) if kind is Kind.P1 else SmlDecoder()


def decode(kind: Kind, data: bytes) -> Telegram:
    (telegram,) = decoder_for(kind).feed(data, 0.0)
    assert isinstance(telegram, Telegram), telegram
    return telegram


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("phases", [1, 3])
def test_the_codec_reads_exactly_what_is_stated(kind: Kind, phases: int) -> None:
    for index in range(6):
        meter = VirtualMeter(kind, "street", index, zone=VIENNA, build=Build(phases=phases))
        for instant_s in (NOON, NOON + 1, NOON + 43_200, NOON + 200 * 86_400):
            spoken = meter.tick(instant_s)
            telegram = decode(kind, spoken.telegram)
            read = {str(register.obis): register.value for register in telegram.registers}
            stated = spoken.statement.values
            assert {code: read[code] for code in stated} == stated
            assert [str(read[code]) for code in stated] == [str(value) for value in stated.values()]
            assert telegram.checked


@pytest.mark.parametrize("kind", Kind)
def test_a_meter_started_again_sends_the_same_bytes(kind: Kind) -> None:
    running = VirtualMeter(kind, "again", 3, zone=VIENNA)
    for instant_s in range(NOON, NOON + 100):
        spoken = running.tick(instant_s)
    again = VirtualMeter(kind, "again", 3, zone=VIENNA).tick(NOON + 99)
    assert again.telegram == spoken.telegram
    assert again.statement.values == spoken.statement.values
    assert (spoken.statement.n, again.statement.n) == (100, 1)
    assert again.statement.instant == datetime.fromtimestamp(NOON + 99, UTC)


def test_the_energy_between_two_telegrams_is_the_integral_of_the_stated_power() -> None:
    meter = VirtualMeter(Kind.SML, "energy", 0, zone=VIENNA, build=Build(pv=True))
    start = meter.tick(NOON).statement.values
    imported_ws = exported_ws = Decimal(0)
    for instant_s in range(NOON + 1, NOON + 7201):
        now = meter.tick(instant_s).statement.values
        power_w = now["1-0:16.7.0*255"]
        imported_ws += max(power_w, Decimal(0))
        exported_ws += max(-power_w, Decimal(0))
    resolution_ws = 360
    for code, energy_ws in (("1-0:1.8.0*255", imported_ws), ("1-0:2.8.0*255", exported_ws)):
        assert abs((now[code] - start[code]) * 3600 - energy_ws) < resolution_ws


def test_p1_and_sml_meters_of_one_household_agree() -> None:
    p1, sml = (VirtualMeter(kind, "same", 1, zone=VIENNA).tick(NOON).statement.values for kind in Kind)
    total_wh = (p1["1-0:1.8.1*255"] + p1["1-0:1.8.2*255"]) * 1000
    assert 0 <= sml["1-0:1.8.0*255"] - total_wh < 2
    assert (p1["1-0:1.7.0*255"] - p1["1-0:2.7.0*255"]) * 1000 == sml["1-0:16.7.0*255"]


def test_the_powers_of_the_phases_add_up_and_flow_one_way() -> None:
    meter = VirtualMeter(Kind.SML, "phases", 0, zone=VIENNA, build=Build(pv=True))
    signs = set()
    for instant_s in range(NOON, NOON + 86_400, 600):
        values = meter.tick(instant_s).statement.values
        power_w = values["1-0:16.7.0*255"]
        parts_w = [values[f"1-0:{c}.7.0*255"] for c in (36, 56, 76)]
        assert sum(parts_w) == power_w
        assert all(part_w * power_w >= 0 for part_w in parts_w)
        signs.add(power_w > 0)
    assert signs == {True, False}


@pytest.mark.parametrize("change_s", [AUTUMN_CHANGE, SPRING_CHANGE])
def test_p1_times_are_right_across_a_clock_change(change_s: int) -> None:
    meter = VirtualMeter(Kind.P1, "clock", 0, zone=VIENNA)
    for instant_s in range(change_s - 3 * 3600, change_s + 3 * 3600, 171):
        telegram = decode(Kind.P1, meter.tick(instant_s).telegram)
        assert telegram.time is not None
        assert telegram.time.timestamp() == instant_s


def test_gas_and_water_carry_the_time_of_their_own_reading() -> None:
    meter = VirtualMeter(Kind.P1, "channels", 0, zone=VIENNA)
    telegram = decode(Kind.P1, meter.tick(NOON + 1234).telegram)
    times = {str(register.obis): register.time for register in telegram.registers}
    assert times["0-1:24.2.1*255"] == datetime.fromtimestamp(NOON + 1200, UTC)
    assert times["0-2:24.2.1*255"] == datetime.fromtimestamp(NOON, UTC)
    assert set(meter.channels) == {1, 2}


def test_gas_and_water_change_only_when_they_are_read() -> None:
    meter = VirtualMeter(Kind.P1, "channels", 1, zone=VIENNA)
    gas = [meter.tick(NOON + second).statement.values["0-1:24.2.1*255"] for second in range(0, 7200, 10)]
    for position, (before, after) in enumerate(itertools.pairwise(gas), 1):
        assert before <= after
        assert before == after or position * 10 % 300 == 0
    assert gas[0] < gas[-1]


def test_a_meter_may_lack_gas_water_and_phases() -> None:
    build = Build(gas=False, water=False, phases=1)
    meter = VirtualMeter(Kind.P1, "bare", 0, zone=VIENNA, build=build)
    telegram = meter.tick(NOON).telegram
    assert b"24.2.1" not in telegram
    assert b"1-0:52.7.0" not in telegram
    assert b"1-0:32.7.0" in telegram
    assert meter.channels == {}


def test_meter_ids_are_stable_uuids() -> None:
    assert meter_id("1", 0) == str(UUID("295748dd-25c7-5ce9-8971-ffd2fc5be68d"))
    assert len({meter_id("1", index) for index in range(100)} | {meter_id("2", 0)}) == 101
