"""What the components need of a publish/subscribe service, whichever it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from meterway.core.config import Table
from meterway.core.hosts import names_of


class BrokerConfig(Table, frozen=True):
    """Where a broker is and how to log in."""

    url: str = "mqtt://127.0.0.1:1883"
    """`mqtts://host:port`, with TLS; `mqtt://host:port`, without, to this machine only. The port may be left out: 8883
    and 1883."""
    username: str | None = None
    """The name to log in with."""
    password_file: Path | None = None
    """A file whose only content is the password. The password itself never stands in a configuration."""
    ca_file: Path | None = None
    """The certificate (PEM) of the authority that signed the broker's: `ca.pem` of an embedded broker. Left out: the
    public authorities that this system trusts. A file that is replaced is taken up at the next connection."""
    certificate_file: Path | None = None
    """A certificate (PEM) by which this client shows who it is, where the broker asks for one."""
    key_file: Path | None = None
    """The key of `certificate_file`, without a password; left out: it stands in the same file."""
    plaintext: bool = False
    """Allow `mqtt://` to another machine: who is on the way reads passwords and readings, and can forge both."""
    cloud_url: str | None = None
    """The address of the cloud where this device was enrolled; `meterway doctor` asks there what the broker refused."""

    def __post_init__(self) -> None:
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file stands without certificate_file; name the certificate it belongs to")
        if self.url.startswith("mqtt:") and (self.ca_file is not None or self.certificate_file is not None):
            raise ValueError("ca_file and certificate_file are for TLS: write mqtts:// in url")


class EmbeddedBrokerConfig(Table, frozen=True, kw_only=True):
    """A broker that this process starts and keeps running."""

    data_dir: Path
    """Its store, configuration and passwords: `meterway.password` (may do everything) and `observer.password` (may
    only look), made at the first start."""
    host: str = "127.0.0.1"
    """The address it listens on: this machine only, or another address of it, or `0.0.0.0` for all of them. Beyond
    this machine it always speaks TLS."""
    names: tuple[str, ...] = ()
    """Under which names and addresses other machines reach it; they stand in its certificate."""
    certificate_dir: Path | None = None
    """Where the authority lies that signs its certificate, and is made at the first start: `ca.pem` is for everybody
    who connects. Left out: `certificates` in the data directory."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """The MQTT port; 0 takes a free one at the first start and keeps it (`port` in the data directory says which)."""
    store_limit_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 8 << 30
    """The most that it keeps on the disk. Beyond, it acknowledges nothing more, and messages wait with their senders
    until receivers have taken some."""
    sync_always: bool = False
    """Flush every message to the disk before it is acknowledged: only for foreign senders that wait for no receipts,
    at 3,000 to 4,000 messages a second."""

    def __post_init__(self) -> None:
        names_of(self.host, self.names)

    @property
    def certificates(self) -> Path:
        """Where its authority lies."""
        return self.certificate_dir or self.data_dir / "certificates"


class Delivery(Protocol):
    """A message that has arrived and waits for its acknowledgement."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def retained(self) -> bool:
        """Whether the broker had kept it since before this subscription."""

    def ack(self) -> None:
        """Tell the broker that the message is safe here. Does nothing if the connection was lost since."""


Handler = Callable[[Delivery], None]
"""Called in order of arrival, must not block; acknowledges then or later."""


class Bus(Protocol):
    """One logical connection with a persistent session; it reconnects by itself."""

    @property
    def connected(self) -> bool: ...

    async def wait_connected(self) -> None: ...

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, on_ack: Callable[[], None] | None = None
    ) -> None:
        """Send with QoS 1. ``on_ack`` is called once when the broker has acknowledged, never after a loss.

        Nothing is kept for a reconnect: who must not lose a message sends it again (``delivery.relay``).

        Raises:
            TransientError: not connected, or too many messages are unacknowledged.
        """

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called each time the connection is up and subscribed (at once if it is now)."""
