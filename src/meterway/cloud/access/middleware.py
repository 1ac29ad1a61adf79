"""What every request passes after the guard: who asks, and whether they may. What ``rules`` does not open is shut."""

from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from meterway.cloud import pages
from meterway.cloud.access import rules
from meterway.cloud.access.accounts import Accounts, same_csrf_token
from meterway.cloud.access.oidc import OidcSignIn
from meterway.cloud.access.secret import TOKEN_PREFIX
from meterway.cloud.access.viewer import NOBODY, Viewer, viewer
from meterway.cloud.guard import SAFE_METHODS
from meterway.cloud.problems import HttpError, database_away
from meterway.core.errors import TransientError

COOKIE = "meterway"
SECURE_COOKIE = "__Host-meterway"
"""Under TLS: a browser takes it from this host only, and shows it to no other."""


class Access:
    """ASGI middleware; sets the viewer of the request, or refuses it."""

    def __init__(self, app: ASGIApp, accounts: Accounts, oidc: OidcSignIn | None = None) -> None:
        self._app = app
        self._accounts = accounts
        self._oidc = oidc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        before = viewer.set(NOBODY)
        try:
            found = rules.find(scope["method"], scope["path"])
            if found.demand != "anybody":
                viewer.set(await self._identify(scope, headers))
                _check(found, scope, headers, viewer.get())
            await self._app(scope, receive, send)
        except HttpError as error:
            await _refusal(error, scope, headers)(scope, receive, send)
        finally:
            viewer.reset(before)

    async def _identify(self, scope: Scope, headers: Headers) -> Viewer:
        """Return who asks.

        Raises:
            HttpError: 401, nobody who is known; 503, the database is away.
        """
        authorization = headers.get("authorization")
        try:
            if authorization is not None:
                kind, _, secret = authorization.partition(" ")
                who = await self._by_bearer(secret.strip()) if kind.lower() == "bearer" else None
                why = "The token is not known, expired or revoked"
            else:
                in_cookie = session_secret(scope["scheme"], headers)
                who = await self._accounts.by_session(in_cookie) if in_cookie else None
                why = "Sign in first, or send an API token as `Authorization: Bearer mw_...`"
        except TransientError as error:
            raise database_away() from error
        if who is None:
            raise HttpError(401, f"{why}; the page is at /sign-in.", reason="sign-in", headers=_CHALLENGE)
        return who

    async def _by_bearer(self, secret: str) -> Viewer | None:
        if self._oidc is not None and not secret.startswith(TOKEN_PREFIX):
            return await self._oidc.by_access_token(secret)
        return await self._accounts.by_token(secret)


def session_secret(scheme: str, headers: Headers) -> str | None:
    """Return the secret in the session's cookie."""
    cookies = cookie_parser(headers.get("cookie", ""))
    return cookies.get(SECURE_COOKIE) or (None if scheme == "https" else cookies.get(COOKIE))


def set_session(response: Response, secret: str | None, *, scheme: str, headers: Headers) -> None:
    """Have the browser keep the secret of a session, or with None forget it."""
    is_secure = scheme == "https" or headers.get("origin", "").startswith("https://")
    name = SECURE_COOKIE if is_secure else COOKIE
    if secret is None:
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")
        response.delete_cookie(SECURE_COOKIE, httponly=True, samesite="lax", secure=True)
    else:
        response.set_cookie(name, secret, httponly=True, samesite="lax", secure=is_secure, max_age=7 * 86_400)


_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="meterway"'}


def _check(found: rules.Found, scope: Scope, headers: Headers, who: Viewer) -> None:
    """See that the viewer may do what is asked.

    Raises:
        HttpError: 403, 404 or 405.
    """
    path, method = scope["path"][:200], scope["method"]
    if found.demand is None:
        if found.other_methods:
            allowed = ", ".join(found.other_methods)
            raise HttpError(405, f"{method} is not possible at {path}; use {allowed}.", headers={"Allow": allowed})
        raise HttpError(404, f"There is nothing at {path}; /openapi.json lists what there is.")
    if not rules.meets(who, found.demand):
        raise HttpError(403, _missing(who, found.demand), reason="not-permitted")
    if method not in SAFE_METHODS and who.session and not same_csrf_token(who, headers.get("x-csrf-token")):
        raise HttpError(
            403,
            "The request does not prove that it comes from Meterway's own page: load the page again. Programs use an "
            "API token in place of the session.",
            reason="csrf",
        )


def _missing(who: Viewer, demand: rules.Demand) -> str:
    if demand == "session":
        return "A token may not do this: sign in with a browser."
    if demand in rules.ROLES[who.role]:
        return f"The token lacks the scope `{demand}`: make one that has it, at /account."
    return f"Your role, {who.role}, does not include `{demand}`: ask an operator."


def _refusal(error: HttpError, scope: Scope, headers: Headers) -> Response:
    """Return a problem; to a browser that opens a page, a page."""
    if scope["method"] != "GET" or "text/html" not in headers.get("accept", ""):
        return error.response()
    if error.status == 401:  # noqa: PLR2004
        place = scope["path"] if scope["path"] != "/" else ""
        query = f"?next={quote(place, safe='')}" if place else ""
        return RedirectResponse(f"/sign-in{query}", 303)
    return pages.page("refused.html", status=error.status, sentence=str(error))
