"""Sun and weather over a town: the power of a roof, and how cold it is outside, at any minute of any day.

The sun stands where astronomy puts it: declination by the day of the year, hour angle by local solar time; what a
clear sky lets through falls with the way of the rays through the air (air mass), the roof faces south, 30 degrees
steep. Clouds are luck, the same for the whole town (``DayClass.sky``), and pass by in minutes.

    elevation      sin h = sin(lat) sin(decl) + cos(lat) cos(decl) cos(angle)
    on the roof    cos i = sin(decl) sin(lat - tilt) + cos(decl) cos(lat - tilt) cos(angle)
    direct         1361 W/m2 * 0.7 ** (air mass ** 0.678)         (Meinel)
"""

from functools import lru_cache
from math import cos, radians, sin
from typing import Final

from meterway.meter.virtual.calendar import DayType
from meterway.meter.virtual.integral import MINUTES, DayClass

SKY_PERCENT: Final = (14, 40, 72, 100)
"""How much of a clear day's sun comes through, by ``DayClass.sky``."""
_WINTER_DC: Final = (32, 14, -10, -40)
"""By how much a day is warmer than its month's mean, in tenths of a degree, by its sky: clear nights are cold."""
_SUMMER_DC: Final = (-42, -16, 12, 46)
_SWING_DC: Final = (15, 25, 40, 55)
"""How far the afternoon is above the day's mean, and the night below."""
_SUMMER_MONTHS: Final = range(4, 10)

_TILT_DEG: Final = 30.0
_NOON_MIN: Final = 735
"""When the sun is highest, in local standard time."""
_SOLAR_W_PER_M2: Final = 1361.0
_DIFFUSE_SHARE: Final = 0.1
_PERFORMANCE: Final = 0.82
"""What cables, inverter, dirt and heat leave."""
_LEAST_SIN: Final = 0.02
_COLDEST_MIN: Final = 300
_MONTH_MIDDLE: Final = (15, 45, 74, 105, 135, 166, 196, 227, 258, 288, 319, 349)
"""Days of the year."""


def roof_w_per_kwp(latitude: float, day_of_year: int, minute: int) -> int:
    """Return the power of 1 kW of peak power under a clear sky in a minute of local standard time; 0 at night."""
    declination = radians(23.45) * sin(radians(360.0 * (284 + day_of_year) / 365.0))
    angle = radians((minute - _NOON_MIN) / 4.0)
    north = radians(latitude)
    height = sin(north) * sin(declination) + cos(north) * cos(declination) * cos(angle)
    if height <= _LEAST_SIN:
        return 0
    tilted = north - radians(_TILT_DEG)
    incidence = max(sin(declination) * sin(tilted) + cos(declination) * cos(tilted) * cos(angle), 0.0)
    direct = _SOLAR_W_PER_M2 * 0.7 ** ((1 / height) ** 0.678)
    # Rounded before it is cut, so that the last bit of a library's sine does not matter.
    return int(round(_PERFORMANCE * direct * (incidence + _DIFFUSE_SHARE), 3))


@lru_cache(maxsize=64)
def clear_day_w_per_kwp(latitude: float, day_of_year: int) -> tuple[int, ...]:
    """Return it for all minutes of a day."""
    return tuple(roof_w_per_kwp(latitude, day_of_year, minute) for minute in range(MINUTES))


@lru_cache(maxsize=64)
def clear_hours_w_per_kwp(latitude: float, month: int) -> tuple[int, ...]:
    """Return the mean of each hour in the middle of a month."""
    day = clear_day_w_per_kwp(latitude, _MONTH_MIDDLE[month - 1])
    return tuple(sum(day[60 * hour : 60 * hour + 60]) // 60 for hour in range(24))


def mean_dc(month_means_dc: tuple[int, ...], day_type: DayType, sky: int) -> int:
    """Return the mean outside temperature of a day, in tenths of a degree Celsius."""
    season = _SUMMER_DC if day_type.month in _SUMMER_MONTHS else _WINTER_DC
    return month_means_dc[day_type.month - 1] + season[sky]


@lru_cache(maxsize=4096)
def hours_dc(month_means_dc: tuple[int, ...], day: DayClass) -> tuple[int, ...]:
    """Return the outside temperature in each hour of a day, in tenths of a degree: coldest at 5, warmest at 17."""
    middle, swing = mean_dc(month_means_dc, day.type, day.sky), _SWING_DC[day.sky]
    return tuple(middle + swing * _wave_permille(60 * hour + 30) // 1000 for hour in range(24))


@lru_cache(maxsize=MINUTES)
def _wave_permille(minute: int) -> int:
    return -round(1000 * cos(radians((minute - _COLDEST_MIN) / 4.0)))
