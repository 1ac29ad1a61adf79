"""What a codec makes of a frame: the meter's own words, typed, before any mapping."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec

from meterway.core.obis import Obis
from meterway.core.properties import Medium, medium_of_device_type


class Register(msgspec.Struct, frozen=True, gc=False):
    """One line of a telegram. A struct, for it is made twice as fast as a dataclass, and by the thousand."""

    obis: Obis
    value: Decimal | str
    """A number with exactly the digits sent, scaled to ``unit``; or a text (octet strings as upper-case hex)."""
    unit: str | None = None
    """In the spelling of ``core.units``; None when the meter gave none."""
    time: datetime | None = None
    """Aware; where the line carries a time of its own (a gas value on a P1 port)."""
    name: str | None = None
    """What it is, for people, where the protocol says so beside or instead of a code (the VIF of an M-Bus record)."""


@dataclass(frozen=True, slots=True)
class Telegram:
    """One complete, checked message of a meter."""

    protocol: str
    """``p1``, ``sml``, ..."""
    registers: tuple[Register, ...]
    raw: bytes
    """The frame exactly as received."""
    meter: str = ""
    """How the meter calls itself: the P1 identification line, the SML server id as hex; empty if it does not."""
    time: datetime | None = None
    """Aware; the meter's own clock; None if it sends none."""
    checked: bool = True
    """False where the protocol carried no checksum, or one too weak to rely on, so that only plausibility protects the
    values."""
    verified: bool = True
    """False where nothing proves that the meter wrote it though it is one that encrypts: the authentication key is
    missing, the meter sends no authentication tag, or the telegram came in the clear though there is a key."""


_DEVICE_TYPE = (24, 1, 0)
_DEVICE_TYPE_DIGITS = 3
"""More are no device type; of very many, as a foreign driver may make them, no integer is made in useful time."""


def channel_media(registers: Iterable[Register]) -> dict[int, Medium]:
    """Return what the meters behind a meter measure, by M-Bus channel, as far as ``0-n:24.1.0`` says.

    Source: DSMR P1 Companion Standard 5.0.2, 6.12; numbers of EN 13757-7, "device type".
    """
    found = {}
    for register in registers:
        if register.obis[2:5] == _DEVICE_TYPE and isinstance(register.value, Decimal):
            number = register.value
            is_byte = number.is_finite() and number.adjusted() < _DEVICE_TYPE_DIGITS
            medium = medium_of_device_type(int(number)) if is_byte else None
            if medium is not None:
                found[register.obis.b] = medium
    return found
