"""Adapters and concentrator on one device, from one file; joined by a broker of the device's own.

Each adapter and the concentrator is a process of its own; this one writes their configurations, starts and watches
them. It carries no data.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import msgspec

from meterway.adapter.config import AdapterConfig, MeterConfig, MqttSource, SigningConfig, meter_ids
from meterway.bus.broker import embedded_broker
from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
from meterway.concentrator.config import ConcentratorConfig, LimitsConfig
from meterway.core.config import Table, dump_config
from meterway.core.grants import COLLECTOR, Grant, adapter_grant
from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.metrics import MetricsConfig
from meterway.durable_file import write_private
from meterway.process import ChildProcess, Command

CONCENTRATOR = "concentrator"


class EdgeConcentrator(Table, frozen=True):
    """The concentrator of this device."""

    id: str
    """The concentrator id, as it stands in topics."""
    cloud: BrokerConfig
    """The cloud's broker."""
    relay: RelayConfig = RelayConfig()
    """`confirm = "broker"` is for a cloud that sends no receipts."""
    spool: SpoolConfig = SpoolConfig()
    receipts: Literal["disk", "cloud"] = "disk"
    """When adapters are told that a message is safe: as in a concentrator's own configuration. Where they share a disk,
    `cloud` helps only against damage to single files."""
    limits: LimitsConfig = LimitsConfig()
    metrics: MetricsConfig = MetricsConfig()


class EdgeAdapter(Table, frozen=True):
    """One adapter process."""

    id: str
    """The adapter's name, unique on this device."""
    meters: tuple[MeterConfig, ...]
    """The meters it reads, each a `[[adapters.meters]]` table as in an adapter's own configuration."""
    signing: SigningConfig = SigningConfig()
    relay: RelayConfig = RelayConfig()
    """To the concentrator of this device."""
    spool: SpoolConfig = SpoolConfig()
    metrics: MetricsConfig = MetricsConfig()


class EdgeConfig(Table, frozen=True):
    """One device."""

    data_dir: Path
    """Where the broker's store and all spools live; it must survive a restart of the machine."""
    concentrator: EdgeConcentrator
    adapters: tuple[EdgeAdapter, ...]
    broker: BrokerConfig | None = None
    """The broker that joins adapters and concentrator on this device; left out: an embedded one is started."""
    embedded_broker: EmbeddedBrokerConfig | None = None
    """How to start it; left out: in a folder of `data_dir`, on a free port."""

    def __post_init__(self) -> None:
        ids = [adapter.id for adapter in self.adapters]
        if repeated := {each for each in ids if ids.count(each) > 1}:
            raise ValueError(f"adapter id {min(repeated)} stands twice; every adapter has its own")
        if self.broker is not None and self.embedded_broker is not None:
            raise ValueError("there are [broker] and [embedded_broker]: keep one")


def adapter_config(config: EdgeConfig, adapter: EdgeAdapter, broker: BrokerConfig) -> AdapterConfig:
    """Return the configuration of one adapter process."""
    spool_dir = config.data_dir / "spool" / f"adapter-{adapter.id}"
    return AdapterConfig(
        id=adapter.id,
        meters=adapter.meters,
        broker=broker,
        spool_dir=spool_dir,
        signing=adapter.signing,
        relay=adapter.relay,
        spool=adapter.spool,
        metrics=adapter.metrics,
    )


def concentrator_config(config: EdgeConfig, broker: BrokerConfig) -> ConcentratorConfig:
    """Return the configuration of the concentrator process."""
    concentrator = config.concentrator
    return ConcentratorConfig(
        id=concentrator.id,
        local=broker,
        cloud=concentrator.cloud,
        spool_dir=config.data_dir / "spool" / "concentrator",
        relay=concentrator.relay,
        spool=concentrator.spool,
        receipts=concentrator.receipts,
        limits=concentrator.limits,
        metrics=concentrator.metrics,
    )


def component(name: str, config: msgspec.Struct, folder: Path) -> Command:
    """Return how to run the component ``name`` (``cloud``) with ``config``, which is written into ``folder``.

    The folder is made, and file and folder are our own: a configuration can say who lives where.
    """
    component_name, _, _ = name.partition("-")
    path = folder / f"{name}.toml"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, dump_config(config))
    arguments = [sys.executable, "-m", "meterway", component_name, "--config", str(path), "--json"]
    return Command(name=name, arguments=arguments)


def broker_users(config: EdgeConfig) -> dict[str, Grant]:
    """Return the users of the device's own broker, by the names of the processes: each does only what it must."""
    users = {CONCENTRATOR: COLLECTOR}
    for adapter in config.adapters:
        own_ids = [each for meter in adapter.meters for each in meter_ids(meter)]
        sources = [meter.source for meter in adapter.meters if isinstance(meter.source, MqttSource)]
        here = [source.topic for source in sources if source.broker is None]
        users[f"adapter-{adapter.id}"] = adapter_grant(own_ids, sources=here)
    return users


def _parts(config: EdgeConfig, broker_of: Callable[[str], BrokerConfig]) -> dict[str, msgspec.Struct]:
    """Return the configuration of each process, by its name; ``broker_of`` says how that one logs in."""
    parts: dict[str, msgspec.Struct] = {CONCENTRATOR: concentrator_config(config, broker_of(CONCENTRATOR))}
    for adapter in config.adapters:
        name = f"adapter-{adapter.id}"
        parts[name] = adapter_config(config, adapter, broker_of(name))
    return parts


async def run(config: EdgeConfig, *, ready: Callable[[], None]) -> None:
    """Run until cancelled; calls ``ready`` once all processes are.

    Raises:
        SetupError: a process cannot be started.
    """
    folder = config.data_dir / "config"
    async with AsyncExitStack() as stack:
        shared = config.broker
        if shared is None:
            wanted = config.embedded_broker or EmbeddedBrokerConfig(data_dir=config.data_dir / "broker")
            own = await stack.enter_async_context(embedded_broker(wanted, users=broker_users(config)))
            parts = _parts(config, own.config)
        else:
            parts = _parts(config, lambda _name: shared)
        for name, part in parts.items():
            await stack.enter_async_context(ChildProcess(component(name, part, folder)))
        ready()
        await asyncio.Event().wait()
