"""Tokens of an OpenID Connect provider: their signature, and the claims in them. Pure.

OpenID Connect Core 1.0, section 3.1.3.7 says what is checked of an ID token, RFC 9068, section 4 of an access token.
"""

import hmac
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from meterway.core.errors import BadDataError

LIMIT_TOKEN_CHARACTERS: Final = 16_384
LIMIT_KEYS: Final = 100
SKEW_S: Final = 60
"""So far the provider's clock may be off ours."""
LONGEST_AGE_S: Final = 3600
"""An ID token is fresh: it answers an attempt that began minutes ago."""
LIMIT_TIME_S: Final = 4_102_444_800
"""The year 2100."""

KINDS: Final[Mapping[str, type[Key]]] = {
    "RS256": RSAKey,
    "PS256": RSAKey,
    "ES256": ECKey,
    "EdDSA": OKPKey,
    "Ed25519": OKPKey,
}
"""The algorithms that are accepted, and what key each takes. Neither ``none`` nor those whose key the client knows."""


class UnknownKeyError(BadDataError):
    """The token names a key that the provider does not publish; it may since have changed its keys."""


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str | None = None
    typ: str | None = None


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, object]]


class Claims(msgspec.Struct, frozen=True):
    """The claims that every token has, or that are checked."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    iat: float
    nbf: float | None = None
    azp: str | None = None
    nonce: str | None = None

    @property
    def audiences(self) -> list[str]:
        return [self.aud] if isinstance(self.aud, str) else self.aud

    @property
    def expires(self) -> datetime:
        return datetime.fromtimestamp(min(self.exp, LIMIT_TIME_S), UTC)


@dataclass(frozen=True, slots=True)
class Verified:
    """A token whose signature is right."""

    claims: Claims
    others: Mapping[str, object]
    """All claims, as JSON."""
    typ: str
    """What the header says it is, in lower case; may be empty."""

    def find(self, path: str) -> list[str]:
        """Return the texts at ``path``, as ``groups`` or ``realm_access.roles``; empty if there are none.

        A claim whose own name has dots (``https://example.org/roles``) is found as well.
        """
        found: object = self.others.get(path)
        if found is None:
            found = self.others
            for part in path.split("."):
                found = found.get(part) if isinstance(found, dict) else None
        return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, str)]


class Keys:
    """The keys that a provider publishes (RFC 7517); what cannot be used is left out."""

    def __init__(self, key_set: bytes) -> None:
        """Read a JWK set.

        Raises:
            BadDataError: it is none.
        """
        try:
            described = msgspec.json.decode(key_set, type=_KeySet).keys[:LIMIT_KEYS]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadDataError(f"the provider's keys are no JWK set: {error}", reason="bad-provider") from error
        self._keys = [key for each in described if (key := _public_key(each)) is not None]

    def verify(self, token: str) -> Verified:
        """Return a token whose signature one of these keys made.

        Raises:
            UnknownKeyError: it names a key that is not among these.
            BadDataError: it is no token, or forged.
        """
        header = _header_of(token)
        kind = KINDS.get(header.alg)
        if kind is None:
            raise BadDataError(
                f"the token is signed with {header.alg[:20]!r}, which is not accepted: have the provider use one of "
                f"{', '.join(KINDS)}",
                reason="bad-token",
            )
        fitting = [key for key in self._keys if isinstance(key, kind) and _may_sign(key, header.alg)]
        named = [key for key in fitting if header.kid is None or key.kid == header.kid]
        if not named:
            raise UnknownKeyError(
                "the token is signed with a key that the provider does not publish", reason="bad-token"
            )
        if len(named) > 1:
            raise BadDataError("the token does not tell which of the provider's keys signed it", reason="bad-token")
        return _verified(token, named[0], header)


def check_id_token(token: Verified, *, issuer: str, client_id: str, nonce: str, now: datetime) -> None:
    """See that an ID token is the answer to our own request.

    Raises:
        BadDataError: it is not; the sentence says why.
    """
    claims = token.claims
    _check_claims(claims, issuer=issuer, audience=client_id, now=now)
    if (len(claims.audiences) > 1 and claims.azp is None) or claims.azp not in (None, client_id):
        raise _wrong("is made for another client (azp)")
    if claims.iat < now.timestamp() - LONGEST_AGE_S:
        raise _wrong("is old (iat)")
    if not hmac.compare_digest((claims.nonce or "").encode(), nonce.encode()):
        raise _wrong("answers another attempt to sign in (nonce)")


def check_access_token(token: Verified, *, issuer: str, audience: str, now: datetime) -> None:
    """See that an access token is made for us.

    Raises:
        BadDataError: it is not; the sentence says why.
    """
    if token.typ.removeprefix("application/") not in ("at+jwt", "jwt", ""):
        raise _wrong("is no access token (typ)")
    _check_claims(token.claims, issuer=issuer, audience=audience, now=now)


def _check_claims(claims: Claims, *, issuer: str, audience: str, now: datetime) -> None:
    now_s = now.timestamp()
    if claims.iss != issuer:
        raise _wrong("is of another issuer (iss)")
    if audience not in claims.audiences:
        raise _wrong("is made for somebody else (aud)")
    if claims.exp <= now_s - SKEW_S:
        raise _wrong("has expired (exp)")
    if max(claims.iat, claims.nbf or 0) > now_s + SKEW_S:
        raise _wrong("is of the future (iat, nbf): one of the two clocks is wrong")
    if not 0 < len(claims.sub) <= 255 or not claims.sub.isprintable():  # noqa: PLR2004 - Core 1.0, section 2
        raise _wrong("names nobody (sub)")


def _wrong(how: str) -> BadDataError:
    return BadDataError(f"the provider's token {how}", reason="bad-token")


def _header_of(token: str) -> _Header:
    if len(token) > LIMIT_TOKEN_CHARACTERS or not token.isascii() or token.count(".") != 2:  # noqa: PLR2004
        raise BadDataError("what the provider sent is no signed token", reason="bad-token")
    try:
        return msgspec.convert(jws.extract_compact(token.encode()).headers(), _Header)
    except (JoseError, msgspec.ValidationError, ValueError) as error:
        raise BadDataError("the header of the token cannot be read", reason="bad-token") from error


def _verified(token: str, key: Key, header: _Header) -> Verified:
    try:
        with warnings.catch_warnings():
            # RFC 9864 calls EdDSA a name too vague; what it means with a key of ours is not.
            warnings.simplefilter("ignore", SecurityWarning)
            payload = jws.deserialize_compact(token, key, [header.alg]).payload or b""
        claims = msgspec.json.decode(payload, type=Claims)
        others = msgspec.json.decode(payload, type=dict[str, object])
    except msgspec.ValidationError as error:
        raise BadDataError(f"the token lacks what it must say: {error}", reason="bad-token") from error
    except (JoseError, msgspec.DecodeError, ValueError) as error:
        raise BadDataError("the signature of the token is wrong", reason="bad-token") from error
    return Verified(claims, others, (header.typ or "").lower())


def _public_key(described: dict[str, object]) -> Key | None:
    if described.get("kty") not in ("RSA", "EC", "OKP") or described.get("use", "sig") != "sig":
        return None
    public: dict[str, str | list[str]] = {
        name: value for name, value in described.items() if isinstance(value, str) and name in _MEMBERS
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)  # an RSA key of less than 2048 bits
            key = import_key(public)
            if not key.public_key:
                return None
    except (JoseError, SecurityWarning, ValueError, TypeError):
        return None
    return key


_MEMBERS = frozenset({"kty", "kid", "alg", "n", "e", "crv", "x", "y"})


def _may_sign(key: Key, algorithm: str) -> bool:
    return key.alg is None or key.alg == algorithm or {key.alg, algorithm} == {"EdDSA", "Ed25519"}
