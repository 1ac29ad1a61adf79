"""The concentrator between real brokers."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from concentrator.cloud import IN_TIME_S, Cloud, until
from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus
from meterway.concentrator.config import ConcentratorConfig, LimitsConfig
from meterway.concentrator.service import run
from meterway.core import receipts, reports
from meterway.core.config import load_config
from meterway.core.errors import SetupError, TransientError
from meterway.delivery.config import RelayConfig, SpoolConfig
from support.brokers import RunningBroker, running_mosquitto, running_nats

RETRY = RelayConfig(retry_s=1.0, retry_limit_s=2.0)


def config(
    local: RunningBroker, cloud: RunningBroker, directory: Path, relay: RelayConfig = RETRY
) -> ConcentratorConfig:
    return ConcentratorConfig(
        id="c-1", local=local.config, cloud=cloud.config, spool_dir=directory / "spool", relay=relay
    )


@asynccontextmanager
async def running(configuration: ConcentratorConfig) -> AsyncIterator[None]:
    """Run a concentrator in this process, from ready on."""
    ready = asyncio.Event()
    task = asyncio.create_task(run(configuration, ready=ready.set))
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({task, waiting}, timeout=IN_TIME_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        assert ready.is_set()
        yield
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.wait({task, waiting})


@dataclass
class Adapter:
    """Publishes as an adapter does and keeps what is acknowledged and receipted."""

    bus: MqttBus
    receipted: set[bytes] = field(default_factory=set)
    acknowledged: int = 0

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        def count() -> None:
            self.acknowledged += 1

        self.bus.publish(topic, payload, retain=retain, on_ack=count)


@asynccontextmanager
async def adapter(broker: BrokerConfig) -> AsyncIterator[Adapter]:
    def take(delivery: Delivery) -> None:
        sender.receipted.update(receipts.decode(delivery.payload))
        delivery.ack()

    async with MqttBus(broker, "test-adapter", {"receipt/+": take}) as bus:
        sender = Adapter(bus)
        await asyncio.wait_for(bus.wait_connected(), IN_TIME_S)
        yield sender


async def test_topics_and_payloads_go_on_exactly(broker: RunningBroker, tmp_path: Path) -> None:
    """Local and cloud broker are the same; payloads may be any bytes."""
    payloads = [b"{}", b"\x00\xff\xfe", bytes(range(256)), "ä€😀".encode(), b"x" * 200_000, b""]
    cloud = Cloud()
    async with (
        running(config(broker, broker, tmp_path)),
        cloud.running(broker.config),
        adapter(broker.config) as sender,
    ):
        for number, payload in enumerate(payloads):
            sender.send(f"smartMeterMessage/m-{number}/readings", payload)
        await until(lambda: len(cloud.on("/readings")) == len(payloads), "all payloads in the cloud")
        expected = {
            receipts.digest(f"smartMeterMessage/m-{number}/readings", each) for number, each in enumerate(payloads)
        }
        await until(lambda: sender.receipted >= expected, "all receipts at the adapter")
    assert [message for message in cloud.messages if message[0].endswith("/readings")] == [
        (f"concentrator/c-1/smartMeterMessage/m-{number}/readings", payload) for number, payload in enumerate(payloads)
    ]


async def test_third_parties_see_the_same_bytes_on_both_topics(broker: RunningBroker, tmp_path: Path) -> None:
    payload = b'{"readingTime": "\xff\x00"}'

    async def watch(topic_filter: str) -> bytes:
        command = ["mosquitto_sub", "-p", str(broker.port), "-q", "1", "-C", "1", "-W", "20", "-F", "%t %r %X", "-t"]
        seen = await asyncio.to_thread(subprocess.run, [*command, topic_filter], stdout=subprocess.PIPE, check=True)
        return seen.stdout

    async with running(config(broker, broker, tmp_path)):
        publish = ["mosquitto_pub", "-p", str(broker.port), "-q", "1", "-r", "-t", "smartMeterMessage/m/status", "-s"]
        await asyncio.to_thread(subprocess.run, publish, input=payload, check=True)
        near, far = await watch("smartMeterMessage/#"), await watch("concentrator/+/smartMeterMessage/#")
    assert near.split()[::2] == [b"smartMeterMessage/m/status", payload.hex().upper().encode()]
    assert far.split()[::2] == [b"concentrator/c-1/smartMeterMessage/m/status", payload.hex().upper().encode()]


async def test_status_and_meter_stay_retained_and_clearing_goes_on(broker: RunningBroker, tmp_path: Path) -> None:
    cloud = Cloud()
    async with (
        running(config(broker, broker, tmp_path)),
        cloud.running(broker.config),
        adapter(broker.config) as sender,
    ):
        sender.send("smartMeterMessage/m/status", b"online", retain=True)
        sender.send("smartMeterMessage/m/meter", b"what it is", retain=True)
        sender.send("smartMeterMessage/m/readings", b"reading")
        await until(lambda: len(cloud.on("/readings")) == 1, "the reading")
        late = Cloud(sends_receipts=False)
        async with late.running(broker.config):
            await until(lambda: late.on("/m/status") == [b"online"], "the retained status")
            await until(lambda: late.on("/m/meter") == [b"what it is"], "the retained description")
            assert late.on("/readings") == []
        sender.send("smartMeterMessage/m/meter", b"", retain=True)
        await until(lambda: cloud.on("/m/meter")[-1] == b"", "the clearing")
        late = Cloud(sends_receipts=False)
        async with late.running(broker.config):
            await until(lambda: late.on("/m/status") == [b"online"], "the retained status")
            assert late.on("/m/meter") == []


async def test_what_cannot_go_on_is_reported_and_does_not_block(mosquitto: RunningBroker, tmp_path: Path) -> None:
    """Mosquitto accepts topics with spaces, so they reach the concentrator."""
    cloud = Cloud()
    limits = LimitsConfig(payload_bytes=1024)
    configuration = ConcentratorConfig(
        id="c-1",
        local=mosquitto.config,
        cloud=mosquitto.config,
        spool_dir=tmp_path / "spool",
        relay=RETRY,
        limits=limits,
    )
    bad: list[tuple[str, bytes, str]] = [
        ("smartMeterMessage/two words/readings", b"\xff\x00", "bad-identifier"),
        ("smartMeterMessage/m/unheard", b"x", "bad-topic"),
        ("smartMeterMessage", b"y", "bad-topic"),
        ("smartMeterMessage/m/readings", b"z" * 10_000_000, "too-long"),
    ]
    async with running(configuration), cloud.running(mosquitto.config), adapter(mosquitto.config) as sender:
        for number, (topic, payload, _) in enumerate(bad):
            publish = ["mosquitto_pub", "-p", str(mosquitto.port), "-q", "1", "-t", topic, "-s"]
            await asyncio.to_thread(subprocess.run, publish, input=payload, check=True)
            sender.send(f"smartMeterMessage/good-{number}/readings", b"good")
        await until(lambda: len(cloud.on("/readings")) == len(bad), "the good ones")
        await until(lambda: len(cloud.on("c-1/faults")) == len(bad), "the faults")
        told = {
            receipts.digest(topic, payload) for topic, payload, _ in bad if topic.startswith("smartMeterMessage/m/")
        }
        await until(lambda: told <= sender.receipted, "receipts for what must not be sent again")
    faults = [reports.decode(payload, reports.Fault) for payload in cloud.on("c-1/faults")]
    assert [(fault.topic, fault.reason, fault.size_bytes) for fault in faults] == [
        (topic, reason, len(payload)) for topic, payload, reason in bad
    ]
    assert [fault.data for fault in faults] == [payload[:4096] for _, payload, _ in bad]


async def test_status_counts_and_last_will(broker: RunningBroker, tmp_path: Path) -> None:
    cloud = Cloud()

    def last() -> reports.Status | None:
        payloads = cloud.on("concentrator/c-1/status")
        return reports.decode(payloads[-1], reports.Status) if payloads else None

    async with cloud.running(broker.config):
        async with running(config(broker, broker, tmp_path)):
            await until(lambda: (status := last()) is not None and status.state == "online", "online")
        await until(lambda: (status := last()) is not None and status.state == "offline", "offline")
        status = last()
        assert status is not None
        assert status.detail == "stopped"
        assert {"pending", "spool_bytes", "oldest_age_s", "accepted", "forwarded", "refused"} <= set(status.counters)


async def test_cloud_broker_away_for_a_while(tmp_path: Path) -> None:
    """The backlog drains, nothing is lost, and after removing repetitions nothing is doubled."""
    cloud = Cloud()
    with running_nats(tmp_path / "local") as near, running_nats(tmp_path / "cloud") as far:
        async with running(config(near, far, tmp_path)), cloud.running(far.config), adapter(near.config) as sender:
            sent = [b"%d" % number for number in range(3000)]
            for payload in sent[:1000]:
                sender.send("smartMeterMessage/m/readings", payload)
            await until(lambda: len(cloud.on("/readings")) > 300, "some")
            far.kill()
            for payload in sent[1000:2000]:
                sender.send("smartMeterMessage/m/readings", payload)
            await until(lambda: len(sender.receipted) == 2000, "receipts while the cloud is away")
            far.start()
            for payload in sent[2000:]:
                sender.send("smartMeterMessage/m/readings", payload)
            await until(lambda: len(cloud.on("/readings")) == 3000, "all of them")
    assert sorted(cloud.on("/readings")) == sorted(sent)


async def test_local_broker_killed_is_found_again(broker: RunningBroker, tmp_path: Path) -> None:
    cloud = Cloud()
    with running_nats(tmp_path / "cloud") as far:
        async with running(config(broker, far, tmp_path)), cloud.running(far.config), adapter(broker.config) as sender:
            sender.send("smartMeterMessage/m/readings", b"before")
            await until(lambda: cloud.on("/readings") == [b"before"], "the first")
            broker.restart()
            # Until the concentrator has subscribed again a broker that lost its sessions drops messages: send again.
            digest = receipts.digest("smartMeterMessage/m/readings", b"after")
            while digest not in sender.receipted:
                with suppress(TransientError):  # the sender has lost its connection as well
                    sender.send("smartMeterMessage/m/readings", b"after")
                await asyncio.sleep(0.1)
            await until(lambda: cloud.on("/readings") == [b"before", b"after"], "the second")


async def test_foreign_cloud_without_receipts(broker: RunningBroker, tmp_path: Path) -> None:
    """With ``confirm = "broker"`` the PUBACK of the cloud's broker is enough."""
    cloud = Cloud(sends_receipts=False)
    relay = RelayConfig(confirm="broker", retry_s=1.0)
    async with cloud.running(broker.config):
        async with running(config(broker, broker, tmp_path, relay)), adapter(broker.config) as sender:
            for number in range(500):
                sender.send("smartMeterMessage/m/readings", b"%d" % number)
            await until(lambda: len(cloud.on("/readings")) == 500, "all of them")
        await until(
            lambda: reports.decode(cloud.on("c-1/status")[-1], reports.Status).counters.get("forwarded") == 500,
            "nothing pending",
        )
    assert reports.decode(cloud.on("c-1/status")[-1], reports.Status).counters["pending"] == 0


