"""How a device gets its credentials: a one-time code, and what the cloud answers to it. Pure.

    NBSWY-3DPEB-3W64T-MMQQG-43THN-FZWCZ-LSEBU-W4IDM        secret, pin of the cloud's CA, check
    NBSWY-3DPEB-3W64T-MMQQG                                secret, check: for a cloud without a CA, on this machine

A code is 88 random bits that a person carries from the cloud to the device, 104 bits of the SHA-256 of the certificate
of the cloud's CA, so that nobody in between can pretend to be the cloud, and 8 bits that find a slip of the pen. It is
written in base32 (RFC 4648), where 0 and 1 are read as O and I.
"""

from base64 import b32decode, b32encode
from binascii import Error as Base32Error
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import Annotated, Final, Literal, Self, TypeAlias

import msgspec
from msgspec import Meta

from meterway.core.errors import BadDataError

SECRET_BYTES: Final = 11
PIN_BYTES: Final = 13
LIMIT_CODE_CHARACTERS: Final = 100
"""A longer text is no code."""
LIMIT_METERS: Final = 1000
"""So many meters one device may publish for."""

_GROUP_CHARACTERS = 5

Kind: TypeAlias = Literal["adapter", "concentrator"]
RefusalKind: TypeAlias = Literal["publish", "subscribe", "login", "flood"]


@dataclass(frozen=True, slots=True)
class EnrolmentCode:
    """A one-time code, taken apart."""

    secret: bytes = field(repr=False)
    """What only the cloud and the holder of the code know."""
    pin: bytes = b""
    """The beginning of the CA's fingerprint; empty for a cloud without a CA."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the code that a person typed: case, spaces and hyphens do not matter.

        Raises:
            BadDataError: it has another length, another character, or a slip of the pen.
        """
        letters = "".join(text[: LIMIT_CODE_CHARACTERS + 1].replace("-", " ").split())
        try:
            data = b32decode(letters + "=" * (-len(letters) % 8), casefold=True, map01="I")
        except (Base32Error, ValueError) as error:
            raise _bad_code() from error
        content, check = data[:-1], data[-1:]
        if len(content) not in (SECRET_BYTES, SECRET_BYTES + PIN_BYTES) or _check(content) != check:
            raise _bad_code()
        return cls(content[:SECRET_BYTES], content[SECRET_BYTES:])

    def __str__(self) -> str:
        """Return the code in groups of five characters, for people."""
        content = self.secret + self.pin
        letters = b32encode(content + _check(content)).decode().rstrip("=")
        return "-".join(letters[at : at + _GROUP_CHARACTERS] for at in range(0, len(letters), _GROUP_CHARACTERS))

    @property
    def digest(self) -> bytes:
        """The SHA-256 by which the cloud knows the code; it does not keep the code."""
        return sha256(self.secret).digest()

    def pins(self, certificate: bytes) -> bool:
        """Tell whether ``certificate`` (DER) is of the CA that the code was made for."""
        return compare_digest(self.pin, pin_of(certificate))


def pin_of(certificate: bytes) -> bytes:
    """Return what of a CA's certificate (DER) stands in a code."""
    return sha256(certificate).digest()[:PIN_BYTES]


def _check(content: bytes) -> bytes:
    return blake2b(content, digest_size=1, person=b"enrolment").digest()


def _bad_code() -> BadDataError:
    return BadDataError(
        "this is no enrolment code: it has four or eight groups of five letters and digits; look for a slip of the pen",
        reason="bad-code",
    )


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/enrol``."""

    code: Annotated[str, Meta(max_length=LIMIT_CODE_CHARACTERS)]
    kind: Kind
    """What asks; a code for another kind stays good."""

    def __repr__(self) -> str:
        """Show nothing of the secret."""
        return "EnrolmentRequest(code=***)"


class EnrolmentAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything a device needs to log in at the broker; the password is told this once."""

    kind: Kind
    device_id: str
    meter_ids: tuple[str, ...]
    """The meters for which the device may publish; empty for a concentrator, which passes on any."""
    collects: bool
    """A concentrator whose adapters publish on this same broker: it is `local` and `cloud` alike."""
    broker_url: str
    username: str
    password: str
    ca_certificate: str | None
    """PEM, of the CA that signed the broker's certificate; null where none is needed."""

    def __repr__(self) -> str:
        """Show who it is for, not the secret."""
        return f"EnrolmentAnswer({self.username!r}, password=***)"


class RefusalItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the broker refused to a device, on one topic."""

    kind: RefusalKind
    topic: str
    """Of a publish; the filter of a subscription; else empty."""
    reason: str
    """A sentence: why, and what to do."""
    count: int
    first_time: datetime
    last_time: datetime


class OwnAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What ``GET /v1/devices/self`` tells a device about itself."""

    kind: Kind
    device_id: str
    meter_ids: tuple[str, ...]
    refusals: tuple[RefusalItem, ...]
    """Newest first."""
