"""Links: where a meter's bytes come from, and go to. One file a kind."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from meterway.adapter.config import (
    HttpSource,
    MqttSource,
    ProcessSource,
    ReplaySource,
    Rfc2217Source,
    SerialSource,
    Source,
    TcpListenerSource,
    TcpSource,
)
from meterway.adapter.links.http import open_http
from meterway.adapter.links.listener import open_tcp_listener
from meterway.adapter.links.mqtt import open_mqtt
from meterway.adapter.links.place import describe, kind
from meterway.adapter.links.process import open_process
from meterway.adapter.links.replay import open_replay
from meterway.adapter.links.serial import open_serial
from meterway.adapter.links.tcp import open_tcp
from meterway.bus.bus import BrokerConfig
from meterway.meter.family import Line

__all__ = ["Link", "describe", "kind", "open_link"]


class Link(Protocol):
    """An open way to a meter. One task reads, one writes and sets the line; both may be cancelled at any time."""

    message_bounded: bool
    """Every ``read`` is one whole message: what a decoder holds after it will not be completed."""

    async def read(self) -> bytes:
        """Return the next bytes, at least one; empty at the end of a replayed file.

        Never without a turn for others, also where bytes wait: a meter that never pauses must not stop the process.
        A stream hands out at most ``stream.CHUNK_LIMIT_BYTES`` at once, a link of messages one whole message.

        Raises:
            TransientError: the line broke.
        """

    async def write(self, data: bytes) -> None:
        """Send; return when the last bit has left the line, as far as this machine can tell.

        Raises:
            TransientError: the line broke.
            SetupError: nothing can be sent this way, so a meter that must be asked cannot be read.
        """

    async def set_line(self, line: Line) -> None:
        """Set the serial line anew; what was received and not read yet may be lost.

        Raises:
            TransientError: the line broke.
            SetupError: this link cannot; never for the line that is set already.
        """


_OWN_BROKER = BrokerConfig()


def open_link(  # noqa: PLR0911 - one line a kind
    source: Source, line: Line, broker: BrokerConfig = _OWN_BROKER
) -> AbstractAsyncContextManager[Link]:
    """Open ``source``.

    ``line`` is the one with which the family's meters begin; it fills in the settings that the source leaves out.
    ``broker`` is the adapter's own, for a topic that is not said to be on another.

    Raises:
        TransientError: it cannot be opened now; says where, why and what to do.
    """
    match source:
        case SerialSource() | Rfc2217Source():
            return open_serial(source, line)
        case TcpSource():
            return open_tcp(source, line)
        case TcpListenerSource():
            return open_tcp_listener(source, line)
        case ReplaySource():
            return open_replay(source)
        case MqttSource():
            return open_mqtt(source, broker)
        case HttpSource():
            return open_http(source)
        case ProcessSource():
            return open_process(source)
