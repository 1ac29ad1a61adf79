"""Whatever is sent, at the meter's port or over MQTT: a clear reason, nothing falls over, the good ones arrive."""

import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from meterway.adapter.config import AdapterConfig, MeterConfig, TcpSource
from meterway.concentrator.config import ConcentratorConfig
from meterway.meter.crc import crc16_arc
from support.brokers import RunningBroker, running_mosquitto, running_nats
from support.platform import Api, MqttClient, Process, component, running_cloud, wait_for
from support.postgres import Server

ANSWER_WITHIN_S = 60.0
TEN_MEGABYTES = 10_000_000
WIRED = str(uuid4())
"""The meter that the adapter reads."""


class Gateway:
    """Stands where a serial-to-TCP gateway would: what is said goes to everyone who is connected."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._readers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            reader, _ = self._listener.accept()
            if self.port == 0:
                reader.close()
                return
            self._readers.append(reader)

    def say(self, data: bytes) -> None:
        wait_for(lambda: bool(self._readers), "the adapter is connected")
        self._readers[-1].sendall(data)

    def close(self) -> None:
        port, self.port = self.port, 0
        socket.create_connection(("127.0.0.1", port)).close()
        self._thread.join()
        for each in (self._listener, *self._readers):
            each.close()


@dataclass(slots=True)
class Chain:
    """Adapter, concentrator and cloud, each a process of its own, on one broker."""

    broker: RunningBroker
    api: Api
    gateway: Gateway
    processes: list[Process]
    client: MqttClient
    good: list[str] = field(default_factory=list)
    telegrams: int = 0

    def publish_good(self) -> str:
        """Publish a good reading of a new meter where adapters do; return the meter's id."""
        meter_id = str(uuid4())
        self.client.publish(f"smartMeterMessage/{meter_id}/readings", message(meter_id))
        self.good.append(meter_id)
        return meter_id

    def say_good(self) -> None:
        """Say a good telegram at the meter's port."""
        self.telegrams += 1
        self.gateway.say(telegram(self.telegrams))

    def quarantined(self, topic: str) -> list[dict[str, Any]]:
        """Return what is in quarantine of a topic, once there is something."""
        found: list[dict[str, Any]] = []

        def some() -> bool:
            found[:] = [item for item in self.api.kept_aside("quarantine") if item["topic"] == topic]
            return bool(found)

        wait_for(some, f"something on {topic} is in quarantine")
        return found

    def check(self) -> None:
        """All processes still run, and all good readings are stored."""
        wait_for(lambda: {each["meterId"] for each in self.api.all_readings()} >= set(self.good), "the good ones")
        wait_for(lambda: len(self.api.all_readings([WIRED])) == self.telegrams, "the good telegrams")
        assert [each.name for each in self.processes if not each.running] == []
        for process in self.processes:
            assert "Traceback" not in process.err, process.err[-3000:]


def message(meter_id: str, **changes: object) -> bytes:
    """Return a reading on the wire, with some of its fields changed."""
    table = {
        "readingTime": datetime.now(UTC).isoformat(),
        "faultCode": None,
        "propertyValues": [
            {"operationalPropertyDefinition": {"propertyId": "OBIS_1.8.0"}, "numericalValue": 815.25, "unit": "kWh"}
        ],
        "meterIndividual": {"meterIndividualId": meter_id},
    }
    return json.dumps(table | changes).encode()


def telegram(number: int, *, clock: str | None = None, power: bytes = b"00.412*kW") -> bytes:
    """Return a telegram of a P1 port of our own making; each number is another second."""
    moment = datetime(2026, 11, 2, 6, tzinfo=UTC) + timedelta(seconds=number)
    body = b"/MWY5\\2BADINPUT\r\n\r\n1-3:0.2.8(50)\r\n0-0:1.0.0(%s)\r\n1-0:1.8.1(%010.3f*kWh)\r\n1-0:1.7.0(%s)\r\n!" % (
        (clock or moment.strftime("%y%m%d%H%M%SW")).encode(),
        815 + number / 1000,
        power,
    )
    return body + b"%04X\r\n" % crc16_arc(body)


