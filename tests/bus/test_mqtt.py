"""The Bus against real brokers."""

import asyncio

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from support.brokers import RunningBroker


async def test_payloads_arrive_byte_for_byte(broker: RunningBroker) -> None:
    payloads = [b"", b"\x00\xff\xfe", bytes(range(256)), b"x" * 100_000, "ä€😀".encode()]
    arrived: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def take(delivery: Delivery) -> None:
        arrived.put_nowait((delivery.topic, delivery.payload))
        delivery.ack()

    async with (
        MqttBus(broker.config, "reader", {"a/#": take}) as reader,
        MqttBus(broker.config, "writer") as writer,
    ):
        await reader.wait_connected()
        await writer.wait_connected()
        for number, payload in enumerate(payloads):
            writer.publish(f"a/{number}", payload)
        got = [await arrived.get() for _ in payloads]
    assert got == [(f"a/{number}", payload) for number, payload in enumerate(payloads)]
