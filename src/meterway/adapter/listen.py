"""The listening loop: one link, and the decoder of each meter that sends over it by itself."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meterway.adapter.intake import DefectError, Intake
from meterway.adapter.links import Link
from meterway.adapter.segment import LONGEST_DELAY_S, STATUS_INTERVAL_S, Segment, keep_open
from meterway.core.errors import MeterwayError, TransientError
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.telegram import Telegram

IDLE_S = 3.0
"""A line that is quiet for so long is between telegrams: what is half there is given up."""

_LOOK_S = 0.05

Items = list[Telegram | CodecError]


@dataclass(slots=True, kw_only=True)
class Ear:
    """A meter that is listened to."""

    intake: Intake
    decoder: Decoder
    """One for all times the link is opened: what it has learnt of the meter guards against replays."""
    watchdog_s: float
    alive: float = 0.0
    """When the link was opened, or a whole telegram came, by the monotonic clock."""
    unused_bytes: int = 0
    """Received since then."""


class Listener:
    """Reads one link for ever; every decoder gets all that comes."""

    def __init__(self, segment: Segment, ears: Sequence[Ear], *, monotonic: Callable[[], float]) -> None:
        self._segment = segment
        self._ears = ears
        self._monotonic = monotonic
        self._quiet_s = min(IDLE_S, *(ear.watchdog_s for ear in ears))
        self._status_time = monotonic()
        self._readings = 0
        """When the link broke last."""

    async def run(self) -> None:
        """Read until cancelled, or until a replayed file ends."""
        await keep_open(self._segment, self._serve, self._broken)

    async def _serve(self, link: Link) -> None:
        where = self._segment.where
        for ear in self._ears:
            ear.alive, ear.unused_bytes = self._monotonic(), 0
            if ear.intake.state != "silent":
                ear.intake.say("waiting", f"{where} is open; no telegram yet")
        while True:
            data = await self._read(link)
            if data is None:
                await self._tell(lambda decoder, now: decoder.idle(now))
            elif not data:
                break
            else:
                await self._hear(data, is_whole=link.message_bounded)
            self._watch()
        await self._tell(lambda decoder, now: decoder.idle(now))
        for ear in self._ears:
            await ear.intake.flush()
            ear.intake.say("offline", f"{where} was read to its end")

    async def _read(self, link: Link) -> bytes | None:
        """Return what comes; None if the line is quiet.

        A process that stood still finds the time over while bytes wait: it looks once more.
        """
        for patience_s in (self._quiet_s, _LOOK_S):
            try:
                async with asyncio.timeout(patience_s):
                    return await link.read()
            except TimeoutError:
                continue
        return None

    async def _hear(self, data: bytes, *, is_whole: bool) -> None:
        for ear in self._ears:
            ear.unused_bytes += len(data)
        if is_whole:
            await self._tell(lambda decoder, now: [*decoder.feed(data, now), *decoder.idle(now)])
        else:
            await self._tell(lambda decoder, now: decoder.feed(data, now))

    async def _tell(self, decode: Callable[[Decoder, float], Items]) -> None:
        """Let every decoder work, and hand on what it found."""
        for ear in self._ears:
            now = self._monotonic()
            if ear.alive > now:  # its decoder has failed
                continue
            try:
                with ear.intake.contained():
                    items = decode(ear.decoder, now)
                    if await ear.intake.take(items, skipped_bytes=ear.decoder.skipped_bytes):
                        ear.alive, ear.unused_bytes = self._monotonic(), 0
            except DefectError as error:
                ear.alive = now + LONGEST_DELAY_S
                ear.intake.say("offline", f"{error}, and it is tried again after {LONGEST_DELAY_S:g} s")

    def _watch(self) -> None:
        """Say who is silent; a link on which all are is opened anew.

        Raises:
            TransientError: all are silent.
        """
        now = self._monotonic()
        silent = [ear for ear in self._ears if now - ear.alive > ear.watchdog_s]
        all_are_silent = len(silent) == len(self._ears)
        for ear in silent:
            if all_are_silent or ear.intake.state != "silent":
                ear.intake.say("silent", self._silence(ear))
        if all_are_silent:
            raise _SilentError(self._silence(silent[0]))
        if now - self._status_time > STATUS_INTERVAL_S:
            self._status_time = now
            for ear in self._ears:
                ear.intake.say_again()

    async def _broken(self, error: MeterwayError) -> bool:
        """Take the telegrams that the end of the link completed; forget the half ones that it cut."""
        await self._tell(lambda decoder, now: [item for item in decoder.idle(now) if isinstance(item, Telegram)])
        if not isinstance(error, _SilentError):
            for ear in self._ears:
                ear.intake.say("offline", str(error))
        before, self._readings = self._readings, sum(ear.intake.readings for ear in self._ears)
        return self._readings > before

    def _silence(self, ear: Ear) -> str:
        watchdog = f"for {ear.watchdog_s:g} s"
        where = self._segment.where
        if not ear.unused_bytes:
            return f"{where}: not one byte {watchdog}; is the cable or optical head in place, the meter powered?"
        if len(self._ears) > 1:
            return f"{where}: {ear.unused_bytes} bytes {watchdog}, but no telegram of this meter; is its address right?"
        return (
            f"{where}: {ear.unused_bytes} bytes {watchdog} but no whole {ear.intake.protocol} telegram; wrong baud "
            "rate, parity or family?"
        )


class _SilentError(TransientError):
    """The link is open and no telegram comes."""
