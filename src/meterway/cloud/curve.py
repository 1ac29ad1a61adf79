"""The curve of a local day: mean power or flow over time, small enough to draw. Pure.

A point is labelled by its start and holds until the next one. Curves are for eyes, so they are rounded; the registers
beside them are exact.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from meterway.cloud.answers import Number, Row
from meterway.cloud.query import Statement
from meterway.core.errors import BadDataError
from meterway.core.properties import Kind, catalogue
from meterway.core.units import UNITS
from meterway.core.zones import find_zone

POWER_STEP_S = 60
"""A day of 25 hours has 1500 minutes: the most points a curve has."""
REGISTER_STEP_S = 900
"""Differences of a register over less than a quarter of an hour show its resolution, not the power."""
TOTAL_STEP_S = 300
TOTAL_HOLD_S = 900
"""In the total of all meters a power counts until the next one, but no longer than this."""
LIMIT_TOTAL_METERS = 100

GAP_STEPS = 4
"""A pause longer than so many usual steps is a gap, not a line."""

_PLACES = Decimal("0.0001")
_SECONDS_PER_HOUR = 3600

Direction: TypeAlias = Literal["import", "export"]


@dataclass(frozen=True, slots=True)
class Day:
    """A local day: [``start``, ``end``), 23 to 25 hours long."""

    day: date
    zone: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Source:
    """Which property a line is made of."""

    property_id: str
    direction: Direction
    kind: Literal["power", "signed power", "register"]


class Line(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line; ``values`` are parallel to ``times``, null where nothing is known."""

    property_names: tuple[str, ...]
    """What it is made of; several are summed up, as the registers of tariffs."""
    direction: Direction
    values: tuple[Number | None, ...]


