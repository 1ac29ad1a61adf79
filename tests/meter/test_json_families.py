"""Families of JSON sources: each sample decodes to what stands beside it, passes the gate, and can be written again."""

from datetime import datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.properties import Medium, catalogue
from meterway.core.zones import find_zone
from meterway.meter.codec import CodecError
from meterway.meter.family import Family, Sample, family_names, load_family
from meterway.meter.json_documents import JsonDecoder
from meterway.meter.json_map import JsonMap, JsonValue
from meterway.meter.telegram import Register, Telegram, channel_media
from meterway.meter.virtual.encode_json import Message, encode_json
from meterway.testing import check_codec

FAMILIES = [name for name in family_names() if name.startswith("json-")]
IDENTITIES = {
    "json-wmbusmeters-electricity": "42000044",
    "json-wmbusmeters-heat": "42000043",
    "json-wmbusmeters-water": "42000042",
}
LATER_S = 60.0
SMALL_BYTES = 8192


def profile(family: Family) -> JsonMap:
    assert family.json is not None
    return family.json


def sample(family: Family) -> Sample:
    assert family.sample is not None
    return family.sample


def decode(family: Family, data: bytes) -> list[Telegram | CodecError]:
    made = JsonDecoder(profile(family), find_zone(family.timezone), IDENTITIES.get(family.name, ""))
    return [*made.feed(data, 0.0), *made.idle(LATER_S)]


def written(registers: tuple[Register, ...]) -> list[tuple[Obis, str, str | None, datetime | None]]:
    return [(register.obis, str(register.value), register.unit, register.time) for register in registers]


def expected(family: Family) -> list[tuple[Obis, str, str | None, datetime | None]]:
    return [
        (Obis.parse(code), value, unit or None, datetime.fromisoformat(time[0]) if time else None)
        for code, value, unit, *time in sample(family).registers
    ]


def envelope(message: Message) -> bytes:
    """Return what a link hands on of a subscription with a wildcard."""
    return msgspec.json.encode({"topic": f"a/b/{message.topic}", "payload": message.payload.decode()}) + b"\n"


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_decodes_to_what_stands_beside_it(name: str) -> None:
    family = load_family(name)
    assert family.protocol == "json"
    [telegram] = decode(family, sample(family).telegram)
    assert isinstance(telegram, Telegram), str(telegram)
    assert written(telegram.registers) == expected(family)
    if profile(family).time and "homewizard" not in name and "shelly-3em" not in name:
        assert telegram.time == datetime.fromisoformat(
            "2026-01-14T18:30:05+01:00" if name == "json-gplug" else "2026-07-14T18:30:05+02:00"
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_passes_the_gate(name: str) -> None:
    family = load_family(name)
    ungathered = msgspec.structs.replace(profile(family), gather_s=0)
    zone = find_zone(family.timezone)
    report = check_codec(
        lambda: JsonDecoder(ungathered, zone, IDENTITIES.get(name, ""), limit_bytes=SMALL_BYTES),
        sample(family).telegram,
        limit_bytes=SMALL_BYTES,
        weak_checksum=True,
    )
    assert report.telegrams >= 1
    assert report.errors == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_every_value_is_in_the_catalogue_and_has_a_unit_of_it(name: str) -> None:
    family = load_family(name)
    kinds = [
        Register(Obis.parse(value.obis), Decimal(value.constant)) for value in profile(family).values if value.constant
    ]
    media = channel_media(kinds)
    for value in profile(family).values:
        for code in filter(None, (value.obis, value.negative)):
            obis = Obis.parse(code)
            found = catalogue().for_obis(obis, media.get(obis.b, Medium.ELECTRICITY))
            assert found is not None, code
            if not found.kind.may_be_text:
                found.check_unit(value.unit or None)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_virtual_meter_says_the_same_in_its_own_documents(name: str) -> None:
    family = load_family(name)
    zone = find_zone(family.timezone)
    [telegram] = decode(family, sample(family).telegram)
    assert isinstance(telegram, Telegram)
    identity = IDENTITIES.get(name, "42")
    messages = encode_json(profile(family), telegram.registers, zone=zone, time=telegram.time, meter=identity)
    [again] = decode(family, b"".join(map(envelope, messages)))
    assert isinstance(again, Telegram), str(again)
    assert sorted(map(str, written(again.registers))) == sorted(map(str, written(telegram.registers)))
    assert again.time == telegram.time


NUMBERS = st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, allow_infinity=False, places=3)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_written_is_read_again_digit_for_digit(data: st.DataObject) -> None:
    family = load_family(data.draw(st.sampled_from([name for name in FAMILIES if profile(load_family(name)).values])))
    anything = msgspec.structs.replace(profile(family), any_of=())
    family = msgspec.structs.replace(family, json=anything)
    free = [value for value in anything.values if not (value.constant or value.text or value.time or arrays(value))]
    registers = []
    for value in data.draw(st.lists(st.sampled_from(free), min_size=1, unique_by=lambda value: value.obis)):
        number = data.draw(NUMBERS)
        if value.negative:
            back = Decimal(0) if number >= 0 else -number
            registers.append(Register(Obis.parse(value.negative), back, value.unit))
            number = Decimal(0) if number < 0 else number
        registers.append(Register(Obis.parse(value.obis), number, value.unit or None))
    identity = IDENTITIES.get(family.name, "42")
    messages = encode_json(anything, registers, zone=find_zone(family.timezone), meter=identity)
    [telegram] = decode(family, b"".join(map(envelope, messages)))
    assert isinstance(telegram, Telegram), str(telegram)
    constants = {Obis.parse(value.obis) for value in anything.values if value.constant}
    found = tuple(register for register in telegram.registers if register.obis not in constants)
    assert sorted(map(str, written(found))) == sorted(map(str, written(tuple(registers))))


