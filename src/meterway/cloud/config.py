"""What the cloud needs to know: its broker, its database, where it listens, and how much it holds."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
from meterway.core import topics
from meterway.core.config import Table

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class DatabaseConfig(Table, frozen=True):
    """Where the PostgreSQL (15 or newer) is.

    At most one of ``embedded`` and ``dsn_file``; if neither stands here, the environment variable METERWAY_DSN is the
    DSN.
    """

    embedded: Path | None = None
    """A data directory: a PostgreSQL of this process's own is kept there and served to this machine only. Other
    workers on the machine (`role = "ingest"` or `"api"`) name the same directory and use the same server."""
    dsn_file: Path | None = None
    """A file whose only content is `postgresql://user:password@host/database`. The DSN itself never stands in a
    configuration, because it holds the password."""
    connections: Annotated[int, msgspec.Meta(ge=2, le=100)] = 10
    """The most connections at once; further queries wait for one."""

    def __post_init__(self) -> None:
        if self.embedded is not None and self.dsn_file is not None:
            raise ValueError("[database] has both embedded and dsn_file: keep one")


class HttpConfig(Table, frozen=True):
    """The query API and the pages."""

    host: str = "127.0.0.1"
    """A loopback address. There are no accounts and no TLS yet, so nothing else is accepted."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    """0 takes a free port; the log says which."""

    def __post_init__(self) -> None:
        if self.host not in _LOOPBACK:
            raise ValueError(
                f"[http] host {self.host!r} is not a loopback address ({', '.join(_LOOPBACK)}): there are no accounts "
                "and no TLS yet; put a proxy that has both in front"
            )


class IngestConfig(Table, frozen=True):
    """How readings come in."""

    filters: tuple[str, ...] = (topics.CONCENTRATOR_FILTER,)
    """What to subscribe to. Workers on a broker without shared subscriptions divide the concentrators among them:
    `["concentrator/north/#", "concentrator/south/#"]`."""
    strict: bool = False
    """Refuse readings of meters that nobody has claimed: they go to quarantine (`unclaimed-meter`) and can be replayed
    after the meter was claimed. Else unknown meters are registered as unclaimed."""
    batch_limit: Annotated[int, msgspec.Meta(ge=1, le=20_000)] = 2000
    """The most messages in one transaction."""
    linger_s: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.02
    """How long a batch that is not full waits for more."""
    pending_limit: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    """The most messages that wait for the database. Beyond, messages are neither kept nor acknowledged (counted as
    `refused`); the broker delivers them again (NATS after its `ack_wait`, mosquitto at the next connection). Let the
    broker have fewer in flight than this, as the embedded one has (4096)."""
    pending_limit_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * 1024 * 1024
    """The most bytes that wait for the database; beyond, as above."""
    future_limit_s: Annotated[int, msgspec.Meta(ge=0)] = 86_400
    """A reading that is further ahead of this machine's clock goes to quarantine (`future-time`)."""
    past_limit_days: Annotated[int, msgspec.Meta(ge=1, le=36_525)] = 7305
    """A reading that is older goes to quarantine (`past-time`): a meter without a clock says 1970 or 2000. Each month
    in the range can have a partition."""
    limit_unclaimed_meters: Annotated[int, msgspec.Meta(ge=0)] = 100_000
    """So many unknown meters register by themselves; readings of further ones go to quarantine (`too-many-meters`)."""

    def __post_init__(self) -> None:
        for each in self.filters:
            if not each.startswith("concentrator/"):
                raise ValueError(f"[ingest] filters: {each!r} does not begin with concentrator/")
        if not self.filters:
            raise ValueError("[ingest] filters is empty: nothing would be received")


class QuarantineConfig(Table, frozen=True):
    """How much is kept of what could not become a reading: for quarantine, conflicts and faults, each.

    At a bound the oldest are removed and counted (`removed`); each worker may pass it by a hundredth.
    """

    limit_rows: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    limit_bytes: Annotated[int, msgspec.Meta(ge=1)] = 1024 * 1024 * 1024


class LedgerConfig(Table, frozen=True):
    """The delivery ledger: how complete each meter's readings are."""

    keep_days: Annotated[int, msgspec.Meta(ge=2, le=36_525)] = 400
    """For so many days it is known which readings were missing, and why. A meter and day takes 200 to 500 bytes."""


class CloudConfig(Table, frozen=True):
    """One cloud process."""

    database: DatabaseConfig = DatabaseConfig()
    broker: BrokerConfig = BrokerConfig()
    """Where the concentrators publish; not looked at when `[embedded_broker]` is there."""
    embedded_broker: EmbeddedBrokerConfig | None = None
    """Start a broker of the cloud's own (only with `role = "all"`)."""
    http: HttpConfig = HttpConfig()
    ingest: IngestConfig = IngestConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    ledger: LedgerConfig = LedgerConfig()
    role: Literal["all", "ingest", "api"] = "all"
    """What this process does: take readings in, answer queries, or both. More workers can be added at any time; only
    `all` starts the embedded database."""
    worker: str = "cloud"
    """The name of this process on its broker, part of the MQTT client id: every worker has its own and keeps it, for
    its messages wait there while it is away."""

    def __post_init__(self) -> None:
        topics.check_id(self.worker, "worker")
