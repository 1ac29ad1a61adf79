"""What the components need of a publish/subscribe service, whichever it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from meterway.core.config import Table


class BrokerConfig(Table, frozen=True):
    """Where a broker is and how to log in."""

    url: str = "mqtt://127.0.0.1:1883"
    """``mqtt://host:port``. TLS (``mqtts://``) is for a later release: until then keep the broker on loopback."""
    username: str | None = None
    """The name to log in with."""
    password_file: Path | None = None
    """A file whose only content is the password. The password itself never stands in a configuration."""


class EmbeddedBrokerConfig(Table, frozen=True, kw_only=True):
    """A broker that this process starts and keeps running, for this machine only."""

    data_dir: Path
    """Its store, configuration and passwords: `meterway.password` (may do everything) and `observer.password` (may
    only look), made at the first start."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """The MQTT port; 0 takes a free one at the first start and keeps it (`port` in the data directory says which)."""
    sync_always: bool = False
    """Flush every message to the disk before it is acknowledged: only for foreign senders that wait for no receipts,
    at 3,000 to 4,000 messages a second."""


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
