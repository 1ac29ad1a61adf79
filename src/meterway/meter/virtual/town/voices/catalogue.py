"""All voices of the town by the family that a reader names: what it says, and how it is offered.

A further protocol is one more function in a file of its own and one more line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from meterway.meter.virtual.town.shown import Answer, AnyShown, Begun, Said, ShownElectricity, ShownHeat, ShownVolume
from meterway.meter.virtual.town.voices import dlms, dlms_pull, http, mbus, modbus, p1, radio, readout, sml

THROUGH: Final = "through"
"""Stands for the family of a meter behind an electricity meter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Voice:
    """How the meters of one family speak."""

    protocol: str
    interval_s: int
    """Seconds of the meter's time between two readings."""
    has_clock: bool = True
    """Whether it states its own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push(_Voice):
    """A meter that sends by itself, on a line of its own or, if it is a radio meter, to the receiver nearby."""

    say: Callable[[AnyShown], Said]
    channels: bool = False
    """Whether gas and water meters may speak through it."""
    sealed: bool = False
    """Whether it has a key."""
    radio: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(_Voice):
    """A meter alone on its line, which is asked."""

    begin: Callable[[AnyShown], Begun]
    link: Literal["tcp", "serial", "http"] = "tcp"
    """``serial`` where it answers at another baud rate than it is asked, which no plain TCP gateway can follow."""
    unit: str = ""
    """The ``address`` of such a meter in an adapter's configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnSegment(_Voice):
    """A meter on a wired M-Bus segment, which is asked."""

    say: Callable[[AnyShown], Answer]


Voice = Push | Asked | OnSegment

S = TypeVar("S", ShownElectricity, ShownVolume, ShownHeat)
Words = TypeVar("Words", Said, Begun, Answer)


def _of(kind: type[S], say: Callable[[S], Words]) -> Callable[[AnyShown], Words]:
    """Return ``say`` for whatever is shown; the town gives a voice only meters of its kind."""

    def said(shown: AnyShown) -> Words:
        assert isinstance(shown, kind)  # noqa: S101 - see above
        return say(shown)

    return said


VOICES: Final[dict[str, Voice]] = {
    "p1-generic": Push(protocol="p1", interval_s=1, say=_of(ShownElectricity, p1.netherlands), channels=True),
    "p1-belgium": Push(protocol="p1", interval_s=1, say=_of(ShownElectricity, p1.belgium), channels=True),
    "p1-sweden": Push(protocol="p1", interval_s=10, say=_of(ShownElectricity, p1.sweden)),
    "p1-v2": Push(protocol="p1", interval_s=10, say=_of(ShownElectricity, p1.version_2), has_clock=False),
    "p1-luxembourg-encrypted": Push(
        protocol="p1-encrypted", interval_s=10, say=_of(ShownElectricity, p1.luxembourg), channels=True, sealed=True
    ),
    "sml-generic": Push(protocol="sml", interval_s=1, say=_of(ShownElectricity, sml.with_phases), has_clock=False),
    "sml-mme": Push(protocol="sml", interval_s=1, say=_of(ShownElectricity, sml.modern), has_clock=False),
    "sml-emh-ed300l": Push(protocol="sml", interval_s=3, say=_of(ShownElectricity, sml.emh), has_clock=False),
    "dlms-aidon": Push(protocol="dlms", interval_s=10, say=_of(ShownElectricity, dlms.aidon)),
    "dlms-kaifa-norway": Push(protocol="dlms", interval_s=10, say=_of(ShownElectricity, dlms.kaifa_norway)),
    "dlms-kamstrup": Push(protocol="dlms", interval_s=10, say=_of(ShownElectricity, dlms.kamstrup)),
    "dlms-kaifa-austria": Push(
        protocol="dlms", interval_s=5, say=_of(ShownElectricity, dlms.kaifa_austria), sealed=True
    ),
    "dlms-lg-e450-switzerland": Push(protocol="dlms", interval_s=5, say=_of(ShownElectricity, dlms.landis_gyr)),
    "iec-push-generic": Push(
        protocol="iec62056_21", interval_s=2, say=_of(ShownElectricity, readout.pushed), has_clock=False
    ),
    "iec-easymeter-q3d": Push(
        protocol="iec62056_21", interval_s=2, say=_of(ShownElectricity, readout.easymeter), has_clock=False
    ),
    "iec-iskra-mt174": Asked(protocol="iec62056_21", interval_s=60, begin=_of(ShownElectricity, readout.iskra)),
    "heat-landisgyr-uh50": Asked(
        protocol="iec62056_21", interval_s=3600, begin=_of(ShownHeat, readout.uh50), link="serial"
    ),
    "modbus-carlo-gavazzi-em340": Asked(
        protocol="modbus", interval_s=10, begin=_of(ShownElectricity, modbus.em340), has_clock=False, unit="1/tcp"
    ),
    "json-homewizard-p1": Asked(
        protocol="json", interval_s=10, begin=_of(ShownElectricity, http.homewizard), has_clock=False, link="http"
    ),
    "dlms-pull-tcp": Asked(protocol="dlms-pull", interval_s=60, begin=_of(ShownElectricity, dlms_pull.public)),
    "wmbus-water": Push(protocol="wmbus", interval_s=60, say=_of(ShownVolume, radio.water), sealed=True, radio=True),
    "wmbus-gas": Push(protocol="wmbus", interval_s=60, say=_of(ShownVolume, radio.gas), sealed=True, radio=True),
    "wmbus-heat": Push(protocol="wmbus", interval_s=60, say=_of(ShownHeat, radio.heat), sealed=True, radio=True),
    "mbus-heat": OnSegment(protocol="mbus", interval_s=900, say=_of(ShownHeat, mbus.heat)),
    "mbus-water": OnSegment(protocol="mbus", interval_s=900, say=_of(ShownVolume, mbus.water)),
    "mbus-gas": OnSegment(protocol="mbus", interval_s=900, say=_of(ShownVolume, mbus.gas)),
    "mbus-electricity": OnSegment(
        protocol="mbus", interval_s=900, say=_of(ShownElectricity, mbus.electricity), has_clock=False
    ),
}
