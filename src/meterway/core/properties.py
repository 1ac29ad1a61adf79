"""The OperationalProperty catalogue: what a reading may say, in which units, and which OBIS code it comes from.

The entries are data, one line each, in ``core/data/*.toml``, one file a medium. A line is

    id = { kind = "...", description = "...", units = [...], obis = [...], channel = [...], aliases = [...] }

kind         one of ``Kind``
description  a sentence for people
units        the usual unit first; any unit of the same dimension is accepted; absent for texts and pure numbers
obis         the codes it comes from; an id ``OBIS_C.D.E`` without them stands for 1-b:C.D.E, and for 0-0:C.D.E where
             group C is 0 or from 94 on. For A = 1 and 4 to 9, channel 0 stands for every channel B up to 64.
channel      groups C.D.E under which an electricity meter passes it on for a meter on its M-Bus (0-n:24.2.1)
aliases      other ids that are accepted for it

What the catalogue says otherwise than the public specification is in ``core/data/corrections.toml``.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

import msgspec

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.core.reading import PhysicalMeterClass
from meterway.core.units import all_spellings, find_unit


class Medium(StrEnum):
    """What is measured; finer than ``PhysicalMeterClass``, which counts cooling as heat."""

    ELECTRICITY = "electricity"
    GAS = "gas"
    WATER = "water"
    HEAT = "heat"
    COOLING = "cooling"
    SITE = "site"
    """Nothing: facts about the place, from the adapter's configuration."""

    @property
    def meter_class(self) -> PhysicalMeterClass | None:
        """The class of a meter of this medium; None for ``SITE``."""
        return _CLASSES.get(self)


_CLASSES: Final = {
    Medium.ELECTRICITY: PhysicalMeterClass.ELECTRICITY,
    Medium.GAS: PhysicalMeterClass.GAS,
    Medium.WATER: PhysicalMeterClass.WATER,
    Medium.HEAT: PhysicalMeterClass.HEAT,
    Medium.COOLING: PhysicalMeterClass.HEAT,
}

_MEDIA: Final[dict[Medium | PhysicalMeterClass, Medium]] = {
    PhysicalMeterClass.ELECTRICITY: Medium.ELECTRICITY,
    PhysicalMeterClass.GAS: Medium.GAS,
    PhysicalMeterClass.WATER: Medium.WATER,
    PhysicalMeterClass.HEAT: Medium.HEAT,
}

_DEVICE_TYPES: Final = {
    0x02: Medium.ELECTRICITY,
    0x03: Medium.GAS,
    0x04: Medium.HEAT,
    0x06: Medium.WATER,
    0x07: Medium.WATER,
    0x08: Medium.HEAT,
    0x0A: Medium.COOLING,
    0x0B: Medium.COOLING,
    0x0C: Medium.HEAT,
    0x0D: Medium.HEAT,
    0x15: Medium.WATER,
    0x16: Medium.WATER,
    0x17: Medium.WATER,
    0x28: Medium.WATER,
}


class Kind(StrEnum):
    """How values of a property behave, hence what may be computed with them."""

    REGISTER = "register"
    """Counts for ever; the difference of two values is what was used in between."""
    INTERVAL = "interval"
    """An amount over a stated time that ended or still runs; differences mean nothing."""
    INSTANTANEOUS = "instantaneous"
    """The state at the reading time."""
    DEMAND = "demand"
    """A mean over a demand period."""
    MAXIMUM = "maximum"
    """The largest since a reset."""
    MINIMUM = "minimum"
    """The smallest since a reset."""
    COUNTER = "counter"
    """Counts events or time."""
    TEXT = "text"
    """A state, a message, a point in time; a text, or a number that is only a name."""
    STATIC = "static"
    """Does not change while the meter stays what and where it is; a number or a text."""

    @property
    def may_be_text(self) -> bool:
        """Whether a value may be a text; all others are numbers."""
        return self in (Kind.TEXT, Kind.STATIC)