class Register(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A register at the first and the last reading of the day, exact."""

    property_name: str
    direction: Direction
    unit: str | None
    first: Number
    last: Number


class CurveAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The curve of a day."""

    meter_id: str | None
    """null: the total of all electricity meters."""
    day: date
    zone: str
    start: datetime
    end: datetime
    unit: str | None
    """kW, or m3/h for volumes; null where there is nothing to draw."""
    source: Literal["measured", "register", "none"]
    """measured: the meter sends its power; register: differences of its register."""
    step_s: int
    times: tuple[Annotated[int, Meta(description="Seconds since 1970")], ...]
    lines: tuple[Line, ...]
    registers: tuple[Register, ...]


def local_day(day: str | None, zone: str, now: datetime) -> Day:
    """Return the day ``YYYY-MM-DD`` (none: today) as people in ``zone`` count it; right when clocks change.

    Raises:
        BadDataError: no such day, or no such zone.
    """
    place = find_zone(zone)
    try:
        chosen = date.fromisoformat(day) if day else now.astimezone(place).date()
        start = datetime.combine(chosen, time(), place).astimezone(UTC)
        end = datetime.combine(chosen + timedelta(days=1), time(), place).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadDataError(
            f"`day` {(day or '')[:40]!r} is not a day; write it as 2026-11-23.", reason="bad-day"
        ) from error
    return Day(chosen, zone, start, end)


def choose_sources(property_ids: list[str], units: list[str]) -> list[Source]:
    """Return what to draw for a meter with these properties: its power, else its register, at best both directions."""
    have = set(property_ids)
    if {"OBIS_1.7.0", "OBIS_2.7.0"} <= have:
        return [Source("OBIS_1.7.0", "import", "power"), Source("OBIS_2.7.0", "export", "power")]
    if "OBIS_16.7.0" in have:
        return [Source("OBIS_16.7.0", "import", "signed power"), Source("OBIS_16.7.0", "export", "signed power")]
    if "OBIS_1.7.0" in have:
        return [Source("OBIS_1.7.0", "import", "power")]
    power = _first(property_ids, units, "power", Kind.INSTANTANEOUS)
    return register_sources(property_ids, units) or ([Source(power, "import", "power")] if power else [])


def register_sources(property_ids: list[str], units: list[str]) -> list[Source]:
    """Return the registers whose growth over the day is worth telling."""
    found = _energy_registers(property_ids, "OBIS_1.8.", "import")
    found += _energy_registers(property_ids, "OBIS_2.8.", "export")
    if found:
        return found
    name = _first(property_ids, units, "energy", Kind.REGISTER) or _first(property_ids, units, "volume", Kind.REGISTER)
    return [Source(name, "import", "register")] if name else []


def select_curve(meter_key: int, day: Day, sources: list[Source]) -> Statement:
    """Return the statement for one value a step: step, property_id, unit, value_time, value.

    ``value`` is the mean for a power, the last one for a register (whose own time, if it has one, counts).
    """
    names = sorted({source.property_id for source in sources})
    if any(source.kind == "register" for source in sources):
        return Statement(_REGISTER_SQL, (meter_key, day.start, day.end, REGISTER_STEP_S, names))
    return Statement(_POWER_SQL, (meter_key, day.start, day.end, POWER_STEP_S, names))


def select_registers(meter_key: int, day: Day, sources: list[Source]) -> Statement:
    """Return the statement for each register at both ends of the day: property_id, unit, first, last."""
    return Statement(_ENDS_SQL, (meter_key, day.start, day.end, sorted({source.property_id for source in sources})))


def select_total(day: Day, now: datetime) -> Statement:
    """Return the statement for the net power of all electricity meters, in kW: step, value."""
    end = min(day.end, max(day.start, now))
    return Statement(_TOTAL_SQL, (day.start, end, TOTAL_STEP_S, TOTAL_HOLD_S, LIMIT_TOTAL_METERS))


def curve_answer(meter_id: str, day: Day, sources: list[Source], rows: list[Row], ends: list[Row]) -> CurveAnswer:
    """Return the curve in the rows of ``select_curve`` and ``select_registers``."""
    is_register = any(source.kind == "register" for source in sources)
    step_s = REGISTER_STEP_S if is_register else POWER_STEP_S
    points: dict[str, dict[int, Decimal | None]] = {}
    unit = None
    for name in sorted({source.property_id for source in sources}):
        samples, unit = _samples([row for row in rows if row["property_id"] == name], day, step_s, by_time=is_register)
        points[name] = _slopes(samples) if is_register else dict(samples)
    if is_register and unit:
        unit = {"m3": "m3/h", "kWh": "kW"}[unit]
    return _assemble(meter_id, day, sources, points, _ends(ends), unit=unit, step_s=step_s)


def total_answer(day: Day, rows: list[Row]) -> CurveAnswer:
    """Return the total of all meters, in the rows of ``select_total``."""
    start_s = int(day.start.timestamp())
    points = {start_s + _integer(row["step"]) * TOTAL_STEP_S: _round(row["value"]) for row in rows}
    sources = [Source("OBIS_16.7.0", "import", "signed power"), Source("OBIS_16.7.0", "export", "signed power")]
    return _assemble(None, day, sources, {"OBIS_16.7.0": points}, (), unit="kW", step_s=TOTAL_STEP_S)


def _assemble(
    meter_id: str | None,
    day: Day,
    sources: list[Source],
    points: dict[str, dict[int, Decimal | None]],
    registers: tuple[Register, ...],
    *,
    unit: str | None,
    step_s: int,
) -> CurveAnswer:
    times = _with_gaps(sorted({at for line in points.values() for at in line}), step_s)
    directions = list(dict.fromkeys(source.direction for source in sources))
    lines = tuple(_line([each for each in sources if each.direction == way], points, times) for way in directions)
    drawn = any(value is not None for line in lines for value in line.values)
    measured: Literal["measured", "register"] = (
        "register" if any(source.kind == "register" for source in sources) else "measured"
    )
    return CurveAnswer(
        meter_id=meter_id,
        day=day.day,
        zone=day.zone,
        start=day.start,
        end=day.end,
        unit=unit if drawn else None,
        source=measured if drawn else "none",
        step_s=step_s,
        times=tuple(times) if drawn else (),
        lines=lines if drawn else (),
        registers=registers,
    )


def _samples(rows: list[Row], day: Day, step_s: int, *, by_time: bool) -> tuple[list[tuple[int, Decimal]], str | None]:
    """Return (seconds since 1970, value) in order, in kW, kWh or m3, and that unit."""
    samples: dict[int, Decimal] = {}
    base = None
    for row in rows:
        scale = _SCALE.get(UNITS[str(row["unit"])].dimension) if row["unit"] in UNITS else None
        value, value_time = row["value"], row["value_time"]
        if scale is None or not isinstance(value, Decimal) or not isinstance(value_time, datetime):
            continue
        unit = UNITS[str(row["unit"])]
        base = scale.name
        at = value_time.timestamp() if by_time else day.start.timestamp() + _integer(row["step"]) * step_s
        samples[int(at)] = value * unit.numerator * scale.denominator / (unit.denominator * scale.numerator)
    if not by_time:
        samples = {at: value.quantize(_PLACES) for at, value in samples.items()}
    return sorted(samples.items()), base


_SCALE = {"power": UNITS["kW"], "energy": UNITS["kWh"], "volume": UNITS["m3"]}


def _slopes(samples: list[tuple[int, Decimal]]) -> dict[int, Decimal | None]:
    """Return the mean growth an hour from each sample to the next; None where a register went back (another meter)."""
    found: dict[int, Decimal | None] = {}
    for (at, value), (later, next_value) in pairwise(samples):
        growth = next_value - value
        found[at] = _round(growth * _SECONDS_PER_HOUR / (later - at)) if growth >= 0 else None
        found[later] = found[at]  # so that the last step is drawn; the next pair overwrites it
    return found


def _with_gaps(times: list[int], step_s: int) -> list[int]:
    """Return ``times`` with one more, which has no value, in each pause that is longer than usual."""
    steps = [later - at for at, later in pairwise(times)]
    usual = max(step_s, median(steps)) if steps else step_s
    found: list[int] = []
    for at in times:
        if found and at - found[-1] > GAP_STEPS * usual:
            found.append(int(found[-1] + usual))
        found.append(at)
    return found


def _line(sources: list[Source], points: dict[str, dict[int, Decimal | None]], times: list[int]) -> Line:
    """Return the sum of the sources of one direction, where any is known."""
    values: list[Decimal | None] = []
    for at in times:
        known = [_directed(points[source.property_id].get(at), source) for source in sources]
        there = [value for value in known if value is not None]
        values.append(sum(there, Decimal(0)) if there else None)
    return Line(
        property_names=tuple(source.property_id for source in sources),
        direction=sources[0].direction,
        values=tuple(values),
    )


def _directed(value: Decimal | None, source: Source) -> Decimal | None:
    if value is None or source.kind != "signed power":
        return value
    return max(value, Decimal(0)) if source.direction == "import" else max(-value, Decimal(0))


def _energy_registers(property_ids: list[str], prefix: str, direction: Direction) -> list[Source]:
    """Return the register of all tariffs, else those of each tariff (as DSMR meters have)."""
    total = f"{prefix}0"
    names = [total] if total in property_ids else [name for name in property_ids if name.startswith(prefix)]
    return [Source(name, direction, "register") for name in names]


def _first(property_ids: list[str], units: list[str], dimension: str, kind: Kind) -> str | None:
    """Return the first property of a dimension and kind."""
    for property_id, unit in zip(property_ids, units, strict=True):
        if unit in UNITS and UNITS[unit].dimension == dimension:
            definition = catalogue().find(property_id)
            if definition is not None and definition.kind is kind:
                return property_id
    return None


def _ends(rows: list[Row]) -> tuple[Register, ...]:
    return tuple(
        Register(
            property_name=str(row["property_id"]),
            direction="export" if str(row["property_id"]).startswith("OBIS_2.8.") else "import",
            unit=str(row["unit"]) if row["unit"] else None,
            first=first,
            last=last,
        )
        for row in rows
        if isinstance(first := row["first"], Decimal) and isinstance(last := row["last"], Decimal)
    )


def _round(value: object) -> Decimal | None:
    return value.quantize(_PLACES) if isinstance(value, Decimal) else None


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


_VALUES = """
    select r.reading_time, r.dates[p.place] as date, w.property_id, s.units[p.place] as unit,
           r.numerical_values[p.place] as value
      from reading r join property_set s using (property_set_key)
     cross join unnest($5::text[]) w(property_id)
     cross join lateral (select array_position(s.property_ids, w.property_id) as place) p
     where r.meter_key = $1::integer and r.reading_time >= $2::timestamptz and r.reading_time < $3::timestamptz
       and p.place is not null and r.numerical_values[p.place] is not null
"""

_POWER_SQL = f"""
select floor(extract(epoch from reading_time - $2) / $4::integer)::integer as step, property_id, unit,
       min(reading_time) as value_time, avg(value) as value
  from ({_VALUES}) v group by 1, 2, 3 order by 1
"""  # noqa: S608 - only our own words are put in

_REGISTER_SQL = f"""
select distinct on (property_id, step) step, property_id, unit, value_time, value
  from (select property_id, unit, value, coalesce(date, reading_time) as value_time,
               floor(extract(epoch from coalesce(date, reading_time) - $2) / $4::integer)::integer as step
          from ({_VALUES}) v) t
 where value_time >= $2 and value_time < $3
 order by property_id, step, value_time desc
"""  # noqa: S608 - only our own words are put in

_ENDS_SQL = """
select w.property_id, a.unit, a.value as first, b.value as last
  from unnest($4::text[]) w(property_id)
 cross join lateral (
       select s.units[array_position(s.property_ids, w.property_id)] as unit,
              r.numerical_values[array_position(s.property_ids, w.property_id)] as value
         from reading r join property_set s using (property_set_key)
        where r.meter_key = $1::integer and r.reading_time >= $2::timestamptz and r.reading_time < $3::timestamptz
          and w.property_id = any(s.property_ids)
        order by r.reading_time limit 1) a
 cross join lateral (
       select s.units[array_position(s.property_ids, w.property_id)] as unit,
              r.numerical_values[array_position(s.property_ids, w.property_id)] as value
         from reading r join property_set s using (property_set_key)
        where r.meter_key = $1::integer and r.reading_time >= $2::timestamptz and r.reading_time < $3::timestamptz
          and w.property_id = any(s.property_ids)
        order by r.reading_time desc limit 1) b
 where a.unit is not distinct from b.unit
 order by 1
"""

_TOTAL_SQL = """
select step, sum(net) as value
  from generate_series(
       0, ceil(extract(epoch from $2::timestamptz - $1::timestamptz) / $3::integer)::integer - 1) as step
 cross join (select m.meter_key from meter m join property_set s on s.property_set_key = m.last_property_set_key
              where s.property_ids && '{OBIS_1.7.0,OBIS_16.7.0}' order by m.meter_key limit $5::integer) m
 cross join lateral (
       select (coalesce(r.numerical_values[array_position(s.property_ids, 'OBIS_16.7.0')],
                        r.numerical_values[array_position(s.property_ids, 'OBIS_1.7.0')]
                        - coalesce(r.numerical_values[array_position(s.property_ids, 'OBIS_2.7.0')], 0)))
              * case s.units[coalesce(array_position(s.property_ids, 'OBIS_16.7.0'),
                                      array_position(s.property_ids, 'OBIS_1.7.0'))]
                when 'W' then 0.001 when 'kW' then 1 when 'MW' then 1000 end as net
         from reading r join property_set s using (property_set_key)
        where r.meter_key = m.meter_key
          and r.reading_time < least($1 + (step + 1) * $3 * interval '1 second', $2)
          and r.reading_time >= $1 + (step + 1) * $3 * interval '1 second' - $4::integer * interval '1 second'
        order by r.reading_time desc limit 1) r
 where net is not null
 group by step order by step
"""
