"""How adapters read a virtual town: its offers become configurations and key files, ready to run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from meterway.adapter.config import (
    AdapterConfig,
    ChannelConfig,
    HttpSource,
    MeterConfig,
    SerialSource,
    Source,
    TcpSource,
)
from meterway.bus.bus import BrokerConfig
from meterway.core.config import dump_config
from meterway.core.errors import SetupError
from meterway.durable_file import write_private
from meterway.edge import EdgeAdapter, EdgeConcentrator, EdgeConfig
from meterway.meter.keys import Keys
from meterway.meter.virtual.links import SerialAddress, TcpAddress
from meterway.meter.virtual.town.lines import HttpAddress, TownOffer

MOST_METERS: Final = 250
"""One adapter process reads so many; a larger town has several."""
_LEAST_INTERVAL_S: Final = 2.0
"""Of meters that are asked: after 1.5 s without a question they have forgotten the session before."""
_WATCHDOG_S: Final = 15.0


def names(offer: TownOffer) -> dict[str, str]:
    """Return what people would call a meter and those behind it, by their ids."""
    house = f"House {offer.household + 1}"
    behind = {meter_id: f"{house}, {medium}" for meter_id, medium in offer.channels.values()}
    return {offer.meter_id: f"{house}, {offer.medium}", **behind}


def meter_config(offer: TownOffer, zone: str, key_file: Path | None = None) -> MeterConfig:
    """Return how an adapter reads a meter of a town whose clocks are those of ``zone``."""
    is_polled = offer.is_asked and not isinstance(offer.source, HttpAddress)
    return MeterConfig(
        id=offer.meter_id,
        source=_source(offer),
        family=offer.family,
        timezone=zone,
        key_file=key_file,
        address=offer.unit,
        interval_s=max(offer.interval_s, _LEAST_INTERVAL_S) if is_polled else None,
        clock="recorded",
        watchdog_s=max(_WATCHDOG_S, 5 * offer.interval_s),
        channels=tuple(ChannelConfig(channel=number, id=each) for number, (each, _) in offer.channels.items()),
    )


def _source(offer: TownOffer) -> Source:
    match offer.source:
        case TcpAddress(host=host, port=port):
            return TcpSource(host=host, port=port)
        case SerialAddress(port=device):
            return SerialSource(port=Path(device))
        case HttpAddress(url=url):
            return HttpSource(url=url, interval_s=max(offer.interval_s, _LEAST_INTERVAL_S))


def write_config(
    folder: Path, offers: Sequence[TownOffer], keys: Mapping[str, Keys], *, zone: str, broker: BrokerConfig
) -> tuple[Path, ...]:
    """Write ``adapter.toml`` (several where there are many meters), ``edge.toml`` and ``keys/``; return the adapters'.

    The folders are their owner's alone, as are the files: they say where keys are.

    Raises:
        SetupError: the folder cannot be written.
    """
    try:
        folder = private_folder(folder)
        meters = [meter_config(offer, zone, _key_file(folder, offer, keys)) for offer in offers]
        adapters = _adapters(folder, meters, broker)
        paths = tuple(folder / f"{adapter.id}.toml" for adapter in adapters)
        for path, adapter in zip(paths, adapters, strict=True):
            write_private(path, dump_config(adapter))
        edge = EdgeConfig(
            data_dir=folder / "edge",
            concentrator=EdgeConcentrator(id="town", cloud=broker),
            adapters=tuple(EdgeAdapter(id=each.id, meters=each.meters) for each in adapters),
        )
        write_private(folder / "edge.toml", dump_config(edge))
    except OSError as error:
        raise SetupError(f"the configuration cannot be written into {folder}: {error.strerror}") from error
    return paths


def private_folder(folder: Path) -> Path:
    """Make a folder that is its owner's alone, if it is not there; return where it is.

    Raises:
        SetupError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder.resolve()


def _adapters(folder: Path, meters: list[MeterConfig], broker: BrokerConfig) -> list[AdapterConfig]:
    """Split the meters among adapters; those that share a line stay together."""
    parts: list[list[MeterConfig]] = [[]]
    for meter in meters:
        last = parts[-1]
        if len(last) >= MOST_METERS and last[-1].source != meter.source:
            parts.append([])
        parts[-1].append(meter)
    names = ["adapter"] if len(parts) == 1 else [f"adapter-{number}" for number in range(1, len(parts) + 1)]
    return [
        AdapterConfig(id=name, meters=tuple(part), broker=broker, spool_dir=folder / "spool" / name)
        for name, part in zip(names, parts, strict=True)
    ]


def _key_file(folder: Path, offer: TownOffer, keys: Mapping[str, Keys]) -> Path | None:
    encryption = keys[offer.meter_id].encryption if offer.sealed else None
    if encryption is None:
        return None
    path = folder / "keys" / f"{offer.meter_id}.key"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(path, encryption.hex() + "\n")
    return path