@pytest.fixture(scope="module", params=["nats", "mosquitto"])
def chain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: Server
) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("bad-input")
    run = running_nats if request.param == "nats" else running_mosquitto
    with ExitStack() as stack:
        broker = stack.enter_context(run(folder / "broker"))
        api = stack.enter_context(running_cloud(folder / "cloud", broker.config, postgres_server))
        concentrator = ConcentratorConfig(
            id="c-1", local=broker.config, cloud=broker.config, spool_dir=folder / "concentrator-spool"
        )
        processes = [stack.enter_context(component(folder, "concentrator", concentrator))]
        gateway = Gateway()
        stack.callback(gateway.close)
        meter = MeterConfig(id=WIRED, source=TcpSource(host="127.0.0.1", port=gateway.port), timezone="Europe/Vienna")
        adapter = AdapterConfig(id="a-1", broker=broker.config, spool_dir=folder / "adapter-spool", meters=(meter,))
        processes.append(stack.enter_context(component(folder, "adapter", adapter)))
        assert api.process is not None
        client = stack.enter_context(MqttClient(broker.config))
        yield Chain(broker, api, gateway, [*processes, api.process], client)


@pytest.fixture(autouse=True)
def _around(chain: Chain) -> Iterator[None]:
    """A good reading and a good telegram before and after each test, which all arrive."""
    chain.publish_good()
    chain.say_good()
    yield
    chain.publish_good()
    chain.say_good()
    chain.check()


def tomorrows_tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=2)).isoformat()


@pytest.mark.parametrize(
    ("make", "reason", "said"),
    [
        (lambda _: b"\x13\x37 garbage", "not-json", "not JSON"),
        (lambda meter: message(meter)[:120], "not-json", "not JSON"),
        (lambda meter: message(meter).replace(b"kWh", b"k\xffh"), "not-utf8", "not UTF-8"),
        (lambda _: b"", "not-json", "not JSON"),
        (lambda _: b'{"x": ' + b"[" * 100_000, "bad-shape", "nested too deeply"),
        (lambda _: b"{}", "bad-shape", "readingTime"),
        (lambda meter: message(meter).replace(b"1.8.0", b"99.99.9"), "unknown-property", "OBIS_99.99.9"),
        (lambda meter: message(meter).replace(b"kWh", b"furlong"), "bad-unit", "'furlong' is no unit of OBIS_1.8.0"),
        (lambda meter: message(meter, readingTime="2026-11-02T10:15:00"), "naive-time", "has no offset from UTC"),
        (lambda meter: message(meter, readingTime="1970-01-01T00:00:00Z"), "absurd-time", "2000 to 2100"),
        (lambda meter: message(meter, readingTime="9999-12-31T23:59:59Z"), "absurd-time", "2000 to 2100"),
        (lambda meter: message(meter, readingTime="2026-02-30T00:00:00Z"), "bad-shape", "readingTime"),
        (lambda meter: message(meter, readingTime="2001-01-01T00:00:00Z"), "past-time", "days ago"),
        (lambda meter: message(meter, readingTime=tomorrows_tomorrow()), "future-time", "in the future"),
        (lambda meter: message(meter).replace(b"815.25", b"NaN"), "bad-number", "NaN is no number"),
        (lambda meter: message(meter).replace(b"815.25", b"-Infinity"), "bad-number", "Infinity"),
        (lambda meter: message(meter).replace(b"815.25", b"1e999"), "bad-number", ""),
        (lambda meter: message(meter).replace(b"815.25", b"1" * 5000), "bad-number", ""),
        (lambda meter: message(meter, faultCode="a\0b"), "bad-text", "NUL"),
        (lambda meter: message(meter, meterIndividual={"meterIndividualId": "another"}), "meter-mismatch", "'another'"),
        (lambda meter: message(meter, meterIndividual={"meterIndividualId": "a #"}), "meter-mismatch", "'a #'"),
        (lambda meter: message(meter, propertyValues=[]), "empty", "without values"),
        (lambda meter: message(meter) + b" " * 500_000, "too-large", "500"),
    ],
)
def test_a_message_that_is_no_reading_is_quarantined_with_the_reason(
    chain: Chain, make: Any, reason: str, said: str
) -> None:
    """It passes adapter topic and concentrator byte for byte, for a concentrator does not read."""
    meter_id = str(uuid4())
    payload = make(meter_id)
    chain.client.publish(f"smartMeterMessage/{meter_id}/readings", payload)
    (item,) = chain.quarantined(f"concentrator/c-1/smartMeterMessage/{meter_id}/readings")
    assert (item["reason"], item["sizeBytes"]) == (reason, len(payload))
    assert said in item["message"]
    assert chain.api.all_readings([meter_id]) == []


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("concentrator/c-9/smartMeterMessage/m.1/readings", b"{}", "bad-identifier"),
        (f"concentrator/c-9/smartMeterMessage/{'m' * 65}/readings", b"{}", "bad-identifier"),
        ("concentrator/c-9/smartMeterMessage//readings", b"{}", "bad-identifier"),
        ("concentrator/c.9/smartMeterMessage/m/readings", b"{}", "bad-identifier"),
        ("concentrator/c-9/smartMeterMessage/m/unheard-of", b"{}", "bad-topic"),
        ("concentrator/c-9/smartMeterMessage/m/readings/deeper", b"{}", "bad-topic"),
        ("concentrator/c-9", b"{}", "bad-topic"),
        ("concentrator/c-9/smartMeterMessage/m/status", b'{"state": "sleepy"}', "bad-report"),
        ("concentrator/c-9/smartMeterMessage/m/meter", b"\xff\xff", "bad-report"),
        ("concentrator/c-9/smartMeterMessage/m/faults", b"[]", "bad-report"),
    ],
)
def test_a_topic_or_report_that_is_none_is_quarantined(chain: Chain, topic: str, payload: bytes, reason: str) -> None:
    chain.client.publish(topic, payload)
    (item,) = chain.quarantined(topic)
    assert (item["reason"], item["topic"]) == (reason, topic)