async def test_full_spool_leaves_messages_to_the_broker_and_goes_on_by_itself(tmp_path: Path) -> None:
    """Nothing more is taken, an alarm says so, and when the cloud is back everything arrives."""
    cloud = Cloud()
    sent = [b"%05d" % number + b"x" * 2000 for number in range(100)]
    with running_nats(tmp_path / "local") as near, running_nats(tmp_path / "cloud") as far:
        configuration = ConcentratorConfig(
            id="c-1",
            local=near.config,
            cloud=far.config,
            spool_dir=tmp_path / "spool",
            spool=SpoolConfig(limit_bytes=131_072, segment_bytes=16_384),
            relay=RETRY,
        )
        async with running(configuration), adapter(near.config) as sender:
            for payload in sent:
                sender.send("smartMeterMessage/m/readings", payload)
            await until(lambda: sender.acknowledged == len(sent), "the local broker has them")
            alarm = asyncio.Event()

            def watch(delivery: Delivery) -> None:
                delivery.ack()
                status = reports.decode(delivery.payload, reports.Status)
                if status.state == "waiting" and "spool full" in (status.detail or ""):
                    alarm.set()

            async with MqttBus(far.config, "watcher", {"concentrator/c-1/status": watch}):
                await asyncio.wait_for(alarm.wait(), IN_TIME_S)
            assert len(sender.receipted) < len(sent)
            async with cloud.running(far.config):
                await until(lambda: len(cloud.on("/readings")) == len(sent), "all of them", within_s=60)
                await until(lambda: len(sender.receipted) == len(sent), "all receipts")
    assert sorted(cloud.on("/readings")) == sent


