"""Others speak with Meterway over nothing but MQTT and HTTP: mosquitto's own clients and bridge."""

import json
import re
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from meterway.adapter.config import AdapterConfig, MeterConfig
from meterway.concentrator.config import ConcentratorConfig
from meterway.delivery.config import RelayConfig
from support.brokers import RunningBroker, running_mosquitto, running_nats
from support.platform import Api, component, meter_configs, running_cloud, virtual_meters, wait_for
from support.postgres import Server

ID = "[A-Za-z0-9_-]{1,64}"
SPECIFIC = {"readings", "status", "meter", "faults"}
FROM_ADAPTER = re.compile(rf"smartMeterMessage/(?P<meter>{ID})/(?P<specific>{'|'.join(SPECIFIC)})")
FROM_CONCENTRATOR = re.compile(rf"concentrator/chain/(?P<rest>{FROM_ADAPTER.pattern})")
OF_CONCENTRATOR = re.compile(r"concentrator/chain/status")
# NATS refuses a client identifier with a dot, which is what a bridge calls itself without remote_clientid.
BRIDGE = """\
connection to-the-cloud
address 127.0.0.1:{port}
bridge_protocol_version mqttv311
remote_clientid bridge
cleansession false
notifications false
try_private false
restart_timeout 1
topic # out 1 smartMeterMessage/ concentrator/bridge/smartMeterMessage/
"""


class Watch:
    """``mosquitto_sub`` on one filter; a message is (topic, payload, retained)."""

    def __init__(self, port: int, topic_filter: str) -> None:
        command = ["mosquitto_sub", "-p", str(port), "-q", "1", "-F", "%t %r %X", "-t", topic_filter]
        self.messages: list[tuple[str, bytes, bool]] = []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            topic, retained, payload, *_ = [*line.decode().rstrip("\n").split(" "), ""]
            self.messages.append((topic, bytes.fromhex(payload), retained == "1"))

    def end(self) -> None:
        self._process.terminate()
        self._reader.join()
        self._process.communicate()


@contextmanager
def watching(port: int, topic_filter: str) -> Iterator[Watch]:
    watch = Watch(port, topic_filter)
    try:
        yield watch
    finally:
        watch.end()


def publish(port: int, topic: str, payload: bytes) -> None:
    command = ["mosquitto_pub", "-p", str(port), "-q", "1", "-t", topic, "-s"]
    subprocess.run(command, input=payload, check=True, timeout=30)


@dataclass(frozen=True, slots=True)
class Chain:
    """Everything between meters and API, each a process of its own, on one broker that asks nobody for a password."""

    broker: RunningBroker
    api: Api
    meters: tuple[MeterConfig, ...]


@pytest.fixture(scope="module", params=["nats", "mosquitto"])
def chain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: Server
) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("interop")
    run = running_nats if request.param == "nats" else running_mosquitto
    with ExitStack() as stack:
        broker = stack.enter_context(run(folder / "broker"))
        api = stack.enter_context(running_cloud(folder / "cloud", broker.config, postgres_server))
        concentrator = ConcentratorConfig(
            id="chain", local=broker.config, cloud=broker.config, spool_dir=folder / "concentrator-spool"
        )
        stack.enter_context(component(folder, "concentrator", concentrator))
        arguments = ("--kind", "p1", "--kind", "sml", "--count", "2", "--speed", "5", "--fault", "checksum=0.2")
        meters = meter_configs(stack.enter_context(virtual_meters(folder, *arguments)))
        adapter = AdapterConfig(id="chain", meters=meters, broker=broker.config, spool_dir=folder / "adapter-spool")
        stack.enter_context(component(folder, "adapter", adapter))
        yield Chain(broker, api, meters)


def by_topic(messages: list[tuple[str, bytes, bool]]) -> dict[str, set[bytes]]:
    """Return the payloads of each topic; brokers may deliver a message twice."""
    found: dict[str, set[bytes]] = defaultdict(set)
    for topic, payload, _ in messages:
        found[topic].add(payload)
    return dict(found)


