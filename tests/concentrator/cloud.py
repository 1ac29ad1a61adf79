"""The cloud's side of the wire, as small as it can be: takes ``concentrator/#``, acknowledges, sends receipts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core import receipts, topics

IN_TIME_S = 60.0


async def until(condition: Callable[[], bool], what: str = "", within_s: float = IN_TIME_S) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {what}") from None


class Cloud:
    """What has arrived: each distinct message once, in order, beside how often it came."""

    def __init__(self, *, sends_receipts: bool = True) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.times: Counter[bytes] = Counter()
        self._sends_receipts = sends_receipts

    @asynccontextmanager
    async def running(self, config: BrokerConfig) -> AsyncIterator["Cloud"]:
        async with MqttBus(config, "test-cloud", {topics.CONCENTRATOR_FILTER: self._take}) as bus:
            self._bus = bus
            await asyncio.wait_for(bus.wait_connected(), IN_TIME_S)
            yield self

    def on(self, ending: str) -> list[bytes]:
        """Return the payloads of the topics with that ending."""
        return [payload for topic, payload in self.messages if topic.endswith(ending)]

    def _take(self, delivery: Delivery) -> None:
        digest = receipts.digest(delivery.topic, delivery.payload)
        self.times[digest] += 1
        if self.times[digest] == 1:
            self.messages.append((delivery.topic, delivery.payload))
        if self._sends_receipts and self._bus.connected:
            sender_id = topics.split_concentrator_topic(delivery.topic).concentrator_id
            self._bus.publish(topics.receipt_topic(sender_id), digest)
        delivery.ack()
