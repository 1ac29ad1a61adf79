"""The face of every push codec: bytes in, telegrams out; no wait, no clock, no log."""

from typing import Protocol

from meterway.core.errors import BadDataError
from meterway.meter.telegram import Telegram


class CodecError(BadDataError):
    """A frame that began and cannot be used; an item in the list that ``feed`` returns, never raised by it.

    ``reason`` is one of ``bad-checksum``, ``bad-syntax``, ``truncated``, ``too-long``, ``too-deep``, ``encrypted``,
    ``bad-key``, ``replayed`` (its counter was used before), ``downgraded`` (less protected than those before it),
    ``refused`` (the meter itself answers that it has no data), ``collision`` (several meters answer at once),
    ``foreign`` (a meter answers that was not asked), ``late`` (an answer to a question that is over),
    ``not-saved`` (the count of pulses could not be kept on the disk).
    """

    def __init__(self, message: str, *, reason: str, data: bytes) -> None:
        super().__init__(message, reason=reason)
        self.data = data
        """The bytes of the frame, as far as they arrived."""


class Decoder(Protocol):
    """A push protocol. Bytes between frames are noise and are skipped in silence."""

    skipped_bytes: int
    """Noise dropped so far; a watchdog tells "no bytes" from "bytes but no frame" by it."""

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the rest of their frame; never more than the codec's own limit."""

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:
        """Take the next bytes; return what they completed, in order.

        ``now`` is a monotonic time in seconds; time-outs inside a frame are measured with it. Never raises on
        wire data; buffers at most the codec's own limit.
        """

    def idle(self, now: float) -> list[Telegram | CodecError]:
        """Tell that the line has been quiet for longer than a meter pauses inside a frame: flush and resync."""
