"""An OpenID Connect provider as it is reached over HTTP: what it says of itself, its keys, and codes for tokens.

Bounds: an answer has ``LIMIT_ANSWER_BYTES`` and ``WITHIN_S``. What the provider says of itself and its keys are asked
for again after ``KEEP_S``, or when a token names a key that is not known, and never more often than every
``AGAIN_S``. While it is away what is known goes on counting, up to ``LONGEST_S``.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from meterway.cloud.access.oidc_config import OidcConfig, is_private
from meterway.cloud.access.oidc_tokens import Keys, UnknownKeyError, Verified
from meterway.core.errors import BadDataError, MeterwayError, SetupError, TransientError

LIMIT_ANSWER_BYTES: Final = 256 * 1024
WITHIN_S: Final = 10.0
KEEP_S: Final = 3600.0
LONGEST_S: Final = 86_400.0
AGAIN_S: Final = 15.0
DISCOVERY: Final = "/.well-known/openid-configuration"

_log = logging.getLogger(__name__)

Value = TypeVar("Value")


class Metadata(msgspec.Struct, frozen=True):
    """What a provider says of itself (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class _Refusal(msgspec.Struct, frozen=True):
    error: str


class Provider:
    """The one that the configuration names."""

    def __init__(self, config: OidcConfig, *, again_s: float = AGAIN_S) -> None:
        """Read the client's secret and the authority; the provider itself is asked when somebody signs in.

        Raises:
            SetupError: a file cannot be read.
        """
        self.config = config
        self._secret = _read_secret(config)
        self._tls = _tls_of(config)
        self._metadata = _Kept(self._fetch_metadata, again_s)
        self._keys = _Kept(self._fetch_keys, again_s)

    async def metadata(self) -> Metadata:
        """Return what the provider says of itself.

        Raises:
            TransientError: it does not answer.
            BadDataError: what it says cannot be used.
        """
        return await self._metadata.get()

    async def verify(self, token: str) -> Verified:
        """Return a token that the provider signed; keys that are not known are asked for.

        Raises:
            TransientError: its keys are not known, and it does not answer.
            BadDataError: the token is not of this provider.
        """
        keys = await self._keys.get()
        try:
            return keys.verify(token)
        except UnknownKeyError:
            return (await self._keys.get(anew=True)).verify(token)

    async def exchange(self, code: str, verifier: str) -> str:
        """Return the ID token for a code.

        Raises:
            TransientError: the provider does not answer.
            BadDataError: it refuses the code, or us.
        """
        metadata = await self._metadata.get()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.config.redirect_uri,
            "code_verifier": verifier,
        }
        basic = None
        if self._secret is None:
            form["client_id"] = self.config.client_id
        elif "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            # RFC 6749, section 2.3.1: both are encoded as in a form before they are joined.
            basic = httpx.BasicAuth(quote(self.config.client_id, safe=""), quote(self._secret, safe=""))
        else:
            form |= {"client_id": self.config.client_id, "client_secret": self._secret}
        status, body = await self._ask("POST", metadata.token_endpoint, form, basic)
        if status != httpx.codes.OK:
            raise BadDataError(f"the provider refuses the code: {_refusal(body, status)}", reason="code-refused")
        try:
            return msgspec.json.decode(body, type=_Tokens).id_token
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadDataError("the provider sent no ID token", reason="bad-provider") from error

    async def _fetch_metadata(self) -> Metadata:
        body = await self._get(self.config.issuer.rstrip("/") + DISCOVERY)
        try:
            metadata = msgspec.json.decode(body, type=Metadata)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadDataError(
                f"what the provider says of itself cannot be read: {error}", reason="bad-provider"
            ) from error
        if metadata.issuer != self.config.issuer:
            raise BadDataError(
                f"the provider calls itself {metadata.issuer[:200]!r}: write exactly that into `[oidc] issuer`",
                reason="bad-provider",
            )
        for url in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
            # Only a provider on this machine may name an address on this machine that has no TLS.
            if not is_private(url) or (url.startswith("http:") and self.config.issuer.startswith("https:")):
                raise BadDataError(f"the provider names an address without TLS: {url[:200]!r}", reason="bad-provider")
        return metadata

    async def _fetch_keys(self) -> Keys:
        return Keys(await self._get((await self._metadata.get()).jwks_uri))

    async def _get(self, url: str) -> bytes:
        status, body = await self._ask("GET", url)
        if status != httpx.codes.OK:
            raise TransientError(f"the provider answers {status} at {url[:200]}")
        return body

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None = None, auth: httpx.BasicAuth | None = None
    ) -> tuple[int, bytes]:
        """Return status and body; an answer that leads elsewhere is not followed."""
        try:
            async with (
                asyncio.timeout(WITHIN_S),
                httpx.AsyncClient(verify=self._tls, timeout=WITHIN_S, trust_env=url.startswith("https:")) as client,
                client.stream(method, url, data=form, auth=auth, headers={"Accept": "application/json"}) as answer,
            ):
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > LIMIT_ANSWER_BYTES:
                        raise BadDataError(
                            f"the provider's answer is longer than {LIMIT_ANSWER_BYTES} bytes", reason="bad-provider"
                        )
                return answer.status_code, bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise TransientError(f"the provider does not answer ({type(error).__name__} at {url[:200]})") from error


class _Kept(Generic[Value]):
    """Something that is fetched when it is needed, and kept."""

    def __init__(self, fetch: Callable[[], Awaitable[Value]], again_s: float) -> None:
        self._fetch = fetch
        self._again_s = again_s
        self._one = asyncio.Lock()
        self._value: Value | None = None
        self._fetched_s = 0.0
        self._tried_s: float | None = None
        self._error: MeterwayError | None = None

    async def get(self, *, anew: bool = False) -> Value:
        """Return it; ``anew`` asks whether it changed."""
        async with self._one:
            now_s = monotonic()
            if self._value is not None and now_s - self._fetched_s < KEEP_S and not anew:
                return self._value
            if self._tried_s is None or now_s - self._tried_s >= self._again_s:
                self._tried_s = now_s
                await self._try(now_s)
            if self._value is not None and now_s - self._fetched_s < LONGEST_S:
                return self._value
            raise self._error or TransientError("the provider does not answer")

    async def _try(self, now_s: float) -> None:
        try:
            self._value, self._fetched_s = await self._fetch(), now_s
        except (TransientError, BadDataError) as error:
            _log.warning("! OpenID Connect: %s", error)
            self._error = error


def _read_secret(config: OidcConfig) -> str | None:
    file = config.client_secret_file
    if file is None:
        return None
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"[oidc] client_secret_file {file} cannot be read: {error}") from error
    if not secret:
        raise SetupError(f"[oidc] client_secret_file {file} is empty: write the client's secret into it")
    return secret


def _tls_of(config: OidcConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"[oidc] ca_file {config.ca_file} cannot be used: {error}") from error


def _refusal(body: bytes, status: int) -> str:
    try:
        error = msgspec.json.decode(body, type=_Refusal).error[:80]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"it answers {status}"
    return error if error.isprintable() else f"it answers {status}"