def arrays(value: JsonValue) -> bool:
    """Return whether it stands where the same device has either one number or an array."""
    return any(path.endswith(("/0", "/1", "/2")) for path in value.paths)


def test_a_source_of_several_meters_needs_an_address() -> None:
    family = load_family("json-wmbusmeters-water")
    with pytest.raises(SetupError, match="several meters; set `address`"):
        JsonDecoder(profile(family), find_zone(family.timezone))


def test_of_several_meters_each_decoder_takes_its_own() -> None:
    family = load_family("json-wmbusmeters-water")
    lines = b'{"id":"11111111","total_m3":1}\n{"id":"42000042","total_m3":2}\n{"id":"33333333","total_m3":3}\n'
    [telegram] = decode(family, lines)
    assert isinstance(telegram, Telegram)
    assert telegram.meter == "42000042"
    assert [register.value for register in telegram.registers] == [Decimal(2)]


def test_homewizard_has_two_namings() -> None:
    family = load_family("json-homewizard-p1")
    second = b"""{"timestamp": "2026-07-14T18:30:05", "unique_id": "00", "energy_import_kwh": 9753.207, "power_w": -577,
      "external": [{"type": "gas_meter", "timestamp": "2026-07-14T18:30:00", "value": 456.789, "unit": "m3"}]}"""
    [telegram] = decode(family, second)
    assert isinstance(telegram, Telegram)
    assert telegram.time == datetime.fromisoformat("2026-07-14T18:30:05+02:00")
    assert [(str(register.obis), register.value) for register in telegram.registers] == [
        ("1-0:1.8.0*255", Decimal("9753.207")),
        ("1-0:16.7.0*255", Decimal(-577)),
        ("0-1:24.1.0*255", Decimal(3)),
        ("0-1:24.2.1*255", Decimal("456.789")),
    ]
    assert telegram.registers[-1].time == datetime.fromisoformat("2026-07-14T18:30:00+02:00")


def test_shelly_pro_says_the_same_over_mqtt_in_three_ways() -> None:
    family = load_family("json-shelly-pro3em")
    for line in (
        b'{"topic":"shellypro3em-0a/status/em:0","payload":{"id":0,"total_act_power":314.159}}\n',
        b'{"topic":"x/rpc","payload":"{\\"id\\":1,\\"src\\":\\"shellypro3em-0a\\",\\"result\\":{\\"total_act_power\\":314.159}}"}\n',
        b'{"src":"shellypro3em-0a","method":"NotifyStatus","params":{"ts":1784046605.12,"em:0":{"total_act_power":314.159}}}\n',
    ):
        [telegram] = decode(family, line)
        assert isinstance(telegram, Telegram)
        assert [str(register.value) for register in telegram.registers] == ["314.159"]
        if b"NotifyStatus" in line:
            assert telegram.time == datetime.fromisoformat("2026-07-14T16:30:05.120000+00:00")


def test_tasmota_with_three_phases_sends_arrays() -> None:
    family = load_family("json-tasmota-energy")
    line = (
        b'{"Time":"2026-07-14T18:30:05","ENERGY":{"Total":[1.5,2.5,3.5],"Power":[10,-20,30],"Voltage":[230,231,232]}}\n'
    )
    [telegram] = decode(family, line)
    assert isinstance(telegram, Telegram)
    assert [(register.obis.reduced, str(register.value)) for register in telegram.registers] == [
        ("21.8.0", "1.5"),
        ("41.8.0", "2.5"),
        ("61.8.0", "3.5"),
        ("36.7.0", "10"),
        ("56.7.0", "-20"),
        ("76.7.0", "30"),
        ("32.7.0", "230"),
        ("52.7.0", "231"),
        ("72.7.0", "232"),
    ]


def test_script_of_an_optical_head_may_name_its_group_as_it_likes() -> None:
    family = load_family("json-tasmota-sml")
    line = b'{"Time":"2026-07-14T18:30:05","WIFI":{"rssi":3},"MT175":{"Total_in":1.5,"Power_curr":-20}}\n'
    [telegram] = decode(family, line)
    assert isinstance(telegram, Telegram)
    assert [(register.obis.reduced, str(register.value)) for register in telegram.registers] == [
        ("1.8.0", "1.5"),
        ("16.7.0", "-20"),
    ]


def test_whatwatt_labels_local_time_as_utc() -> None:
    family = load_family("json-whatwatt")
    [telegram] = decode(family, b'{"P_In":0.014,"E_In":200.934,"Meter":{"DateTime":"2026-01-17T15:52:50Z"}}')
    assert isinstance(telegram, Telegram)
    assert telegram.time == datetime.fromisoformat("2026-01-17T15:52:50+01:00")
