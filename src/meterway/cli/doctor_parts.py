"""What ``meterway doctor`` looks at of each component that a configuration is for."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from meterway.adapter.config import AdapterConfig
from meterway.adapter.doctor import statuses
from meterway.adapter.doctor.adapter import AdapterReport, look_at_adapter, same_meter_twice
from meterway.adapter.doctor.backlog import LATE_S, look_at_spool
from meterway.adapter.doctor.broker import look_at_broker
from meterway.adapter.doctor.check import Check, skipped
from meterway.adapter.doctor.running import lock_owner, processes
from meterway.adapter.signing import key_path, load_signer
from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
from meterway.cli import doctor_machine as machine
from meterway.cli.config import read_config, tables
from meterway.cli.doctor_refusals import look_at_oldest, look_at_refusals
from meterway.concentrator.config import ConcentratorConfig
from meterway.core.errors import MeterwayError, SetupError
from meterway.core.signatures import key_text
from meterway.core.topics import SpecificTopic, concentrator_own_topic, receipt_topic
from meterway.edge import EdgeConfig, adapter_config, concentrator_config


async def look_at(config: object, *, listen_s: float) -> tuple[list[Check], list[AdapterReport]]:
    """Look at what a component's configuration names; return what is to be said, and its adapters for a bundle."""
    checks: list[Check] = []
    reports: list[AdapterReport] = []
    for adapter, has_broker in _adapters(config):
        report = await look_at_adapter(adapter, listen_s=listen_s, has_broker=has_broker)
        reports.append(report)
        checks += [*report.checks, *_signing(adapter)]
        if has_broker and report.is_running:
            checks += await look_at_oldest(adapter.spool_dir, adapter.broker)
        if not has_broker:
            checks.append(skipped("broker", "the embedded broker of this edge never ran", code="broker"))
    if concentrator := _concentrator_of(config):
        checks += await _concentrator(concentrator, with_local=isinstance(config, ConcentratorConfig))
    for broker in {table: None for table in tables(config) if isinstance(table, BrokerConfig)}:
        checks += await look_at_refusals(broker)
    seen = [report.config.broker for report in reports]
    for table in tables(config):
        checks += await _part(table, config, seen)
        checks += machine.files(table)
    return checks, reports


def look_for_twins(configs: Sequence[tuple[Path, object]]) -> list[Check]:
    """Look for meters that two adapters read: those of these configurations, and all that run on this machine."""
    found = [(str(path), adapter) for path, config in configs for adapter, _ in _adapters(config)]
    if not found:
        return []
    for process in processes():
        with suppress(MeterwayError):
            if process.config is not None:
                found.append((str(process), read_config(process.config, AdapterConfig)))
    return same_meter_twice(found)


def _adapters(config: object) -> Iterator[tuple[AdapterConfig, bool]]:
    """Return adapters, and whether it is known where their broker is."""
    if isinstance(config, AdapterConfig):
        yield config, True
    if isinstance(config, EdgeConfig):
        for adapter in config.adapters:
            broker = _local_broker(config, f"adapter-{adapter.id}", AdapterConfig)
            yield adapter_config(config, adapter, broker or BrokerConfig()), broker is not None


def _signing(config: AdapterConfig) -> Iterator[Check]:
    """Look at the key with which readings are signed; not for a bundle, it would tell whose they are."""
    if not config.signing.enabled:
        return
    place = config.signing.key_file or key_path(config.spool_dir)
    if config.signing.key_file is None and not place.exists():
        yield skipped("signing", f"the adapter makes its key {place} when it first starts", code="secret")
        return
    try:
        public_key = load_signer(place).public_key
    except SetupError as error:
        fix = "run this as the adapter's user; a key that is lost must be replaced in the cloud (docs/signatures.md)"
        yield Check("signing", ok=False, detail=str(error), fix=fix, code="secret")
    else:
        yield Check("signing", ok=True, detail=f"readings are signed; public key {key_text(public_key)}", code="secret")


def _concentrator_of(config: object) -> ConcentratorConfig | None:
    if isinstance(config, EdgeConfig):
        broker = _local_broker(config, "concentrator", ConcentratorConfig)
        return concentrator_config(config, broker or BrokerConfig())
    return config if isinstance(config, ConcentratorConfig) else None


def _local_broker(config: EdgeConfig, part: str, kind: type[AdapterConfig | ConcentratorConfig]) -> BrokerConfig | None:
    """Return how a part of an edge logs in; at an embedded broker, as the edge wrote it when it started last."""
    if config.broker is not None:
        return config.broker
    with suppress(MeterwayError):
        found = read_config(config.data_dir / "config" / f"{part}.toml", kind)
        return found.broker if isinstance(found, AdapterConfig) else found.local
    return None


async def _concentrator(config: ConcentratorConfig, *, with_local: bool) -> list[Check]:
    is_running = lock_owner(config.spool_dir / "lock") is not None
    state = "runs" if is_running else "does not run"
    checks = [Check(f"concentrator {config.id}", ok=True, detail=state, code="concentrator")]
    if with_local:
        checks += (await look_at_broker(config.local, watch_s=0.0)).checks
    topic = concentrator_own_topic(config.id, SpecificTopic.STATUS)
    cloud = await look_at_broker(config.cloud, needed=[receipt_topic(config.id)], wanted=[topic], watch_s=0.0)
    told = statuses.concentrator_status(topic, cloud.retained, LATE_S) if is_running else None
    checks += [*cloud.checks, *([told] if told else [])]
    spool, _ = look_at_spool(
        config.spool_dir, "the cloud", datetime.now(UTC), is_running=is_running, name="spool of the concentrator"
    )
    refused = await look_at_oldest(config.spool_dir, config.cloud) if is_running else []
    return checks + spool + refused


async def _part(table: msgspec.Struct, config: object, seen: Sequence[BrokerConfig]) -> list[Check]:
    """Look at what one table of a configuration names."""
    from meterway.cloud.config import DatabaseConfig, HttpConfig

    match table:
        case BrokerConfig() if table not in seen and not isinstance(config, ConcentratorConfig | EdgeConfig):
            return (await look_at_broker(table, watch_s=0.0)).checks
        case EmbeddedBrokerConfig() | EdgeConfig(broker=None, embedded_broker=None):
            return _unless_there(machine.nats_server(needed=True))
        case DatabaseConfig(embedded=Path()):
            return _unless_there(machine.postgresql(needed=True))
        case DatabaseConfig():
            return [await machine.database(table)]
        case HttpConfig():
            return [await machine.http(table)]
    return []


def _unless_there(check: Check) -> list[Check]:
    """A program that is there was named among what the machine has."""
    return [] if check.ok else [check]
