"""What a mosquitto refuses to a device is shown with the device: read from mosquitto's own log, which is rotated."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from meterway.bus.bus import BrokerConfig
from meterway.bus.dynsec import DynamicSecurity
from meterway.bus.mqtt import MqttBus
from meterway.cloud.api import create_app
from meterway.cloud.devices.mosquitto_log import LIMIT_LINE_BYTES, follow, noting_refusals
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.store import Store
from meterway.core.grants import adapter_grant
from meterway.durable_file import write_private
from support.brokers import dynamic_security, running_mosquitto
from support.cloud_http import client_of

METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
IN_TIME_S = 60.0
LOOK_EVERY_S = 0.01


def denied(topic: str) -> str:
    return f"1795457933: Denied PUBLISH from m1:x (d0, q1, r0, m1, '{topic}', ... (7 bytes))\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(IN_TIME_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[list[str]]:
    """Follow a file; yield the topics of which it says that they were refused, once all of it was passed over."""
    lines: list[str] = []
    task = asyncio.create_task(follow(path, lines.append, every_s=LOOK_EVERY_S))
    try:
        yield lines
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_mosquitto_refuses_and_the_device_shows_it_also_after_its_log_was_rotated(
    tmp_path: Path, store: Store
) -> None:
    log = tmp_path / "mosquitto.log"
    extra = f"{dynamic_security(tmp_path)}log_dest file {log}\nlog_type debug\nmax_queued_messages 100000"
    with running_mosquitto(tmp_path / "mosquitto", extra=extra) as broker:
        admin = BrokerConfig(url=broker.url, username="admin", password_file=tmp_path / "admin.password")
        device = BrokerConfig(url=broker.url, username="adapter-cellar", password_file=tmp_path / "password")
        write_private(tmp_path / "password", "a secret")
        app = create_app(store, devices=BrokerForDevices(broker.url))
        async with (
            noting_refusals(log, store, lambda: datetime.now(UTC)),
            client_of(app) as api,
            DynamicSecurity(admin) as security,
        ):
            await api.post("/v1/devices", json={"kind": "adapter", "id": "cellar", "meterIds": [METER]})
            code = (await api.post("/v1/devices/adapter/cellar/code")).json()["code"]
            assert (await api.post("/v1/enrol", json={"code": code, "kind": "adapter"})).status_code == 200
            await security.put("adapter-cellar", adapter_grant([METER]), password="a secret")
            async with MqttBus(device, "cellar-adapter", clean_session=True) as bus:
                await refused(api, bus, "smartMeterMessage/theirs/readings", 1)
                log.rename(tmp_path / "mosquitto.log.1")
                os.kill(broker.pid, signal.SIGHUP)
                await refused(api, bus, "receipt/theirs", 2)
                assert "receipt/theirs" in log.read_text()


async def refused(api: httpx.AsyncClient, bus: MqttBus, topic: str, count: int) -> None:
    """Publish what is not allowed until the page of the device shows so many refused topics, and this one."""
    topics: list[str] = []
    async with asyncio.timeout(IN_TIME_S):
        await bus.wait_connected()
        while len(topics) < count:
            bus.publish(topic, b"forged")
            await asyncio.sleep(0.1)
            shown = (await api.get("/v1/devices/adapter/cellar")).json()
            topics = [each["topic"] for each in shown["refusals"]]
    assert topic in topics


async def test_what_was_logged_before_the_start_is_history_and_what_comes_is_given_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(denied("old"))
    async with followed(log) as lines:
        await asyncio.sleep(0)
        with log.open("a") as file:
            file.write("1795457933: Sending PUBACK to m1:x (m1, rc0)\n" + denied("new")[:30])
            file.flush()
            await asyncio.sleep(5 * LOOK_EVERY_S)
            file.write(denied("new")[30:] + denied("newer"))
        await until(lambda: len(lines) == 2)
        assert "'new'" in lines[0]
        assert "'newer'" in lines[1]


async def test_a_log_that_is_cut_or_replaced_is_read_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(denied("old") * 3)
    async with followed(log) as lines:
        await asyncio.sleep(0)
        log.write_text(denied("cut"))
        await until(lambda: len(lines) == 1)
        log.rename(tmp_path / "log.1")
        with (tmp_path / "log.1").open("a") as file:
            file.write(denied("still there"))
        await until(lambda: len(lines) == 2)
        log.write_text(denied("replaced") * 4)
        await until(lambda: len(lines) == 6)


async def test_a_line_without_an_end_takes_no_memory_and_hides_no_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    async with followed(log) as lines:
        await asyncio.sleep(0)
        with log.open("a") as file:
            file.write(denied("x" * (1 << 20))[:-1])
            file.flush()
            file.write(denied("long" * LIMIT_LINE_BYTES) + denied("short"))
        await until(lambda: len(lines) == 1)
        assert "'short'" in lines[0]


async def test_a_missing_log_is_said_once_and_read_from_its_beginning_when_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    with caplog.at_level(logging.WARNING):
        async with followed(log) as lines:
            await until(lambda: len(caplog.messages) == 1)
            await asyncio.sleep(5 * LOOK_EVERY_S)
            log.write_text(denied("first"))
            await until(lambda: len(lines) == 1)
    (said,) = caplog.messages
    assert said == (
        f"! the log of mosquitto, {log}, cannot be read (No such file or directory), so what it refuses is not shown: "
        "let mosquitto write it and this user read it (docs/permissions.md), or correct `mosquitto_log` in [devices]; "
        "looking again each second"
    )
