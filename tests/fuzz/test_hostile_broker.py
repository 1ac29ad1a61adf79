"""A broker that answers anything at all: the bus logs why, tries again, and works as soon as the broker does."""

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import MqttBus
from support.fuzz import MINUTES, SEED

RANDOM_ANSWERS = round(60 + 5_000 * MINUTES)
FINE = b"\x20\x02\x00\x00"
"""CONNACK: accepted."""
SUBACK = b"\x90\x03\x00\x01\x01"


def told() -> Iterator[bytes]:
    """Yield what a broker may not say, and what is cut."""
    yield from (b"\x20\x00", b"\x20\x01\x00", b"\x20\x02\x00\xff", b"\x90\x00", SUBACK, b"\x30\x00", b"\x00\x00")
    for answer in (b"\x90\x00", b"\x90\x02\x00\x01", b"\x90\x05\x00\x01\x01\x01\x01", b"\x90\x03\x00\x01\x80", FINE):
        yield FINE + answer
    for packet in (
        b"\x30\x02\xff\xff",  # a topic longer than the packet
        b"\x32\x03\x00\x01a",  # QoS 1 without an identifier
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x40\x00",  # PUBACK of nothing
        b"\x40\x02\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff",  # a length without an end
        b"\xe0\x00",  # DISCONNECT, which only a client sends
        b"\xf0\x80\x00",
        b"\x32\x07\x00\x03\xed\xa0\x80\x00\x01",  # a surrogate in a topic
    ):
        yield FINE + SUBACK + packet
    rng = Random(SEED)
    whole = FINE + SUBACK + b"\x32\x0b\x00\x03a/b\x00\x07body" + b"\xd0\x00"
    for _ in range(RANDOM_ANSWERS):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        yield bytes(data[: rng.randrange(1, len(data) + 1)] if rng.random() < 0.3 else data)


class Liar:
    """Says one of ``told`` to each that connects, hangs up, and when all is said is an honest broker."""

    def __init__(self) -> None:
        self._told = list(told())
        self.connections = 0
        self.honest = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        try:
            await reader.read(4096)
            if number < len(self._told):
                writer.write(self._told[number])
                writer.write_eof()
                return
            writer.write(FINE)
            subscribe = await reader.read(4096)
            writer.write(b"\x90\x03" + subscribe[2:4] + b"\x01")
            self.honest.set()
            await reader.read()
        except OSError:
            return
        finally:
            writer.close()


async def test_whatever_a_broker_answers_the_bus_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meterway.bus.mqtt.FIRST_DELAY_S", 0.001)
    monkeypatch.setattr("meterway.bus.mqtt.LONGEST_DELAY_S", 0.001)
    liar = Liar()
    async with await asyncio.start_server(liar.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = BrokerConfig(url=f"mqtt://127.0.0.1:{port}")
        async with (
            MqttBus(config, "victim", {"a/+": lambda delivery: delivery.ack()}) as bus,
            asyncio.timeout(90 + 60 * MINUTES),
        ):
            await liar.honest.wait()
            await bus.wait_connected()
            assert bus.last_error is None
            assert bus.handler_errors == 0
