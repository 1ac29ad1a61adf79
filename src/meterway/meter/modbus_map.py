"""Where a Modbus meter keeps its values: a family's register map, a part of its file.

    [modbus]
    function = "input"
    most_registers = 80
    values = [
      { address = 0, type = "float32", obis = "1-0:32.7.0", unit = "V" },
    ]
    serial = { address = 64512, type = "uint32", function = "holding" }

Addresses are those on the wire, from 0: what a manual calls input register 30001 or holding register 40001 is 0.

A meter whose registers stand where it says itself (SunSpec) has ``bases`` and ``models`` instead of ``values``: at one
of the bases is "SunS", then follow models, each with its number, its length and its registers, until number 0xFFFF.
Addresses of a model count from the register with its number. Its values come from the first model that has some, its
identity from the last model before it that has one.

Source: MODBUS Application Protocol Specification V1.1b3, 4.3; SunSpec Device Information Model Specification 1.1.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Annotated, Final, Literal, NamedTuple, Self

import msgspec

from meterway.core.config import Table
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.units import find_unit

Function = Literal["holding", "input"]
"""Read by function 3, or by function 4."""
Framing = Literal["rtu", "tcp"]
"""With unit id and CRC, on a serial line or through a gateway that passes bytes on; or with the MBAP header of TCP."""
WordOrder = Literal["big", "swapped"]
"""Of the registers of one value: the highest first, or the lowest. Bytes within a register are big-endian."""
Type = Literal[
    "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "acc32", "acc64", "string"
]
"""``acc32`` and ``acc64`` are SunSpec's counters, whose 0 means "not implemented"."""

REGISTERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "int16": 1,
        "uint16": 1,
        "int32": 2,
        "uint32": 2,
        "float32": 2,
        "acc32": 2,
        "int64": 4,
        "uint64": 4,
        "float64": 4,
        "acc64": 4,
    }
)
"""How many registers of 16 bits a value of a type takes; a string says it itself."""

LIMIT_REGISTERS: Final = 125
"""The most that one answer holds (V1.1b3, 6.3)."""
LIMIT_VALUES: Final = 256
"""The most values of one map or model."""
LAST_ADDRESS: Final = 65_535
_LAST_UNIT: Final = 255
_LAST_SERIAL_UNIT: Final = 247
_UNIT_DIGITS: Final = 3

Address = Annotated[int, msgspec.Meta(ge=0, le=LAST_ADDRESS)]


class Spot(NamedTuple):
    """Registers that hold one value."""

    function: Function
    address: int
    registers: int
    meaning: str
    """For people: the OBIS code of the value."""


class Span(NamedTuple):
    """Registers that are asked for at once."""

    function: Function
    address: int
    registers: int
    spots: tuple[Spot, ...]


def spans(spots: Iterable[Spot], *, most_registers: int, most_gap: int) -> list[Span]:
    """Return the fewest questions that read all ``spots``, in the order of function and address."""
    found: list[Span] = []
    for spot in sorted(spots):
        end = spot.address + spot.registers
        last = found[-1] if found else None
        if last is not None and last.function == spot.function:
            last_end = last.address + last.registers
            joined = max(end, last_end) - last.address
            if spot.address <= last_end + most_gap and joined <= most_registers:
                found[-1] = Span(last.function, last.address, joined, (*last.spots, spot))
                continue
        found.append(Span(spot.function, spot.address, spot.registers, (spot,)))
    return found


class Place(Table, frozen=True):
    """Where one value stands, and how it is written."""

    address: Address
    """Of its first register."""
    type: Type
    length: Annotated[int, msgspec.Meta(ge=0, le=LIMIT_REGISTERS)] = 0
    """How many registers a string takes."""
    function: Function | None = None
    """Where it is not the map's."""
    words: WordOrder | None = None
    """Where it is not the map's."""

    def __post_init__(self) -> None:
        if (self.type == "string") != bool(self.length):
            raise ValueError(f"register {self.address}: a string, and nothing else, has a `length` in registers")

    @property
    def registers(self) -> int:
        """How many registers it takes."""
        return self.length or REGISTERS[self.type]

    @property
    def end(self) -> int:
        """The address after its last register."""
        return self.address + self.registers


