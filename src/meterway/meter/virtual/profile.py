"""A household: what its meters have counted at any second, and the power that flows.

Everything follows from a seed and the instant, in whole numbers: watts, watt-seconds and millilitres. The shapes are
the files in ``profiles/``.
"""

from dataclasses import dataclass
from datetime import tzinfo
from functools import lru_cache
from typing import Final

from meterway.meter.virtual.calendar import HOUR_S, DayType, calendar_of
from meterway.meter.virtual.chance import chance, chance_bytes
from meterway.meter.virtual.integral import MINUTES, DayClass, Integral
from meterway.meter.virtual.shapes import (
    Draw,
    FlowShape,
    Kind,
    gas_shape,
    household_shape,
    sun_shape,
    water_shape,
)

_CLOUD_MINUTES = 5
_DRAW_PERCENT = 100
_MILLI: Final = 1000


@dataclass(frozen=True, slots=True)
class Electricity:
    """The electricity registers at an instant, and the power in the second before it."""

    import_low_ws: int
    """Taken from the grid while the first tariff held, in watt-seconds; never falls."""
    import_normal_ws: int
    export_low_ws: int
    """Given to the grid while the first tariff held."""
    export_normal_ws: int
    import_w: int
    """Never negative; import and export are never both above 0."""
    export_w: int

    @property
    def import_ws(self) -> int:
        return self.import_low_ws + self.import_normal_ws

    @property
    def export_ws(self) -> int:
        return self.export_low_ws + self.export_normal_ws


