"""Why a broker refuses a message: what mosquitto says with MQTT 5, and what others do that do not speak it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import MqttBus, login
from meterway.bus.reason import FIRST_REFUSAL, NOT_AUTHORISED, TOO_LARGE, reason_of
from support.brokers import RunningBroker, running_mosquitto

IN_TIME_S = 60.0
CONNACK = b"\x20\x09\x00\x00\x06\x22\x00\x0a\x21\x00\x14"
"""As mosquitto sends it: topic aliases up to 10, 20 unacknowledged."""


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[RunningBroker]:
    """A mosquitto that takes 100 bytes on ``mine/#``, and lets everybody read."""
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write mine/#\n")
    acl.chmod(0o600)
    with running_mosquitto(tmp_path / "mosquitto", extra=f"acl_file {acl}\nmessage_size_limit 100") as broker:
        yield broker


async def asked(broker: BrokerConfig, topic: str, payload: bytes = b"reading") -> int | None:
    async with asyncio.timeout(IN_TIME_S):
        return await reason_of(login(broker, "asks", clean_session=True), topic, payload)


async def test_mosquitto_gives_its_reason_and_delivers_what_it_does_not_refuse(strict: RunningBroker) -> None:
    got: asyncio.Queue[tuple[str, bytes, bool]] = asyncio.Queue()
    handlers = {"#": lambda each: got.put_nowait((each.topic, each.payload, each.retained))}
    async with MqttBus(strict.config, "reader", handlers, clean_session=True) as bus, asyncio.timeout(IN_TIME_S):
        await bus.wait_connected()
        assert await asked(strict.config, "theirs/readings") == NOT_AUTHORISED
        assert await asked(strict.config, "mine/readings", b"x" * 101) == TOO_LARGE
        code = await asked(strict.config, "mine/readings")
        assert code is not None
        assert code < FIRST_REFUSAL
        assert await got.get() == ("mine/readings", b"reading", False)
        assert got.empty()


async def test_packet_that_is_too_large_is_a_reason(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path / "mosquitto", extra="max_packet_size 100") as broker:
        assert await asked(broker.config, "mine/readings", b"x" * 101) == TOO_LARGE


async def test_broker_without_mqtt_5_says_nothing(nats: RunningBroker) -> None:
    assert await asked(nats.config, "mine/readings") is None


async def test_log_in_that_is_refused_is_no_refusal_of_the_message(tmp_path: Path) -> None:
    (tmp_path / "passwords").touch(mode=0o600)
    extra = f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}"
    with running_mosquitto(tmp_path / "mosquitto", extra=extra) as broker:
        assert await asked(broker.config, "mine/readings") is None


async def test_broker_that_is_away_says_nothing(nats: RunningBroker) -> None:
    nats.kill()
    assert await asked(nats.config, "mine/readings") is None


@asynccontextmanager
async def saying(*answers: bytes) -> AsyncIterator[BrokerConfig]:
    """A broker that says one of these to each packet, and hangs up when all is said."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers:
                await reader.read(4096)
                writer.write(answer)
            await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield BrokerConfig(url=f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((CONNACK, b"\x40\x02\x00\x01"), 0),
        ((CONNACK, b"\x40\x03\x00\x01\x97"), 0x97),
        ((CONNACK, b"\x40\x0a\x00\x01\x99\x06\x1f\x00\x03why"), 0x99),
        ((CONNACK, b"\xe0\x02\x87\x00"), NOT_AUTHORISED),
        ((CONNACK, b"\xe0\x00"), None),
        ((CONNACK,), None),
        ((), None),
        ((b"\x20\x02\x00\x01",), None),
        ((b"\x20\x02\x00\x00", b"\x40\x02\x00\x01"), None),
        ((b"\x20\x03\x00\x84\x00",), None),
        ((b"\x20\x15\x00\x00\x12\x26\x00\x01a\x00\x01b\x12\x00\x01c\x24\x01\x27\x00\x00\x00\x09",), TOO_LARGE),
        ((b"\x20\xff\xff\xff\xff\xff\xff",), None),
        ((b"\x20\xff\xff\x7f" + b"x" * 4096,), None),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), None),
    ],
)
async def test_each_answer_is_a_reason_or_none(answers: tuple[bytes, ...], expected: int | None) -> None:
    async with saying(*answers) as broker:
        assert await asked(broker, "mine/readings") == expected


async def test_no_bytes_of_a_broker_do_harm() -> None:
    rng = Random(1)
    for _ in range(100):
        answer = bytearray(CONNACK + b"\x40\x03\x00\x01\x97")
        answer[rng.randrange(len(answer))] = rng.randrange(256)
        async with saying(bytes(answer[: rng.randrange(1, len(answer) + 1)])) as broker:
            code = await asked(broker, "mine/readings")
            assert code is None or 0 <= code <= 0xFF