@pytest.mark.parametrize("prefix", ["smartMeterMessage", "concentrator/c-9/smartMeterMessage"])
@pytest.mark.parametrize("meter_id", [b"two words", b"m#", b"#", b"+", b"m\0", b"\xc3\x28", b"\xed\xa0\x80"])
def test_an_id_that_cannot_stand_in_a_topic_is_refused_or_reported(chain: Chain, prefix: str, meter_id: bytes) -> None:
    """Brokers differ: some end the connection of who publishes it, others pass it on."""
    if publish_raw(chain.broker.port, prefix.encode() + b"/" + meter_id + b"/readings", b"raw"):
        kind = "faults" if prefix == "smartMeterMessage" else "quarantine"

        def told() -> bool:
            return any(item["preview"] == "raw" for item in chain.api.kept_aside(kind))

        wait_for(told, f"{meter_id!r} is among the {kind}")


def test_ten_megabytes_are_refused_by_the_broker_or_reported(chain: Chain) -> None:
    """NATS ends the connection beyond its max_payload of 2 MB; mosquitto passes them on."""
    direct, through = f"big-{chain.broker.kind}", f"bigger-{chain.broker.kind}"
    far = f"concentrator/c-9/smartMeterMessage/{direct}/readings"
    accepted = publish_raw(chain.broker.port, far.encode(), b"x" * TEN_MEGABYTES)
    assert accepted is (chain.broker.kind == "mosquitto")
    assert publish_raw(chain.broker.port, f"smartMeterMessage/{through}/readings".encode(), b"y" * TEN_MEGABYTES) is (
        accepted
    )
    if not accepted:
        assert "maximum payload" in chain.broker.log.lower()
        return
    (item,) = chain.quarantined(far)
    assert (item["reason"], item["sizeBytes"]) == ("too-large", TEN_MEGABYTES)

    def told() -> bool:
        faults = [fault for fault in chain.api.kept_aside("faults") if fault["reason"] == "too-long"]
        return any(f"smartMeterMessage/{through}/readings" in fault["message"] for fault in faults)

    wait_for(told, "the concentrator reports what it does not pass on")


@pytest.mark.parametrize(
    ("data", "reason", "stored"),
    [
        (telegram(9000)[:-60], "truncated", 0),
        (telegram(9001).replace(b"(50)", b"(42)"), "bad-checksum", 0),
        (telegram(9002)[:-6] + b"ZZZZ\r\n", "bad-checksum", 0),
        (telegram(9003).replace(b"00.412", b"0\xff.\x0012"), "bad-checksum", 0),
        (telegram(9004, power=b"NaN*kW"), "bad-syntax", 1),
        (b"/MWY5\\2ENDLESS\r\n\r\n" + b"1-0:1.8.1(000001.000*kWh)\r\n" * 40_000, "too-long", 0),
    ],
)
def test_a_telegram_that_is_wrong_becomes_a_fault_with_the_reason(
    chain: Chain, data: bytes, reason: str, stored: int
) -> None:
    """One whose checksum holds is stored all the same, without the line that is no value."""
    since = max((fault["id"] for fault in chain.api.kept_aside("faults")), default=0)
    chain.gateway.say(data)
    chain.telegrams += stored
    chain.say_good()

    def reasons() -> set[str]:
        faults = chain.api.kept_aside("faults")
        return {fault["reason"] for fault in faults if fault["id"] > since and fault["meterId"] == WIRED}

    wait_for(lambda: reason in reasons(), f"a fault {reason}")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\x13" * 1000,
        bytes(range(256)) * 400,
        b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01" * 2000,
        b"no telegram at all, \r\n" * 5000,
        b"\0" * TEN_MEGABYTES,
    ],
    ids=["garbage", "every-byte", "another-protocol", "text", "ten-megabytes-of-nul"],
)
def test_noise_on_the_line_hides_no_telegram(chain: Chain, data: bytes) -> None:
    chain.gateway.say(data.replace(b"/", b"."))
    chain.say_good()
    wait_for(lambda: len(chain.api.all_readings([WIRED])) == chain.telegrams, "the telegram behind the noise")


