"""A real adapter process, and something that stands where a concentrator would."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from meterway.adapter.config import AdapterConfig, MeterConfig
from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core import receipts
from meterway.core.config import dump_config
from meterway.core.topics import receipt_topic
from meterway.process import ChildProcess, Command
from support.brokers import RunningBroker

METER = "11111111-1111-4111-8111-111111111111"


class Concentrator:
    """Stands where a concentrator would: keeps what is published, and confirms it.

    A reading or fault that is sent again, as after a stop before its receipt came, is kept once: as in the cloud.
    """

    def __init__(self, broker: RunningBroker, *, confirm: bool = True) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._confirm = confirm
        self.bus = MqttBus(broker.config, "test-concentrator", {"smartMeterMessage/#": self._see})

    def _see(self, delivery: Delivery) -> None:
        message = (delivery.topic, delivery.payload)
        is_confirmed = delivery.topic.endswith(("/readings", "/faults"))
        if not (is_confirmed and message in self.messages):
            self.messages.append(message)
        delivery.ack()
        if self._confirm and is_confirmed:
            digest = receipts.digest(delivery.topic, delivery.payload)
            self.bus.publish(receipt_topic(delivery.topic.split("/")[1]), digest)

    def of(self, specific_topic: str, meter_id: str = METER) -> list[dict[str, Any]]:
        topic = f"smartMeterMessage/{meter_id}/{specific_topic}"
        return [msgspec.json.decode(payload) for seen, payload in self.messages if seen == topic]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def concentrating(broker: RunningBroker) -> AsyncIterator[Concentrator]:
    concentrator = Concentrator(broker)
    async with concentrator.bus:
        await concentrator.bus.wait_connected()
        yield concentrator


def config_of(tmp_path: Path, broker: RunningBroker, *meters: MeterConfig) -> AdapterConfig:
    return AdapterConfig(id="test", broker=broker.config, spool_dir=tmp_path / "spool", meters=meters)


def adapter(tmp_path: Path, broker: RunningBroker, *meters: MeterConfig) -> ChildProcess:
    path = tmp_path / "adapter.toml"
    path.write_text(dump_config(config_of(tmp_path, broker, *meters)))
    arguments = [sys.executable, "-m", "meterway", "adapter", "--config", str(path), "--json"]
    return ChildProcess(Command(name="adapter", arguments=arguments))
