"""Keys and tokens as NATS has them: Ed25519 keys in base32 with a checksum, claims signed as JWT.

Only what the answers of an authorisation service need. Source: nats-io/nkeys, and architecture decision 26 of NATS.
"""

import base64
import binascii
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meterway.core.errors import BadDataError

_Claims = TypeVar("_Claims")

_ACCOUNT_PREFIX = 0
_HEAD = b'{"typ":"JWT","alg":"ed25519-nkey"}'
_PARTS = 3


class Issuer:
    """A key that signs claims; it exists only in memory."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.name = _account_name(self._key.public_key().public_bytes_raw())
        """The public key as an account, as ``auth_callout`` names its issuer."""

    def sign(self, claims: msgspec.Struct, *, now_s: int) -> str:
        """Return the claims as a token; issuer and time of issue are added."""
        filled = {**msgspec.to_builtins(claims), "iss": self.name, "iat": now_s}
        signed = b".".join((_base64(_HEAD), _base64(msgspec.json.encode(filled))))
        return b".".join((signed, _base64(self._key.sign(signed)))).decode()


def read_claims(token: bytes, kind: type[_Claims]) -> _Claims:
    """Return what a token claims. The signature is not looked at: who hands us the token is known otherwise.

    Raises:
        BadDataError: it is no token, or claims something else.
    """
    parts = token.split(b".")
    try:
        if len(parts) != _PARTS:
            raise ValueError("it has not three parts")  # noqa: TRY301 - said as the others below
        return msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + b"=="), type=kind)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise BadDataError(f"a token cannot be read: {error}", reason="bad-token") from error


def _account_name(public_key: bytes) -> str:
    named = bytes((_ACCOUNT_PREFIX,)) + public_key
    checked = named + binascii.crc_hqx(named, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
