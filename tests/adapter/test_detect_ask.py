"""Meters that speak when they are asked, radio meters and JSON devices are found by detection."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from meterway.adapter.config import HttpSource, MqttSource, SerialSource, TcpSource
from meterway.adapter.detect import Detector
from meterway.adapter.detect_place import USUAL_PATHS, sources
from meterway.adapter.detect_plan import LINES, Listening, plan
from meterway.adapter.prepare import prepare
from meterway.core.errors import SetupError
from meterway.meter.family import load_family
from meterway.meter.keys import Keys
from meterway.meter.master import Send
from meterway.meter.modbus_map import Framing
from meterway.meter.virtual import encode_wmbus as radio
from meterway.meter.virtual.answer_dlms import AnsweringDlmsMeter
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from meterway.meter.virtual.dlms_side import DlmsSide
from meterway.meter.virtual.mbus_slave import MbusSegment
from meterway.meter.virtual.modbus_slave import ModbusBus, ModbusSlave
from meterway.meter.wmbus_receivers import start_bytes
from support.brokers import RunningBroker
from support.detect import KNOWN, answering, asking, configured, detect, gateway, known, listen, port, receiving, sample
from support.dlms_wire import KEYS, SIDE
from support.iec_wire import PtyMeter
from support.links import HttpDevice, always, answer
from support.mbus import HEAT, WATER, volume_slave
from support.platform import MqttClient
from support.wmbus import HEAT as RADIO_HEAT
from support.wmbus import KEY, RECORDS
from support.wmbus import WATER as RADIO_WATER


def modbus(name: str, framing: Framing, *units: int) -> ModbusBus:
    """Return virtual meters with the values of a family's sample."""
    family, _ = sample(name)
    assert family.modbus is not None
    assert family.sample is not None
    values = {obis: Decimal(value) for obis, value, unit, *_ in family.sample.registers if unit or "." in value}
    return ModbusBus([ModbusSlave(family.modbus, lambda: values, unit_id=unit) for unit in units], framing)


@pytest.mark.parametrize(
    ("name", "framing", "address"),
    [
        ("modbus-eastron-sdm630", "tcp", "1/tcp"),
        ("modbus-eastron-sdm120", "rtu", "1"),
        ("modbus-carlo-gavazzi-em24", "tcp", "1/tcp"),
        ("modbus-carlo-gavazzi-em340", "rtu", "1"),
    ],
)
async def test_modbus_meter_in_the_network(name: str, framing: Framing, address: str) -> None:
    bus = modbus(name, framing, 1)
    word = "TCP" if framing == "tcp" else "RTU"
    async with answering(bus.feed) as source:
        result = await detect(source, asking(source, KNOWN, f"Modbus {word}"))
    [found] = result.found
    assert name in (found.candidate.family.name, *found.others)
    assert found.address == address
    [meter] = configured([found]).meters
    prepare(meter)


async def test_modbus_units_on_a_port_are_all_found() -> None:
    bus = modbus("modbus-eastron-sdm630", "rtu", 2, 3)
    async with port(reply=bus.feed) as source:
        result = await detect(source, asking(source, KNOWN, "Modbus RTU meters at 9600 8N1"))
    assert [found.address for found in result.found] == ["2", "3"]
    assert result.attempts[0].outcome == "unit 2, 3 answers"
    assert len(configured(result.found).meters) == 2


async def test_modbus_gateway_with_nobody_behind_it() -> None:
    bus = ModbusBus([], "tcp")
    async with answering(bus.feed) as source:
        result = await detect(source, asking(source, KNOWN, "Modbus TCP"))
    assert [finding.code for finding in result.findings] == ["gateway-alone"]


async def test_modbus_device_that_is_no_meter() -> None:
    """Registers that hold anything but a grid's voltage."""
    family, _ = sample("modbus-eastron-sdm630")
    assert family.modbus is not None
    slave = ModbusSlave(family.modbus, lambda: {"1-0:32.7.0": Decimal("12.5"), "1-0:14.7.0": Decimal(3)})
    async with answering(ModbusBus([slave], "tcp").feed) as source:
        result = await detect(source, asking(source, KNOWN, "Modbus TCP"))
    assert result.found == []
    assert [finding.code for finding in result.findings] == ["unknown-registers"]


async def test_line_of_a_gateway_cannot_be_set_and_that_is_said() -> None:
    async with gateway(b"") as source:
        result = await detect(source, asking(source, KNOWN, "at 19200 8N1"))
    assert "cannot be set over plain TCP" in result.attempts[0].outcome