class Quantity(Place, frozen=True, kw_only=True):
    """A measured value."""

    obis: str
    unit: str = ""
    """Of the value once it is scaled, in the spelling of ``core.units``; empty: a pure number or a text."""
    scale: str = "1"
    """A decimal number, as a text so that it is exact, that what is in the register is multiplied with."""
    scale_at: Address | None = None
    """A register (int16) with the power of ten that it is multiplied with besides."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Obis.parse(self.obis)
        if self.unit and find_unit(self.unit) is None:
            raise ValueError(f"register {self.address}: there is no unit {self.unit!r}")
        try:
            usable = Decimal(self.scale).is_finite() and Decimal(self.scale) != 0
        except InvalidOperation:
            usable = False
        if not usable:
            raise ValueError(f'register {self.address}: scale {self.scale!r} is not a number such as "0.1" or "-1"')


class Block(Table, frozen=True):
    """Values that belong together."""

    values: Annotated[tuple[Quantity, ...], msgspec.Meta(max_length=LIMIT_VALUES)] = ()
    maker: Place | None = None
    model: Place | None = None
    serial: Place | None = None
    """The meter's number. A meter that lacks one of these three is read all the same."""

    @property
    def identity(self) -> tuple[Place, ...]:
        """Maker, model and number, as far as it has them."""
        return tuple(place for place in (self.maker, self.model, self.serial) if place is not None)

    def within(self, length: int) -> Self:
        """Return it without the values that do not lie within its first ``length`` registers."""
        kept = [value for value in self.values if value.end <= length and (value.scale_at or 0) < length]
        return msgspec.structs.replace(self, values=tuple(kept))


class Model(Block, frozen=True, kw_only=True):
    """A model of SunSpec."""

    numbers: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1)]
    """The models that are laid out so: single, split and three phases have one each."""
    length: Annotated[int, msgspec.Meta(ge=0, le=LAST_ADDRESS)] = 0
    """How many registers follow its header by its definition; what counts in reading is what the meter says."""


class ModbusMap(Block, frozen=True):
    """How a family of Modbus meters is read: a part of a family's file."""

    unit_id: Annotated[int, msgspec.Meta(ge=0, le=_LAST_UNIT)] = 1
    """As the meter leaves the factory."""
    framing: Framing = "rtu"
    function: Function = "holding"
    words: WordOrder = "big"
    most_registers: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_REGISTERS)] = LIMIT_REGISTERS
    """That the meter gives in one answer."""
    most_gap: Annotated[int, msgspec.Meta(ge=0, le=LIMIT_REGISTERS)] = 0
    """So many registers between two values are read along, to save a question; 0: the meter refuses what it lacks."""
    answer_s: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    """How long the meter may take before it answers."""
    pause_s: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.02
    """Between an answer and the next question on a serial line; 3.5 characters at least."""
    absent: dict[Type, tuple[tuple[int, int], ...]] = msgspec.field(default_factory=dict)
    """Ranges of contents, by type, that mean "no value" with these meters, beside the usual ones: the first content and
    the last, taken as unsigned."""
    bases: tuple[Address, ...] = ()
    """Where "SunS" may stand, in the order of trial."""
    models: tuple[Model, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.bases) != bool(self.models) or bool(self.bases) == bool(self.values):
            raise ValueError("a register map has either `values`, or `bases` and `models`")
        for block in (self, *self.models):
            for spot in self.spots(block, 0):
                if spot.registers > self.most_registers or spot.address + spot.registers > LAST_ADDRESS + 1:
                    raise ValueError(f"register {spot.address}: {spot.registers} registers cannot be read at once")

    def spots(self, block: Block, base: int) -> list[Spot]:
        """Return where the values of a block at ``base`` stand, and their scales, each once."""
        found: dict[tuple[Function, int, int], Spot] = {}
        for value in block.values:
            spots = [self.spot(value, base, value.obis)]
            if value.scale_at is not None:
                spots.append(Spot(spots[0].function, base + value.scale_at, 1, f"the scale of {value.obis}"))
            for spot in spots:
                found.setdefault(spot[:3], spot)
        return list(found.values())

    def spot(self, place: Place, base: int, meaning: str) -> Spot:
        """Return where a value of a block at ``base`` stands."""
        return Spot(place.function or self.function, base + place.address, place.registers, meaning)

    def unit(self, address: str, framing: Framing | None = None) -> int:
        """Return the unit id in an address as a configuration has it; the family's where that is empty.

        Raises:
            SetupError: it is none that the framing has.
        """
        first, last = (0, _LAST_UNIT) if (framing or self.framing) == "tcp" else (1, _LAST_SERIAL_UNIT)
        text = address.strip() or str(self.unit_id)
        if not (text.isascii() and text.isdecimal() and len(text) <= _UNIT_DIGITS and first <= int(text) <= last):
            raise SetupError(f"{text[:40]!r} is no Modbus unit id; write a number from {first} to {last}")
        return int(text)