@dataclass(frozen=True, slots=True)
class OperationalProperty:
    """An OperationalPropertyDefinition."""

    property_id: str
    description: str
    kind: Kind
    medium: Medium
    allowed_units: tuple[str, ...] = ()
    """In the spelling of ``core.units``, the usual one first; empty for texts and pure numbers."""
    obis: tuple[Obis, ...] = ()
    """The codes it comes from."""
    aliases: tuple[str, ...] = ()
    """Other ids that are accepted for it."""
    unit_spellings: Mapping[str | None, str | None] = field(default_factory=dict, repr=False, compare=False)
    """Every accepted spelling of a unit, with the canonical one; None and "" for no unit where there is none."""

    @property
    def unit(self) -> str | None:
        """The usual unit."""
        return self.allowed_units[0] if self.allowed_units else None

    def check_unit(self, unit: str | None) -> str | None:
        """Return the canonical spelling of the unit of a number; None for a pure number (no unit, "", "none", "1").

        Raises:
            BadDataError: a unit that is unknown, missing, or of another dimension than the allowed ones
                (reason ``bad-unit``).
        """
        try:
            return self.unit_spellings[unit]
        except KeyError:
            raise self._bad_unit(unit) from None

    def _bad_unit(self, unit: str | None) -> BadDataError:
        names = ", ".join(self.allowed_units) or "none"
        if unit is None or unit in _NO_UNIT:
            return BadDataError(f"{self.property_id} needs a unit: {names}", reason="bad-unit")
        return BadDataError(
            f"{unit[:_LIMIT_UNIT_CHARACTERS]!r} is no unit of {self.property_id}, which has {names}", reason="bad-unit"
        )


@cache
def _spellings(allowed_units: tuple[str, ...]) -> Mapping[str | None, str | None]:
    """Return every accepted spelling of a unit with its canonical one."""
    if not allowed_units:
        return dict.fromkeys((None, *_NO_UNIT))
    dimensions = {unit.dimension for unit in map(find_unit, allowed_units) if unit}
    return {text: unit.name for text, unit in all_spellings() if unit.dimension in dimensions}


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Kind
    description: str
    units: tuple[str, ...] = ()
    obis: tuple[str, ...] = ()
    channel: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    properties: dict[str, _Entry]


_PREFIX = "OBIS_"
_LIMIT_ID_CHARACTERS = 64
_LIMIT_UNIT_CHARACTERS = 16
_CACHED = 8192
"""Answers kept; ids that meters really use are some hundreds."""
_NO_UNIT = ("", "none", "1")
"""How senders write that a pure number has no unit."""


class Catalogue:
    """All operational properties. Immutable; safe to share."""

    def __init__(self, entries: Iterable[tuple[OperationalProperty, tuple[str, ...]]]) -> None:
        """Take each property with the groups C.D.E under which it is passed on from an M-Bus channel.

        Raises:
            ValueError: two properties claim the same id or code.
        """
        self._all: list[OperationalProperty] = []
        self._by_id: dict[str, OperationalProperty] = {}
        self._by_obis: dict[Obis, OperationalProperty] = {}
        self._by_channel: dict[tuple[Medium, str], OperationalProperty] = {}
        for definition, channel in entries:
            self._all.append(definition)
            for name in _names(definition):
                if self._by_id.setdefault(name, definition) is not definition:
                    raise ValueError(f"{name} is the id of {definition.property_id} and of another property")
            for code in definition.obis:
                if self._by_obis.setdefault(code, definition) is not definition:
                    raise ValueError(f"{code} is claimed by {definition.property_id} and by another property")
            for groups in channel:
                self._by_channel[definition.medium, groups] = definition
        self._search_cached = lru_cache(maxsize=_CACHED)(self._search)
        self._for_obis_cached = lru_cache(maxsize=_CACHED)(self._for_obis)

    def __iter__(self) -> Iterator[OperationalProperty]:
        """All properties in the order of the files."""
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def find(self, property_id: str) -> OperationalProperty | None:
        """Return the property with this id; None if there is none.

        Accepted are the id (``OBIS_1.8.0``), its aliases, and any written form of an OBIS code with or without
        ``OBIS_`` before it (``1.8.0``, ``1-0:1.8.0*255``, ``C.1``).
        """
        found = self._by_id.get(property_id)
        if found is None and len(property_id) <= _LIMIT_ID_CHARACTERS:
            return self._search_cached(property_id)
        return found

    def require(self, property_id: str) -> OperationalProperty:
        """Return the property with this id, as ``find``.

        Raises:
            BadDataError: there is none (reason ``unknown-property``).
        """
        definition = self._by_id.get(property_id) or self.find(property_id)
        if definition is None:
            raise BadDataError(
                f"property {property_id[:_LIMIT_ID_CHARACTERS]!r} is not in the catalogue", reason="unknown-property"
            )
        return definition

    def check(self, property_id: str, unit: str | None) -> tuple[OperationalProperty, str | None]:
        """Return the property of a number, and its unit in the canonical spelling (None for a pure number).

        Raises:
            BadDataError: no such property (reason ``unknown-property``); a unit that is unknown, missing, or of
                another dimension than the allowed ones (reason ``bad-unit``).
        """
        definition = self.require(property_id)
        return definition, definition.check_unit(unit)

    def for_obis(
        self, obis: Obis, measures: Medium | PhysicalMeterClass = Medium.ELECTRICITY
    ) -> OperationalProperty | None:
        """Return the property that a code means; None if the catalogue has none.

        ``measures`` matters for 0-n:C.D.E with n from 1 on, as a P1 port passes on the meters on its M-Bus: it is
        what the meter on channel n measures (``medium_of_device_type``; a class HEAT is heat, not cooling). An
        electricity meter behind another one has no such codes here: its family must say what they mean. All other
        codes mean the same whatever ``measures`` is.

        Stored values (F other than 255) are not the property itself: None, but for the few that have an id.
        """
        return self._for_obis_cached(obis, _MEDIA.get(measures, measures))

    def _for_obis(self, obis: Obis, measures: Medium | PhysicalMeterClass) -> OperationalProperty | None:
        if obis.a == 0 and obis.b > 0 and measures != Medium.ELECTRICITY:
            return self._by_channel.get((Medium(measures), obis.reduced)) if obis.is_current else None
        if _has_channels(obis) and 0 < obis.b <= _LAST_CHANNEL:
            obis = Obis(obis.a, 0, *obis[2:])
        return self._by_obis.get(obis)

    def _search(self, property_id: str) -> OperationalProperty | None:
        text = property_id.removeprefix(_PREFIX)
        try:
            return self.for_obis(Obis.parse(text)) or self.for_obis(Obis.parse(text, a=0))
        except BadDataError:
            return None


