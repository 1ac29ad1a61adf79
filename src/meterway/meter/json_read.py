"""From a document to registers, by the mapping profile of a family (``json_map``)."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.core.units import find_unit
from meterway.meter.json_map import ClockPlace, JsonMap, JsonValue, topic_fits
from meterway.meter.json_number import read_number, times
from meterway.meter.json_path import MISSING, Segments, find, parse_path
from meterway.meter.json_registers import read_registers, read_text
from meterway.meter.json_time import Clock
from meterway.meter.telegram import Register

_NO_VALUE: Final = frozenset({"", "nan", "null", "none", "unknown", "unavailable"})
"""How devices say in a text that they have no value now."""
_ZERO: Final = Decimal(0)
_TOPICS: Final = 256
"""Of so many topics it is remembered what they mean; more are looked at anew."""
_LIMIT_TOPIC_CHARACTERS: Final = 1024
"""Documents of longer ones are passed over."""
_NAMED: Final = 5
"""So many of the paths that are not there are named in an error."""


class Contents(NamedTuple):
    """What one document says."""

    registers: tuple[Register, ...]
    """Empty where the device says that it has no values now."""
    time: datetime | None
    meter: str
    """How the meter or device calls itself; else the beginning of the topic; empty where there is neither."""
    is_part: bool = False
    """It was the message of a topic that carries one value only."""


class JsonReader:
    """Reads the documents of one meter. It remembers only times, to tell like hours apart (``json_time``)."""

    def __init__(self, profile: JsonMap, zone: tzinfo, address: str = "") -> None:
        self._profile = profile
        self._address = address.casefold()
        self._roots = _parsed(profile.roots)
        self._any_of = _parsed(profile.any_of)
        self._meter = _parsed(profile.meter)
        self._lists = _parsed(profile.registers)
        self._times = _Times(profile.time, zone)
        self._entry_clock = Clock("iso", zone)
        self._values = [_Value(value, zone) for value in profile.values]
        self._has_documents = bool(self._lists) or any(value.paths for value in self._values)
        self._topic = lru_cache(maxsize=_TOPICS)(self._match)

    def accepts(self, document: object, topic: str | None) -> bool:
        """Return whether a reading is to be looked for in a document; ``topic`` is None where nobody knows it."""
        roots = self._found_roots(document)
        return self._is_ours(document, roots, topic) and self._is_mine(roots, topic)

    def read(self, document: object, topic: str | None) -> Contents:
        """Return what an accepted document says.

        Raises:
            BadDataError: nothing of what the profile names is in it (reason ``bad-syntax``).
        """
        roots = self._found_roots(document)
        found: dict[Obis, Register] = {}
        meaning = self._topic(topic)
        has_none = False
        for value in self._values:
            if value.obis not in found:
                raw = document if value in meaning.values else _look(roots, value.paths)
                has_none = has_none or _says_none(raw)
                for register in value.registers(raw, roots):
                    found.setdefault(register.obis, register)
        registers = (*found.values(), *read_registers(_look(roots, self._lists), self._entry_clock))
        if not registers and not has_none:
            raise self._nothing(topic)
        return Contents(registers, self._times.read(roots), self._name(roots, topic), bool(meaning.values))

    def _found_roots(self, document: object) -> list[object]:
        found = (find(document, root) for root in self._roots)
        return [root for root in found if root is not MISSING]

    def _is_ours(self, document: object, roots: Sequence[object], topic: str | None) -> bool:
        if topic is not None and len(topic) > _LIMIT_TOPIC_CHARACTERS:
            return False
        meaning = self._topic(topic)
        if not meaning.is_allowed or meaning.values:
            return meaning.is_allowed
        if not isinstance(document, dict | list) or not self._has_documents:
            return False
        return not self._any_of or _look(roots, self._any_of) is not MISSING

    def _is_mine(self, roots: Sequence[object], topic: str | None) -> bool:
        if not self._address or (topic is not None and self._address in topic.casefold().split("/")):
            return True
        return self._name(roots, None).casefold() == self._address

    def _name(self, roots: Sequence[object], topic: str | None) -> str:
        name = read_text(_look(roots, self._meter))
        return self._topic(topic).name if name is None else name

    def _match(self, topic: str | None) -> "_Topic":
        if topic is None:
            return _Topic((), "", is_allowed=True)
        ends = self._profile.topics
        prefix = topic_fits(topic, ends)
        prefixes = {value: before for value in self._values if (before := value.prefix(topic)) is not None}
        name = next(iter(prefixes.values()), topic if prefix is None else prefix)
        return _Topic(tuple(prefixes), name, is_allowed=not ends or prefix is not None)

    def _nothing(self, topic: str | None) -> BadDataError:
        if self._topic(topic).values:
            return BadDataError(f"the topic {topic!r} carries no number", reason="bad-syntax")
        paths = [*(path for value in self._profile.values for path in value.paths), *self._profile.registers]
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        text = f"no value is at {', '.join(paths[:_NAMED])}{more}; is the meter of another family?"
        return BadDataError(text, reason="bad-syntax")


class _Topic(NamedTuple):
    """What a topic means."""

    values: "tuple[_Value, ...]"
    """Those of which it carries nothing else."""
    name: str
    """Of the device, as far as the topic says it."""
    is_allowed: bool
    """Whether documents of the topic are looked at."""


class _Value:
    """One entry of a profile, prepared."""

    def __init__(self, value: JsonValue, zone: tzinfo) -> None:
        unit = find_unit(value.unit)
        self.obis = Obis.parse(value.obis)
        self.paths = _parsed(value.paths)
        self._topics = value.topics
        self._negative = Obis.parse(value.negative) if value.negative else None
        self._unit = unit.name if unit else None
        self._factor = Decimal(value.factor)
        self._is_text = value.text
        self._constant = value.constant
        self._times = _Times(value.time, zone)

    def prefix(self, topic: str) -> str | None:
        """Return what stands in a topic before the part that makes it a topic of this value; None if it is none."""
        return topic_fits(topic, self._topics)

    def registers(self, raw: object, roots: Sequence[object]) -> list[Register]:
        """Return what the value becomes: one register, two where its sign is a direction, none where it is none."""
        if raw is MISSING or _says_none(raw):
            return []
        if self._constant:
            raw = self._constant
        value = read_text(raw) if self._is_text else read_number(raw)
        if value is None:
            return []
        time = self._times.read(roots)
        if isinstance(value, str):
            return [Register(self.obis, value, None, time)]
        value = times(value, self._factor)
        if self._negative is None:
            return [Register(self.obis, value, self._unit, time)]
        forth, back = (_ZERO, value.copy_abs()) if value < 0 else (value, _ZERO)
        return [Register(self.obis, forth, self._unit, time), Register(self._negative, back, self._unit, time)]


class _Times:
    """Clocks, of which the first that can be read counts."""

    def __init__(self, places: Sequence[ClockPlace], zone: tzinfo) -> None:
        self._clocks = [(_parsed(place.paths), Clock(place.form, zone)) for place in places]

    def read(self, roots: Sequence[object]) -> datetime | None:
        for paths, clock in self._clocks:
            time = clock.read(_look(roots, paths))
            if time is not None:
                return time
        return None


def _parsed(paths: Sequence[str]) -> list[Segments]:
    return [parse_path(path) for path in paths]


def _look(roots: Sequence[object], paths: Sequence[Segments]) -> object:
    """Return the first value at any of ``paths`` below any of ``roots``; else what says that there is none."""
    none: object = MISSING
    for segments in paths:
        for root in roots:
            found = find(root, segments)
            if found is MISSING:
                continue
            if not _says_none(found):
                return found
            none = found
    return none


def _says_none(found: object) -> bool:
    """Return whether a device says that it has no value: by null, or by a text that means it."""
    return found is None or (isinstance(found, str) and found.strip().casefold() in _NO_VALUE)
