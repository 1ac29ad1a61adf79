"""What an adapter needs to know: brokers, spool and, for each meter, where it is plugged in and what it is."""

from pathlib import Path
from typing import Annotated

import msgspec

from meterway.bus.bus import BrokerConfig
from meterway.core import topics
from meterway.core.config import Table
from meterway.core.obis import Obis
from meterway.core.zones import find_zone
from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.meter.family import ObisRule


class SerialSource(Table, frozen=True, tag="serial", tag_field="type"):
    """A serial port, an optical head or a pty. Line settings left out come from the meter's family."""

    port: Path
    """The device; prefer `/dev/serial/by-id/...`, which stays the same when cables are plugged in another order."""
    baud: Annotated[int, msgspec.Meta(ge=50, le=4_000_000)] | None = None
    """Bits per second."""
    data_bits: Annotated[int, msgspec.Meta(ge=5, le=8)] | None = None
    parity: Annotated[str, msgspec.Meta(pattern="^[NEO]$")] | None = None
    """`N`one, `E`ven or `O`dd."""
    stop_bits: Annotated[int, msgspec.Meta(ge=1, le=2)] | None = None


class TcpSource(Table, frozen=True, tag="tcp", tag_field="type"):
    """A TCP server that hands out the meter's bytes: ser2net, a LAN gateway, a virtual meter."""

    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class ReplaySource(Table, frozen=True, tag="replay", tag_field="type"):
    """A file of captured bytes, read once."""

    file: Path
    bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How fast to read; as fast as possible when left out."""


Source = SerialSource | TcpSource | ReplaySource


class ChannelConfig(Table, frozen=True):
    """A second meter behind the first: gas, water or heat on an M-Bus channel of a P1 port."""

    channel: Annotated[int, msgspec.Meta(ge=1, le=4)]
    id: str
    """The second meter's own smart meter id."""
    static: dict[str, int | float | str] = msgspec.field(default_factory=dict)
    """As `static` of the first meter."""


class MeterConfig(Table, frozen=True):
    """One meter."""

    id: str
    """The smart meter id: the UUID of the MeterIndividual."""
    source: Source
    """Where its bytes come from: a table with `type = "serial"`, `"tcp"` or `"replay"`."""
    family: str = "p1-generic"
    """What it is: a name that `meterway meter families` lists."""
    timezone: str | None = None
    """The IANA zone of the meter's clock, `Europe/Amsterdam`; left out: the family's."""
    key_file: Path | None = None
    """A file with the key of an encrypted meter, from the grid operator: 32 hexadecimal digits; on a second line the
    authentication key, without which readings are marked `unverified`."""
    authentication_key_file: Path | None = None
    """The authentication key, if it stands in a file of its own."""
    watchdog_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """After this long without a whole telegram the status says `silent` and the source is opened anew."""
    mapping: dict[str, str | ObisRule] = msgspec.field(default_factory=dict)
    """OBIS code to property id, or to a table `{ property, factor, ignore }`; what is not listed is mapped by the
    family, then by the catalogue."""
    static: dict[str, int | float | str] = msgspec.field(default_factory=dict)
    """Properties that the meter does not know, put into every reading: `"SITE_household_size" = 3`."""
    channels: tuple[ChannelConfig, ...] = ()
    """Meters behind this one."""

    def __post_init__(self) -> None:
        for code in self.mapping:
            Obis.parse(code)
        for meter_id in (self.id, *(channel.id for channel in self.channels)):
            topics.check_id(meter_id, "smart meter id")
        if self.timezone is not None:
            find_zone(self.timezone)


class AdapterConfig(Table, frozen=True):
    """One adapter process: one or many meters."""

    id: str
    """The adapter's name, unique on its broker."""
    spool_dir: Path
    """Where readings wait until the concentrator has confirmed them: a folder of its own that survives a restart."""
    meters: tuple[MeterConfig, ...]
    broker: BrokerConfig = BrokerConfig()
    spool: SpoolConfig = SpoolConfig()
    relay: RelayConfig = RelayConfig()
    """`confirm = "broker"` is for a concentrator that sends no receipts."""

    def __post_init__(self) -> None:
        topics.check_id(self.id, "adapter id")
        ids = [meter_id for meter in self.meters for meter_id in meter_ids(meter)]
        if repeated := {meter_id for meter_id in ids if ids.count(meter_id) > 1}:
            raise ValueError(f"smart meter id {min(repeated)} stands twice; every meter has its own")
        if not ids:
            raise ValueError("there is no [[meters]] table; an adapter reads at least one meter")


def meter_ids(meter: MeterConfig) -> tuple[str, ...]:
    """Return the ids of a meter and of those behind it."""
    return (meter.id, *(channel.id for channel in meter.channels))
