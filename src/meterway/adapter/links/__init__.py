"""Links: where a meter's bytes come from, and go to. One file a kind."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from meterway.adapter.config import ReplaySource, SerialSource, Source, TcpSource
from meterway.adapter.links.place import describe, kind
from meterway.adapter.links.replay import open_replay
from meterway.adapter.links.serial import open_serial
from meterway.adapter.links.tcp import open_tcp
from meterway.meter.family import Line

__all__ = ["Link", "describe", "kind", "open_link"]


class Link(Protocol):
    """An open way to a meter. One task reads, one writes and sets the line; both may be cancelled at any time."""

    message_bounded: bool
    """Every ``read`` is one whole message: what a decoder holds after it will not be completed."""

    async def read(self) -> bytes:
        """Return the next bytes, at least one; empty at the end of a replayed file.

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


def open_link(source: Source, line: Line) -> AbstractAsyncContextManager[Link]:
    """Open ``source``; ``line`` fills in the serial settings that it leaves out.

    Raises:
        TransientError: it cannot be opened now; says where and why.
    """
    match source:
        case SerialSource():
            return open_serial(source, line)
        case TcpSource():
            return open_tcp(source, line)
        case ReplaySource():
            return open_replay(source)
