"""Is what a meter says plausible? Doubtful readings are marked and reported, never dropped, never passed as good.

``Plausibility`` stands between mapping and outlet. It returns the readings it was given, in order and with every
value unchanged; a doubtful one has fault codes, comma-separated and the gravest first, and a ``Fault`` says which
value, what was expected, and what it may mean. Pure: clocks are arguments, memory is a value (``memory``).

The rules and what to do about each: docs/plausibility.md. Registers are judged by ``plausible_register``, other values
by ``plausible_values``, clocks by ``plausible_clock``, telegrams by ``plausible_telegram``; here they become a verdict.

**A verdict is final.** A reading is known by its content, fault code included, so the same reading must not be judged
in two ways: one that is read again gets the verdict it had, and changes nothing.

**Telegrams without a checksum** (``Telegram.checked`` false: P1 before version 4, mode D of IEC 62056-21, DLMS on
M-Bus without an authentication key). Nearly every turned bit gives another good number there. So such a telegram is
held until the next one has come, and is judged between the one before and the one after:

- a register above the one after, which itself follows from the one before, is an outlier (``unconfirmed``); one below
  the one before has fallen. A wrong register can pass only in the corridor between trusted ones, so it is wrong by
  less than what was used in these two or three intervals;
- texts, counters, times that are one thing before and after and another here are outliers (``unconfirmed``);
- a list of values that was never seen before and is not seen again (a damaged OBIS code) is ``unconfirmed``;
- powers, voltages and currents change with every telegram, so nothing confirms them: their ranges alone protect them.

Why hold: marking every reading until the next one has come would mark all readings of a meter that sends each second,
as a mark cannot be taken back; passing them at once would pass what the next telegram proves wrong. The price is that
readings of such meters are later by one telegram, 1 to 10 s, and that a kill loses the one that is held, as it loses
those that the meter sends meanwhile. At the end of the line and when none follows in time (``HOLD_S``, or
two and a half intervals) the held one is handed on as ``unconfirmed``.

What is older than a register's level rightly (``live`` is false: a row of a load profile) is not held against it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from meterway.adapter import plausible_register as registers
from meterway.adapter.mapping import UNVERIFIED, MappedReading
from meterway.adapter.memory import LIMIT_NAMES, LIMIT_SAID, Memories, MeterMemory
from meterway.adapter.plausible_clock import CLOCK_WRONG, judge_clock
from meterway.adapter.plausible_register import UNCONFIRMED, Rules, Seen
from meterway.adapter.plausible_telegram import disagreements, find, is_other_meter, is_row, names, shape
from meterway.adapter.plausible_values import POWER_TOO_HIGH, VALUE_OUT_OF_RANGE, limits_of
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.reports import Fault
from meterway.meter.family import Family
from meterway.meter.telegram import Telegram

METER_CHANGED: Final = "meter-changed"

MEANINGS: Final = {
    UNVERIFIED: "nothing proves that the meter wrote it",
    METER_CHANGED: "another meter answers; if it was swapped, nothing is to be done, and energy is counted anew",
    registers.SCALE_CHANGED: "the same number in another unit; correct the factor in the meter's `mapping`",
    registers.REGISTER_FELL: "a damaged value, or a meter that was swapped or reset; compare it with the display",
    registers.REGISTER_ZERO: "a meter that starts, is damaged, or was reset; compare it with the display",
    registers.REGISTER_ROLLED_OVER: "all its digits were used up; nothing is to be done",
    registers.RISE_TOO_FAST: "a damaged value, or a connection that carries more than the family of meters says",
    POWER_TOO_HIGH: "a damaged value, or a connection that carries more than the family of meters says",
    VALUE_OUT_OF_RANGE: "a damaged value, a wrong factor or sign, or a fault of the grid",
    CLOCK_WRONG: "readings count in the wrong quarter of an hour until it is right",
    UNCONFIRMED: "this meter's telegrams carry no checksum, and the next one does not confirm this one",
}
"""Every fault code of a reading, the gravest first, with what it may mean."""

HOLD_S: Final = 30.0
"""A telegram without checksum waits at least so long for the next."""
_HOLD_INTERVALS: Final = 2.5
_SHOWN_VALUES: Final = 3
_LIMIT_DIGITS: Final = 24
"""A number of more digits is no meter's; it is not judged."""


class Doubt(NamedTuple):
    """A report on a reading of one meter."""

    meter_id: str
    fault: Fault


@dataclass(slots=True)
class Judged:
    """What may be handed on now."""

    readings: list[MappedReading] = field(default_factory=list)
    """In the order in which they were given."""
    doubts: list[Doubt] = field(default_factory=list)
    """What to report: once for each thing that is wrong, not for each reading."""

    def add(self, other: "Judged") -> None:
        self.readings += other.readings
        self.doubts += other.doubts