_LAST_CHANNEL = 64
"""Group B up to 64 numbers channels; above it belongs to utilities and makers (EN 62056-6-1)."""


def _names(definition: OperationalProperty) -> Iterator[str]:
    """Yield the ids under which a property is found at once; other forms of its codes are parsed."""
    yield definition.property_id
    yield from definition.aliases
    yield from (code.reduced for code in definition.obis if code.a == 1 and code.is_current)


def _has_channels(obis: Obis) -> bool:
    return obis.a == 1 or 4 <= obis.a <= 9  # noqa: PLR2004


def medium_of_device_type(device_type: int) -> Medium | None:
    """Return what a meter of an M-Bus device type measures (EN 13757-7, "device type"); None if it is no meter.

    3 gas; 6, 7, 21, 22, 23, 40 water; 4, 12, 8 heat (in return, in flow, cost allocator); 10, 11 cooling;
    13 heat and cooling, counted as heat; 2 electricity. On a P1 port it is the value of 0-n:24.1.0.
    """
    return _DEVICE_TYPES.get(device_type)


@cache
def catalogue() -> Catalogue:
    """Return the one catalogue, read from the package's data at the first call."""
    return Catalogue(entry for medium in Medium for entry in _load(medium))


def _load(medium: Medium) -> Iterator[tuple[OperationalProperty, tuple[str, ...]]]:
    text = (files("meterway.core") / "data" / f"{medium}.toml").read_text(encoding="utf-8")
    for property_id, entry in msgspec.convert(tomllib.loads(text), _File).properties.items():
        yield (
            OperationalProperty(
                property_id=property_id,
                description=entry.description,
                kind=entry.kind,
                medium=medium,
                allowed_units=entry.units,
                obis=tuple(map(Obis.parse, entry.obis)) or _implied_codes(property_id),
                aliases=entry.aliases,
                unit_spellings=_spellings(entry.units),
            ),
            entry.channel,
        )


def _implied_codes(property_id: str) -> tuple[Obis, ...]:
    if not property_id.startswith(_PREFIX):
        return ()
    code = Obis.parse(property_id.removeprefix(_PREFIX))
    is_abstract_too = code.c == 0 or code.c >= 94  # noqa: PLR2004
    return (code, Obis(0, *code[1:])) if is_abstract_too else (code,)
