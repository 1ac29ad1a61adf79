"""The Bus against real brokers."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import LIMIT_PAYLOAD_BYTES, MqttBus, Will, broker_address
from meterway.bus.session import LIMIT_UNACKNOWLEDGED
from meterway.core.errors import BadDataError, SetupError, TransientError
from support.brokers import RunningBroker, running_mosquitto

IN_TIME_S = 60.0


class Inbox:
    """A handler that keeps what arrives, and acknowledges it if told so."""

    def __init__(self, *, acknowledge: bool = True) -> None:
        self.arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._acknowledge = acknowledge

    def __call__(self, delivery: Delivery) -> None:
        if self._acknowledge:
            delivery.ack()
        self.arrived.put_nowait(delivery)

    async def get(self) -> tuple[str, bytes]:
        delivery = await asyncio.wait_for(self.arrived.get(), IN_TIME_S)
        return delivery.topic, delivery.payload


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(IN_TIME_S):
        while not condition():
            await asyncio.sleep(0.01)


async def in_time(wait: Awaitable[None]) -> None:
    await asyncio.wait_for(wait, IN_TIME_S)


async def publish_acknowledged(config: BrokerConfig, *messages: tuple[str, bytes], retain: bool = False) -> None:
    """Publish and wait for every PUBACK."""
    acknowledged = 0

    def count() -> None:
        nonlocal acknowledged
        acknowledged += 1

    async with MqttBus(config, "test-writer", clean_session=True) as writer:
        await in_time(writer.wait_connected())
        for topic, payload in messages:
            writer.publish(topic, payload, retain=retain, on_ack=count)
        await until(lambda: acknowledged == len(messages))


async def test_payloads_and_topics_arrive_byte_for_byte(broker: RunningBroker) -> None:
    payloads = [b"", b"\x00\xff\xfe", bytes(range(256)), b"x" * 100_000, "ä€😀".encode(), b"y" * LIMIT_PAYLOAD_BYTES]
    messages = [(f"a/{number}.ä//b", payload) for number, payload in enumerate(payloads)]
    inbox = Inbox()
    async with MqttBus(broker.config, "reader", {"a/#": inbox}) as reader:
        await in_time(reader.wait_connected())
        await publish_acknowledged(broker.config, *messages)
        assert [await inbox.get() for _ in messages] == messages


async def test_third_parties_see_and_send_the_same_bytes(broker: RunningBroker) -> None:
    inbox = Inbox()
    port = str(broker.port)
    async with MqttBus(broker.config, "reader", {"in/#": inbox}) as bus:
        await in_time(bus.wait_connected())
        payload = b'{"\xff": 1}\x00'
        await asyncio.to_thread(
            subprocess.run, ["mosquitto_pub", "-p", port, "-t", "in/x", "-q", "1", "-s"], input=payload, check=True
        )
        assert await inbox.get() == ("in/x", payload)
        bus.publish("out/kept", payload, retain=True)
        command = ["mosquitto_sub", "-p", port, "-t", "out/#", "-q", "1", "-C", "1", "-W", "60", "-N"]
        seen = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True)
        assert seen.stdout == payload


async def test_each_filter_has_its_handler(broker: RunningBroker) -> None:
    first, second = Inbox(), Inbox()
    async with MqttBus(broker.config, "reader", {"a/#": first, "b/+/c": second}) as bus:
        await in_time(bus.wait_connected())
        bus.publish("b/x/c", b"2")
        bus.publish("a", b"1")
        assert await second.get() == ("b/x/c", b"2")
        assert await first.get() == ("a", b"1")


async def test_unacknowledged_message_comes_again_after_the_subscriber_was_killed(broker: RunningBroker) -> None:
    """The process dies between arrival and commit."""
    code = f"""
        import asyncio
        from meterway.bus.bus import BrokerConfig
        from meterway.bus.mqtt import MqttBus
        async def main():
            def take(delivery):
                if delivery.payload == b"committed":
                    delivery.ack()
                else:
                    print(delivery.payload.decode(), flush=True)
            async with MqttBus(BrokerConfig(url={broker.url!r}), "reader", {{"a/#": take}}):
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    async with MqttBus(broker.config, "reader", {"a/#": Inbox()}) as bus:
        await in_time(bus.wait_connected())
    await publish_acknowledged(broker.config, ("a/1", b"committed"), ("a/2", b"not committed"))
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as doomed:
        assert doomed.stdout is not None
        assert await asyncio.to_thread(doomed.stdout.readline) == b"not committed\n"
        doomed.kill()
    inbox = Inbox()
    async with MqttBus(broker.config, "reader", {"a/#": inbox}) as bus:
        while (again := await inbox.get()) == ("a/1", b"committed"):
            """Its PUBACK may still have been on the way when the process was killed."""
        assert again == ("a/2", b"not committed")
        await publish_acknowledged(broker.config, ("a/3", b"next"))
        assert await inbox.get() == ("a/3", b"next")


