"""Which family is this meter of? What each family makes of its bytes decides. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import Mapper
from meterway.core.reading import MeterReading, PhysicalMeterClass
from meterway.meter.codec import Decoder
from meterway.meter.diagnose import Heard, hear
from meterway.meter.family import Family
from meterway.meter.telegram import Telegram

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GENERIC = "generic"
_LOCKED = ("encrypted", "bad-key")
_CLASSES = {
    1: PhysicalMeterClass.ELECTRICITY,
    5: PhysicalMeterClass.HEAT,
    6: PhysicalMeterClass.HEAT,
    7: PhysicalMeterClass.GAS,
    8: PhysicalMeterClass.WATER,
    9: PhysicalMeterClass.WATER,
}
"""By group A."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A family, and what it makes of the bytes."""

    family: Family
    heard: Heard
    readings: tuple[MeterReading, ...]
    """Of the last telegram: the meter's own, then those of meters behind it."""
    unmapped: tuple[str, ...]
    """OBIS codes without a property."""
    likeness: int
    """0: the meter calls itself as those of this family do; 1: nobody knows how those do; 2: it does not;
    3: it measures something else, or is not encrypted as those of this family are."""

    @property
    def locked(self) -> int:
        """How many frames are whole and wait for their key."""
        return sum(self.heard.reasons[reason] for reason in _LOCKED)

    @property
    def rank(self) -> tuple[int, ...]:
        """Less is better: more telegrams, more that wait for a key, fewer refused, the right name, more values."""
        values = sum(len(reading.property_values) for reading in self.readings)
        heard = self.heard
        return (-len(heard.telegrams), -self.locked, len(heard.errors), self.likeness, -values)


def candidates(
    chunks: Iterable[bytes], families: Iterable[Family], decoder_of: Callable[[Family], Decoder]
) -> list[Candidate]:
    """Return what each of ``families`` makes of the bytes, the likeliest first.

    A family whose meters call themselves otherwise than this one does comes after those that say nothing of it.
    """
    chunks = list(chunks)
    found = [_candidate(family, hear(chunks, decoder_of(family))) for family in families]
    return ranked(found)


def ranked(found: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates, the likeliest first; of equal ones the generic family, then by name."""
    return sorted(found, key=lambda each: (each.rank, _GENERIC not in each.family.name, each.family.name))


def candidate_of(family: Family, telegrams: Iterable[Telegram]) -> Candidate:
    """Return what a family makes of telegrams that a master has read."""
    return _candidate(family, Heard(b"", tuple(telegrams), ()))


def _candidate(family: Family, heard: Heard) -> Candidate:
    mapper = Mapper(MeterConfig(id="detected", source=ReplaySource(file=Path()), family=family.name), family)
    readings: tuple[MeterReading, ...] = ()
    for telegram in heard.telegrams:
        readings = tuple(mapped.reading for mapped in mapper.readings(telegram, telegram.time or _EPOCH))
    unmapped = tuple(sorted(str(obis) for obis in mapper.unmapped))
    return Candidate(family, heard, readings, unmapped, _likeness(family, heard.telegrams))


def _likeness(family: Family, telegrams: Sequence[Telegram]) -> int:
    codes = Counter(_CLASSES.get(register.obis.a) for telegram in telegrams for register in telegram.registers)
    del codes[None]
    is_other_class = bool(codes) and codes.most_common(1)[0][0] is not family.meter_class
    if is_other_class or any(telegram.protocol != family.protocol for telegram in telegrams):
        return 3
    if family.identification is None:
        return 1
    pattern = re.compile(family.identification)
    for telegram in telegrams:
        texts = [register.value for register in telegram.registers if isinstance(register.value, str)]
        if any(pattern.match(text) for text in (telegram.meter, *texts)):
            return 0
    return 2
