"""Signed readings: the last member of a payload says who vouches for all before it. Pure.

    {"meterReadingIdentifier":...,"meterIndividual":{...},"signature":{"publicKey":"<43>","value":"<86>"}}

What is signed are the payload's bytes without that member: everything up to the comma before ``"signature"``, and the
closing brace. So nobody needs a canonical form of JSON, and it passes through concentrators as any payload does. The
signature is Ed25519 (RFC 8032) over these bytes; key and value are base64url without padding (RFC 4648, 5). The member
is spelled exactly as above, without blanks; what is spelled otherwise is no signature. A payload has no line feed, so
that a file can hold one a line. (docs/adr/0005-signed-readings.md)

What it does: makes and checks signatures, and says for which meter and number one speaks.
What it does not do: it does not know whose key that is. Everybody can sign with a key of their own.
What you must do: compare ``public_key`` with the one that you trust for that meter.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final

import msgspec

from meterway.core.errors import BadDataError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KEY_CHARACTERS: Final = 43
_OPENING: Final = b',"signature":{"publicKey":"'
_MEMBER: Final = re.compile(rb',"signature":\{"publicKey":"([A-Za-z0-9_-]{43})","value":"([A-Za-z0-9_-]{86})"\}\}')
_MEMBER_BYTES: Final = len(_OPENING) + _KEY_CHARACTERS + len(b'","value":"') + 86 + len(b'"}}')


class _Individual(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    meter_individual_id: str | None = None


class _Named(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    meter_individual: _Individual | None = None
    meter_id: str | None = None
    sequence_number: int | None = None


_decoder = msgspec.json.Decoder(_Named)


class Signed(msgspec.Struct, frozen=True, gc=False):
    """A payload with a signature that nobody has checked yet."""

    message: bytes
    """What is signed."""
    public_key: bytes
    """Whose signature it says it is, 32 bytes."""
    value: bytes

    def is_genuine(self) -> bool:
        """Return whether the owner of ``public_key`` signed exactly this; takes about 0.1 ms."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(self.value, self.message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def subject(self) -> tuple[str, int]:
        """Return the meter id and the sequence number that are signed.

        Raises:
            BadDataError: the payload does not name both (``bad-signature``): it could be replayed as another's.
        """
        try:
            named = _decoder.decode(self.message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadDataError(f"what is signed is no reading: {error}", reason="bad-signature") from error
        meter_id = named.meter_individual.meter_individual_id if named.meter_individual else named.meter_id
        if meter_id is None or named.sequence_number is None:
            raise BadDataError("what is signed names no meter, or no sequence number", reason="bad-signature")
        return meter_id, named.sequence_number


class Signer:
    """Signs with one private key; ``repr`` does not show it."""

    def __init__(self, private_key: "Ed25519PrivateKey") -> None:
        self._private_key = private_key
        self.public_key = private_key.public_key().public_bytes_raw()
        self._member = _OPENING + key_text(self.public_key).encode() + b'","value":"'

    @classmethod
    def of_pem(cls, pem: bytes) -> "Signer":
        """Return the signer with the key in a PEM text (``openssl genpkey -algorithm ed25519``).

        Raises:
            BadDataError: it holds no such key (``bad-key``); never quotes it.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private_key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadDataError("no private key in PEM", reason="bad-key") from error
        if not isinstance(private_key, Ed25519PrivateKey):
            raise BadDataError("a private key, but not of Ed25519", reason="bad-key")
        return cls(private_key)

    def sign(self, payload: bytes) -> bytes:
        """Return the payload of a reading with its signature; takes about 0.04 ms."""
        value = urlsafe_b64encode(self._private_key.sign(payload)).rstrip(b"=")
        return payload[:-1] + self._member + value + b'"}}'


def split(payload: bytes) -> Signed | None:
    """Take a payload apart; None if it has no signature."""
    at = len(payload) - _MEMBER_BYTES
    if at < 1 or not payload.startswith(_OPENING, at):
        return None
    member = _MEMBER.fullmatch(payload, at)
    if member is None or b"\n" in payload:
        return None
    return Signed(payload[:at] + b"}", _decoded(member[1]), _decoded(member[2]))


def key_text(public_key: bytes) -> str:
    """Return a public key as it is written in messages and for people: 43 characters."""
    return urlsafe_b64encode(public_key).rstrip(b"=").decode()


def parse_key(text: str) -> bytes:
    """Return the public key in its text.

    Raises:
        BadDataError: not 43 characters of base64url (``bad-key``).
    """
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{{_KEY_CHARACTERS}}}", text):
        raise BadDataError(
            f"{text[:80]!r} is no public key, which has {_KEY_CHARACTERS} letters, digits, '_' or '-'", reason="bad-key"
        )
    return _decoded(text.encode())


def _decoded(text: bytes) -> bytes:
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))
