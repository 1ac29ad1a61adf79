"""Who sent this telegram, and does it agree with those around it? Pure.

A meter that was swapped is known by its names (serial number, server id, address): the first telegram of the new one
is doubted, the second makes it the meter, with levels of its own. One equal name is enough to be the same meter, so
new firmware is no new meter. Of names only digests are remembered.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from meterway.adapter.memory import LIMIT_NAMES, MeterMemory
from meterway.core.properties import Kind, catalogue
from meterway.core.reading import MeterReading, PropertyValue
from meterway.meter.telegram import Telegram

_STEADY: Final = frozenset((Kind.TEXT, Kind.STATIC, Kind.COUNTER, Kind.MAXIMUM, Kind.MINIMUM))
"""Kinds that do not go and come back from one telegram to the next."""
_NAMES: Final = frozenset(((0, 0, 0), (42, 0, 0), (96, 1, 0), (96, 1, 1)))
"""Groups C, D, E of a meter's own number, and of its logical device name."""
_PROFILES: Final = frozenset(((99, 1), (99, 2)))
"""Groups C, D of load profiles (EN 62056-6-1, "load profile")."""

_CLOCK_STEP: Final = timedelta(seconds=5)
"""A meter's clock is set back by so much when it is set right."""


def names(telegram: Telegram, channel: int, channels: int) -> dict[str, str]:
    """Return by what the meter on ``channel`` (0: the one that sends) names itself; ``channels`` may be behind it."""
    found = {"": digest(telegram.meter)} if telegram.meter and not channel else {}
    for register in telegram.registers:
        obis, value = register.obis, register.value
        if isinstance(value, str) and value and obis[2:5] in _NAMES:
            behind = obis.b if obis.a == 0 and obis.b <= channels else 0
            if behind == channel:
                found[str(obis)] = digest(value)
    return found


def is_other_meter(memory: MeterMemory, found: dict[str, str]) -> bool:
    """Return whether another meter spoke than before; the second time it speaks, it is the one."""
    known = memory.identity
    common = known.keys() & found.keys()
    if not common or any(known[where] == found[where] for where in common):
        memory.new_identity = {}
        if len(known.keys() | found.keys()) <= LIMIT_NAMES:
            known.update(found)
        return False
    if any(memory.new_identity.get(where) == name for where, name in found.items()):
        memory.identity, memory.new_identity = found, {}
        for register in memory.registers.values():
            register.level, register.candidate = register.candidate, None
        return False
    memory.new_identity = found
    return True


def shape(telegram: Telegram) -> str:
    """Return a digest of what a telegram lists, whatever the values are."""
    return digest(" ".join(f"{register.obis}{register.unit or ''}" for register in telegram.registers))


def is_row(telegram: Telegram) -> bool:
    """Return whether it is a row of a load profile of a readout, which begins with the code of the profile (P.01)."""
    return bool(telegram.registers) and telegram.registers[0].obis[2:4] in _PROFILES


def disagreements(before: MeterReading | None, reading: MeterReading, after: MeterReading) -> Iterator[tuple[str, str]]:
    """Yield what is one thing before and after and another in ``reading``: property id (or empty), and a sentence.

    Registers and what changes all the time are not looked at, but for the time that a value has of its own.
    """
    if before is not None and not _is_between(before, reading, after):
        yield "", "its time is not between those of the telegrams before and after"
    for value in reading.property_values:
        later = find(after, value.property_id)
        earlier = before and find(before, value.property_id)
        if later is None or (before is not None and earlier is None):
            continue
        is_steady = catalogue().require(value.property_id).kind in _STEADY
        here = _content(value, whole=is_steady)
        last, following = earlier and _content(earlier, whole=is_steady), _content(later, whole=is_steady)
        if here != following and (earlier is None or last == following):
            yield value.property_id, f"{value.property_id} is not as in the telegrams around it"


def _is_between(before: MeterReading, reading: MeterReading, after: MeterReading) -> bool:
    first, time, last = (each.reading_time.astimezone(UTC) for each in (before, reading, after))
    return first > last or first - _CLOCK_STEP <= time <= last + _CLOCK_STEP


@lru_cache(maxsize=4096)
def digest(text: str) -> str:
    """Return a short digest, which tells texts apart and does not tell them."""
    return blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


def find(reading: MeterReading, property_id: str) -> PropertyValue | None:
    """Return the value of a property; None if the reading has none."""
    return next((value for value in reading.property_values if value.property_id == property_id), None)


def _content(value: PropertyValue, *, whole: bool) -> tuple[Decimal | None, str | None, datetime | None]:
    return (value.numerical_value, value.text_value, value.date) if whole else (None, None, value.date)