class _Taken(NamedTuple):
    """A telegram with its readings."""

    telegram: Telegram
    readings: Sequence[MappedReading]
    arrival: datetime
    now: float
    is_live: bool

    def of(self, meter_id: str) -> MappedReading | None:
        return next((each for each in self.readings if each.reading.meter_id == meter_id), None)

    def seen(self, meter_id: str, property_id: str) -> Seen | None:
        """Return what it says of a register."""
        mapped = self.of(meter_id)
        value = mapped and find(mapped.reading, property_id)
        return _seen(mapped, value, self.arrival) if mapped and value else None


class _Wrong(NamedTuple):
    """One thing that is wrong with a reading."""

    code: str
    property_id: str
    """Empty where it is not of one value."""
    sentence: str
    is_news: bool | None = None
    """Whether to report it; None: if it was not wrong before."""

    @property
    def key(self) -> str:
        return f"{self.code} {self.property_id}"


class Plausibility:
    """Judges the readings of one meter and of those behind it."""

    def __init__(
        self, family: Family, meter_ids: Sequence[str], memories: Memories, *, interval_s: float | None = None
    ) -> None:
        """Take what is known of the meter.

        ``meter_ids`` are those of ``Mapper``: the meter's own, then those of its channels from 1 on. ``interval_s`` is
        how often it is read, if not as its family says.
        """
        self._maximum_power_w = family.maximum_power_w
        self._channels = {meter_id: channel for channel, meter_id in enumerate(meter_ids)}
        self._own = meter_ids[0]
        self._memories = memories
        self._hold_s = max(HOLD_S, _HOLD_INTERVALS * (interval_s or family.interval_s))
        self._held: _Taken | None = None
        self._before: dict[str, MeterReading] = {}
        """The last reading of each meter, where telegrams have no checksum."""
        self._odd_shapes: deque[str] = deque(maxlen=LIMIT_NAMES)
        """Of lists of values that came once."""

    def judge(
        self,
        telegram: Telegram,
        readings: Sequence[MappedReading],
        *,
        arrival: datetime,
        now: float,
        live: bool = True,
    ) -> Judged:
        """Take the ``readings`` that ``Mapper`` made of a telegram; return what may be handed on.

        ``arrival`` is aware; ``now`` is monotonic, in seconds. ``live`` is false for what is old rightly: a replayed
        file, the rows of a load profile (those of a readout are recognised). Readings of a telegram without a
        checksum are returned by a later call.
        """
        taken = _Taken(telegram, readings, arrival, now, live and not is_row(telegram))
        judged = self._end(taken)
        if telegram.checked:
            judged.add(self._pass(taken, None))
        else:
            self._held = taken
        return judged

    def idle(self, now: float) -> Judged:
        """Tell the time while nothing comes: a telegram that has waited too long for the next is handed on."""
        return self._end(None) if self._held is not None and now - self._held.now > self._hold_s else Judged()

    def flush(self) -> Judged:
        """Tell that nothing more comes."""
        return self._end(None)

    def _end(self, follower: _Taken | None) -> Judged:
        held, self._held = self._held, None
        return Judged() if held is None else self._pass(held, follower)

    def _pass(self, taken: _Taken, follower: _Taken | None) -> Judged:
        judged = Judged()
        is_checked = taken.telegram.checked
        of_telegram = [] if is_checked else list(self._odd(taken.telegram, follower))
        for mapped in taken.readings:
            reading = mapped.reading
            memory = self._memories.of(reading.meter_id)
            self._memories.is_changed = True
            identifier = str(reading.identifier)
            if mapped.has_clock and identifier in memory.recent:
                judged.readings.append(_marked(mapped, memory.recent[identifier]))
                continue
            wrong = [*of_telegram, *self._of_reading(taken, mapped, memory, follower)]
            code = _code(reading.fault_code, wrong)
            memory.decided(identifier, code)
            judged.readings.append(_marked(mapped, code))
            judged.doubts += self._reports(taken.arrival, reading, memory, wrong)
            if not is_checked:
                self._before[reading.meter_id] = reading
        return judged

    def _odd(self, telegram: Telegram, follower: _Taken | None) -> Iterator[_Wrong]:
        """Yield whether a telegram's list of values is one that the meter does not send."""
        known = self._memories.of(self._own).shapes
        this = shape(telegram)
        if this in known:
            return
        if this in self._odd_shapes or (follower is not None and this == shape(follower.telegram)):
            known.append(this)
            del known[:-LIMIT_NAMES]
            return
        self._odd_shapes.append(this)
        yield _Wrong(UNCONFIRMED, "", "its list of values is none that the meter sent before")

    def _of_reading(
        self, taken: _Taken, mapped: MappedReading, memory: MeterMemory, follower: _Taken | None
    ) -> Iterator[_Wrong]:
        """Yield all that is wrong with a reading."""
        reading, time = mapped.reading, taken.telegram.time
        channel = self._channels.get(reading.meter_id, 0)
        is_other = is_other_meter(memory, names(taken.telegram, channel, len(self._channels) - 1))
        if is_other:
            yield _Wrong(METER_CHANGED, "", "the meter calls itself by another number than before")
        if taken.is_live and time is not None and channel == 0:
            clock = judge_clock(memory.clock, time, taken.arrival)
            if clock is not None:
                yield _Wrong(CLOCK_WRONG, "", clock.sentence, clock.is_news)
        if not taken.telegram.checked:
            yield from self._unconfirmed(reading, follower)
        maximum_power_w = None if channel else self._maximum_power_w
        for value in reading.property_values:
            number = value.numerical_value
            if number is None or not number.is_finite():
                continue
            limits = limits_of(value.property_id, value.unit, maximum_power_w)
            if cannot_be := limits.wrong(number):
                code, expected = cannot_be
                yield _of_value(code, value, f"{expected} was expected")
            elif limits.is_register:
                rules = Rules(limits.most_per_hour, limits.is_net, may_be_cut=taken.telegram.checked)
                yield from self._of_register(
                    taken, mapped, value, rules=rules, memory=memory, follower=follower, is_other=is_other
                )

    def _unconfirmed(self, reading: MeterReading, follower: _Taken | None) -> Iterator[_Wrong]:
        if follower is None:
            yield _Wrong(UNCONFIRMED, "", "no telegram followed it")
        elif after := follower.of(reading.meter_id):
            for property_id, sentence in disagreements(self._before.get(reading.meter_id), reading, after.reading):
                yield _Wrong(UNCONFIRMED, property_id, sentence)

    def _of_register(
        self,
        taken: _Taken,
        mapped: MappedReading,
        value: PropertyValue,
        *,
        rules: Rules,
        memory: MeterMemory,
        follower: _Taken | None,
        is_other: bool,
    ) -> Iterator[_Wrong]:
        """Yield what is wrong with a register."""
        register = memory.register(value.property_id, value.unit)
        seen = _seen(mapped, value, taken.arrival)
        if register is None or seen is None:
            return
        level = register.level
        self._memories.is_urgent |= level is None
        if is_other:
            register.candidate = registers.first(seen)
            return
        if not taken.is_live and level and level.seen_clock and seen.clock and seen.clock <= level.seen_clock:
            return
        if taken.telegram.checked:
            code = registers.take(register, seen, rules)
        else:
            after = follower and follower.seen(mapped.reading.meter_id, value.property_id)
            code = registers.take_unchecked(register, seen, after, rules)
        if code is not None:
            was = f"it was {level.value} at {level.seen:%Y-%m-%d %H:%M:%S %Z}" if level else "nothing confirms it"
            yield _of_value(code, value, was)

    def _reports(
        self, time: datetime, reading: MeterReading, memory: MeterMemory, wrong: Sequence[_Wrong]
    ) -> Iterator[Doubt]:
        """Yield a report for each code with something that was not wrong before."""
        if not wrong and not memory.said:
            return
        news = [each for each in wrong if each.is_news or (each.is_news is None and each.key not in memory.said)]
        present = {"", *(value.property_id for value in reading.property_values)}
        holding = {each.key for each in wrong}
        still = [key for key in memory.said if key in holding or key.partition(" ")[2] not in present]
        memory.said = list(dict.fromkeys([*still, *(each.key for each in news)]))[-LIMIT_SAID:]
        self._memories.is_urgent |= bool(news)
        for code, meaning in MEANINGS.items():
            sentences = [each.sentence for each in news if each.code == code]
            if sentences:
                yield Doubt(reading.meter_id, Fault(time=time, reason=code, message=_message(sentences, meaning)))


