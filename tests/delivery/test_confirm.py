import asyncio
from collections.abc import Callable

import pytest

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core import receipts
from meterway.core.errors import BadDataError
from meterway.delivery import confirm
from meterway.delivery.confirm import Confirmer
from support.brokers import RunningBroker

WITHIN_S = 60.0


def digests(count: int) -> list[bytes]:
    return [receipts.digest("t", b"%d" % number) for number in range(count)]


class Listener:
    def __init__(self) -> None:
        self.payloads: dict[str, list[bytes]] = {}

    def take(self, delivery: Delivery) -> None:
        self.payloads.setdefault(delivery.topic, []).append(delivery.payload)
        delivery.ack()

    def digests(self, sender_id: str) -> list[bytes]:
        return [digest for each in self.payloads.get(f"receipt/{sender_id}", []) for digest in receipts.decode(each)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_each_sender_gets_its_digests_in_few_receipts(broker: RunningBroker) -> None:
    listener = Listener()
    async with MqttBus(broker.config, "listener", {"receipt/#": listener.take}) as hears:
        await asyncio.wait_for(hears.wait_connected(), WITHIN_S)
        async with MqttBus(broker.config, "confirmer") as bus:
            await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
            confirmer = Confirmer(bus)
            for digest in digests(2000):
                confirmer.confirm("a", digest)
                confirmer.confirm("b", digest)
            confirmer.confirm("c", digests(1)[0])
            await until(lambda: confirmer.confirmed == 4001 and bool(listener.digests("c")))
            await until(lambda: len(listener.digests("a")) == len(listener.digests("b")) == 2000)
    assert listener.digests("a") == listener.digests("b") == digests(2000)
    assert len(listener.payloads["receipt/a"]) <= 4


async def test_receipts_wait_for_the_broker_and_are_dropped_at_the_bound(
    broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "LIMIT_DIGESTS", 1000)
    listener = Listener()
    async with MqttBus(broker.config, "listener", {"receipt/#": listener.take}) as hears:
        await asyncio.wait_for(hears.wait_connected(), WITHIN_S)
        bus = MqttBus(broker.config, "confirmer")
        confirmer = Confirmer(bus)
        for digest in digests(990):
            confirmer.confirm("many", digest)
        for digest in digests(20):
            confirmer.confirm("few", digest)
        assert (confirmer.dropped, confirmer._waiting_digests) == (990, 20)
        async with bus:
            await until(lambda: len(listener.digests("few")) == 20)
    assert listener.digests("many") == []


async def test_an_impossible_sender_is_refused(broker: RunningBroker) -> None:
    confirmer = Confirmer(MqttBus(broker.config, "confirmer"))
    with pytest.raises(BadDataError, match="sender id 'a/b' is not 1 to 64 letters"):
        confirmer.confirm("a/b", digests(1)[0])
