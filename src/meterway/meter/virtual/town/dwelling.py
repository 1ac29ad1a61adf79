"""A household of a town: who lives there, and what its meters have counted at any second.

Exact like every virtual household (``integral``): whole watt-seconds and millilitres, from the seed and the instant
alone. Heat follows from floor area, insulation and outside temperature; a heat pump turns it into electricity by its
coefficient of performance, a boiler into gas, a district heating station into hot water.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property, lru_cache
from typing import Final, TypeVar

from meterway.meter.virtual.calendar import DAY_S, HOUR_S, calendar_of
from meterway.meter.virtual.chance import chance, chance_bytes
from meterway.meter.virtual.integral import MINUTES, DayClass, Integral
from meterway.meter.virtual.profile import Electricity, appliances_w, mean_load_w, switch_on
from meterway.meter.virtual.shapes import Kind, household_shape, water_shape
from meterway.meter.virtual.town import sky
from meterway.meter.virtual.town.shape import Heating, TownShape

_ROOM_DC: Final = 150
"""Below this outside temperature, in tenths of a degree, rooms are heated; sun and people do the rest."""
_NIGHT_H: Final = (*range(5), 22, 23)
_NIGHT_PERCENT, _DAY_PERCENT = 70, 115
_HOT_WATER_WH: Final = 1900
"""Heat for the hot water of one person in a day."""
_GAS_WS_PER_100_ML: Final = 3478
"""10.5 kWh in a cubic metre, of which a boiler makes use of 92 %."""
_HEAT_WS_PER_10_ML: Final = 1256
"""What water gives that comes back 30 kelvin cooler."""
_BUSINESS_WATER_PERCENT: Final = 25
_PERSON_WATER_PERCENT: Final = 45
"""What one person takes of the water of ``profiles/water.toml``."""
_BURNER_MIN: Final = (9, 6)
_TAP_MIN: Final = (2, 15)
_CLOUD_MIN: Final = 5
_CLOUDS_PERCENT: Final = (25, 55, 40, 4)
"""How far five minutes may differ from their day, by its sky."""
_EV_W: Final = 11_000
_EV_BEGINS_H: Final = (18, 19, 20, 21)
_EV_WH: Final = (6_000, 20_000)

_NOTHING: Final[Sequence[int]] = (0,) * 24

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, slots=True)
class Heat:
    """The registers of a heat meter at an instant, and the flow in the second before it."""

    energy_ws: int
    volume_ml: int
    power_w: int
    flow_ml_per_s: int


class Dwelling:
    """Household ``number`` of the town ``seed``. Cheapest when asked for instants in rising order."""

    def __init__(self, seed: str, number: int, shape: TownShape, zone: tzinfo) -> None:
        self.seed = f"{seed}/{number}"
        self.number = number
        index = drawn_by_weight(dict(enumerate(each.weight for each in shape.buildings)), self.seed, "building")
        self.building = building = shape.buildings[index]
        kinds = {kind.name: kind for kind in household_shape().kind}
        self.kind: Kind = kinds[building.kinds[chance(len(building.kinds), self.seed, "kind")]]
        self.floor_area_m2 = self._between(building.floor_area_m2, "area")
        self.occupants = self._between(building.occupants, "occupants")
        self.heating: Heating = drawn_by_weight(building.heating, self.seed, "heating")
        self.peak_kwp = self._between(building.pv_kwp, "kwp") if self._has(building.pv_percent, "pv") else 0
        self.has_ev = self._has(building.ev_percent, "ev")
        self.appliances_percent = self._between(building.appliances_percent, "appliances")
        self.heat_loss_w_per_k = self._between(building.heat_loss_mw_per_k_m2, "loss") * self.floor_area_m2 // 1000
        self.ev_wh = self._between(_EV_WH, "ev-energy")
        self.ev_begins_h = _EV_BEGINS_H[chance(len(_EV_BEGINS_H), self.seed, "ev-hour")]
        self.sky_seed = f"{seed}/sky"
        self.shape = shape
        self._calendar = calendar_of(zone)

    def _between(self, ends: tuple[int, int], word: str) -> int:
        low, high = ends
        return low + chance(high - low + 1, self.seed, word)

    def _has(self, percent: int, word: str) -> bool:
        return chance(100, self.seed, word) < percent

    def electricity(self, instant_s: int) -> Electricity:
        """Return registers and power where the household meets the grid, at a Unix time.

        Raises:
            SetupError: before 2020.
        """
        before, now = self._grid.at(instant_s - 1), self._grid.at(instant_s)
        import_w = now[0] + now[1] - before[0] - before[1]
        export_w = now[2] + now[3] - before[2] - before[3]
        low, normal, low_export, normal_export = now
        return Electricity(low, normal, low_export, normal_export, import_w, export_w)

    def normal_tariff(self, instant_s: int) -> bool:
        """Tell whether the second tariff holds (workdays, 7 to 23 h local)."""
        day, second = self._calendar.split(instant_s)
        return self._calendar.day_type(day).normal_tariff(second // HOUR_S)

    def roof_ws(self, instant_s: int) -> int:
        """Return what the roof has made; 0 where it has no PV."""
        return self._roof.at(instant_s)[0]

    def gas_ml(self, instant_s: int) -> int:
        """Return what the boiler has burnt."""
        return self._gas.at(instant_s)[0]

    def water_ml(self, instant_s: int) -> int:
        """Return what has been drawn of cold water."""
        return self._water.at(instant_s)[0]

    def heat(self, instant_s: int) -> Heat:
        """Return what the district heating station has handed over."""
        before, now = self._heat.at(instant_s - 1), self._heat.at(instant_s)
        (energy_ws, volume_ml) = now
        return Heat(energy_ws, volume_ml, energy_ws - before[0], volume_ml - before[1])

    def heat_w(self, day: DayClass) -> list[int]:
        """Return the heat that rooms and hot water need, in each hour of a profile day."""
        hot_water_wh = self.occupants * _HOT_WATER_WH
        if self._is_business:
            hot_water_wh = hot_water_wh * _BUSINESS_WATER_PERCENT // 100
        loss, ahead_h = self.heat_loss_w_per_k, day.type.ahead_h
        outside_dc = sky.hours_dc(self.shape.mean_temperature_dc, day)
        return [
            loss * percent * max(_ROOM_DC - dc, 0) // 1000 + hot_water_wh * permille // 1000
            for dc, percent, permille in zip(
                outside_dc, _room_percent(ahead_h), _hot_water_permille(ahead_h), strict=True
            )
        ]

    def load_w(self, day: DayClass) -> list[int]:
        """Return what all appliances take together, in each hour of a profile day."""
        percent = self.appliances_percent
        load_w = [power_w * percent // 100 for power_w in mean_load_w(self.kind, day)]
        for more_w in (self.heat_pump_w(day), self.car_w(day)):
            if more_w is not _NOTHING:
                load_w = [power_w + more for power_w, more in zip(load_w, more_w, strict=True)]
        return load_w

    def heat_pump_w(self, day: DayClass) -> Sequence[int]:
        """Return what the heat pump takes in each hour; its performance falls with the cold, 3.2 at 0 degrees."""
        if self.heating != "heat-pump":
            return _NOTHING
        outside_dc = sky.hours_dc(self.shape.mean_temperature_dc, day)
        return [
            needed_w * 1000 // min(max(3200 + 8 * dc, 1800), 4800)
            for needed_w, dc in zip(self.heat_w(day), outside_dc, strict=True)
        ]

    def car_w(self, day: DayClass) -> Sequence[int]:
        """Return the mean power of the car's charger in each hour: on about half of all days, in the evening."""
        if not self.has_ev or not day.busy % 2:
            return _NOTHING
        power_w = [0] * 24
        left_wh = self.ev_wh
        hour = self.ev_begins_h - day.type.ahead_h
        while left_wh:
            power_w[hour] = min(left_wh, _EV_W)
            left_wh -= power_w[hour]
            hour += 1
        return power_w

    def roof_w(self, day: DayClass) -> list[int]:
        """Return what the roof makes in each hour of a profile day."""
        clear = sky.clear_hours_w_per_kwp(self.shape.latitude, day.type.month)
        return [self.peak_kwp * power_w * sky.SKY_PERCENT[day.sky] // 100 for power_w in clear]

    def roof_minutes_w(self, index: int, day: DayClass) -> list[int]:
        """Return it for each minute, with the clouds of the day ``index`` and the sun as it stands on that day."""
        date = datetime.fromtimestamp(index * DAY_S, UTC)
        clear = sky.clear_day_w_per_kwp(self.shape.latitude, date.timetuple().tm_yday)
        level, spread = sky.SKY_PERCENT[day.sky], _CLOUDS_PERCENT[day.sky]
        drawn = chance_bytes(MINUTES // _CLOUD_MIN, self.sky_seed, "clouds", index)
        through = [max(level + (byte - 128) * spread // 128, 3) for byte in drawn]
        return [self.peak_kwp * power_w * through[minute // _CLOUD_MIN] // 100 for minute, power_w in enumerate(clear)]

    def water_ml_per_day(self, day: DayClass) -> int:
        """Return what is drawn in a profile day."""
        shape = water_shape()
        percent = _PERSON_WATER_PERCENT * (_BUSINESS_WATER_PERCENT if self._is_business else 100) // 100
        litres_percent = self.occupants * shape.month_litres[day.type.month - 1] * percent
        return litres_percent * 10 * shape.level_percent[day.busy] // 100

    @property
    def _is_business(self) -> bool:
        return self.kind.name == "small-business"

    @cached_property
    def _grid(self) -> Integral:
        return Integral(_Grid(self), self._calendar)

    @cached_property
    def _roof(self) -> Integral:
        return Integral(_Roof(self), self._calendar)

    @cached_property
    def _gas(self) -> Integral:
        def total_ml(day: DayClass) -> tuple[int, ...]:
            return (sum(self.heat_w(day)) * HOUR_S * 100 // _GAS_WS_PER_100_ML,)

        return Integral(_Flow(self, "gas", total_ml, self.heat_w, _BURNER_MIN), self._calendar)

    @cached_property
    def _water(self) -> Integral:
        def hours(day: DayClass) -> Sequence[int]:
            local = water_shape().weekend if day.type.weekend else water_shape().workday
            return [local[day.type.local_hour(hour)] for hour in range(24)]

        def total_ml(day: DayClass) -> tuple[int, ...]:
            return (self.water_ml_per_day(day),)

        return Integral(_Flow(self, "water", total_ml, hours, _TAP_MIN), self._calendar)

    @cached_property
    def _heat(self) -> Integral:
        def totals(day: DayClass) -> tuple[int, ...]:
            energy_ws = sum(self.heat_w(day)) * HOUR_S
            return energy_ws, energy_ws * 10 // _HEAT_WS_PER_10_ML

        return Integral(_Flow(self, "heat", totals, self.heat_w, (MINUTES, 0)), self._calendar)


@lru_cache(maxsize=2)
def _room_percent(ahead_h: int) -> tuple[int, ...]:
    """Return how far rooms are heated in each hour of a profile day; ``ahead_h`` as in ``DayType``."""
    return tuple(_NIGHT_PERCENT if (hour + ahead_h) % 24 in _NIGHT_H else _DAY_PERCENT for hour in range(24))


@lru_cache(maxsize=2)
def _hot_water_permille(ahead_h: int) -> tuple[int, ...]:
    """Return how much of a day's hot water is drawn in each hour."""
    weights = water_shape().workday
    return tuple(1000 * weights[(hour + ahead_h) % 24] // sum(weights) for hour in range(24))


def drawn_by_weight(weights: Mapping[Drawn, int], *words: str | int) -> Drawn:
    """Return one of the keys, each as often as its weight says; not all weights may be 0."""
    left = chance(sum(weights.values()), *words)
    for each, weight in weights.items():
        if left < weight:
            return each
        left -= weight
    raise AssertionError("the weights add up")  # pragma: no cover


class _Source:
    """What the sources of one dwelling have in common; see ``integral.Source``."""

    share_permille = 1000

    def __init__(self, dwelling: Dwelling, name: str) -> None:
        self.seed = f"{dwelling.seed}/{name}"
        self.weather_seed = dwelling.sky_seed
        self._dwelling = dwelling


class _Grid(_Source):
    """The four registers where the household meets the grid: import low and normal, export low and normal."""

    def __init__(self, dwelling: Dwelling) -> None:
        super().__init__(dwelling, "grid")

    def day_totals(self, day: DayClass) -> tuple[int, ...]:
        totals_ws = [0, 0, 0, 0]
        for register, net_w in self._hours(day):
            totals_ws[register] += abs(net_w) * HOUR_S
        return tuple(totals_ws)

    def _hours(self, day: DayClass) -> list[tuple[int, int]]:
        """Return for each hour the register that counts in it, and the net power: no hour has both directions."""
        home = self._dwelling
        roof_w = home.roof_w(day) if home.peak_kwp else [0] * 24
        return [
            (2 * (load < roof) + day.type.normal_tariff(hour), load - roof)
            for hour, (load, roof) in enumerate(zip(home.load_w(day), roof_w, strict=True))
        ]

    def minute_weights(self, index: int, day: DayClass) -> tuple[list[int], ...]:
        home = self._dwelling
        load_w = [each * home.appliances_percent // 100 for each in appliances_w(self.seed, home.kind, index, day)]
        for hour, (pump_w, car_w) in enumerate(zip(home.heat_pump_w(day), home.car_w(day), strict=True)):
            switch_on(load_w, 60 * hour, 60, pump_w)
            switch_on(load_w, 60 * hour, 60 * car_w // _EV_W, _EV_W)
        roof_w = home.roof_minutes_w(index, day) if home.peak_kwp else [0] * MINUTES
        weights = tuple([0] * MINUTES for _ in range(4))
        for hour, (register, _) in enumerate(self._hours(day)):
            minutes = slice(60 * hour, 60 * hour + 60)
            more, less = (roof_w, load_w) if register > 1 else (load_w, roof_w)
            weights[register][minutes] = [max(a - b, 1) for a, b in zip(more[minutes], less[minutes], strict=True)]
        return weights


class _Roof(_Source):
    """The production meter of a roof."""

    def __init__(self, dwelling: Dwelling) -> None:
        super().__init__(dwelling, "roof")

    def day_totals(self, day: DayClass) -> tuple[int, ...]:
        return (sum(self._dwelling.roof_w(day)) * HOUR_S,)

    def minute_weights(self, index: int, day: DayClass) -> tuple[list[int], ...]:
        return (self._dwelling.roof_minutes_w(index, day),)


class _Flow(_Source):
    """Gas, water or heat, which flows by the hour, on and off for some minutes; all registers alike."""

    def __init__(
        self,
        dwelling: Dwelling,
        name: str,
        totals: Callable[[DayClass], tuple[int, ...]],
        hours: Callable[[DayClass], Sequence[int]],
        on_off_min: tuple[int, int],
    ) -> None:
        super().__init__(dwelling, name)
        self.day_totals = totals
        self._hours = hours
        self._on_min, off_min = on_off_min
        self._cycle_min = self._on_min + off_min

    def minute_weights(self, index: int, day: DayClass) -> tuple[list[int], ...]:
        hours = self._hours(day)
        phase = chance(self._cycle_min, self.seed, "phase", index)
        strength = chance_bytes(MINUTES // self._cycle_min + 2, self.seed, "strength", index)
        weights = []
        for minute in range(MINUTES):
            number, within = divmod(minute + phase, self._cycle_min)
            weights.append(hours[minute // 60] * (16 + strength[number]) if within < self._on_min else 0)
        return (weights,) * len(self.day_totals(day))
