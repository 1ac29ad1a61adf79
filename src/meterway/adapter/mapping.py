"""From a meter's own words to operational properties. Pure: the moment of arrival is an argument.

Every register that the catalogue (or a rule) knows becomes a value in the property's usual unit, exactly. Left out,
unless a rule names them: what never changes (serial numbers: data minimisation), stored historical values, empty
texts, and the clock, which is the reading time.

One telegram gives at most one reading of the meter itself, and one of each meter behind it (gas, water or heat on
an M-Bus channel of a P1 port), whose reading time is the one that its value carries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, Self

from meterway.adapter.config import MeterConfig
from meterway.core.channels import CHANNELS, channel_meter_id
from meterway.core.errors import BadDataError, SetupError
from meterway.core.identifiers import reading_identifier
from meterway.core.obis import Obis
from meterway.core.properties import Kind, Medium, OperationalProperty, catalogue
from meterway.core.reading import MeterReading, PhysicalMeterClass, PropertyValue
from meterway.core.units import convert
from meterway.meter.family import Family, ObisRule
from meterway.meter.telegram import Register, Telegram, channel_media

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
LIMIT_CODES = 4096
"""So many OBIS codes of one meter are remembered; a meter has some hundred, and beyond all are looked up anew."""
LIMIT_UNMAPPED = 256
"""So many codes are listed for which there is no property; further ones are left out."""

_CLOCK = (1, 0, 0)
"""Groups C, D, E; of heat, water and other media they are energy and volume."""
_LAST_MEDIUM_WITH_CLOCK = 1

UNVERIFIED = "unverified"
"""Fault code of a reading that was encrypted, and that nothing proves to be the meter's (``Telegram.verified``)."""


@dataclass(frozen=True, slots=True)
class MappedReading:
    """A reading that has no sequence number yet."""

    reading: MeterReading
    has_clock: bool
    """Whether the reading time is the meter's own, so that equal content means the same reading read again."""


class _Target(NamedTuple):
    """What one OBIS code of this meter becomes."""

    property_id: str
    unit: str | None
    may_be_text: bool
    factor: Decimal | None
    """None: the number stays as it is."""

    @classmethod
    def of(cls, definition: OperationalProperty, factor: str) -> Self:
        number = Decimal(factor)
        return cls(
            definition.property_id,
            definition.unit,
            definition.kind.may_be_text,
            None if number == 1 else number,
        )


class _Said(NamedTuple):
    """What a meter said at one time by its own clock."""

    time: datetime
    fault_code: str | None
    registers: Sequence[Register]


@dataclass(slots=True)
class _Part:
    """What is known of one meter: the first, or one behind it."""

    meter_id: str
    static: tuple[PropertyValue, ...]
    medium: Medium | None = None
    """What a meter behind the first one measures, once it has said so; None for the first."""
    last_time: datetime | None = None
    targets: dict[Obis, _Target | None] = field(default_factory=dict)
    said: _Said | None = None
    """What it said last: a gas meter says the same for minutes."""
    mapped: MappedReading | None = None
    """What became of that."""