def _seen(mapped: MappedReading, value: PropertyValue, arrival: datetime) -> Seen | None:
    """Return a value of a register as it is judged; None if it is no number, or no meter's."""
    number = value.numerical_value
    if number is None or not _is_judged(number):
        return None
    clock = value.date or (mapped.reading.reading_time if mapped.has_clock else None)
    return Seen(number, arrival, clock and clock.astimezone(UTC))


def _is_judged(number: Decimal) -> bool:
    if not number.is_finite():
        return False
    text = str(number)
    if len(text) <= _LIMIT_DIGITS and "E" not in text:
        return True  # as nearly all are
    _, digits, exponent = number.as_tuple()
    return isinstance(exponent, int) and len(digits) <= _LIMIT_DIGITS and abs(exponent) <= _LIMIT_DIGITS


def _of_value(code: str, value: PropertyValue, expected: str) -> _Wrong:
    said = f"{value.property_id} is {value.numerical_value} {value.unit or ''}".rstrip()
    return _Wrong(code, value.property_id, f"{said}, {expected}")


def _message(sentences: Sequence[str], meaning: str) -> str:
    said = "; ".join(sentences[:_SHOWN_VALUES])
    more = len(sentences) - _SHOWN_VALUES
    return f"{said}{f'; and {more} more' if more > 0 else ''}: {meaning}"


def _code(given: str | None, wrong: Sequence[_Wrong]) -> str | None:
    """Return the fault code of a reading: all that hold, the gravest first."""
    if not wrong:
        return given
    found = {given, *(each.code for each in wrong)}
    return ",".join(code for code in MEANINGS if code in found) or given


def _marked(mapped: MappedReading, code: str | None) -> MappedReading:
    if code == mapped.reading.fault_code:
        return mapped
    return MappedReading(msgspec.structs.replace(mapped.reading, fault_code=code), mapped.has_clock)