class Household:
    """One household, decided by its seed: how it lives, how large it is, whether it has a roof with PV.

    ``pv``: True or False to decide about the roof, None to leave it to the seed. ``zone`` is where it lives: habits
    and tariffs follow its clock. Not thread-safe; cheapest when asked for instants in rising order.
    """

    def __init__(self, seed: str, zone: tzinfo, *, pv: bool | None = None) -> None:
        self._calendar = calendar_of(zone)
        kinds = household_shape().kind
        self.kind: Kind = kinds[chance(len(kinds), seed, "kind")]
        roofs = [size for size in sun_shape().peak_kwp if pv is None or bool(size) is pv]
        self.peak_kwp: int = roofs[chance(len(roofs), seed, "roof")]
        self._electricity = Integral(_Grid(seed, self.kind, self.peak_kwp), self._calendar)
        self._gas = Integral(_Flow(f"{seed}/gas", gas_shape()), self._calendar)
        self._water = Integral(_Flow(f"{seed}/water", water_shape()), self._calendar)
        self._last: tuple[int, tuple[int, ...]] = (-1, ())

    def electricity(self, instant_s: int) -> Electricity:
        """Return registers and power at a Unix time.

        Raises:
            SetupError: before 2020.
        """
        last_s, before = self._last
        if last_s != instant_s - 1:
            before = self._electricity.at(instant_s - 1)
        now = self._electricity.at(instant_s)
        self._last = (instant_s, now)
        low, normal, low_export, normal_export = now
        import_w = low + normal - before[0] - before[1]
        export_w = low_export + normal_export - before[2] - before[3]
        return Electricity(low, normal, low_export, normal_export, import_w, export_w)

    def normal_tariff(self, instant_s: int) -> bool:
        """Tell whether the second tariff holds (workdays, 7 to 23 h local)."""
        day, second = self._calendar.split(instant_s)
        return self._calendar.day_type(day).normal_tariff(second // HOUR_S)

    def gas_ml(self, instant_s: int) -> int:
        """Return the gas meter's register in millilitres; never falls."""
        return self._gas.at(instant_s)[0]

    def water_ml(self, instant_s: int) -> int:
        """Return the water meter's register in millilitres; never falls."""
        return self._water.at(instant_s)[0]


class _Grid:
    """The four registers where a house meets the grid: import low and normal, export low and normal."""

    def __init__(self, seed: str, kind: Kind, peak_kwp: int) -> None:
        self.seed = self.weather_seed = seed
        self._kind = kind
        self._peak_kwp = peak_kwp

    @property
    def share_permille(self) -> int:
        return 650 + chance(700, self.seed, "share")

    def day_totals(self, day: DayClass) -> tuple[int, ...]:
        return _grid_day(self._kind, self._peak_kwp, day).totals_ws

    def minute_weights(self, index: int, day: DayClass) -> tuple[list[int], ...]:
        load_w = appliances_w(self.seed, self._kind, index, day)
        roof_w = self._roof_w(index, day)
        hours = _grid_day(self._kind, self._peak_kwp, day).registers
        weights = tuple([0] * MINUTES for _ in range(4))
        for hour, register in enumerate(hours):
            minutes = slice(60 * hour, 60 * hour + 60)
            more, less = (roof_w, load_w) if register > 1 else (load_w, roof_w)
            weights[register][minutes] = [max(a - b, 1) for a, b in zip(more[minutes], less[minutes], strict=True)]
        return weights

    def _roof_w(self, index: int, day: DayClass) -> list[int]:
        if not self._peak_kwp:
            return [0] * MINUTES
        sun = sun_shape()
        level = day.sky
        sky, clouds = sun.sky_percent[level], sun.clouds_percent[level]
        through = [
            max(sky + (byte - 128) * clouds // 128, 4)
            for byte in chance_bytes(MINUTES // _CLOUD_MINUTES, self.seed, "clouds", index)
        ]
        clear_w = _clear_day_w(self._peak_kwp, day.type.month)
        return [power_w * through[minute // _CLOUD_MINUTES] // 100 for minute, power_w in enumerate(clear_w)]


@dataclass(frozen=True, slots=True)
class _GridDay:
    """What all houses of one kind and roof have in common on days of one class."""

    totals_ws: tuple[int, ...]
    registers: tuple[int, ...]
    """For each hour the register that counts in it: within an hour the flow does not change its direction."""


@lru_cache(maxsize=16_384)
def _grid_day(kind: Kind, peak_kwp: int, day: DayClass) -> _GridDay:
    sun = sun_shape()
    sky = sun.sky_percent[day.sky]
    mean_w = mean_load_w(kind, day)
    totals_ws = [0, 0, 0, 0]
    registers = []
    for hour in range(24):
        clear_w = sun.clear_w_per_kwp(day.type.month, 60 * hour + 30)
        net_w = mean_w[hour] - peak_kwp * clear_w * sky // 100
        register = 2 * (net_w < 0) + day.type.normal_tariff(hour)
        totals_ws[register] += abs(net_w) * HOUR_S
        registers.append(register)
    return _GridDay(tuple(totals_ws), tuple(registers))


def appliances_w(seed: str, kind: Kind, index: int, day: DayClass) -> list[int]:
    """Return what a household's appliances take in each minute of the day ``index``; its mean is about ``mean_load_w``.

    Half of it is always there; fridge, cooking and washing come and go.
    """
    shape = household_shape()
    power_w = list(_smooth_load_w(kind, day))
    fridge = shape.fridge
    cycle = fridge.on_minutes + fridge.off_minutes
    for start in range(-chance(cycle, seed, "fridge", index), MINUTES, cycle):
        switch_on(power_w, start, fridge.on_minutes, fridge.power_w)
    drawn = chance_bytes(3 * len(shape.draw), seed, "draws", index)
    for number, draw in enumerate(shape.draw):
        _add_draw(power_w, draw, day.type, drawn[3 * number : 3 * number + 3])
    return power_w


def _add_draw(power_w: list[int], draw: Draw, day_type: DayType, drawn: bytes) -> None:
    whether, hour, minute = drawn
    if whether * _DRAW_PERCENT // 256 >= draw.chance_percent:
        return
    begins = draw.begins_at_hours[hour % len(draw.begins_at_hours)]
    start = 60 * (begins - day_type.ahead_h) + minute * 60 // 256
    for stage in draw.stages:
        switch_on(power_w, start, stage.minutes, stage.power_w)
        start += stage.minutes


def mean_load_w(kind: Kind, day: DayClass) -> list[int]:
    """Return the mean power in each hour of a profile day."""
    busy = household_shape().busy_percent[day.busy]
    local_w = kind.weekend_w if day.type.weekend else kind.workday_w
    return [local_w[day.type.local_hour(hour)] * busy // 100 for hour in range(24)]


@lru_cache(maxsize=2048)
def _smooth_load_w(kind: Kind, day: DayClass) -> tuple[int, ...]:
    """Return the power in each minute that is always there: half of the mean, from hour to hour in a straight line."""
    mean_w = mean_load_w(kind, day)
    return tuple(
        (mean_w[hour] * (60 - minute) + mean_w[(hour + 1) % 24] * minute) // 120
        for hour in range(24)
        for minute in range(60)
    )


@lru_cache(maxsize=256)
def _clear_day_w(peak_kwp: int, month: int) -> tuple[int, ...]:
    return tuple(peak_kwp * sun_shape().clear_w_per_kwp(month, minute) for minute in range(MINUTES))


class _Flow:
    """One register of gas or water, in millilitres."""

    def __init__(self, seed: str, shape: FlowShape) -> None:
        self.seed = self.weather_seed = seed
        self._shape = shape

    @property
    def share_permille(self) -> int:
        return 500 + chance(1000, self.seed, "share")

    def day_totals(self, day: DayClass) -> tuple[int, ...]:
        litres = self._shape.month_litres[day.type.month - 1]
        return (litres * _MILLI * self._shape.level_percent[day.sky] // 100,)

    def minute_weights(self, index: int, day: DayClass) -> tuple[list[int], ...]:
        shape = self._shape
        by_hour = shape.weekend if day.type.weekend else shape.workday
        cycle = shape.on_minutes + shape.off_minutes
        phase = chance(cycle, self.seed, "phase", index)
        strength = chance_bytes(MINUTES // cycle + 2, self.seed, "strength", index)
        weights = []
        for minute in range(MINUTES):
            number, within = divmod(minute + phase, cycle)
            on = within < shape.on_minutes
            weights.append(by_hour[day.type.local_hour(minute // 60)] * (16 + strength[number]) if on else 0)
        return (weights,)


def switch_on(power_w: list[int], start: int, minutes: int, more_w: int) -> None:
    """Add ``more_w`` to the minutes from ``start`` on that lie in the day."""
    for minute in range(max(start, 0), min(start + minutes, MINUTES)):
        power_w[minute] += more_w