def test_a_clock_that_was_never_set_is_reported_with_the_reason(chain: Chain) -> None:
    """A year that no reading may have is the adapter's fault to report; one that is only too old, the cloud's."""
    since = max((fault["id"] for fault in chain.api.kept_aside("faults")), default=0)
    chain.gateway.say(telegram(9100, clock="700101000000W") + telegram(9101, clock="000101120000W"))
    (item,) = chain.quarantined(f"concentrator/c-1/smartMeterMessage/{WIRED}/readings")
    assert (item["reason"], "days ago" in item["message"]) == ("past-time", True)

    def told() -> bool:
        faults = [fault for fault in chain.api.kept_aside("faults") if fault["id"] > since]
        refused = [fault["meterId"] for fault in faults if fault["reason"] == "absurd-time"]
        return refused == [WIRED]  # plausibility has more to say of such clocks

    wait_for(told, "the adapter reports the clock")


def test_sources_that_shout_nothing_but_noise_are_bounded(chain: Chain) -> None:
    """Hundreds of wrong telegrams: a few are reported one by one, then only now and then; all are counted."""
    before = len([each for each in chain.api.kept_aside("faults") if each["meterId"] == WIRED])
    for number in range(300):
        chain.gateway.say(telegram(10_000 + number).replace(b"(50)", b"(42)"))
    chain.say_good()
    wait_for(lambda: len(chain.api.all_readings([WIRED])) == chain.telegrams, "the good one behind them")
    after = len([each for each in chain.api.kept_aside("faults") if each["meterId"] == WIRED])
    assert after - before <= 40


def test_a_flood_by_mosquitto_pub_is_taken_in_order(chain: Chain) -> None:
    """One line, one message: good and bad ones in turn."""
    meter_id = str(uuid4())
    moment = datetime.now(UTC) - timedelta(hours=1)
    lines = [
        message(meter_id, readingTime=(moment + timedelta(seconds=number)).isoformat())
        if number % 2
        else b"bad %d" % number
        for number in range(200)
    ]
    topic = f"smartMeterMessage/{meter_id}/readings"
    command = ["mosquitto_pub", "-p", str(chain.broker.port), "-q", "1", "-t", topic, "-l"]
    subprocess.run(command, input=b"\n".join(lines) + b"\n", check=True, timeout=60)
    wait_for(lambda: len(chain.api.all_readings([meter_id])) == 100, "the good half")
    wait_for(lambda: len(chain.quarantined(f"concentrator/c-1/{topic}")) == 100, "the bad half")


def publish_raw(port: int, topic: bytes, payload: bytes) -> bool:
    """Publish whatever the topic is, past all checks of a library; tell whether the broker acknowledged it."""

    def packet(head: int, body: bytes) -> bytes:
        length, left = b"", len(body)
        while left or not length:
            left, digit = divmod(left, 128)[0], left % 128
            length += bytes([digit | (0x80 if left else 0)])
        return bytes([head]) + length + body

    def text(data: bytes) -> bytes:
        return struct.pack(">H", len(data)) + data

    with socket.create_connection(("127.0.0.1", port), ANSWER_WITHIN_S) as connection:
        connection.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x3c" + text(b"raw-%d" % time.monotonic_ns())))
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        try:
            connection.sendall(packet(0x32, text(topic) + b"\x00\x01" + payload))
            return connection.recv(4) == b"\x40\x02\x00\x01"
        except (ConnectionError, TimeoutError):
            return False