async def test_three_meters_of_an_mbus_segment() -> None:
    other = WATER._replace(number="30000001")
    cold = WATER._replace(number="50000001")
    segment = MbusSegment([volume_slave(HEAT, 1), volume_slave(cold, 2), volume_slave(other, 3)])
    async with answering(lambda data: segment.feed(data, 2400)) as source:
        result = await detect(source, asking(source, KNOWN, "M-Bus meters at 2400"))
    assert sorted(found.candidate.family.name for found in result.found) == ["mbus-heat", "mbus-water", "mbus-water"]
    config = configured(result.found)
    assert {meter.address[:8] for meter in config.meters} == {HEAT.number, "30000001", "50000001"}
    for meter in config.meters:
        prepare(meter)


async def test_mbus_meters_that_understand_no_selection_are_looked_for_by_primary_address() -> None:
    """All answer at once when asked as whoever is there; then each address is asked, which takes five minutes."""
    segment = MbusSegment([volume_slave(HEAT, 1), volume_slave(WATER, 2)])
    scans = asyncio.Event()

    def primary_only(data: bytes) -> bytes:
        return b"" if data[:1] == b"\x68" else segment.feed(data, 2400)

    async with answering(primary_only) as source:
        looking = Detector(source, KNOWN, say=lambda what, _: scans.set() if "250 M-Bus addresses" in what else None)
        running = asyncio.create_task(looking.run(asking(source, KNOWN, "M-Bus meters at 2400")))
        await asyncio.wait_for(scans.wait(), 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert looking.result.attempts[0].outcome.endswith("that are no answer")


class Answering:
    """A DLMS meter in the network; each connection is a new session."""

    def __init__(self, side: DlmsSide) -> None:
        self.meter = AnsweringDlmsMeter(side)

    def __call__(self, data: bytes) -> bytes:
        return b"".join(effect.data for effect in self.meter.feed(data) if isinstance(effect, Send))


async def test_dlms_meter_in_the_network() -> None:
    async with answering(Answering(replace(SIDE, transport="wrapper"))) as source:
        result = await detect(source, asking(source, KNOWN, "in the wrapper of TCP"))
    [found] = result.found
    assert found.candidate.family.name == "dlms-pull-tcp"
    assert found.candidate.readings
    prepare(configured([found]).meters[0])


async def test_dlms_meter_that_shows_nothing_without_keys() -> None:
    side = replace(SIDE, transport="wrapper", client=1, security="gmac", keys=KEYS, is_ciphered=True)
    async with answering(Answering(side)) as source:
        result = await detect(source, asking(source, KNOWN, "in the wrapper of TCP"))
    assert result.found == []
    [finding] = result.findings
    assert finding.code == "no-rights"
    assert "--key-file" in finding.fix


async def test_dlms_meter_over_hdlc_is_told_though_no_family_is_asked_so() -> None:
    async with port(reply=Answering(SIDE)) as source:
        result = await detect(source, asking(source, KNOWN, "over HDLC at 9600"))
    if result.found:
        assert result.found[0].candidate.readings
    else:
        assert [finding.code for finding in result.findings] == ["no-family"]


async def test_battery_meter_is_woken_up() -> None:
    lines = ("6.8(0123.456*MWh)6.26(01234.56*m3)9.21(66153690)",)
    side = MeterSide(identification="LUGCUH50", lines=lines, sleeps=True)
    with PtyMeter(AnsweringMeter(side)) as meter:
        source = SerialSource(port=Path(meter.device))
        result = await detect(source, asking(source, KNOWN, "wake-up"))
    [found] = result.found
    sign_on = found.candidate.family.sign_on
    assert sign_on is not None
    assert sign_on.wake_up_bytes


def heard() -> list[bytes]:
    """What a receiver hears: a meter in the clear, one whose key is known, one of somebody else."""
    other = RADIO_WATER._replace(number="30000002")
    return [
        radio.linked(RADIO_HEAT, radio.clear(RECORDS, access=1)),
        radio.linked(RADIO_WATER, radio.mode_5(RADIO_WATER, RECORDS, key=KEY, access=17)),
        radio.linked(other, radio.mode_5(other, RECORDS, key=bytes(16), access=18)),
    ]


async def test_radio_meters_that_a_receiver_hears_are_listed(tmp_path: Path) -> None:
    said = b"".join(radio.im871a(content) for content in heard())

    def receiver(data: bytes) -> bytes:
        return b"\xa5\x81\x04\x00" + said if data == start_bytes("im871a", "T") else b""

    what = known(Keys(KEY))
    async with port(reply=receiver) as source:
        steps = [replace(step, first_s=10.0, listen_s=2.0) for step in receiving(source, what, "im871a")]
        result = await detect(source, steps, what)
    by_number = {found.address[-8:]: found for found in result.found}
    assert set(by_number) == {RADIO_HEAT.number, RADIO_WATER.number, "30000002"}
    assert by_number[RADIO_HEAT.number].needs == frozenset()
    assert by_number[RADIO_WATER.number].candidate.readings
    assert by_number[RADIO_WATER.number].candidate.family.meter_class.value == "WATER"
    assert by_number["30000002"].is_locked
    assert by_number["30000002"].candidate.family.name == "wmbus-water"
    assert by_number["30000002"].candidate.family.meter_class.value == "WATER"
    [finding] = result.findings
    assert finding.code == "wrong-key"
    key_file = tmp_path / "key"
    key_file.write_text(KEY.hex())
    config = configured(result.found, key_file=key_file)
    assert [meter.key_file for meter in config.meters if meter.address.endswith(RADIO_WATER.number)] == [key_file]
    assert [meter.key_file for meter in config.meters].count(None) == 2
    for meter in config.meters:
        assert isinstance(meter.source, SerialSource)
        assert meter.source.receiver == "im871a"
        prepare(meter)


async def test_echo_of_an_optical_head_is_no_receiver() -> None:
    async with port(reply=bytes) as source:
        [step] = receiving(source, KNOWN, "amber")
        result = await detect(source, [replace(step, first_s=0.5)])
    assert [attempt.outcome for attempt in result.attempts] == ["nothing came"]


async def test_receiver_that_hears_nobody_is_tried_in_its_other_mode() -> None:
    async with port(reply=lambda data: b"TMODE\r\n" if b"br" in data else b"") as source:
        [step] = receiving(source, KNOWN, "cul")
        result = await detect(source, [replace(step, first_s=10.0, listen_s=0.5)])
    assert [attempt.what.rpartition("mode ")[2] for attempt in result.attempts] == ["T", "C"]
    assert all("no radio meter" in attempt.outcome for attempt in result.attempts)


async def test_device_that_is_asked_over_http() -> None:
    _, document = sample("json-homewizard-p1")
    async with HttpDevice(always(answer(document))).serving() as device:
        [source] = sources(device.url)
        result = await listen(source)
    [found] = result.found
    assert found.candidate.family.name == "json-homewizard-p1"
    config = configured([found])
    assert isinstance(config.meters[0].source, HttpSource)
    prepare(config.meters[0])


async def test_page_that_is_no_meter() -> None:
    async with HttpDevice(always(answer(b"<html>It works!</html>"))).serving() as device:
        [source] = sources(device.url)
        result = await listen(source)
    [finding] = result.findings
    assert finding.code == "unknown-document"
    assert "It works" in finding.detail


def test_device_without_a_path_is_asked_at_the_usual_ones() -> None:
    found = sources("http://192.168.1.30/")
    assert [source.url for source in found if isinstance(source, HttpSource)] == [
        f"http://192.168.1.30{path}" for path in USUAL_PATHS
    ]


async def test_devices_of_a_topic(mosquitto: RunningBroker) -> None:
    _, document = sample("json-tasmota-energy")
    [source] = sources(f"{mosquitto.url}/tele/+/SENSOR")
    assert isinstance(source, MqttSource)
    looking = Detector(source, KNOWN, say=lambda *_: None)
    [step] = plan(source, KNOWN, listen_s=1.0)
    assert isinstance(step, Listening)

    with MqttClient(mosquitto.config) as client:
        running = asyncio.create_task(looking.run([step]))
        while not running.done():
            for name in ("cellar", "garage"):
                await asyncio.to_thread(client.publish, f"tele/{name}/SENSOR", document)
            await asyncio.sleep(0.05)
        await running
    assert {found.address for found in looking.result.found} == {"cellar", "garage"}
    for meter in configured(looking.result.found).meters:
        prepare(meter)


def test_places_that_are_none() -> None:
    for place in ("cellar", "tcp://cellar", "mqtt://broker", "mqtt://broker/#", "http://user:secret@cellar/"):
        with pytest.raises(SetupError) as error:
            sources(place)
        assert "secret" not in str(error.value)


def test_port_502_is_asked_for_modbus_first() -> None:
    steps = plan(TcpSource(host="a", port=502), KNOWN)
    assert "Modbus TCP" in steps[1].what
    assert "DLMS" in plan(TcpSource(host="a", port=4059), KNOWN)[1].what


def test_first_settings_are_those_of_the_standard_heads() -> None:
    steps = plan(SerialSource(port=Path("/dev/ttyUSB0")), KNOWN)
    assert tuple(step.line for step in steps[:4]) == LINES
    assert load_family("iec-generic").line == steps[4].line
