"""An OpenID Connect provider for tests: it signs, rotates its keys, and checks clients, codes and PKCE as a real one.

Whoever comes to its page is signed in as ``person`` and sent back at once. ``forge`` lets a test be a bad provider.
"""

import base64
import json
import secrets
import socket
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI, Request, Response
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, KeyParameters, OKPKey, RSAKey
from starlette.responses import JSONResponse, RedirectResponse

from meterway.cloud.server import serving

Claims = dict[str, object]
CLIENT_ID = "meterway"
CLIENT_SECRET = "s/e c:ret"  # with what a form encodes


def new_key(alg: str) -> Key:
    """Return a key for an algorithm, with an id."""
    parameters: KeyParameters = {"alg": alg, "use": "sig", "kid": secrets.token_hex(4)}
    if alg == "RS256":
        return RSAKey.generate_key(2048, parameters)
    if alg == "ES256":
        return ECKey.generate_key("P-256", parameters)
    return OKPKey.generate_key("Ed25519", parameters)


def sign(claims: Mapping[str, object], key: Key, alg: str, **header: str) -> str:
    """Return a signed token."""
    protected = {"alg": alg, "kid": key.kid or "", **header}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # EdDSA, as it is called by many
        return jws.serialize_compact(protected, json.dumps(claims), key, [alg])


@dataclass
class Issuer:
    """A provider that runs."""

    url: str
    redirect_uri: str
    alg: str = "ES256"
    keys: list[Key] = field(default_factory=list)
    person: Claims = field(default_factory=lambda: {"sub": "1234"})
    forge: Callable[[Claims], str | None] = lambda _: None
    """Makes an ID token of the right claims in its own way; None: in the right one."""
    metadata: Claims = field(default_factory=dict)
    """What discovery says otherwise."""
    secret: str | None = CLIENT_SECRET
    is_away: bool = False
    asked: list[str] = field(default_factory=list)
    """The paths of all requests."""
    _codes: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rotate(self.alg)

    def rotate(self, alg: str, *, keep_old: bool = False) -> None:
        """Sign with a new key, and publish it."""
        self.alg = alg
        self.keys = [new_key(alg), *(self.keys if keep_old else ())]

    def claims(self, **more: object) -> Claims:
        """Return what a token for ``person`` says."""
        now = int(time.time())
        return {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, **self.person, **more}

    def access_token(self, **claims: object) -> str:
        """Return an access token (RFC 9068)."""
        return sign(self.claims(**claims), self.keys[0], self.alg, typ="at+jwt")

    def discovery(self) -> Claims:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def authorize(self, query: Mapping[str, str]) -> Response:
        fixed = ("client_id", "redirect_uri", "response_type", "code_challenge_method")
        expected = (CLIENT_ID, self.redirect_uri, "code", "S256")
        if tuple(query.get(name) for name in fixed) != expected or "openid" not in query["scope"].split():
            return JSONResponse({"error": "invalid_request"}, 400)
        code = secrets.token_urlsafe(16)
        self._codes[code] = dict(query)
        answer = {"code": code, "state": query["state"], "iss": self.url}
        return RedirectResponse(f"{self.redirect_uri}?{urlencode(answer)}", 303)

    def token(self, form: Mapping[str, str], authorization: str) -> Response:
        if self.secret is not None:
            user = base64.b64encode(b"meterway:s%2Fe%20c%3Aret").decode()
            if authorization != f"Basic {user}":
                return JSONResponse({"error": "invalid_client"}, 401)
        asked = self._codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "")
        challenge = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if (
            asked is None
            or challenge != asked["code_challenge"]
            or form.get("redirect_uri") != asked["redirect_uri"]
            or form.get("grant_type") != "authorization_code"
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        claims = self.claims(nonce=asked["nonce"])
        token = self.forge(claims) or sign(claims, self.keys[0], self.alg)
        return JSONResponse({"access_token": "opaque", "token_type": "Bearer", "id_token": token})


def _app(issuer: Issuer) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.state.live = SimpleNamespace(close=lambda: None)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def answer(path: str, request: Request) -> Response:
        issuer.asked.append(f"/{path}")
        if issuer.is_away:
            return Response(status_code=503)
        if path == ".well-known/openid-configuration":
            return JSONResponse(issuer.discovery())
        if path == "jwks":
            return JSONResponse({"keys": [key.as_dict(private=False) for key in issuer.keys]})
        if path == "authorize":
            return issuer.authorize(request.query_params)
        form = dict(parse_qsl((await request.body()).decode()))
        return issuer.token(form, request.headers.get("authorization", ""))

    return app


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def issuing(redirect_uri: str) -> AsyncIterator[Issuer]:
    """Run a provider on a free port."""
    port = free_port()
    issuer = Issuer(f"http://127.0.0.1:{port}", redirect_uri)
    async with serving(_app(issuer), port=port):
        yield issuer
