"""Which family is this meter of? What each family makes of its bytes decides. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import Mapper
from meterway.core.reading import MeterReading, PhysicalMeterClass
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.diagnose import Heard, hear
from meterway.meter.family import Family, Line
from meterway.meter.telegram import Telegram

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GENERIC: Final = "generic"
_NAME: Final = re.compile("[A-Za-z]{3}")
"""A maker's three letters, or a word; numbers and times say nothing of who sends them."""
_LOCKED: Final = frozenset(("encrypted", "bad-key"))
_OTHER: Final = 3
_CLASSES: Final = {
    1: PhysicalMeterClass.ELECTRICITY,
    5: PhysicalMeterClass.HEAT,
    6: PhysicalMeterClass.HEAT,
    7: PhysicalMeterClass.GAS,
    8: PhysicalMeterClass.WATER,
    9: PhysicalMeterClass.WATER,
}
"""By group A."""
_VOLTAGES: Final = frozenset((12, 32, 52, 72))
_FREQUENCY: Final = 14
"""Groups C."""
_VOLTAGE_V: Final = (Decimal(50), Decimal(500))
_FREQUENCY_HZ: Final = (Decimal(45), Decimal(65))


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
    """0: the meter calls itself as those of this family do; 1: it gives no name, or nobody knows how those do; 2: it
    does not; 3: it measures something else, or is not encrypted as those of this family are."""
    is_absurd: bool = False
    """Voltage or frequency is none that a grid has: the registers are those of another family."""
    known: int = 0
    """How many characters of its name the family knows: more of its maker's own families than of one for all makers."""

    @property
    def locked(self) -> int:
        """How many frames are whole and wait for their key."""
        return sum(self.heard.reasons[reason] for reason in _LOCKED)

    @property
    def rank(self) -> tuple[int, ...]:
        """Less is better: more telegrams, more that wait for a key, fewer refused, the name, possible, more values."""
        values = sum(len(reading.property_values) for reading in self.readings)
        heard = self.heard
        return (
            -len(heard.telegrams),
            -self.locked,
            len(heard.errors),
            self.likeness,
            -self.known,
            self.is_absurd,
            -values,
        )


def candidates(
    chunks: Iterable[bytes],
    families: Iterable[Family],
    decoder_of: Callable[[Family], Decoder],
    line: Line | None = None,
) -> list[Candidate]:
    """Return what each of ``families`` makes of the bytes, the likeliest first; ``line`` is how they were heard.

    A family whose meters call themselves otherwise than this one does comes after those that say nothing of it.
    """
    chunks = list(chunks)
    return ranked((_candidate(family, hear(chunks, decoder_of(family))) for family in families), line)


def ranked(found: Iterable[Candidate], line: Line | None = None) -> list[Candidate]:
    """Return the candidates, the likeliest first; of equal ones those of this line, the generic one, then by name."""

    def key(each: Candidate) -> tuple[tuple[int, ...], bool, bool, str]:
        return each.rank, each.family.line != line, _GENERIC not in each.family.name, each.family.name

    return sorted(found, key=key)


def candidate_of(
    family: Family, items: Iterable[Telegram | CodecError], medium: PhysicalMeterClass | None = None, name: str = ""
) -> Candidate:
    """Return what a family makes of telegrams that are read already, and of frames that were refused.

    ``medium`` is what the meter measures and ``name`` how it calls itself, where there is no telegram that tells.
    """
    items = tuple(items)
    telegrams = tuple(item for item in items if isinstance(item, Telegram))
    errors = tuple(item for item in items if isinstance(item, CodecError))
    return _candidate(family, Heard(b"", telegrams, errors), medium, name)


def medium_of(group_a: int) -> PhysicalMeterClass | None:
    """Return what a meter measures whose codes have this group A; None where that is nothing in particular."""
    return _CLASSES.get(group_a)


def _candidate(family: Family, heard: Heard, medium: PhysicalMeterClass | None = None, name: str = "") -> Candidate:
    mapper = Mapper(MeterConfig(id="detected", source=ReplaySource(file=Path()), family=family.name), family)
    readings: tuple[MeterReading, ...] = ()
    for telegram in heard.telegrams:
        readings = tuple(mapped.reading for mapped in mapper.readings(telegram, telegram.time or _EPOCH))
    unmapped = tuple(sorted(str(obis) for obis in mapper.unmapped))
    likeness, known = _likeness(family, heard.telegrams, medium, name)
    is_locked = not heard.telegrams and not _LOCKED.isdisjoint(heard.reasons)
    if is_locked and "encryption-key" not in family.secrets:
        likeness = _OTHER
    return Candidate(family, heard, readings, unmapped, likeness, any(map(_is_absurd, heard.telegrams)), known)


def _likeness(
    family: Family, telegrams: Sequence[Telegram], medium: PhysicalMeterClass | None, name: str
) -> tuple[int, int]:
    """Return ``Candidate.likeness`` and ``Candidate.known``."""
    codes = Counter(_CLASSES.get(register.obis.a) for telegram in telegrams for register in telegram.registers)
    del codes[None]
    measured = codes.most_common(1)[0][0] if codes else medium
    is_other_class = measured is not None and measured is not family.meter_class
    if is_other_class or any(telegram.protocol != family.protocol for telegram in telegrams):
        return _OTHER, 0
    if family.identification is None:
        return 1, 0
    pattern = re.compile(family.identification)
    texts = [text for telegram in telegrams for text in _texts(telegram)] or [name]
    known = max((match.end() for text in texts if (match := pattern.match(text))), default=0)
    if known:
        return 0, known
    return (2, 0) if any(_NAME.search(text) for text in texts) else (1, 0)


def _texts(telegram: Telegram) -> Iterator[str]:
    yield telegram.meter
    for register in telegram.registers:
        if isinstance(register.value, str):
            yield register.value


def _is_absurd(telegram: Telegram) -> bool:
    """Return whether voltage or frequency show that the registers mean something else.

    Zero is a phase that is not connected, unless all are: then nothing would feed the meter.
    """
    return _lies_outside(telegram, _VOLTAGES, "V", _VOLTAGE_V) or _lies_outside(
        telegram, {_FREQUENCY}, "Hz", _FREQUENCY_HZ
    )


def _lies_outside(telegram: Telegram, places: Iterable[int], unit: str, limits: tuple[Decimal, Decimal]) -> bool:
    values = [
        register.value
        for register in telegram.registers
        if register.unit == unit
        and isinstance(register.value, Decimal)
        and (register.obis.a, register.obis.d) == (1, 7)
        and register.obis.c in places
    ]
    connected = [value for value in values if value]
    return bool(values) and (not connected or any(not limits[0] <= value <= limits[1] for value in connected))
