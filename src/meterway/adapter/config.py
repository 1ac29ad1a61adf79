"""What an adapter needs to know: brokers, spool and, for each meter, where it is plugged in and what it is."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from meterway.adapter.pulse_counter import PulseConfig
from meterway.bus.bus import BrokerConfig
from meterway.bus.filters import check_filter
from meterway.core import topics
from meterway.core.config import Table
from meterway.core.obis import Obis
from meterway.core.zones import find_zone
from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.metrics import MetricsConfig
from meterway.meter.family import ObisRule
from meterway.meter.wmbus_receivers import start_bytes

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class SerialLine(Table, frozen=True):
    """The settings of a serial line. What is left out comes from the meter's family, or from whoever asks the meter."""

    baud: Annotated[int, msgspec.Meta(ge=50, le=4_000_000)] | None = None
    """Bits per second, instead of those with which the family begins; a rate that the meter is then asked to change to
    (IEC 62056-21, M-Bus) is set all the same."""
    data_bits: Annotated[int, msgspec.Meta(ge=5, le=8)] | None = None
    """Pinned: nobody who asks the meter sets another."""
    parity: Literal["N", "E", "O"] | None = None
    """`N`one, `E`ven or `O`dd; pinned."""
    stop_bits: Annotated[int, msgspec.Meta(ge=1, le=2)] | None = None
    """Pinned."""
    receiver: Literal["amber", "cul", "im871a", "rc1180"] | None = None
    """What hears wireless M-Bus at this port: it is told to listen, and its baud rate stands for the family's."""
    radio_mode: Literal["T", "C", "S", "CT"] = "T"
    """Of wireless M-Bus, as the receiver is told."""

    def __post_init__(self) -> None:
        if self.receiver is not None:
            start_bytes(self.receiver, self.radio_mode)


class SerialSource(SerialLine, frozen=True, kw_only=True, tag="serial", tag_field="type"):
    """A serial port, an optical head or a pty. No other program can use it at the same time."""

    port: Path
    """The device; prefer `/dev/serial/by-id/...`, which stays the same when cables are plugged in another order."""


class Rfc2217Source(SerialLine, frozen=True, kw_only=True, tag="rfc2217", tag_field="type"):
    """A serial port behind a gateway that speaks RFC 2217, so that its line can be set from here."""

    host: str
    """The gateway: ser2net with `telnet(rfc2217)`, a serial device server in its RFC 2217 mode."""
    port: Port


class TcpSource(Table, frozen=True, tag="tcp", tag_field="type"):
    """A TCP server that hands out the meter's bytes: ser2net, a LAN gateway, a virtual meter.

    A serial line behind it cannot be set from here.
    """

    host: str
    """The gateway; its serial line, which cannot be set from here, must be set at the gateway as the family says."""
    port: Port


class TcpListenerSource(Table, frozen=True, tag="tcp-listener", tag_field="type"):
    """A TCP port that a meter or gateway dials in to; who may is not checked."""

    port: Port
    """One connection at a time: a new one ends the one before it, which may be dead without anybody knowing."""
    host: str = "127.0.0.1"
    """The address to listen at; `0.0.0.0` lets the whole network in, so protect it by other means."""


class ReplaySource(Table, frozen=True, tag="replay", tag_field="type"):
    """A file of captured bytes, read once."""

    file: Path
    bytes_per_s: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How fast to read; as fast as possible when left out."""


class MqttSource(Table, frozen=True, tag="mqtt", tag_field="type"):
    """A topic to which something else publishes what a meter says; subscribed with QoS 0.

    Without a session either: a message that waited at the broker would be taken for one of now.
    """

    topic: str
    """A topic, each payload of which is one message; or a filter with `+` or `#` for meters that speak JSON, then a
    message is `{"topic": ..., "payload": ...}`. Not below `smartMeterMessage/`, `concentrator/` or `receipt/`."""
    broker: BrokerConfig | None = None
    """Left out: the adapter's own broker."""
    retained: bool = False
    """Take what the broker has retained, too: of an age that nobody knows, unless the message says its time."""

    def __post_init__(self) -> None:
        check_filter(self.topic)
        root = self.topic.split("/")[0]
        if root in ("#", "+"):
            raise ValueError(f'topic "{self.topic}" would take what Meterway itself publishes; begin it with a name')
        if root in topics.ROOTS:
            raise ValueError(f'topic "{self.topic}": what Meterway itself publishes below {root}/ is no source')


class HttpSource(Table, frozen=True, tag="http", tag_field="type"):
    """A meter or gateway that is polled over HTTP; the body of each answer is one message.

    Answers of more than 1 MiB, and redirects to another host, are refused.
    """

    url: str
    """`http://...` or `https://...`, without user name and password. A redirect to another host is not followed."""
    interval_s: Annotated[float, msgspec.Meta(ge=0.1)] = 10.0
    """From the beginning of one request to the next; shorter than the meter's `watchdog_s`."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0
    """For one answer, from connecting to its last byte."""
    auth: Literal["basic", "digest"] = "basic"
    """How to log in with `username`; digest never sends the password itself."""
    username: str | None = None
    password_file: Path | None = None
    """A file whose only content is the password of `username`."""
    token_file: Path | None = None
    """A file whose only content is the token that is sent as `Authorization: Bearer`."""
    headers_file: Path | None = None
    """A file of further headers, one `Name: value` a line; a file, because an API key may be among them."""
    ca_file: Path | None = None
    """Whom to trust when the device's certificate is not from a public authority: that certificate, or its CA's."""

    def __post_init__(self) -> None:
        _check_url(self.url)
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together; one of them is missing")
        if self.username is not None and self.token_file is not None:
            raise ValueError("there is a username and a token_file; a device wants one of them")


class ProcessSource(Table, frozen=True, tag="process", tag_field="type"):
    """A program that prints what a meter says: its standard output is read, its standard error goes to the log.

    It is started with the adapter, started again when it ends, and ended with the adapter.
    """

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """The program and its arguments, `["wmbusmeters", "--format=json", ...]`; no shell reads them."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """Added to the adapter's own."""

    def __post_init__(self) -> None:
        if not self.command[0] or any("\0" in text for text in (*self.command, *self.environment.values())):
            raise ValueError("command does not name a program")