async def test_two_brokers_of_different_makes(tmp_path: Path) -> None:
    cloud = Cloud()
    with running_mosquitto(tmp_path / "local") as near, running_nats(tmp_path / "cloud") as far:
        async with running(config(near, far, tmp_path)), cloud.running(far.config), adapter(near.config) as sender:
            for number in range(500):
                sender.send("smartMeterMessage/m/readings", b"%d" % number)
            await until(lambda: len(cloud.on("/readings")) == 500, "all of them")
    assert cloud.on("/readings") == [b"%d" % number for number in range(500)]


def test_configuration_names_key_and_id() -> None:
    text = 'id = "c-1"\nspool_dir = "/tmp/x"\n[cloud]\nurl = "mqtt://cloud"\n'
    assert load_config(text, ConcentratorConfig, where="c.toml").cloud.url == "mqtt://cloud"
    with pytest.raises(SetupError, match="concentrator id 'c 1' is not"):
        load_config(text.replace("c-1", "c 1"), ConcentratorConfig, where="c.toml")
    with pytest.raises(SetupError, match="did you mean `spool_dir`"):
        load_config(text.replace("spool_dir", "spool_dirr"), ConcentratorConfig, where="c.toml")


async def test_receipts_that_wait_for_the_cloud_come_when_the_cloud_has_confirmed(
    nats: RunningBroker, tmp_path: Path
) -> None:
    """Also of what was in the spool when the concentrator was started."""
    settings = msgspec.structs.replace(config(nats, nats, tmp_path), receipts="cloud")
    first, second = "smartMeterMessage/m-1/readings", "smartMeterMessage/m-2/readings"
    refused = receipts.digest("smartMeterMessage/m-1/unknown", b"refused")
    delivered = {receipts.digest(first, b"one"), receipts.digest(second, b"two")}
    async with adapter(nats.config) as sender:
        async with running(settings):
            sender.send(first, b"one")
            sender.send("smartMeterMessage/m-1/unknown", b"refused")
            await until(lambda: sender.acknowledged == 2, "both are on the disk")
            await until(lambda: refused in sender.receipted, "what goes no further is confirmed at once")
            assert sender.receipted.isdisjoint(delivered)
        async with running(settings), Cloud().running(nats.config):
            sender.send(second, b"two")
            await until(lambda: delivered <= sender.receipted, "both are confirmed")