async def test_acknowledgement_after_the_connection_was_lost_does_nothing(broker: RunningBroker) -> None:
    inbox = Inbox(acknowledge=False)
    async with MqttBus(broker.config, "reader", {"a/#": inbox}) as bus:
        await in_time(bus.wait_connected())
        await publish_acknowledged(broker.config, ("a/1", b"x"))
        late = await asyncio.wait_for(inbox.arrived.get(), IN_TIME_S)
        broker.kill()
        await until(lambda: not bus.connected)
        late.ack()
        broker.start()
        await in_time(bus.wait_connected())
        late.ack()
        bus.publish("b", b"the connection works")
        await until(lambda: bus.unacknowledged == 0)


async def test_broker_killed_and_restarted_is_found_again(broker: RunningBroker) -> None:
    inbox = Inbox()
    connects = 0

    def count() -> None:
        nonlocal connects
        connects += 1

    async with MqttBus(broker.config, "reader", {"a/#": inbox}) as bus:
        bus.on_connect(count)
        await in_time(bus.wait_connected())
        assert connects == 1
        broker.kill()
        await until(lambda: not bus.connected)
        with pytest.raises(TransientError, match=rf"broker 127.0.0.1:{broker.port}"):
            bus.publish("a/1", b"lost")
        broker.start()
        await in_time(bus.wait_connected())
        assert (connects, bus.connections, bus.last_error) == (2, 2, None)
        bus.publish("a/2", b"after")
        assert await inbox.get() == ("a/2", b"after")


async def test_half_open_connection_is_noticed(broker: RunningBroker) -> None:
    async with MqttBus(broker.config, "reader", keep_alive_s=1) as bus:
        await in_time(bus.wait_connected())
        broker.freeze()
        await until(lambda: not bus.connected)
        assert bus.last_error is not None
        assert "was silent for" in bus.last_error
        broker.thaw()
        await in_time(bus.wait_connected())


async def test_quiet_connection_is_kept(broker: RunningBroker) -> None:
    async with MqttBus(broker.config, "reader", keep_alive_s=3) as bus:
        await in_time(bus.wait_connected())
        await asyncio.sleep(5)
        assert bus.connected
        assert bus.connections == 1


async def test_will_is_published_when_killed_and_not_when_left(broker: RunningBroker) -> None:
    inbox = Inbox()
    async with MqttBus(broker.config, "watcher", {"s/#": inbox}) as watcher:
        await in_time(watcher.wait_connected())
        async with MqttBus(broker.config, "polite", will=Will("s/polite", b"offline")) as bus:
            await in_time(bus.wait_connected())
            bus.publish("s/polite", b"good-bye", retain=True)
        assert await inbox.get() == ("s/polite", b"good-bye")
        async with MqttBus(broker.config, "killed", will=Will("s/killed", b"offline")) as bus:
            await in_time(bus.wait_connected())
            assert bus._session is not None
            bus._session.abort()
            assert await inbox.get() == ("s/killed", b"offline")
    late = Inbox()
    async with MqttBus(broker.config, "late", {"s/#": late}):
        assert {await late.get(), await late.get()} == {("s/polite", b"good-bye"), ("s/killed", b"offline")}


async def test_empty_retained_payload_clears(broker: RunningBroker) -> None:
    await publish_acknowledged(broker.config, ("s/1", b"kept"), ("s/2", b"kept"), retain=True)
    await publish_acknowledged(broker.config, ("s/1", b""), retain=True)
    inbox = Inbox()
    async with MqttBus(broker.config, "late", {"s/#": inbox}) as bus:
        assert await inbox.get() == ("s/2", b"kept")
        await in_time(bus.wait_connected())
        bus.publish("s/end", b"")
        assert await inbox.get() == ("s/end", b"")


async def test_handler_that_fails_does_not_end_the_connection(broker: RunningBroker) -> None:
    """Its message stays unacknowledged, and comes again at the latest with the next connection."""
    inbox = Inbox()
    bad = True

    def take(delivery: Delivery) -> None:
        if bad and delivery.payload == b"bad":
            raise ValueError("cannot take this")
        inbox(delivery)

    async with MqttBus(broker.config, "reader", {"a/#": take}) as bus:
        await in_time(bus.wait_connected())
        await publish_acknowledged(broker.config, ("a/1", b"bad"), ("a/2", b"good"))
        assert await inbox.get() == ("a/2", b"good")
        assert bus.handler_errors >= 1
        assert bus.connected
        bad = False
    async with MqttBus(broker.config, "reader", {"a/#": take}):
        assert await inbox.get() == ("a/1", b"bad")


