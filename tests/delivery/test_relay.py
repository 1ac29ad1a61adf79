"""A whole hop over a real broker: spool, relay, receiver, receipts; with receipts lost, late and repeated."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core import receipts
from meterway.core.topics import receipt_topic
from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.confirm import Confirmer
from meterway.delivery.relay import Relay
from meterway.delivery.spool import Spool
from support.brokers import RunningBroker, running_mosquitto

WITHIN_S = 60.0
FAST = RelayConfig(retry_s=0.3, retry_limit_s=1.0)
TOPIC = "smartMeterMessage/meter-1/readings"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


@dataclass
class Sender:
    spool: Spool
    relay: Relay
    bus: MqttBus

    async def send(self, *payloads: bytes, topic: str = TOPIC) -> None:
        for payload in payloads:
            self.spool.append(topic, payload)
        await self.spool.commit()


@asynccontextmanager
async def sender(
    broker: RunningBroker, directory: Path, config: RelayConfig = FAST, retain: Callable[[str], bool] | None = None
) -> AsyncIterator[Sender]:
    box: list[Relay] = []

    def on_receipt(delivery: Delivery) -> None:
        box[0].on_receipt(delivery.payload)
        delivery.ack()

    async with Spool(directory, SpoolConfig()) as spool:
        bus = MqttBus(broker.config, "sender", {receipt_topic("meter-1"): on_receipt})
        box.append(Relay(spool, bus, config, retain=retain))
        async with bus:
            running = asyncio.create_task(box[0].run())
            try:
                yield Sender(spool, box[0], bus)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


@dataclass
class Receiver:
    """Takes everything; ``policy`` decides what happens to a receipt."""

    bus: MqttBus = field(init=False)
    arrived: list[bytes] = field(default_factory=list)
    policy: Callable[[Delivery, int], int] = lambda _delivery, _nth: 1
    """How many receipts a message gets, the nth time it arrives."""
    seen: Counter[bytes] = field(default_factory=Counter)

    def take(self, delivery: Delivery) -> None:
        self.arrived.append(delivery.payload)
        self.seen[delivery.payload] += 1
        delivery.ack()
        for _ in range(self.policy(delivery, self.seen[delivery.payload])):
            self.confirmer.confirm("meter-1", receipts.digest(delivery.topic, delivery.payload))

    @asynccontextmanager
    async def running(self, broker: RunningBroker) -> AsyncIterator["Receiver"]:
        self.bus = MqttBus(broker.config, "receiver", {"smartMeterMessage/#": self.take})
        self.confirmer = Confirmer(self.bus)
        async with self.bus:
            await asyncio.wait_for(self.bus.wait_connected(), WITHIN_S)
            yield self


def payloads(count: int) -> list[bytes]:
    return [b"%05d" % number + b"." * 100 for number in range(count)]


async def test_everything_arrives_once_and_is_deleted_by_receipts(broker: RunningBroker, tmp_path: Path) -> None:
    sent = payloads(3000)
    async with Receiver().running(broker) as receiver, sender(broker, tmp_path / "s", RelayConfig()) as out:
        await out.send(*sent)
        await until(lambda: not out.spool.pending)
        assert receiver.arrived == sent
        stats = out.relay.stats()
        assert (stats.sent, stats.resent, stats.confirmed, stats.in_flight) == (3000, 0, 3000, 0)


async def test_lost_receipts_have_the_message_sent_again_until_confirmed(broker: RunningBroker, tmp_path: Path) -> None:
    sent = payloads(200)
    receiver = Receiver(policy=lambda delivery, nth: int(delivery.payload[4] % 3 != 0 or nth > 2))
    async with receiver.running(broker), sender(broker, tmp_path / "s") as out:
        await out.send(*sent)
        await until(lambda: not out.spool.pending)
        assert set(receiver.arrived) == set(sent)
        assert out.relay.stats().resent >= 2 * sum(payload[4] % 3 == 0 for payload in sent)


async def test_repeated_and_foreign_receipts_finish_nothing_else(broker: RunningBroker, tmp_path: Path) -> None:
    sent = payloads(50)
    receiver = Receiver(policy=lambda delivery, _nth: 2 if delivery.payload[4] % 2 else 0)
    async with receiver.running(broker), sender(broker, tmp_path / "s", RelayConfig(retry_s=1000)) as out:
        await out.send(*sent)
        await until(lambda: out.relay.stats().confirmed == 25 and out.relay.stats().unknown == 25)
        receiver.confirmer.confirm("meter-1", receipts.digest(TOPIC, b"never sent"))
        receiver.bus.publish(receipt_topic("meter-1"), b"not a receipt")
        await until(lambda: out.relay.stats().unknown == 26 and out.relay.stats().bad_receipts == 1)
        assert out.spool.pending == 25


async def test_late_receipts_are_taken(broker: RunningBroker, tmp_path: Path) -> None:
    sent = payloads(20)
    receiver = Receiver(policy=lambda _delivery, _nth: 0)
    async with receiver.running(broker), sender(broker, tmp_path / "s", RelayConfig(retry_s=1000)) as out:
        await out.send(*sent)
        await until(lambda: len(receiver.arrived) == 20)
        assert out.spool.pending == 20
        for payload in sent:
            receiver.confirmer.confirm("meter-1", receipts.digest(TOPIC, payload))
        await until(lambda: not out.spool.pending)
        assert out.relay.stats().resent == 0


async def test_what_was_not_confirmed_is_sent_again_after_a_restart_of_the_sender(
    broker: RunningBroker, tmp_path: Path
) -> None:
    sent = payloads(40)
    receiver = Receiver(policy=lambda _delivery, nth: nth - 1)
    async with receiver.running(broker):
        async with sender(broker, tmp_path / "s", RelayConfig(retry_s=1000)) as out:
            await out.send(*sent)
            await until(lambda: len(receiver.arrived) == 40)
        async with sender(broker, tmp_path / "s", RelayConfig(retry_s=1000)) as out:
            await until(lambda: not out.spool.pending)
        assert receiver.arrived == sent * 2


@pytest.mark.faults
async def test_a_killed_broker_loses_nothing(broker: RunningBroker, tmp_path: Path) -> None:
    sent = payloads(4000)
    async with Receiver().running(broker) as receiver, sender(broker, tmp_path / "s") as out:
        for start in range(0, 4000, 1000):
            await out.send(*sent[start : start + 1000])
            await until(lambda enough=start // 2: len(receiver.arrived) > enough)  # type: ignore[misc]
            await asyncio.to_thread(broker.restart)
        await until(lambda: not out.spool.pending)
        assert set(receiver.arrived) == set(sent)


@pytest.mark.faults
@pytest.mark.parametrize(("confirm", "arriving"), [("receipt", 500), ("broker", 0)])
async def test_receipts_make_up_for_a_broker_that_loses_what_it_acknowledged(
    confirm: Literal["receipt", "broker"], arriving: int, tmp_path: Path
) -> None:
    sent = payloads(500)
    receiver = Receiver()
    with running_mosquitto(tmp_path / "mosquitto", extra="autosave_interval 3600") as broker:
        async with receiver.running(broker):
            pass
        async with sender(broker, tmp_path / "s", RelayConfig(confirm=confirm)) as out:
            acknowledged = lambda: out.relay.stats().sent == 500 and out.bus.unacknowledged == 0  # noqa: E731
            await out.send(*sent)
            await until(acknowledged)
            await asyncio.to_thread(broker.restart)
            async with receiver.running(broker):
                await until(lambda: not out.spool.pending)
                await until(lambda: out.bus.connections == 2)
                await out.send(b"the end")
                await until(lambda: receiver.arrived[-1:] == [b"the end"])
        assert len(set(receiver.arrived) & set(sent)) == arriving


async def test_a_backlog_from_before_the_broker_was_there_is_sent_in_order(
    broker: RunningBroker, tmp_path: Path
) -> None:
    sent = payloads(6000)
    async with Spool(tmp_path / "s", SpoolConfig()) as spool:
        for payload in sent:
            spool.append(TOPIC, payload)
    config = RelayConfig(in_flight=100, in_flight_bytes=5000)
    async with Receiver().running(broker) as receiver, sender(broker, tmp_path / "s", config) as out:
        most = 0
        async with asyncio.timeout(WITHIN_S):
            while out.spool.pending:
                most = max(most, out.relay.stats().in_flight_bytes)
                await asyncio.sleep(0)
        assert receiver.arrived == sent
        assert most < 5000 + 105


async def test_what_comes_while_a_backlog_drains_does_not_wait_for_it_but_statuses_stay_in_order(
    broker: RunningBroker, tmp_path: Path
) -> None:
    status = "smartMeterMessage/meter-1/status"
    backlog = payloads(6000)
    async with Spool(tmp_path / "s", SpoolConfig()) as spool:
        for payload in backlog:
            spool.append(TOPIC, payload)
    receiver = Receiver(policy=lambda _delivery, _nth: 0)
    config = RelayConfig(in_flight=100, retry_s=1000)
    async with (
        receiver.running(broker),
        sender(broker, tmp_path / "s", config, retain=lambda topic: topic == status) as out,
    ):
        await until(lambda: len(receiver.arrived) == 100)
        live = [b"live %d" % number for number in range(50)]
        out.spool.append(status, b"online")
        await out.send(*live)
        receiver.policy = lambda _delivery, _nth: 1
        for payload in backlog[:100]:
            receiver.confirmer.confirm("meter-1", receipts.digest(TOPIC, payload))
        await until(lambda: not out.spool.pending)
        assert receiver.arrived.index(live[-1]) < 1000
        assert [each for each in receiver.arrived if each in live] == live
        assert [each for each in receiver.arrived if each not in live] == [*backlog, b"online"]


async def test_identical_messages_all_arrive_and_all_are_finished(broker: RunningBroker, tmp_path: Path) -> None:
    async with Receiver().running(broker) as receiver, sender(broker, tmp_path / "s") as out:
        await out.send(*[b"the same"] * 30)
        await until(lambda: not out.spool.pending)
        assert receiver.arrived[:30] == [b"the same"] * 30


async def test_with_confirm_broker_the_acknowledgement_of_the_broker_is_enough(
    broker: RunningBroker, tmp_path: Path
) -> None:
    sent = payloads(500)
    receiver = Receiver(policy=lambda _delivery, _nth: 0)
    async with receiver.running(broker), sender(broker, tmp_path / "s", RelayConfig(confirm="broker")) as out:
        await out.send(*sent)
        await until(lambda: not out.spool.pending)
        await until(lambda: len(receiver.arrived) == 500)
        assert receiver.arrived == sent
        assert out.relay.stats().confirmed == 500


async def test_an_old_retained_message_sent_again_does_not_replace_the_newer_one(
    broker: RunningBroker, tmp_path: Path
) -> None:
    status = "smartMeterMessage/meter-1/status"
    receiver = Receiver(policy=lambda delivery, nth: int(delivery.payload != b"waiting" or nth > 1))
    async with (
        receiver.running(broker),
        sender(broker, tmp_path / "s", retain=lambda topic: topic.endswith("/status")) as out,
    ):
        await out.send(b"waiting", b"online", topic=status)
        await out.send(b"reading")
        await until(lambda: not out.spool.pending)
        assert receiver.seen[b"waiting"] > 1
    late: list[bytes] = []
    async with MqttBus(broker.config, "late", {"smartMeterMessage/#": lambda delivery: late.append(delivery.payload)}):
        await until(lambda: bool(late))
    assert late == [b"online"]


async def test_a_topic_that_no_broker_takes_is_given_up_and_blocks_nothing(
    broker: RunningBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Receiver().running(broker) as receiver, sender(broker, tmp_path / "s") as out:
        await out.send(b"1", topic="smartMeterMessage/#/readings")
        await out.send(b"2")
        await until(lambda: not out.spool.pending)
        assert receiver.arrived == [b"2"]
        assert out.relay.stats().undeliverable == 1
    assert "given up, because no broker takes it" in caplog.text
