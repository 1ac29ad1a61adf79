"""Recorded bytes are decoded once more, in the time in which they came. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from meterway.adapter.config import HttpSource, MqttSource, Source
from meterway.adapter.listen import IDLE_S
from meterway.adapter.raw import Chunk
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.diagnose import Heard
from meterway.meter.telegram import Telegram


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a decoder made of recorded bytes."""

    heard: Heard
    arrivals: tuple[datetime, ...]
    """When each telegram was whole."""
    after: Heard
    """What came after the last of them."""


def hear_again(chunks: Sequence[Chunk], decoder: Decoder, *, is_whole: bool) -> Hearing:
    """Return what ``decoder`` makes of the chunks; where the line was quiet between two, it is told so.

    ``is_whole``: each chunk is one message (``Link.message_bounded``).
    """
    telegrams: list[Telegram] = []
    arrivals: list[datetime] = []
    errors: list[CodecError] = []
    seen = 0
    """So many errors came before the last telegram."""

    def take(found: list[Telegram | CodecError], arrival: datetime) -> None:
        nonlocal seen
        for item in found:
            if isinstance(item, Telegram):
                telegrams.append(item)
                arrivals.append(arrival)
                seen = len(errors)
            else:
                errors.append(item)

    before: Chunk | None = None
    for chunk in chunks:
        now_s = chunk.time.timestamp()
        if before is not None and (chunk.time - before.time).total_seconds() > IDLE_S:
            take(decoder.idle(before.time.timestamp() + IDLE_S), before.time)
        take(decoder.feed(chunk.data, now_s), chunk.time)
        if is_whole:
            take(decoder.idle(now_s), chunk.time)
        before = chunk
    if before is not None:
        take(decoder.idle(before.time.timestamp() + IDLE_S), before.time)
    last = arrivals[-1] if arrivals else None
    rest = b"".join(chunk.data for chunk in chunks if last is None or chunk.time > last)
    heard = Heard(b"".join(chunk.data for chunk in chunks), tuple(telegrams), tuple(errors))
    return Hearing(heard, tuple(arrivals), Heard(rest, (), tuple(errors[seen:])))


def is_message_bounded(source: Source) -> bool:
    """Return whether each read of ``source`` is one whole message (``Link.message_bounded``)."""
    return isinstance(source, MqttSource | HttpSource)
