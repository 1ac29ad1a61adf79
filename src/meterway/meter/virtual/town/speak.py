"""A meter that sends by itself, at its link."""

from collections import deque
from collections.abc import Callable
from typing import Final

from meterway.meter.virtual.chance import chance, chance_bytes
from meterway.meter.virtual.ledger import LedgerLine
from meterway.meter.virtual.links import Link
from meterway.meter.virtual.town.faults import FaultKind, meets
from meterway.meter.virtual.town.meter import TownMeter
from meterway.meter.virtual.town.record import Books, State, fault_names
from meterway.meter.virtual.town.voices.catalogue import Push

_NOISE_LIMIT_BYTES: Final = 48
_NOISE: Final = bytes(0xA8 + byte % 40 for byte in range(256))
"""Stray bytes are of 0xa8 to 0xcf: none that begins or ends a telegram of any protocol, which would hide the next."""


class SpeakingLine:
    """One meter at its link."""

    def __init__(self, meter: TownMeter, link: Link, books: Books, *, least_interval_s: int) -> None:
        assert isinstance(meter.voice, Push)  # noqa: S101 - the town's list of such meters
        self.meter = meter
        self.link = link
        self.interval_s = max(meter.interval_s, least_interval_s)
        self.phase_s = chance(1000 * self.interval_s, meter.meter_id, "phase") / 1000
        """When in its interval it speaks: meters of a town do not speak all at once."""
        self.past: deque[int] = deque()
        """Instants before the start that are told first."""
        self._voice = meter.voice
        self._books = books

    def first_s(self, start_s: float) -> float:
        """Return when it first speaks, at ``start_s`` or after it."""
        turns = -((self.phase_s - start_s) // self.interval_s)
        return self.phase_s + turns * self.interval_s

    def speak(self, instant_s: int, now_s: float) -> bool:
        """Send the telegram of an instant; return False where nobody is there to read it."""
        if not self.link.awaited(now_s):
            self._books.counters.ticks_unheard += 1
            return False
        meter = self.meter
        said = self._voice.say(meter.shown(instant_s))
        swallowed = meter.has(FaultKind.SILENCE, instant_s)
        lost = meets(meter.faults, FaultKind.LOSS, instant_s, meter.meter_id)
        noisy = meets(meter.faults, FaultKind.NOISE, instant_s, meter.meter_id)
        state: State = "spoilt" if meter.has(FaultKind.WRONG_KEY, instant_s) else "whole"
        hit = [kind for kind, is_hit in ((FaultKind.LOSS, lost), (FaultKind.NOISE, noisy)) if is_hit]
        fault = fault_names(meter, instant_s, *hit)
        if swallowed or lost:
            self._books.sent(self._books.line(meter, instant_s, said.values, state="silent", fault=fault), 0)
            return True
        data = noise(meter.meter_id, instant_s) + said.data if noisy else said.data
        line = self._books.line(meter, instant_s, said.values, state=state, fault=fault)
        self.link.send(data, self._taken(line, len(data)))
        return True

    def _taken(self, line: LedgerLine, size_bytes: int) -> Callable[[], None]:
        """Return what tells the books once, when the first reader has taken a telegram."""
        waiting = [line]

        def taken() -> None:
            if waiting:
                self._books.sent(waiting.pop(), size_bytes)

        return taken


def noise(*words: str | int) -> bytes:
    """Return up to 48 stray bytes that no protocol takes for a beginning."""
    drawn = chance_bytes(_NOISE_LIMIT_BYTES + 1, *words, "noise")
    return drawn[1 : 2 + drawn[0] % _NOISE_LIMIT_BYTES].translate(_NOISE)