async def test_message_for_a_forgotten_subscription_is_counted_and_acknowledged(broker: RunningBroker) -> None:
    async with MqttBus(broker.config, "reader", {"old/#": Inbox()}) as bus:
        await in_time(bus.wait_connected())
    await publish_acknowledged(broker.config, ("old/1", b"x"))
    async with MqttBus(broker.config, "reader", {"new/#": Inbox()}) as bus:
        await until(lambda: bus.unhandled == 1)


async def test_unacknowledged_publishes_are_bounded_and_the_bound_lifts(broker: RunningBroker) -> None:
    async with MqttBus(broker.config, "writer") as bus:
        await in_time(bus.wait_connected())
        for _ in range(LIMIT_UNACKNOWLEDGED):
            bus.publish("a/1", b"x")
        with pytest.raises(TransientError, match=f"{LIMIT_UNACKNOWLEDGED} messages with {LIMIT_UNACKNOWLEDGED} bytes"):
            bus.publish("a/1", b"x")
        await until(lambda: bus.unacknowledged == 0)
        bus.publish("a/1", b"x")
        await until(lambda: bus.unacknowledged == 0)


async def test_packet_identifiers_do_not_run_out(broker: RunningBroker) -> None:
    """More messages on one connection than there are identifiers."""
    acknowledged = 0

    def count() -> None:
        nonlocal acknowledged
        acknowledged += 1

    async with MqttBus(broker.config, "writer") as bus:
        await in_time(bus.wait_connected())
        for number in range(70_000):
            bus.publish("a/1", b"x", on_ack=count)
            if number % 10_000 == 0:
                await until(lambda: bus.unacknowledged == 0)
        await until(lambda: acknowledged == 70_000)


@pytest.mark.parametrize(
    ("topic", "payload"), [("a b", b""), ("a/#", b""), ("", b""), ("a", b"x" * (LIMIT_PAYLOAD_BYTES + 1))]
)
async def test_what_no_broker_would_take_is_refused_and_the_connection_stays(
    nats: RunningBroker, topic: str, payload: bytes
) -> None:
    async with MqttBus(nats.config, "writer") as bus:
        await in_time(bus.wait_connected())
        with pytest.raises(BadDataError):
            bus.publish(topic, payload)
        bus.publish("a", b"fine")
        await until(lambda: bus.unacknowledged == 0)
        assert bus.connections == 1


async def test_refused_login_is_said_once_and_mended_without_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meterway.bus.mqtt.LONGEST_DELAY_S", 0.05)
    users, password = tmp_path / "users", tmp_path / "password"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(users), "meter", "secret-17"], check=True)
    users.chmod(0o644)
    password.write_text("wrong-17\n")
    with running_mosquitto(tmp_path / "broker", extra=f"password_file {users}\nallow_anonymous false") as broker:
        config = BrokerConfig(url=broker.url, username="meter", password_file=password)
        async with MqttBus(config, "reader") as bus:
            await until(lambda: broker.log.count("not authorised") >= 3)
            assert bus.last_error is not None
            assert "check username and password_file" in bus.last_error
            password.write_text("secret-17\n")
            await in_time(bus.wait_connected())
    refusals = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(refusals) == 1
    assert "secret-17" not in caplog.text
    assert "wrong-17" not in caplog.text


async def test_unreadable_password_file_is_said(tmp_path: Path, mosquitto: RunningBroker) -> None:
    config = BrokerConfig(url=mosquitto.url, username="meter", password_file=tmp_path / "absent")
    async with MqttBus(config, "reader") as bus:
        await until(lambda: bus.last_error is not None)
        assert bus.last_error is not None
        assert f"needs {tmp_path}/absent" in bus.last_error


async def test_server_that_is_no_broker_is_survived() -> None:
    """It answers with HTTP, as a wrong port would."""

    def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with MqttBus(BrokerConfig(url=f"mqtt://127.0.0.1:{port}"), "reader") as bus:
            await until(lambda: bus.last_error is not None)
            assert not bus.connected


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtts://broker:1884", ("broker", 1884)),
        ("mqtts://broker", ("broker", 8883)),
        ("mqtt://[::1]", ("::1", 1883)),
        ("mqtts://h/", ("h", 8883)),
        ("MQTTS://H", ("h", 8883)),
    ],
)
def test_address_of_a_url(url: str, address: tuple[str, int]) -> None:
    assert broker_address(BrokerConfig(url=url)) == address


@pytest.mark.parametrize(
    "url", ["https://h", "h:1883", "mqtt://u:p@h", "mqtts://h:port", "mqtt://h/path", "mqtts://", "mqtt://"]
)
def test_url_of_another_form_is_said(url: str) -> None:
    with pytest.raises(SetupError, match="is not mqtts://host:port"):
        broker_address(BrokerConfig(url=url))
