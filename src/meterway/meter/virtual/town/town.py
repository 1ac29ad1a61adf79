"""A town: which household has which meters, and which of them share a line."""

from collections.abc import Iterator
from datetime import tzinfo

from meterway.meter.virtual.town.dwelling import Dwelling, drawn_by_weight
from meterway.meter.virtual.town.meter import Medium, TownMeter
from meterway.meter.virtual.town.shape import town_shape
from meterway.meter.virtual.town.voices.catalogue import THROUGH, Asked, OnSegment, Push

_CHANNELS: dict[Medium, int] = {"gas": 1, "water": 2}
_HEARD_BY_ONE = 20
"""So many households are in the reach of one receiver of radio meters."""


class Town:
    """All that is there; everything follows from profile, number of households, seed and zone."""

    def __init__(self, profile: str, households: int, seed: str, zone: tzinfo) -> None:
        """Build it.

        Raises:
            SetupError: there is no such profile.
        """
        shape = town_shape(profile)
        self.profile = profile
        self.seed = seed
        self.zone = zone
        self.dwellings = [Dwelling(f"{seed}/{profile}", number, shape, zone) for number in range(households)]
        self.push: list[TownMeter] = []
        """Meters that send by themselves, each on a line of its own."""
        self.asked: list[TownMeter] = []
        """Meters that are asked, each on a line of its own."""
        self.receivers: list[list[TownMeter]] = []
        """Radio meters, by the receiver that hears them."""
        self.segments: list[list[TownMeter]] = []
        """M-Bus segments; the first meter of each has the primary address 1, the next 2, ..."""
        self._open_segments: dict[str, tuple[int, list[TownMeter]]] = {}
        for dwelling in self.dwellings:
            self._furnish(dwelling)

    @property
    def meters(self) -> Iterator[TownMeter]:
        """All meters, those behind others after them."""
        shared = (each for line in (*self.receivers, *self.segments) for each in line)
        for meter in (*self.push, *self.asked, *shared):
            yield meter
            yield from meter.behind.values()

    def _furnish(self, dwelling: Dwelling) -> None:
        electricity = self._meter(dwelling, "electricity", through=False)
        assert electricity is not None  # noqa: S101 - every profile has electricity meters that speak
        self._connect(electricity)
        has_channels = isinstance(electricity.voice, Push) and electricity.voice.channels
        media: list[Medium] = ["water"]
        if dwelling.heating == "gas":
            media.insert(0, "gas")
        if dwelling.heating == "district":
            media.append("heat")
        for medium in media:
            meter = self._meter(dwelling, medium, through=has_channels)
            if meter is not None and meter.family == THROUGH:
                electricity.behind[_CHANNELS[medium]] = meter
            elif meter is not None:
                self._connect(meter)

    def _meter(self, dwelling: Dwelling, medium: Medium, *, through: bool) -> TownMeter | None:
        """Return a meter of a family of the profile; None where there is no family for it."""
        weights = {
            family: weight for family, weight in dwelling.shape.meters[medium].items() if through or family != THROUGH
        }
        if not sum(weights.values()):
            return None
        return TownMeter(dwelling, medium, drawn_by_weight(weights, dwelling.seed, medium, "family"), zone=self.zone)

    def _connect(self, meter: TownMeter) -> None:
        match meter.voice:
            case OnSegment():
                self._join_segment(meter)
            case Push(radio=True):
                self._join_receiver(meter)
            case Asked():
                self.asked.append(meter)
            case _:
                self.push.append(meter)

    def _join_segment(self, meter: TownMeter) -> None:
        """Put it on the segment of its neighbours in the same kind of building, as long as there is room for them."""
        building = meter.dwelling.building
        first, segment = self._open_segments.get(building.name, (-building.per_segment, []))
        if meter.dwelling.number - first >= building.per_segment:
            first, segment = meter.dwelling.number, []
            self._open_segments[building.name] = (first, segment)
            self.segments.append(segment)
        segment.append(meter)

    def _join_receiver(self, meter: TownMeter) -> None:
        """Let it be heard by the receiver of its neighbourhood."""
        number = meter.dwelling.number // _HEARD_BY_ONE
        last = self.receivers[-1] if self.receivers else None
        if last is None or last[0].dwelling.number // _HEARD_BY_ONE != number:
            self.receivers.append([])
        self.receivers[-1].append(meter)
