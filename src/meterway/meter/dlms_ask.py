"""How the meters of a family are asked by DLMS: a part of a family's file. ``meter.dlms_access`` uses it."""

from typing import Annotated, Final, Literal

import msgspec

from meterway.core.config import Table
from meterway.core.obis import Obis

READABLE: Final = frozenset({1, 3, 4, 5, 8})
"""Classes of objects that are read for their value: data, register, extended register, demand register, clock."""

_Port = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class DlmsAsk(Table, frozen=True):
    """How a meter is asked that is a DLMS server."""

    transport: Literal["hdlc", "wrapper"] = "hdlc"
    """HDLC frames on a serial line (or a gateway to one), or the wrapper of TCP."""
    optical: bool = False
    """Whether HDLC is begun by a sign-on in mode E of IEC 62056-21, as optical heads want it."""
    highest_baud: Annotated[int, msgspec.Meta(ge=300)] = 19_200
    """After that sign-on no faster rate is chosen, whatever the meter offers."""
    client: Annotated[int, msgspec.Meta(ge=1, le=0x7F)] = 16
    """Who we are to the meter; 16 is the public client, others have rights and secrets."""
    server: _Port = 1
    """The logical device; 1 is the management device that every meter has."""
    physical: _Port | None = None
    """The meter's own HDLC address on a line of several, unless the configuration names one."""
    address_bytes: Literal[1, 2, 4] = 1
    """How long the meter's HDLC address is."""
    frame_bytes: Annotated[int, msgspec.Meta(ge=128, le=2030)] = 512
    """The longest HDLC frame asked for; 128 asks for nothing."""
    apdu_bytes: Annotated[int, msgspec.Meta(ge=64, le=0xFFFF)] = 4096
    """The longest answer that is taken in one piece; longer ones come in blocks."""
    security: Literal["none", "password", "gmac"] = "none"
    """How we prove who we are."""
    ciphered: bool = False
    """Whether requests and answers are sealed with the global keys."""
    suite: Literal[0, 1] = 0
    """Security suite."""
    counter: str = "0-0:43.1.0"
    """Where the public client reads the last invocation counter that this client used."""
    counter_client: Annotated[int, msgspec.Meta(ge=1, le=0x7F)] = 16
    answer_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    """How long the meter may think before it answers."""
    objects: tuple[tuple[str, int], ...] = ()
    """What is read: OBIS code and class (1, 3, 4, 5 or 8); none: what the meter's own list of objects has."""
    profile: str = "1-0:99.1.0"
    """The load profile."""

    def __post_init__(self) -> None:
        for code in (self.counter, self.profile, *(code for code, _ in self.objects)):
            Obis.parse(code)
        unreadable = [class_id for _, class_id in self.objects if class_id not in READABLE]
        if unreadable:
            raise ValueError(f"objects of class {unreadable[0]} have no value; there are 1, 3, 4, 5 and 8")
        if self.optical and self.transport != "hdlc":
            raise ValueError("an optical head speaks HDLC, not the wrapper of TCP")
