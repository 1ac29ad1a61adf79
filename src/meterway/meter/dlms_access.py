"""What is asked of a meter by DLMS, and how it is come to terms with."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.dlms_ask import DlmsAsk
from meterway.meter.dlms_association import Mechanism
from meterway.meter.dlms_hdlc import HdlcLine, client_address, server_address
from meterway.meter.dlms_line import DlmsLine, WrapperLine
from meterway.meter.family import Family, Line
from meterway.meter.keys import NO_KEYS, Keys

DIRECT_LINE: Final = Line(baud=9600)
"""Of a meter on RS-485."""
LOAD_PROFILE: Final = Obis(1, 0, 99, 1, 0)
_MECHANISMS: Final = {"none": Mechanism.LOWEST, "password": Mechanism.LOW, "gmac": Mechanism.HIGH_GMAC}
_LIMIT_PORT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Objects:
    """Single objects; together they become one telegram."""

    objects: tuple[tuple[Obis, int], ...] = ()
    """OBIS code and class; none: what the meter's own list of objects has."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A load profile by time; each row becomes a telegram."""

    start: datetime
    """Aware; rows from here on,"""
    end: datetime
    """to here, itself included."""
    obis: Obis = LOAD_PROFILE

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise SetupError(f"a limit of a load profile ({self.start} to {self.end}) has no time zone")


@dataclass(frozen=True, slots=True)
class Entries:
    """A load profile by the numbers of its rows; each becomes a telegram."""

    first: int
    """From 1, the oldest,"""
    last: int
    """to this, itself included; 0: to the newest."""
    obis: Obis = LOAD_PROFILE


Task = Objects | Profile | Entries


@dataclass(frozen=True, slots=True, kw_only=True)
class DlmsAccess:
    """How one meter is asked."""

    ask: DlmsAsk
    line: Line = DIRECT_LINE
    """As it is before a sign-on at an optical head, else throughout."""
    address: str = ""
    """The meter's own: HDLC address as a decimal number, or port of the wrapper; empty: the family's."""
    password: str | None = field(default=None, repr=False)
    keys: Keys = NO_KEYS
    title: bytes = b"MWY\0\0\0\0\1"
    """Our system title; with a counter and a key it must never be used twice."""
    counter: int | None = None
    """The next invocation counter to use; None: the public client asks the meter for the last one."""
    attempts: int = 2
    session_s: float = 600.0
    """When all is given up."""

    @classmethod
    def of(cls, family: Family, *, address: str = "", password: str | None = None, keys: Keys = NO_KEYS) -> Self:
        """Return how the meters of a family are asked.

        Raises:
            SetupError: this family is not asked by DLMS.
        """
        if family.dlms_ask is None:
            raise SetupError(f"meters of the family `{family.name}` are not asked by DLMS: it has no `dlms_ask`")
        return cls(ask=family.dlms_ask, line=family.line, address=address, password=password, keys=keys)

    def __post_init__(self) -> None:
        if self.address and not (self.address.isascii() and self.address.isdecimal()):
            raise SetupError(f"{self.address[:40]!r} is no address of a DLMS meter; it is a decimal number")
        if self.mechanism is Mechanism.LOW and not self.password:
            raise SetupError("this meter asks for a password; put it into the password file")
        if self.is_sealed and None in (self.keys.encryption, self.keys.authentication):
            raise SetupError(
                "this meter asks for an encryption key and an authentication key; ask the grid operator for both, and "
                "put them into the key file, one a line"
            )
        self.open_line(self.ask.client)

    @property
    def mechanism(self) -> Mechanism:
        return _MECHANISMS[self.ask.security]

    @property
    def is_sealed(self) -> bool:
        """Whether keys are needed."""
        return self.ask.ciphered or self.mechanism is Mechanism.HIGH_GMAC

    @property
    def objects(self) -> tuple[tuple[Obis, int], ...]:
        """What the family's file says is read."""
        return tuple((Obis.parse(code), class_id) for code, class_id in self.ask.objects)

    def open_line(self, client: int) -> DlmsLine:
        """Return our end of the line, as this client.

        Raises:
            SetupError: the address does not fit.
        """
        ask = self.ask
        own = int(self.address) if self.address else None
        if ask.transport == "wrapper":
            port = ask.server if own is None else own
            if port > _LIMIT_PORT:
                raise SetupError(f"the address {port} is no port of the wrapper; the last one is {_LIMIT_PORT}")
            return WrapperLine(client, port)
        server = server_address(ask.server, ask.physical if own is None else own, ask.address_bytes)
        return HdlcLine(client_address(client), server, most_bytes=ask.frame_bytes)
