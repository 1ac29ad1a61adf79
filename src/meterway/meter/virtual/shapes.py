"""Load profiles as data: the files in ``profiles/``, read once, as types."""

from functools import lru_cache
from importlib.resources import files
from typing import Annotated, TypeVar

import msgspec

from meterway.core.config import load_config

Whole = Annotated[int, msgspec.Meta(ge=0)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=300)]
Hours = Annotated[tuple[Whole, ...], msgspec.Meta(min_length=24, max_length=24)]
Months = Annotated[tuple[Whole, ...], msgspec.Meta(min_length=12, max_length=12)]
Levels = Annotated[tuple[Percent, ...], msgspec.Meta(min_length=4, max_length=4)]
Minutes = Annotated[int, msgspec.Meta(ge=1, le=240)]


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=None):
    pass


class Kind(_Data, frozen=True):
    """One kind of household: its mean power by the local hour, on workdays and at the weekend."""

    name: str
    workday_w: Hours
    weekend_w: Hours


class Stage(_Data, frozen=True):
    power_w: Whole
    minutes: Minutes


class Draw(_Data, frozen=True):
    """Something that is switched on at most once a day."""

    name: str
    chance_percent: Annotated[int, msgspec.Meta(ge=0, le=100)]
    begins_at_hours: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=21)], ...], msgspec.Meta(min_length=1)]
    stages: Annotated[tuple[Stage, ...], msgspec.Meta(min_length=1)]


class Fridge(_Data, frozen=True):
    power_w: Whole
    on_minutes: Minutes
    off_minutes: Minutes


class HouseholdShape(_Data, frozen=True):
    """``household.toml``."""

    busy_percent: Levels
    kind: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)]
    draw: tuple[Draw, ...]
    fridge: Fridge


class SunShape(_Data, frozen=True):
    """``pv.toml``."""

    clear_noon_w_per_kwp: Months
    daylight_minutes: Months
    noon_minute: Annotated[int, msgspec.Meta(ge=600, le=840)]
    sky_percent: Levels
    clouds_percent: Levels
    peak_kwp: Annotated[tuple[Whole, ...], msgspec.Meta(min_length=1)]

    def clear_w_per_kwp(self, month: int, minute: int) -> int:
        """Return the power of one kW of peak power in a minute of a clear day; a parabola over the daylight."""
        half = self.daylight_minutes[month - 1] // 2
        away = minute - self.noon_minute
        if abs(away) >= half:
            return 0
        return self.clear_noon_w_per_kwp[month - 1] * (half * half - away * away) // (half * half)


class FlowShape(_Data, frozen=True):
    """``gas.toml`` and ``water.toml``."""

    month_litres: Months
    level_percent: Levels
    workday: Hours
    weekend: Hours
    on_minutes: Minutes
    off_minutes: Minutes


Shape = TypeVar("Shape", HouseholdShape, SunShape, FlowShape)


def _load(name: str, kind: type[Shape]) -> Shape:
    text = files(__package__).joinpath("profiles", name).read_text(encoding="utf-8")
    return load_config(text, kind, where=f"profiles/{name}")


@lru_cache(maxsize=1)
def household_shape() -> HouseholdShape:
    return _load("household.toml", HouseholdShape)


@lru_cache(maxsize=1)
def sun_shape() -> SunShape:
    return _load("pv.toml", SunShape)


@lru_cache(maxsize=1)
def gas_shape() -> FlowShape:
    return _load("gas.toml", FlowShape)


@lru_cache(maxsize=1)
def water_shape() -> FlowShape:
    return _load("water.toml", FlowShape)