def test_a_foreign_subscriber_sees_exactly_the_required_topics_with_the_same_bytes(chain: Chain) -> None:
    port = chain.broker.port
    ids = {meter.id for meter in chain.meters} | {each.id for meter in chain.meters for each in meter.channels}
    with watching(port, "smartMeterMessage/#") as near, ExitStack() as stack:
        wait_for(lambda: sum(topic.endswith("/readings") for topic, *_ in near.messages) >= 5, "readings")
        far = stack.enter_context(watching(port, "concentrator/#"))

        def specific_topics(watch: Watch) -> set[str]:
            return {topic.rpartition("/")[2] for topic, _, _ in watch.messages if "smartMeterMessage/" in topic}

        wait_for(lambda: specific_topics(near) == SPECIFIC, "an adapter publishes every specific topic")
        wait_for(lambda: specific_topics(far) == SPECIFIC, "a concentrator publishes every specific topic")
        begin = len(near.messages)
        wait_for(lambda: len(near.messages) >= begin + 30, "30 more messages")
        seen = near.messages[begin : begin + 30]

        def arrived() -> bool:
            forwarded = by_topic(far.messages)
            return all(
                payload in forwarded.get(f"concentrator/chain/{topic}", ())
                for topic, payload, retained in seen
                if not retained
            )

        wait_for(arrived, "every payload is on the concentrator's topic, byte for byte")
    for topic, _, _ in near.messages:
        found = FROM_ADAPTER.fullmatch(topic)
        assert found, topic
        assert found["meter"] in ids
    original = by_topic(near.messages)
    for topic, payload, _ in far.messages:
        found = FROM_CONCENTRATOR.fullmatch(topic)
        assert found or OF_CONCENTRATOR.fullmatch(topic), topic
        if found:
            assert payload in original[found["rest"]], f"{topic}: the concentrator says what no adapter said"


def test_status_and_description_are_kept_for_who_comes_later_and_readings_are_not(chain: Chain) -> None:
    wait_for(lambda: len(chain.api.all_readings([chain.meters[0].id])) > 0, "the meter speaks")
    with watching(chain.broker.port, f"smartMeterMessage/{chain.meters[0].id}/#") as late:
        wait_for(lambda: sum(not retained for *_, retained in late.messages) >= 3, "and goes on speaking")
    kept = {topic.rpartition("/")[2]: payload for topic, payload, retained in late.messages if retained}
    assert set(kept) == {"status", "meter"}
    assert json.loads(kept["status"])["state"] == "online"
    assert json.loads(kept["meter"])["meterIndividualId"] == chain.meters[0].id


def stored(api: Api, meter_id: str) -> dict[str, Any]:
    """Return the one reading of a meter, once it is stored."""
    wait_for(lambda: len(api.query(meterIds=[meter_id])) > 0, f"a reading of {meter_id} is stored")
    (reading,) = api.query(meterIds=[meter_id])
    return reading


def test_the_flat_shape_of_the_reference_implementation_is_stored_with_its_numbers(chain: Chain) -> None:
    concentrator_id, meter_id = str(uuid4()), str(uuid4())
    sent = {
        "readingTime": "2026-10-17T07:45:30+02:00",
        "meterId": meter_id,
        "propertyValues": [
            {"propertyName": "1.7.0", "numericalValue": "0.4120", "unit": "kW"},
            {"propertyName": "1.8.0", "numericalValue": "90071992547409.931", "unit": "kWh"},
            {"propertyName": "32.7.0", "numericalValue": "231", "unit": "V"},
        ],
    }
    topic = f"concentrator/{concentrator_id}/smartMeterMessage/{meter_id}/readings"
    publish(chain.broker.port, topic, json.dumps(sent).encode())
    reading = stored(chain.api, meter_id)
    assert reading["readingTime"] == "2026-10-17T05:45:30Z"
    values = [(each["propertyName"], str(each["numericalValue"]), each["unit"]) for each in reading["propertyValues"]]
    assert values == [
        ("OBIS_1.7.0", "0.4120", "kW"),
        ("OBIS_1.8.0", "90071992547409.931", "kWh"),
        ("OBIS_32.7.0", "231", "V"),
    ]
    publish(chain.broker.port, topic, json.dumps(sent).encode())
    other = json.dumps(sent | {"readingTime": "2026-10-17T07:46:30+02:00"}).encode()
    publish(chain.broker.port, topic, other)
    wait_for(lambda: len(chain.api.query(meterIds=[meter_id])) > 1, "the next reading is stored")
    assert len(chain.api.query(meterIds=[meter_id])) == 2, "the same message again is the same reading"


