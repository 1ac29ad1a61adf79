"""Towns as data: the files in ``profiles/``, read once, as types."""

from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec

from meterway.core.config import Table, load_config
from meterway.core.errors import SetupError

Heating = Literal["gas", "heat-pump", "district", "other"]
Range = tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]
"""The least and the most; both may be drawn."""
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Weights = dict[str, Annotated[int, msgspec.Meta(ge=0)]]
"""By name, how often it is drawn against the others."""


class Building(Table, frozen=True, kw_only=True):
    """One kind of household, and what lives in it."""

    name: str
    """``house``, ``flat``, ``office``."""
    weight: Annotated[int, msgspec.Meta(ge=1)]
    kinds: tuple[str, ...]
    """Of ``profiles/household.toml``: when they need how much electricity."""
    floor_area_m2: Range
    occupants: Range
    appliances_percent: Range = (70, 130)
    """Of what the kind takes."""
    heat_loss_mw_per_k_m2: Range = (700, 1800)
    """Milliwatts that a square metre loses for each kelvin between inside and outside: 700 is new, 1800 is old."""
    heating: dict[Heating, Annotated[int, msgspec.Meta(ge=0)]]
    """Weights."""
    pv_percent: Percent = 0
    """How many have a roof with PV."""
    pv_kwp: Range = (4, 10)
    ev_percent: Percent = 0
    """How many charge a car at home."""
    per_segment: Annotated[int, msgspec.Meta(ge=1, le=60)] = 1
    """So many neighbours share one M-Bus segment, as the flats of an apartment block do."""


class TownShape(Table, frozen=True, kw_only=True):
    """One file."""

    title: str
    latitude: Annotated[float, msgspec.Meta(ge=35, le=66)]
    """Degrees north, where the formulas of sun and weather hold."""
    mean_temperature_dc: tuple[int, ...]
    """Outside, January to December, in tenths of a degree Celsius."""
    buildings: tuple[Building, ...]
    meters: dict[Literal["electricity", "gas", "water", "heat"], Weights]
    """For each medium the families that its meters belong to; ``through`` is a meter behind the electricity meter,
    where that can have one."""


@lru_cache(maxsize=8)
def town_shape(name: str) -> TownShape:
    """Return the profile ``name``.

    Raises:
        SetupError: there is none of that name.
    """
    if name not in town_names():
        raise SetupError(f"there is no town profile {name!r}; there are {', '.join(town_names())}")
    text = files(__package__).joinpath("profiles", f"{name}.toml").read_text(encoding="utf-8")
    return load_config(text, TownShape, where=f"profiles/{name}.toml")


@lru_cache(maxsize=1)
def town_names() -> tuple[str, ...]:
    """Return the names of all profiles, sorted."""
    folder = files(__package__).joinpath("profiles")
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))