class Mapper:
    """Makes readings of the telegrams of one meter."""

    def __init__(self, config: MeterConfig, family: Family) -> None:
        """Prepare the rules: the configuration's come before the family's, those before the catalogue.

        Raises:
            SetupError: a rule or static property names a property that the catalogue does not have.
        """
        self._where = f"meter {config.id}"
        rules = {**family.obis, **{code: _rule(rule) for code, rule in config.mapping.items()}}
        self._rules = {Obis.parse(code): rule for code, rule in rules.items()}
        for rule in self._rules.values():
            if rule.property is not None:
                self._require(rule.property)
        self._meter_class = family.meter_class
        self._parts = {0: _Part(config.id, self._static(config.static))}
        named = {channel.channel: channel for channel in config.channels}
        for number in CHANNELS[: family.channels]:
            channel = named.get(number)
            meter_id = channel.id if channel else channel_meter_id(config.id, number)
            static = self._static(channel.static) if channel else ()
            self._parts[number] = _Part(meter_id, static)
        if unknown := set(named) - set(self._parts):
            raise SetupError(f"{self._where}: family {family.name} has no channel {min(unknown)}")
        self.unmapped: set[Obis] = set()
        """Codes that the meter sent and that no rule and no catalogue entry covers; the first ``LIMIT_UNMAPPED``."""

    @property
    def meter_ids(self) -> tuple[str, ...]:
        """The ids of the meter and of all that may speak through it."""
        return tuple(part.meter_id for part in self._parts.values())

    def readings(self, telegram: Telegram, arrival: datetime) -> list[MappedReading]:
        """Return the readings in a telegram that arrived at ``arrival`` (aware); empty if nothing is mapped."""
        own: list[Register] = []
        behind: dict[int, list[Register]] = {}
        for register in telegram.registers:
            obis = register.obis
            if obis.b and obis.a == 0 and obis.b in self._parts:
                behind.setdefault(obis.b, []).append(register)
            else:
                own.append(register)
        fault = None if telegram.verified else UNVERIFIED
        found = [self._reading(self._parts[0], own, telegram.time, arrival, fault)]
        for channel, registers in behind.items():
            times = [register.time for register in registers if register.time is not None]
            time = max(times, default=telegram.time)
            found.append(self._behind(self._parts[channel], registers, time, arrival, fault))
        return [mapped for mapped in found if mapped is not None]

    def class_of(self, meter_id: str) -> PhysicalMeterClass:
        """Return what the meter ``meter_id`` measures, as far as its telegrams have said."""
        medium = next(part.medium for part in self._parts.values() if part.meter_id == meter_id)
        return (medium and medium.meter_class) or self._meter_class

    def _behind(
        self,
        part: _Part,
        registers: Sequence[Register],
        time: datetime | None,
        arrival: datetime,
        fault_code: str | None,
    ) -> MappedReading | None:
        """Return the reading of a meter behind the first; the very one as before when it says the same again."""
        said = None if time is None else _Said(time, fault_code, registers)
        if said is None or said != part.said:
            medium = next(iter(channel_media(registers).values()), part.medium)
            if medium is not part.medium:
                part.medium = medium
                part.targets.clear()
            part.said, part.mapped = said, self._reading(part, registers, time, arrival, fault_code)
        return part.mapped

    def _reading(
        self,
        part: _Part,
        registers: Sequence[Register],
        time: datetime | None,
        arrival: datetime,
        fault_code: str | None,
    ) -> MappedReading | None:
        values: dict[str, PropertyValue] = {}
        for register in registers:
            value = self._value(part, register, time)
            if value is not None:
                values.setdefault(value.property_id, value)
        if all(value.unit is None and not _is_register(value) for value in values.values()):
            return None
        for value in part.static:
            values.setdefault(value.property_id, value)
        reading_time = time or self._arrival(part, arrival)
        property_values = tuple(values.values())
        return MappedReading(
            MeterReading(
                # A clock that was never set may say 1969, for which there is no identifier; `wire` refuses it anyway.
                identifier=reading_identifier(part.meter_id, max(reading_time, _EPOCH), property_values),
                meter_id=part.meter_id,
                reading_time=reading_time,
                property_values=property_values,
                fault_code=fault_code,
            ),
            has_clock=time is not None,
        )

    @staticmethod
    def _arrival(part: _Part, arrival: datetime) -> datetime:
        """Keep the reading times of a meter without a clock apart, even when the host's clock stands or steps back."""
        if part.last_time is not None and part.last_time <= arrival + timedelta(seconds=1):
            arrival = max(arrival, part.last_time + _TICK)
        part.last_time = arrival
        return arrival

    def _value(self, part: _Part, register: Register, time: datetime | None) -> PropertyValue | None:
        try:
            target = part.targets[register.obis]
        except KeyError:
            if len(part.targets) >= LIMIT_CODES:
                part.targets.clear()
            target = part.targets[register.obis] = self._target(part, register.obis)
        if target is None or register.value == "":
            return None
        property_id, unit, may_be_text, factor = target
        date = register.time
        if date is not None and date == time:
            date = None
        if isinstance(register.value, str):
            if may_be_text:
                return PropertyValue(property_id, text_value=register.value, date=date)
            self._note_unmapped(register.obis)
            return None
        value = register.value if factor is None else register.value * factor
        if unit is not None and register.unit != unit:
            try:
                value = convert(value, register.unit or unit, unit)
            except BadDataError:
                self._note_unmapped(register.obis)
                return None
        return PropertyValue(property_id, value, None, unit, date)

    def _target(self, part: _Part, obis: Obis) -> _Target | None:
        rule = self._rules.get(obis)
        if rule is not None and rule.ignore:
            return None
        if rule is not None and rule.property is not None:
            return _Target.of(self._require(rule.property), rule.factor)
        is_clock = obis.a <= _LAST_MEDIUM_WITH_CLOCK and obis[2:5] == _CLOCK
        if is_clock or not obis.is_current:
            return None
        found = catalogue().for_obis(obis, part.medium or Medium.ELECTRICITY)
        if found is None:
            self._note_unmapped(obis)
        if found is None or (found.kind is Kind.STATIC and rule is None):
            return None
        return _Target.of(found, rule.factor if rule else "1")

    def _note_unmapped(self, obis: Obis) -> None:
        if len(self.unmapped) < LIMIT_UNMAPPED:
            self.unmapped.add(obis)

    def _require(self, property_id: str) -> OperationalProperty:
        try:
            return catalogue().require(property_id)
        except BadDataError as error:
            raise SetupError(f"{self._where}: {error}; docs/properties.md lists them") from error

    def _static(self, values: Mapping[str, int | float | str]) -> tuple[PropertyValue, ...]:
        made = []
        for property_id, value in values.items():
            found = self._require(property_id)
            if isinstance(value, str):
                made.append(PropertyValue(found.property_id, text_value=value))
            else:
                number = Decimal(str(value))
                made.append(PropertyValue(found.property_id, numerical_value=number, unit=found.unit))
        return tuple(made)


def _is_register(value: PropertyValue) -> bool:
    """Return whether it is worth a reading though it has no unit: a heat cost allocator has nothing else."""
    return catalogue().require(value.property_id).kind is Kind.REGISTER


def _rule(rule: str | ObisRule) -> ObisRule:
    return ObisRule(property=rule) if isinstance(rule, str) else rule
