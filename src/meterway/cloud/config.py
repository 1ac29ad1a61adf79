"""What the cloud needs to know: its broker, its database, where it listens, and how much it holds."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
from meterway.cloud.access.oidc_config import OidcConfig
from meterway.core import topics
from meterway.core.config import Table
from meterway.core.hosts import is_loopback, names_of


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
    """The most connections at once; further queries wait for one. Readings are written over two more of their own."""

    def __post_init__(self) -> None:
        if self.embedded is not None and self.dsn_file is not None:
            raise ValueError("[database] has both embedded and dsn_file: keep one")


class HttpConfig(Table, frozen=True):
    """The query API and the pages."""

    host: str = "127.0.0.1"
    """The address it listens on: this machine only, or another address of it, or `0.0.0.0` for all of them. Beyond
    this machine it always speaks TLS, and people sign in."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    """0 takes a free port; the log says which."""
    names: tuple[str, ...] = ()
    """Under which names and addresses it is reached from elsewhere; they stand in its certificate, and requests to
    others are refused. Behind a proxy on this machine: the proxy's name."""
    certificate_dir: Path | None = None
    """Where the authority lies that signs its certificate, and is made at the first start: `ca.pem` is for everybody
    who is to trust it. Left out: that of the embedded broker, or `certificates` beside the embedded database."""
    certificate_file: Path | None = None
    """A certificate of your own (PEM, with what leads to its authority), in place of one of the cloud's authority.
    One that is replaced is taken up within minutes, without a restart."""
    key_file: Path | None = None
    """The key of `certificate_file`, without a password; left out: it stands in the same file."""
    open: bool = False
    """Nobody signs in, and everybody who reaches it may do everything: for a try on this machine, and only on a
    loopback address. Else people have accounts; the log tells a link for the first one at the first start, and
    `meterway cloud invite` prints another."""
    redirect_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    """On this port plain HTTP is answered with the address of the same page at https, and nothing else; often 80."""

    def __post_init__(self) -> None:
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("[http] key_file stands without certificate_file; name the certificate it belongs to")
        if self.open and not self.is_local:
            raise ValueError(
                f"[http] open lets everybody do everything, so host {self.host!r} must be a loopback address: remove "
                "open, and people sign in"
            )
        if self.redirect_port is not None and not self.speaks_tls:
            raise ValueError(
                "[http] redirect_port leads to https, which host 127.0.0.1 without certificate_file is not"
            )
        if self.redirect_port and self.redirect_port == self.port:
            raise ValueError(f"[http] port and redirect_port are both {self.port}: https and http need one each")
        names_of(self.host, self.names)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it, so that it needs neither TLS nor accounts."""
        return is_loopback(self.host)

    @property
    def speaks_tls(self) -> bool:
        return not self.is_local or self.certificate_file is not None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Everything under which it may be addressed."""
        return names_of(self.host, self.names)


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
    """So many unknown meters of each tenant register by themselves; readings of further ones go to quarantine
    (`too-many-meters`)."""

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


class DevicesConfig(Table, frozen=True):
    """What devices that enrol are told of the broker. Where the cloud runs its own, it knows all this by itself."""

    broker_url: str | None = None
    """Where devices find the broker, `mqtts://host:port`; left out: the embedded one, under the first of its names."""
    ca_file: Path | None = None
    """The certificate (PEM) of the authority that signed that broker's; left out: a public one did."""
    mosquitto: BrokerConfig | None = None
    """Where that broker is a mosquitto with its dynamic-security plugin: how its administrator logs in, a table as
    `[broker]`. Its users are then the devices that enrol here."""
    mosquitto_log: Path | None = None
    """The file that this mosquitto logs to with `log_type debug`: what it refuses to a device is then shown with the
    device (docs/permissions.md). For one worker of several."""

    def __post_init__(self) -> None:
        if self.broker_url is None and (self.ca_file or self.mosquitto or self.mosquitto_log):
            raise ValueError(
                "[devices] has ca_file, mosquitto or mosquitto_log without broker_url: name the broker they are for"
            )


class LedgerConfig(Table, frozen=True):
    """The delivery ledger: how complete each meter's readings are."""

    keep_days: Annotated[int, msgspec.Meta(ge=2, le=36_525)] = 400
    """For so many days it is known which readings were missing, and why. A meter and day takes 200 to 500 bytes."""


class AuditConfig(Table, frozen=True):
    """The audit log: who read, changed, exported, deleted, and signed in."""

    keep_days: Annotated[int, msgspec.Meta(ge=1, le=36_525)] = 400
    """Entries that are older are removed."""


class PrivacyConfig(Table, frozen=True):
    """When research is answered (docs/privacy.md)."""

    k: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)] = 20
    """At least so many households must be in every cell of an answer."""
    dominance_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.25
    """No household may make up more of a sum than this share."""


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
    devices: DevicesConfig = DevicesConfig()
    audit: AuditConfig = AuditConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    oidc: OidcConfig | None = None
    """Sign in with an OpenID Connect provider as well."""
    role: Literal["all", "ingest", "api"] = "all"
    """What this process does: take readings in, answer queries, or both. More workers can be added at any time; only
    `all` starts the embedded database."""
    worker: str = "cloud"
    """The name of this process on its broker, part of the MQTT client id: every worker has its own and keeps it, for
    its messages wait there while it is away."""

    def __post_init__(self) -> None:
        topics.check_id(self.worker, "worker")
        if self.oidc is not None and self.http.open:
            raise ValueError("[oidc] stands beside `[http] open`, where nobody signs in: keep one")

    @property
    def certificate_dir(self) -> Path | None:
        """Where the authority of the HTTP server's certificate lies; None if nothing says where."""
        if self.http.certificate_dir is not None:
            return self.http.certificate_dir
        if self.embedded_broker is not None:
            return self.embedded_broker.certificates
        embedded = self.database.embedded
        return embedded.parent / "certificates" if embedded is not None else None