def test_the_nested_shape_of_the_specification_is_stored_with_its_numbers(chain: Chain) -> None:
    meter_id = str(uuid4())
    sent = {
        "meterReadingIdentifier": "reading-0042",
        "readingTime": "2026-10-17T07:45:30+02:00",
        "faultCode": "none",
        "sequenceNumber": 42,
        "propertyValues": [
            {
                "numericalValue": 4711.250,
                "unit": "kWh",
                "operationalPropertyDefinition": {
                    "propertyId": "OBIS_1.8.0",
                    "propertyDescription": "Active energy, import",
                    "allowedUnits": ["kWh", "Wh"],
                },
            },
            {
                "textValue": "all is well",
                "operationalPropertyDefinition": {"propertyId": "OBIS_96.13.0", "propertyDescription": "Message"},
            },
        ],
        "meterIndividual": {
            "meterIndividualId": meter_id,
            "householdId": str(uuid4()),
            "physicalMeterType": {
                "physicalElementId": str(uuid4()),
                "physicalElementName": "A meter of our own",
                "physicalElementVersionId": "1",
                "physicalElementIsVirtual": True,
                "physicalMeterClass": "ELECTRICITY",
                "physicalMeterOperationalProperties": [
                    {"propertyId": "OBIS_1.8.0", "propertyName": "1.8.0", "allowedUnits": ["kWh"]}
                ],
            },
        },
    }
    publish(
        chain.broker.port,
        f"concentrator/other/smartMeterMessage/{meter_id}/readings",
        json.dumps(sent, indent=1).encode(),
    )
    reading = stored(chain.api, meter_id)
    assert (reading["sequenceNumber"], reading["faultCode"]) == (42, "none")
    energy, message = reading["propertyValues"]
    assert (energy["propertyName"], energy["numericalValue"], energy["unit"]) == (
        "OBIS_1.8.0",
        Decimal("4711.25"),
        "kWh",
    )
    assert (message["propertyName"], message["textValue"]) == ("OBIS_96.13.0", "all is well")


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_a_mosquitto_bridge_is_a_foreign_concentrator(kind: str, postgres_server: Server, tmp_path: Path) -> None:
    """It sends no receipts, so the adapter takes its broker's word."""
    run = running_nats if kind == "nats" else running_mosquitto
    with ExitStack() as stack:
        far = stack.enter_context(run(tmp_path / "far"))
        near = stack.enter_context(running_mosquitto(tmp_path / "near", extra=BRIDGE.format(port=far.port)))
        api = stack.enter_context(running_cloud(tmp_path / "cloud", far.config, postgres_server))
        watch = stack.enter_context(watching(near.port, "smartMeterMessage/+/readings"))
        speaking = stack.enter_context(ExitStack())
        meters = meter_configs(speaking.enter_context(virtual_meters(tmp_path, "--kind", "sml", "--speed", "10")))
        adapter = AdapterConfig(
            id="bridged",
            meters=meters,
            broker=near.config,
            spool_dir=tmp_path / "spool",
            relay=RelayConfig(confirm="broker"),
        )
        process = stack.enter_context(component(tmp_path, "adapter", adapter))
        wait_for(lambda: len(api.all_readings()) >= 20, "readings cross the bridge")
        speaking.close()
        assert process.stop() == 0
        sent = {json.loads(payload)["meterReadingIdentifier"] for _, payload, _ in watch.messages}
        wait_for(lambda: len(api.all_readings()) >= len(sent), "the rest has crossed it")
        readings = api.all_readings()
        (listed,) = api.get("/v1/meters")["content"]
    assert sent <= {reading["readingId"] for reading in readings}
    numbers = sorted(reading["sequenceNumber"] for reading in readings)
    assert numbers == list(range(1, len(numbers) + 1))
    assert listed["meterId"] == meters[0].id
