"""The layers of a wireless M-Bus frame, from the link to the data: who sends, and how it is protected.

    content   ::= C maker address CI-part
    CI-part   ::= 8C cc access CI-part                                       ; extended link layer (ELL)
                / 8E cc access maker address CI-part
                / 8D cc access session crc CI-part                           ; from crc on AES-CTR, if session says so
                / 8F cc access maker address session crc CI-part
                / 90 length fcl [ mcl ] [ key ] [ counter ] [ mac ] [ length ] CI-part    ; AFL
                / 72 number maker version type access status configuration [ extension ] data
                / 7A access status configuration [ extension ] data
                / 78 data / 73, 7B and 79 for compact data
                / CI byte of the maker's own

Configuration: 4 bits number of encrypted blocks of 16 bytes, then 5 bits security mode; mode 7 has the extension.

Source: EN 13757-4:2019, 13 (ELL); EN 13757-7:2018, 6 (AFL), 7 (headers); OMS specification volume 2, 4.5, 7, 9.
"""

from typing import Final, NamedTuple

from meterway.core.errors import BadDataError
from meterway.meter.mbus import Identity, read_identity
from meterway.meter.wmbus_diehl import address_of
from meterway.meter.wmbus_frames import SHORTEST

_ELL_BYTES: Final = {0x8C: 2, 0x8D: 8, 0x8E: 10, 0x8F: 16}
_SESSION_CIS: Final = (0x8D, 0x8F)
_AFL: Final = 0x90
_LONG: Final = (0x6E, 0x72, 0x73, 0x74)
_SHORT: Final = (0x6F, 0x75, 0x7A, 0x7B)
_HEADERLESS: Final = (0x70, 0x71, 0x78, 0x79)
COMPACT: Final = (0x73, 0x79, 0x7B)
"""CI fields of compact data: without the headers of the records."""
REFUSALS: Final = (0x6E, 0x6F, 0x70, 0x71, 0x74, 0x75)
"""CI fields of errors and alarms."""
_ADDRESS_BYTES: Final = 8
_MODE_7: Final = 7

_FRAGMENTS = 0x4000
_CONTROL, _LENGTH, _COUNTER, _MAC, _KEY = 0x2000, 0x1000, 0x0800, 0x0400, 0x0200
_MAC_BYTES: Final = {3: 2, 4: 4, 5: 8, 6: 12, 7: 16, 8: 12}


class LayerError(BadDataError):
    """A layer breaks off or is none (reason ``bad-syntax``)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="bad-syntax")


class Link(NamedTuple):
    """The link layer."""

    address: bytes
    """Maker, number, version and type: the eight bytes as initialisation vectors begin."""
    rest: bytes
    """From the CI field on."""


class Session(NamedTuple):
    """The extended link layer; all but ``rest`` is empty where it is not there."""

    rest: bytes
    """From the next CI field on; where there is a ``number``, from the checksum on that comes before it."""
    control: int = 0
    number: bytes = b""
    """Four bytes; their highest three bits say whether ``rest`` is encrypted. Empty: there is no session."""

    @property
    def is_encrypted(self) -> bool:
        """Whether ``rest`` is encrypted with AES in counter mode, the only way there is."""
        return bool(self.number) and self.number[3] >> 5 == 1


class Protection(NamedTuple):
    """The authentication and fragmentation layer; all but ``rest`` is empty where it is not there."""

    rest: bytes
    """From the next CI field on."""
    control: bytes = b""
    key: bytes = b""
    """Which key; a meter has but one."""
    counter: bytes = b""
    """Four bytes, the lowest first."""
    mac: bytes = b""
    length: bytes = b""


class Header(NamedTuple):
    """The transport layer."""

    ci: int
    data: bytes
    address: bytes
    """Of the meter, as in ``Link``: its own if the header has one, else the link's."""
    access: int = 0
    status: int | None = None
    mode: int = 0
    blocks: int = 0
    """How many blocks of 16 bytes of ``data`` are encrypted."""

    @property
    def identity(self) -> Identity:
        """The meter's name."""
        return identity_of(self.address)


def identity_of(address: bytes) -> Identity:
    """Return who has an address of a link."""
    return read_identity(address[2:6] + address[:2] + address[6:])


def read_link(content: bytes) -> Link:
    """Return the link layer of a frame.

    Raises:
        LayerError: too short.
    """
    if len(content) < SHORTEST:
        raise LayerError(f"its {len(content)} bytes are no frame of wireless M-Bus")
    return Link(address_of(content), content[9:])


def read_session(rest: bytes) -> Session:
    """Return the extended link layer that begins in ``rest``, if one does.

    Raises:
        LayerError: it breaks off.
    """
    size = _ELL_BYTES.get(rest[0])
    if size is None:
        return Session(rest)
    if len(rest) <= 1 + size:
        raise LayerError("its extended link layer breaks off")
    if rest[0] not in _SESSION_CIS:
        return Session(rest[1 + size :], rest[1])
    end = size - 1
    return Session(rest[end:], rest[1], rest[end - 4 : end])


def read_protection(rest: bytes) -> Protection:
    """Return the AFL that begins in ``rest``, if one does.

    Raises:
        LayerError: it breaks off; or the message is spread over several frames, which no meter in the field does.
    """
    if rest[0] != _AFL:
        return Protection(rest)
    size = rest[1] if len(rest) > 1 else 0
    layer, after = rest[2 : 2 + size], rest[2 + size :]
    fields = int.from_bytes(layer[:2], "little")
    if fields & _FRAGMENTS:
        raise LayerError("it is one of several fragments, which are not put together")
    at = 2
    found: list[bytes] = []
    control = layer[2:3] if fields & _CONTROL else b""
    mac_bytes = _MAC_BYTES.get(control[0] & 0x0F, 0) if control else 0
    for flag, width in ((_CONTROL, 1), (_KEY, 2), (_COUNTER, 4), (_MAC, mac_bytes), (_LENGTH, 2)):
        end = at + width if fields & flag else at
        found.append(layer[at:end])
        at = end
    if at > size or not after:
        raise LayerError("its authentication layer breaks off")
    return Protection(after, *found)


def read_header(rest: bytes, link: bytes) -> Header:
    """Return the transport layer; ``link`` is the address of the link layer.

    Raises:
        LayerError: it breaks off, or its CI field is none of a meter's data.
    """
    ci, at, address = rest[0], 1, link
    if ci in _HEADERLESS:
        return Header(ci, rest[1:], link)
    if ci in _LONG:
        at += _ADDRESS_BYTES
        address = rest[5:7] + rest[1:5] + rest[7:9]
    elif ci not in _SHORT:
        whose = "the maker's own data" if 0xA0 <= ci <= 0xB7 else "no data of a meter"  # noqa: PLR2004 - CI fields
        raise LayerError(f"its CI field {ci:02X} announces {whose}")
    fields = rest[at : at + 4]
    if len(fields) < 4:  # noqa: PLR2004 - access, status, configuration
        raise LayerError("its header breaks off")
    access, status, low, high = fields
    mode = high & 0x1F
    start = at + 4 + (mode == _MODE_7)
    return Header(ci, rest[start:], address, access, status, mode, low >> 4)
