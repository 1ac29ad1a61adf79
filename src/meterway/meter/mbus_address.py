"""Which meter of an M-Bus segment: primary address, or secondary address with wildcards.

A secondary address is sent, and written, as eight bytes: number with the lowest byte first, maker, version, device
type (EN 13757-7). ``F`` in a digit of the number, FFFF and FF elsewhere, mean any.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from meterway.core.errors import BadDataError, SetupError
from meterway.meter.mbus import Identity
from meterway.meter.mbus_frames import ADDRESS_ANY, ADDRESS_SELECTED, SND_UD, long_frame

LAST_PRIMARY: Final = 250
"""Meters have the primary addresses 1 to 250; 0 is one that was never given any."""

_SELECT: Final = 0x52
_ANY_BYTE: Final = 0xFF
_ANY_MAKER: Final = b"\xff\xff"
_ANY_NUMBER: Final = "FFFFFFFF"
_NUMBER = re.compile(r"[0-9A-F]{8}")
_PRIMARY = re.compile(r"[0-9]{1,3}")
_WRITTEN = re.compile(r"[0-9A-F]{8}(?:[0-9A-F]{8})?")


@dataclass(frozen=True, slots=True)
class SecondaryAddress:
    """A meter by what it says of itself; with wildcards, several."""

    number: str = _ANY_NUMBER
    """Eight digits, ``F`` for any."""
    maker: bytes = _ANY_MAKER
    """Two bytes as sent."""
    version: int = _ANY_BYTE
    device_type: int = _ANY_BYTE

    def __post_init__(self) -> None:
        if not _NUMBER.fullmatch(self.number):
            raise BadDataError(f"{self.number!r} is not an M-Bus number of eight digits", reason="bad-address")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address written as 8 digits (the number, of any maker) or 16 (all of it).

        The 16 are those that M-Bus tools print: number, then maker, version and device type as sent
        (``1234567824400104``).

        Raises:
            BadDataError: neither (reason ``bad-address``).
        """
        written = text.strip().upper()
        if not _WRITTEN.fullmatch(written):
            raise BadDataError(
                f"{text[:40]!r} is not an M-Bus secondary address of 8 or 16 hex digits", reason="bad-address"
            )
        rest = bytes.fromhex(written[8:] or "FF" * 4)
        return cls(written[:8], rest[:2], rest[2], rest[3])

    def __str__(self) -> str:
        """The 16 digits that ``parse`` understands."""
        return f"{self.number}{self.maker.hex().upper()}{self.version:02X}{self.device_type:02X}"

    def select_frame(self) -> bytes:
        """Return the frame that selects the meters that match; all others are deselected by it."""
        number = bytes.fromhex(self.number)[::-1]
        body = bytes((_SELECT,)) + number + self.maker + bytes((self.version, self.device_type))
        return long_frame(SND_UD, ADDRESS_SELECTED, body)

    def matches(self, identity: Identity) -> bool:
        """Return whether a meter is meant."""
        return (
            all(wanted in ("F", said) for wanted, said in zip(self.number, identity.number, strict=True))
            and self.maker in (_ANY_MAKER, identity.maker)
            and self.version in (_ANY_BYTE, identity.version)
            and self.device_type in (_ANY_BYTE, identity.device_type)
        )

    @classmethod
    def of(cls, identity: Identity) -> Self:
        """Return the address without wildcards of a meter; of the number only, where it says no more."""
        if not identity.maker:
            return cls(identity.number)
        return cls(identity.number, identity.maker, identity.version, identity.device_type)


MbusAddress = int | SecondaryAddress
"""A primary address from 0 to 250 (254 for the only meter on the line), or a secondary one."""


def parse_address(text: str) -> MbusAddress:
    """Return the address that a configuration names: ``5``, or a secondary one as ``SecondaryAddress.parse`` has it.

    Empty means the only meter on the line.

    Raises:
        SetupError: neither.
    """
    written = text.strip()
    if not written:
        return ADDRESS_ANY
    if _PRIMARY.fullmatch(written):
        return int(written)
    try:
        return SecondaryAddress.parse(written)
    except BadDataError as error:
        raise SetupError(f"M-Bus address {text[:40]!r}: neither a number from 0 to 250, nor 8 or 16 digits") from error
