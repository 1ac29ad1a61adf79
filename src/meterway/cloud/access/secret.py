"""The secrets of sessions, tokens and links: 256 random bits each, of which only a digest is stored."""

import secrets
from hashlib import sha256

TOKEN_PREFIX = "mw_"  # noqa: S105 - so that a token that lies about can be recognised as one
LIMIT_CHARACTERS = 100


def new_secret(prefix: str = "") -> str:
    """Return a new secret, safe in a cookie and in an address."""
    return prefix + secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes:
    """Return what is stored of a secret. It is random, so it needs no salt and no slow hash."""
    return sha256(secret[:LIMIT_CHARACTERS].encode("utf-8", "replace")).digest()


def csrf_token_of(secret: str) -> str:
    """Return what a page of the session with ``secret`` proves itself with; it does not tell the secret."""
    return sha256(b"csrf\0" + secret.encode("utf-8", "replace")).hexdigest()
