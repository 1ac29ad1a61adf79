"""The concentrator as a process of its own, killed under load."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from concentrator.cloud import IN_TIME_S, Cloud, until
from meterway.bus.mqtt import MqttBus
from meterway.concentrator.config import ConcentratorConfig
from meterway.core.config import dump_config
from meterway.core.errors import TransientError
from meterway.delivery.config import RelayConfig
from meterway.process import ChildProcess, Command
from support.brokers import RunningBroker

BURST = 1000
KILLS = 3


def concentrator(broker: RunningBroker, directory: Path) -> Command:
    """Return how to run a concentrator with ``broker`` on both sides."""
    config = ConcentratorConfig(
        id="c-1",
        local=broker.config,
        cloud=broker.config,
        spool_dir=directory / "spool",
        relay=RelayConfig(retry_s=2.0),
    )
    path = directory / "concentrator.toml"
    path.write_text(dump_config(config))
    arguments: list[str | Path] = [sys.executable, "-m", "meterway", "concentrator", "--config", path, "--json"]
    return Command(name="concentrator", arguments=arguments)


def more_than(count: Callable[[], int], bound: int) -> Callable[[], bool]:
    return lambda: count() > bound


@pytest.mark.faults
async def test_killed_concentrator_loses_and_doubles_nothing(nats: RunningBroker, tmp_path: Path) -> None:
    """What the local broker has acknowledged arrives; the sender here never sends anything twice."""
    cloud = Cloud()
    payloads = [b'{"number": %d}' % number + b" " * 1000 for number in range(BURST * (KILLS + 1))]
    async with (
        ChildProcess(concentrator(nats, tmp_path)) as process,
        cloud.running(nats.config),
        MqttBus(nats.config, "test-adapter") as adapter,
    ):
        await asyncio.wait_for(adapter.wait_connected(), IN_TIME_S)
        for kills in range(KILLS + 1):
            await until(lambda: process.ready, "the concentrator runs")
            arrived = len(cloud.messages)
            for number in range(kills * BURST, (kills + 1) * BURST):
                adapter.publish(f"smartMeterMessage/m-{number % 10}/readings", payloads[number])
            if kills < KILLS and process.pid is not None:
                await until(more_than(lambda: len(cloud.messages), arrived + BURST // 10), "it is amid the burst")
                os.kill(process.pid, signal.SIGKILL)
                await until(more_than(lambda: process.restarts, kills), "it is started again")
        await until(lambda: adapter.unacknowledged == 0, "the local broker has all")
        await until(lambda: len(cloud.on("/readings")) >= len(payloads), "all in the cloud", within_s=60)
    assert sorted(cloud.on("/readings")) == sorted(payloads)


@pytest.mark.faults
async def test_broker_killed_again_and_again(nats: RunningBroker, tmp_path: Path) -> None:
    """Local and cloud broker are one, and killed under load; the sender repeats what was not acknowledged."""
    cloud = Cloud()
    payloads = {b"%d" % number + b" " * 1000 for number in range(1500)}
    async with (
        ChildProcess(concentrator(nats, tmp_path)),
        cloud.running(nats.config),
        MqttBus(nats.config, "test-adapter") as adapter,
    ):
        pending, kills = set(payloads), 0
        while pending:
            await asyncio.wait_for(adapter.wait_connected(), IN_TIME_S)
            for payload in sorted(pending)[:100]:
                try:
                    adapter.publish("smartMeterMessage/m/readings", payload, on_ack=partial(pending.discard, payload))
                except TransientError:
                    break
            if kills < KILLS and len(pending) < len(payloads) * (KILLS - kills) / (KILLS + 1):
                kills += 1
                nats.restart()
            await asyncio.sleep(0.02)
        await until(lambda: len(set(cloud.on("/readings"))) == len(payloads), "all in the cloud", within_s=60)
        assert kills == KILLS
    assert set(cloud.on("/readings")) == payloads