Source = (
    SerialSource
    | Rfc2217Source
    | TcpSource
    | TcpListenerSource
    | ReplaySource
    | MqttSource
    | HttpSource
    | ProcessSource
)


def _check_url(url: str) -> None:
    """Check what `httpx` is going to be asked for.

    Raises:
        ValueError: it is no HTTP URL, or it holds a password; never quotes it, for it may hold a token as well.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("url is not http://host/path or https://host/path")
    if parts.username is not None:
        raise ValueError("url holds a user name; put it into username, and the password into password_file")


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
    """Where its bytes come from: a table with `type = "serial"`, `"rfc2217"`, `"tcp"`, `"tcp-listener"`, `"mqtt"`,
    `"http"`, `"process"` or `"replay"`."""
    family: str = "p1-generic"
    """What it is: a name that `meterway drivers` lists."""
    timezone: str | None = None
    """The IANA zone of the meter's clock, `Europe/Amsterdam`; left out: the family's."""
    key_file: Path | None = None
    """A file with the key of an encrypted meter, from the grid operator: 32 hexadecimal digits; on a second line the
    authentication key, without which readings are marked `unverified`. Here and wherever the file of a key, a password
    or a token is named, `"secret:NAME"` names one that `meterway secret set NAME` keeps encrypted."""
    authentication_key_file: Path | None = None
    """The authentication key, if it stands in a file of its own."""
    address: str = ""
    """Which meter it is, where several share a source: on M-Bus the primary address (`"5"`) or the 8 or 16 digits of
    the secondary one, in IEC 62056-21 the device address, else how the meter calls itself in its telegrams."""
    password_file: Path | None = None
    """A file whose only line is the password that the meter asks for."""
    interval_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """How often a meter is asked that does not send by itself; left out: as its family says. Many run on a battery."""
    pulse: PulseConfig | None = None
    """Only for a meter that gives pulses: where its count is kept, and where it begins."""
    clock: Literal["live", "recorded"] = "live"
    """`recorded`: the meter tells of another time than now (a simulation, a recording), so its clock is not held
    against this machine's."""
    watchdog_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """After this long without a whole telegram the status says `silent` and the source is opened anew. A meter that is
    asked is never silent before three of its intervals have passed."""
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
        if isinstance(self.source, HttpSource) and self.source.interval_s > self.watchdog_s:
            raise ValueError(
                f"the source is polled every {self.source.interval_s:g} s, and watchdog_s = {self.watchdog_s:g} takes "
                "the meter for silent before; raise watchdog_s"
            )


class SigningConfig(Table, frozen=True):
    """Signatures of readings (Ed25519), by which the cloud and anybody else can tell that nobody changed them."""

    enabled: bool = False
    """Sign every reading. The cloud learns the key from the first one; docs/signatures.md says what that protects."""
    key_file: Path | None = None
    """A private key in PEM (`openssl genpkey -algorithm ed25519`), or `"secret:NAME"`. Left out: one is made at the
    first start, beside `spool_dir`."""


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
    metrics: MetricsConfig = MetricsConfig()
    signing: SigningConfig = SigningConfig()
    raw_ring_bytes: Annotated[int, msgspec.Meta(ge=0, le=64 << 20)] = 256 * 1024
    """So much of the last bytes of each source is kept in `spool_dir`, below `raw`, for `meterway doctor`: what the
    meters sent, with their readings and numbers, for this user's eyes only. 0 keeps nothing."""

    def __post_init__(self) -> None:
        topics.check_id(self.id, "adapter id")
        ids = [meter_id for meter in self.meters for meter_id in meter_ids(meter)]
        if repeated := {meter_id for meter_id in ids if ids.count(meter_id) > 1}:
            raise ValueError(f"smart meter id {min(repeated)} stands twice; every meter has its own")
        if not ids:
            raise ValueError("there is no [[meters]] table; an adapter reads at least one meter")
        for meters in segments(self.meters):
            _check_addresses(meters)


def meter_ids(meter: MeterConfig) -> tuple[str, ...]:
    """Return the ids of a meter and of those behind it."""
    return (meter.id, *(channel.id for channel in meter.channels))


def segments(meters: Iterable[MeterConfig]) -> list[list[MeterConfig]]:
    """Return the meters by source, in order: those with an equal one share its link."""
    found: list[list[MeterConfig]] = []
    for meter in meters:
        shared = next((each for each in found if each[0].source == meter.source), None)
        if shared is None:
            found.append([meter])
        else:
            shared.append(meter)
    return found


def _check_addresses(meters: Sequence[MeterConfig]) -> None:
    seen: dict[str, MeterConfig] = {}
    for meter in meters:
        other = seen.setdefault(meter.address.casefold(), meter)
        if other is not meter or (len(meters) > 1 and not meter.address):
            others = ", ".join(each.id for each in meters)
            raise ValueError(f"the meters {others} share one source: each needs an `address`, and each another one")
