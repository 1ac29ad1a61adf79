"""A family of meters as data: what a generation of meters of one kind offers, and how it is read.

The specification's PhysicalMeterElement. A family is one TOML file, ``families/NAME.toml``; a file of the same
name in a folder of the site's own comes first, so a meter is added or corrected without Python:

    title = "DSMR 5 smart meter (Netherlands)"
    protocol = "p1"
    timezone = "Europe/Amsterdam"
    interval_s = 1

    [line]
    baud = 115200

    [obis."1-0:1.8.0"]
    property = "OBIS_1.8.0"
    factor = "0.001"

    [sample]
    text = '''(a telegram of the meter)'''
    registers = [["1-0:1.8.1", "1234.567", "kWh"]]
"""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from meterway.core.config import Table, load_config
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.reading import PhysicalMeterClass
from meterway.core.zones import find_zone
from meterway.meter.dlms_ask import DlmsAsk
from meterway.meter.dlms_layout import PushList
from meterway.meter.json_map import JsonMap
from meterway.meter.keys import KEY_BYTES, Keys
from meterway.meter.modbus_map import ModbusMap
from meterway.meter.pulse_input import PulseInput

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SUFFIX = ".toml"
_REGISTER_FIELDS = (3, 4)


class Line(Table, frozen=True):
    """How the meter's serial line is set."""

    baud: Annotated[int, msgspec.Meta(ge=50, le=4_000_000)] = 115_200
    """Bits per second."""
    data_bits: Annotated[int, msgspec.Meta(ge=5, le=8)] = 8
    parity: Literal["N", "E", "O"] = "N"
    """None, even or odd."""
    stop_bits: Annotated[int, msgspec.Meta(ge=1, le=2)] = 1


class SignOn(Table, frozen=True):
    """How a meter is asked that does not send by itself (IEC 62056-21); ``meter.iec62056_21_access`` uses it."""

    mode: Literal["A", "B", "C"] | None = None
    """Left out: the meter's identification tells."""
    wake_up_bytes: Annotated[int, msgspec.Meta(ge=0, le=200)] = 0
    """Zero bytes that are sent before the request; 40 to 65 where a battery feeds the interface."""
    wake_up_pause_s: Annotated[float, msgspec.Meta(ge=0, le=5)] = 1.6
    """Between them and the request."""
    highest_baud: Annotated[int, msgspec.Meta(ge=300)] = 19_200
    """In mode C no faster rate is chosen, whatever the meter offers."""
    registers: tuple[str, ...] = ()
    """Codes (``1.8.0``) that are read one by one in programming mode, where the readout does not hold them."""


class ObisRule(Table, frozen=True):
    """What one OBIS code means with these meters, where the catalogue would be wrong."""

    property: str | None = None
    """The operational property's id, ``OBIS_1.8.0``; left out: the one of the catalogue."""
    factor: str = "1"
    """A decimal number, as a text so that it is exact, that the value is multiplied with; negative turns the sign."""
    ignore: bool = False
    """The meter sends the code, and it means nothing."""

    def __post_init__(self) -> None:
        try:
            usable = Decimal(self.factor).is_finite() and Decimal(self.factor) != 0
        except InvalidOperation:
            usable = False
        if not usable:
            raise ValueError(f'factor {self.factor!r} is not a decimal number such as "0.001" or "-1"')


