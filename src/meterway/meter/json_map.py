"""What the documents of a family of JSON devices mean: its mapping profile, a part of the family's file.

    [json]
    roots = ["", "StatusSNS"]
    any_of = ["ENERGY"]
    time = [{ paths = ["Time"] }]
    values = [
      { obis = "1-0:1.8.0", unit = "kWh", paths = ["ENERGY/Total"] },
      { obis = "0-1:24.2.1", unit = "m3", paths = ["gas"], time = [{ paths = ["gas_at"], form = "yymmddhhmmss" }] },
      { obis = "1-0:36.7.0", unit = "W", topics = ["emeter/0/power"] },
    ]

Paths are those of ``json_path``. A device publishes other things too: documents that are not accepted are passed over
in silence. A value that is null, of the wrong type or not there is left out. Where a name comes twice in an object,
the last one counts.

Where an MQTT subscription has a wildcard, documents come in an envelope, ``{"topic": "a/b", "payload": ...}``; the
payload is the document itself or a text of it, or what a topic of one value carries: a number or its digits.
"""

from typing import Annotated, Final

import msgspec

from meterway.core.config import Table
from meterway.core.obis import Obis
from meterway.core.units import find_unit
from meterway.meter.json_number import parse_number
from meterway.meter.json_time import TimeForm

_WILD: Final = "+"


class ClockPlace(Table, frozen=True):
    """Where a time stands."""

    paths: tuple[str, ...]
    """The first that is there counts."""
    form: TimeForm = "iso"
    """How it is written; ``json_time`` says what each means."""


class JsonValue(Table, frozen=True):
    """Where one register stands. Of several entries with one code the first that is found counts."""

    obis: str
    unit: str = ""
    """As the device sends it; empty for pure numbers and texts."""
    paths: tuple[str, ...] = ()
    """In a document, below its roots; the first that is there counts."""
    topics: tuple[str, ...] = ()
    """Ends of MQTT topics of which the payload is this value and nothing else; ``+`` stands for any one level."""
    factor: str = "1"
    """A decimal number, as a text so that it is exact, that the value is multiplied with."""
    negative: str = ""
    """The OBIS code of the other direction, where one signed value stands for both: it takes what is negative, without
    its sign, and either is 0 while the other is not."""
    text: bool = False
    """The value is a text."""
    constant: str = ""
    """The register has always this value, provided that something stands at the path: the device type of a gas meter
    that only its volume tells of."""
    time: tuple[ClockPlace, ...] = ()
    """Where the value has a time of its own."""

    def __post_init__(self) -> None:
        Obis.parse(self.obis)
        if self.negative:
            Obis.parse(self.negative)
        if self.unit and find_unit(self.unit) is None:
            raise ValueError(f"unit {self.unit!r} of {self.obis} is none that Meterway knows")
        if not parse_number(self.factor):
            raise ValueError(f'factor {self.factor!r} of {self.obis} is not a decimal number such as "0.001"')
        if not self.paths and not self.topics:
            raise ValueError(f"{self.obis} has neither `paths` nor `topics`")


class JsonMap(Table, frozen=True):
    """What stands where in the documents of a family."""

    values: tuple[JsonValue, ...] = ()
    registers: tuple[str, ...] = ()
    """Paths of a list of registers that say themselves what they are, as ``json_registers`` describes it."""
    roots: tuple[str, ...] = ("",)
    """Paths of the objects that all other paths begin at; tried in order."""
    topics: tuple[str, ...] = ()
    """Ends of MQTT topics, of which one must fit; not asked of documents that come without their topic."""
    any_of: tuple[str, ...] = ()
    """Paths, of which one must be there."""
    time: tuple[ClockPlace, ...] = ()
    """The first that can be read counts; without any, the moment of arrival is the reading time."""
    meter: tuple[str, ...] = ()
    """Paths of what the meter or device calls itself; without any, the topic says it."""
    several: bool = False
    """One stream carries many meters, so that each needs its `address`."""
    gather_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0
    """Values of topics of their own that come within so long are one reading; 0: each is one."""

    def __post_init__(self) -> None:
        if not self.values and not self.registers:
            raise ValueError("a mapping has `values` or `registers`")


def topic_fits(topic: str, ends: tuple[str, ...]) -> str | None:
    """Return what stands in ``topic`` before the first of ``ends`` that it ends with; None if it ends with none."""
    levels = topic.split("/")
    for end in ends:
        wanted = end.split("/")
        tail = levels[-len(wanted) :]
        if len(tail) == len(wanted) and all(want in (_WILD, level) for want, level in zip(wanted, tail, strict=True)):
            return "/".join(levels[: -len(wanted)])
    return None
