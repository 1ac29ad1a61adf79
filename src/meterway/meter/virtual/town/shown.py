"""What a meter of the town shows at an instant, before a voice puts it into the words of a protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.master import Effect
from meterway.meter.virtual.electrical import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What all meters show."""

    time: datetime
    """The meter's own clock, in its zone."""
    serial: int
    """Up to eight digits."""
    running_s: int
    """Rises with time, also from run to run: seconds since 2020."""
    keys: Keys = NO_KEYS
    """What it seals with, if it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownVolume(Shown):
    """A gas or water meter."""

    volume_ml: int
    flow_ml_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownHeat(Shown):
    """A heat meter."""

    energy_ws: int
    volume_ml: int
    power_w: int
    flow_ml_per_s: int
    forward_dc: int
    """In tenths of a degree Celsius."""
    return_dc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownElectricity(Shown):
    """An electricity meter, and the meters behind it."""

    import_ws: int
    import_low_ws: int
    import_normal_ws: int
    export_ws: int
    export_low_ws: int
    export_normal_ws: int
    normal_tariff: bool
    import_w: int
    export_w: int
    phases: tuple[Phase, ...]
    gas: ShownVolume | None = None
    water: ShownVolume | None = None

    @property
    def net_w(self) -> int:
        """Above 0 taken from the grid, below 0 given to it."""
        return self.import_w - self.export_w


AnyShown = ShownElectricity | ShownVolume | ShownHeat
Values = Mapping[str, Decimal]
"""By canonical OBIS code (``1-0:1.8.0*255``), with exactly the digits and in the unit that a reader finds."""


@dataclass(frozen=True, slots=True)
class Said:
    """A telegram, and the numbers it states."""

    data: bytes
    values: Values


class Session(Protocol):
    """A meter that is asked, from the first question until the line is quiet; what it shows stands still meanwhile."""

    @property
    def is_told(self) -> bool:
        """Whether it has said what it shows."""

    @property
    def is_over(self) -> bool:
        """Whether the next question begins another session."""

    def feed(self, data: bytes) -> list[Effect]:
        """Return what to do about bytes of the reader."""

    def idle(self) -> list[Effect]:
        """Tell that the line was quiet."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A session with a meter, and the numbers that a reader finds."""

    session: Session
    values: Values


@dataclass(frozen=True, slots=True)
class Answer:
    """What an M-Bus meter answers."""

    maker: str
    version: int
    device_type: int
    records: tuple[bytes, ...]
    values: Values