class Sample(Table, frozen=True):
    """A telegram as such a meter sends it, made up by us, with what it must be decoded to."""

    text: str | None = None
    """The telegram of a protocol of text lines; every line end here is CR LF on the line."""
    hex: str | None = None
    """The telegram of a binary protocol; blanks and line ends between the digits do not count."""
    encryption_key: str | None = None
    """32 hexadecimal digits, where the telegram is encrypted: made up too."""
    authentication_key: str | None = None
    """The same, where its tag is to be tested."""
    registers: tuple[tuple[str, ...], ...] = ()
    """What is in it, in order: OBIS code, value, unit (empty: none) and, where the value has one, its time."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.hex is None):
            raise ValueError("a sample has either `text` or `hex`")
        if self.hex is not None:
            bytes.fromhex(self.hex)
        for key in (self.encryption_key, self.authentication_key):
            if key is not None and len(bytes.fromhex(key)) != KEY_BYTES:
                raise ValueError(f"a key of a sample has {2 * KEY_BYTES} hexadecimal digits")
        if any(len(register) not in _REGISTER_FIELDS for register in self.registers):
            raise ValueError('a register of a sample is ["OBIS code", "value", "unit"] and, if it has one, a time')

    @property
    def keys(self) -> Keys:
        """What the telegram is decrypted with."""
        encryption, authentication = (
            None if key is None else bytes.fromhex(key) for key in (self.encryption_key, self.authentication_key)
        )
        return Keys(encryption, authentication)

    @property
    def telegram(self) -> bytes:
        """The bytes on the line."""
        if self.text is not None:
            return self.text.replace("\n", "\r\n").encode("latin-1")
        return bytes.fromhex(self.hex or "")


class Guide(Table, frozen=True):
    """What the owner of such a meter must do, in sentences; ``docs/meters`` has a page a family made of it."""

    order: str
    """What to buy: a head, a cable, a gateway, a receiver."""
    connect: str
    """Where it goes, and what has to be switched on at the meter."""
    unlock: str = ""
    """Whom to ask for the key or PIN, and how to enter it; empty where there is none."""
    notes: str = ""
    """What is particular: a departure from the standard, what was not verified."""

    def sections(self) -> list[tuple[str, str]]:
        """Return a heading and a paragraph for each thing it says."""
        said = {
            "What to order": self.order,
            "How to connect it": self.connect,
            "How to get its key or PIN": self.unlock,
            "Good to know": self.notes,
        }
        return [(heading, " ".join(text.split())) for heading, text in said.items() if text]


class Family(Table, frozen=True):
    """What the meters of one family offer, and how to read them."""

    title: str
    """What people call these meters, with the country."""
    protocol: str
    """The codec: ``p1``, ``sml``, ..."""
    timezone: str
    """The IANA zone of the meter's clock, unless the adapter's configuration names another."""
    interval_s: Annotated[float, msgspec.Meta(gt=0)]
    """How often the meter sends by itself."""
    meter_class: PhysicalMeterClass = PhysicalMeterClass.ELECTRICITY
    """What the meter itself measures; those behind it say their own (``channels``)."""
    line: Line = Line()
    """For a meter that is asked: as the sign-on begins, 300 baud 7E1."""
    sign_on: SignOn | None = None
    """None: the meter sends by itself."""
    asked: bool = False
    """The meter speaks only when it is asked; need not be said where a table below, or `protocol = "mbus"`, says it."""
    channels: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    """How many further meters (gas, water, heat) may speak through this one."""
    identification: str | None = None
    """A regular expression; how these meters call themselves (``Telegram.meter``, or a text of theirs) begins so. Left
    out: they cannot be told from others of their protocol."""
    maximum_power_w: Annotated[int, msgspec.Meta(gt=0)] | None = None
    """More than this, and a faster rise of an energy register, is implausible at such a connection."""
    secrets: tuple[Literal["encryption-key", "authentication-key", "pin"], ...] = ()
    """What the owner must get from the grid operator before the meter can be read in full."""
    quirks: tuple[str, ...] = ()
    """Departures from the standard that the codec must be told of, by the codec's own names for them."""
    obis: dict[str, ObisRule] = msgspec.field(default_factory=dict)
    """By OBIS code; what is not listed means what the catalogue says."""
    push: PushList | None = None
    """What the meter's DLMS pushes leave out: which value stands where, units and scalers."""
    dlms_ask: DlmsAsk | None = None
    """How the meter is asked by DLMS; None: it is not."""
    modbus: ModbusMap | None = None
    """Where a Modbus meter keeps its values, and how it is asked for them."""
    json: JsonMap | None = None
    """Where the registers stand in the documents of a JSON source."""
    pulse: PulseInput | None = None
    """What the pulses of a meter that says nothing else are worth."""
    sample: Sample | None = None
    tested: Literal["sample", "captures"] = "sample"
    """With what: only with the telegram of our own making, or with captures of real meters too."""
    guide: Guide | None = None
    name: str = ""
    """The file's name without its ending; never written in the file."""

    @property
    def is_asked(self) -> bool:
        """Whether the meter speaks only when a master asks it."""
        ways = (self.sign_on, self.dlms_ask, self.modbus)
        return self.asked or self.protocol == "mbus" or any(way is not None for way in ways)

    def __post_init__(self) -> None:
        find_zone(self.timezone)
        for code in self.obis:
            Obis.parse(code)
        try:
            re.compile(self.identification or "")
        except re.error as error:
            raise ValueError(f"identification is no regular expression: {error}") from error


def parse_family(text: str, name: str, *, where: str) -> Family:
    """Return the family in the TOML ``text``; ``where`` names the file in errors.

    Raises:
        SetupError: as ``core.config.load_config``; or the text names the family itself.
    """
    family = load_config(text, Family, where=where)
    if family.name:
        raise SetupError(f"{where}: `name` is the file's name; remove the key")
    return msgspec.structs.replace(family, name=name)


def load_family(name: str, folders: Sequence[Path] = ()) -> Family:
    """Return the family ``name``, from the first of ``folders`` that has it, else the one that Meterway brings.

    Raises:
        SetupError: there is no such family (the message names the nearest); or its file is wrong.
    """
    if _NAME.fullmatch(name):
        for folder in (*folders, files(__package__) / "families"):
            file = folder / f"{name}{_SUFFIX}"
            if file.is_file():
                return parse_family(_read(file.read_bytes(), str(file)), name, where=str(file))
    known = family_names(folders)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`meterway drivers` lists those that there are"
    raise SetupError(f"there is no family of meters `{name[:80]}`; {hint}")


def family_names(folders: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the names of all families, sorted; folders that do not exist are skipped."""
    packaged = files(__package__) / "families"
    found = [file.name for folder in (*folders, packaged) if folder.is_dir() for file in folder.iterdir()]
    return tuple(sorted({name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)}))


def push_lists(folders: Sequence[Path] = ()) -> tuple[PushList, ...]:
    """Return what all families know of lists that tell themselves apart, for bytes of a meter that nobody named.

    Raises:
        SetupError: as ``load_family``.
    """
    found = (load_family(name, folders).push for name in family_names(folders))
    return tuple(push for push in found if push is not None and (push.text or push.positions))


def _read(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SetupError(f"{where}: not UTF-8 at byte {error.start}") from error
