"""Signing in with an OpenID Connect provider: the authorization code flow with PKCE (RFC 9700, section 2.1.1).

The server remembers nothing of an attempt: state, nonce and code verifier are derived from one secret, which is in a
cookie of the browser that began. So an answer counts only in that browser, and once, for it ends the cookie; there
is nothing to fill up, and any worker can finish what another began.
"""

import base64
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec

from meterway.cloud.access import rules
from meterway.cloud.access.accounts import Accounts, Started
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.oidc_accounts import OidcAccounts
from meterway.cloud.access.oidc_tokens import Verified, check_access_token, check_id_token
from meterway.cloud.access.secret import new_secret
from meterway.cloud.access.tries import Tries
from meterway.cloud.access.viewer import NOBODY, Viewer
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Store
from meterway.core.errors import BadDataError, TransientError
from meterway.core.hosts import is_loopback

if TYPE_CHECKING:
    from meterway.cloud.access.oidc_provider import Metadata, Provider

ATTEMPT_S: Final = 600
"""So long a browser has to come back from the provider."""
LIMIT_COOKIE_CHARACTERS: Final = 2000


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the browser keeps while it is at the provider."""

    secret: str
    next: str = ""
    """The page that was asked for, as somebody says; empty for the first one they may open."""
    invitation: str = ""
    """The secret of a one-time link that is to be used up; empty for none."""
    linker: str = ""
    """Proves which session began to link its account; empty if none did."""

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        return _base64(sha256(self.verifier.encode()).digest())

    def in_cookie(self) -> str:
        return _base64(msgspec.json.encode(self))

    def _derived(self, what: str) -> str:
        return _base64(hmac.digest(self.secret.encode(), what.encode(), sha256))


class OidcSignIn:
    """The way in through the provider."""

    def __init__(
        self, provider: "Provider", store: Store, accounts: Accounts, audit: AuditLog, clock: Callable[[], datetime]
    ) -> None:
        self.config = provider.config
        self._provider = provider
        self._accounts = accounts
        self._audit = audit
        self._clock = clock
        self.people = OidcAccounts(provider.config, store, audit, clock)
        self._by_address = Tries(free=20, longest_s=900)

    async def begin(self, attempt: Attempt) -> str:
        """Return where the browser goes.

        Raises:
            HttpError: 502 or 503, the provider cannot be used now.
        """
        try:
            metadata = await self._provider.metadata()
        except (TransientError, BadDataError) as error:
            raise self._cannot(error) from error
        query = {
            "response_type": "code",
            "client_id": self.config.client_id,
            "redirect_uri": self.config.redirect_uri,
            "scope": " ".join(self.config.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        return f"{metadata.authorization_endpoint}{joint}{urlencode(query)}"

    async def finish(
        self, attempt: Attempt | None, answer: Mapping[str, str], who: Viewer | None, address: str
    ) -> Started | None:
        """Begin the session of who comes back with the provider's ``answer``; None: their account is linked now.

        ``who`` is whose session the browser has already.

        Raises:
            HttpError: the answer does not count; the sentence says why, the reason is short.
        """
        try:
            begun = _answered(attempt, answer)
            return await self._finish(begun, await self._token(begun, answer, address), who, address)
        except (HttpError, BadDataError) as error:
            self._audit.note("sign-in-failed", "oidc", {"reason": error.reason, "address": address}, who=NOBODY)
            if isinstance(error, BadDataError):  # a login or a name that the provider says, but none here can have
                raise HttpError(422, str(error), reason=error.reason) from error
            raise

    async def by_access_token(self, token: str) -> Viewer | None:
        """Return whose access token of the provider it is; None if it does not count.

        Raises:
            HttpError: 503, the provider's keys are not known, and it does not answer.
            TransientError: the database is away.
        """
        if self.config.audience is None or token.count(".") != 2:  # noqa: PLR2004 - the parts of a signed token
            return None
        try:
            verified = await self._provider.verify(token)
            check_access_token(verified, issuer=self.config.issuer, audience=self.config.audience, now=self._clock())
        except BadDataError:
            return None
        except TransientError as error:
            raise self._cannot(error) from error
        return await self.people.of_program(verified)

    async def _token(self, attempt: Attempt, answer: Mapping[str, str], address: str) -> Verified:
        """Return the ID token that the provider gives for the code."""
        if "error" in answer:
            why = printable(answer.get("error_description") or answer["error"])
            raise HttpError(403, f"{self.config.name} did not sign you in: {why}.", reason="provider-refused")
        self._count_try(address)
        try:
            self._check_issuer(await self._provider.metadata(), answer.get("iss"))
            raw = await self._provider.exchange(answer.get("code", ""), attempt.verifier)
            token = await self._provider.verify(raw)
            check_id_token(
                token,
                issuer=self.config.issuer,
                client_id=self.config.client_id,
                nonce=attempt.nonce,
                now=self._clock(),
            )
        except (TransientError, BadDataError) as error:
            raise self._cannot(error) from error
        self._by_address.succeeded(address)
        return token

    def _check_issuer(self, metadata: "Metadata", issuer: str | None) -> None:
        """See that an answer is of our provider, as far as it says (RFC 9207).

        Raises:
            BadDataError: it is not.
        """
        may_lack = not metadata.authorization_response_iss_parameter_supported
        if issuer != self.config.issuer and not (issuer is None and may_lack):
            raise BadDataError("the answer is of another issuer (iss)", reason="bad-token")

    def _count_try(self, address: str) -> None:
        """Bound how often somebody has us ask the provider.

        Raises:
            HttpError: 429, too often.
        """
        if is_loopback(address):  # behind a proxy of this machine all have the same one
            return
        if self._by_address.pause_s(address, monotonic()) > 0:
            raise HttpError(429, "Too many tries: wait some minutes.", reason="too-many-tries")
        self._by_address.failed(address, monotonic())

    async def _finish(self, attempt: Attempt, token: Verified, who: Viewer | None, address: str) -> Started | None:
        if attempt.linker:
            if who is None or not hmac.compare_digest(linker_of(who, attempt.secret).encode(), attempt.linker.encode()):
                raise HttpError(403, "Sign in again first, then link your account.", reason="wrong-session")
            await self.people.link(who, token)
            return None
        if attempt.invitation:
            entered = await self.people.use_invitation(attempt.invitation, token)
        else:
            entered = await self.people.enter(token)
        return await self._accounts.start_session(entered, how={"address": address, "by": self.config.issuer})

    def _cannot(self, error: TransientError | BadDataError) -> HttpError:
        said = f"Signing in with {self.config.name} does not work now: {error}."
        if isinstance(error, TransientError):
            return HttpError(503, said, reason="provider-away", headers={"Retry-After": "15"})
        return HttpError(502, said, reason=error.reason)


def new_attempt(*, next_path: str = "", invitation: str = "", linker: Viewer | None = None) -> Attempt:
    """Return a new attempt; ``linker`` is whose account is to be linked."""
    secret = new_secret()
    return Attempt(secret, next_path, invitation, linker_of(linker, secret) if linker is not None else "")


def _answered(attempt: Attempt | None, answer: Mapping[str, str]) -> Attempt:
    """Return the attempt that an answer is for.

    Raises:
        HttpError: 400, this browser began none, or another.
    """
    if attempt is None or not hmac.compare_digest(attempt.state.encode(), answer.get("state", "").encode()):
        raise HttpError(
            400,
            "This answer belongs to no attempt to sign in that this browser began in the last ten minutes.",
            reason="wrong-state",
        )
    return attempt


def attempt_in(cookie: str) -> Attempt | None:
    """Return the attempt in a cookie; None if there is none."""
    if not cookie or len(cookie) > LIMIT_COOKIE_CHARACTERS:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)), type=Attempt)
    except (msgspec.DecodeError, ValueError):
        return None


def linker_of(who: Viewer, secret: str) -> str:
    """Return what only a page of the session of ``who`` can have begun with ``secret``."""
    return hmac.new((who.csrf_token or new_secret()).encode(), secret.encode(), sha256).hexdigest()


def page_of(path: str) -> str:
    """Return a path that is one of our own pages; empty for any other, so that no answer leads elsewhere."""
    return "" if rules.find("GET", path).demand in (None, "anybody") or path.startswith("/v1/") else path


def printable(text: str) -> str:
    """Return what somebody else wrote, fit to be shown."""
    return "".join(each if each.isprintable() else " " for each in text[:200])


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
