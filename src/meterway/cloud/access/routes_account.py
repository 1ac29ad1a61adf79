"""Signing in and out, one-time links, and what is one's own: password, sessions, API tokens."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from meterway.cloud import openapi
from meterway.cloud.access import people_query, rules
from meterway.cloud.access.accounts import Started
from meterway.cloud.access.middleware import set_session
from meterway.cloud.access.people import (
    LIMIT_TOKENS,
    LinkUse,
    Me,
    PasswordChange,
    SessionAnswer,
    SessionList,
    SignIn,
    TokenAnswer,
    TokenList,
    TokenNew,
    answer,
    check_name,
    parse,
)
from meterway.cloud.access.secret import TOKEN_PREFIX, digest_of, new_secret
from meterway.cloud.access.viewer import EVERYBODY, Viewer, viewer
from meterway.cloud.context import Context, body_of, json_answer
from meterway.cloud.pages import home_of
from meterway.cloud.problems import HttpError

_ME = {
    "login": "ada",
    "name": "Ada",
    "role": "operator",
    "tenantId": None,
    "permissions": ["read", "write"],
    "csrfToken": None,
    "home": "/",
    "oidcLinked": False,
    "tokens": 2,
}
_SESSION = {
    "sessionId": "9f86d081884c7d65",
    "createdTime": "2026-11-23T07:00:00Z",
    "lastUsedTime": "2026-11-23T09:15:00Z",
    "expiresTime": "2026-11-30T07:00:00Z",
    "current": True,
}
_TOKEN = {
    "tokenId": 3,
    "name": "billing",
    "scopes": ["read"],
    "createdTime": "2026-11-23T07:00:00Z",
    "expiresTime": "2027-02-21T07:00:00Z",
    "lastUsedTime": None,
}


def account_router(api: Context) -> APIRouter:
    """Return the routes of the own account."""
    router = APIRouter(tags=["account"])

    @router.post(
        "/v1/sign-in",
        summary="Sign in",
        responses=openapi.answers(Me, "Signed in; the session is in a cookie", _ME),
        openapi_extra=openapi.accepts(SignIn, {"login": "ada", "password": "..."}),
        response_class=Response,
    )
    async def sign_in(request: Request) -> Response:
        """Begin a session. Programs use an API token in its place."""
        _not_where_open()
        body = parse(await body_of(request), SignIn)
        work = api.accounts.sign_in(body.login, body.password, _address(request))
        return await _begun(api, request, await api.in_time(work))

    @router.post(
        "/v1/link",
        summary="Use a one-time link",
        responses=openapi.answers(Me, "The password is set; the session is in a cookie", _ME),
        openapi_extra=openapi.accepts(LinkUse, {"secret": "...", "name": "Ada", "password": "..."}),
        response_class=Response,
    )
    async def use_link(request: Request) -> Response:
        """Set name and password of the account that the link was made for, and sign in."""
        _not_where_open()
        body = parse(await body_of(request), LinkUse)
        work = api.accounts.use_link(body.secret, body.name, body.password, _address(request))
        return await _begun(api, request, await api.in_time(work))

    @router.post("/v1/sign-out", summary="Sign out", responses=openapi.problems(), status_code=204)
    async def sign_out(request: Request) -> Response:
        """End the session."""
        _own_account()
        await api.in_time(api.accounts.end_session(viewer.get()))
        gone = Response(status_code=204)
        set_session(gone, None, scheme=request.url.scheme, headers=request.headers)
        return gone

    @router.get(
        "/v1/account",
        summary="Who am I?",
        responses=openapi.answers(Me, "Who asks, and what they may", _ME),
        response_class=Response,
    )
    async def show_account() -> Response:
        """Tell who asks, and what they may do."""
        return json_answer(await _me(api, viewer.get()))

    @router.post(
        "/v1/account/password",
        summary="Change the password",
        responses=openapi.answers(Me, "Changed; all sessions have ended, a new one is in the cookie", _ME),
        openapi_extra=openapi.accepts(PasswordChange, {"old": "...", "new": "..."}),
        response_class=Response,
    )
    async def change_password(request: Request) -> Response:
        """Change the own password; all sessions of the account end. Its API tokens stay: ``tokens`` says how many."""
        who = _own_account()
        body = parse(await body_of(request), PasswordChange)
        work = api.accounts.change_password(who, body.old, body.new, _address(request))
        return await _begun(api, request, await api.in_time(work))

    @router.get(
        "/v1/sessions",
        summary="List sessions",
        responses=openapi.answers(SessionList, "The browsers one is signed in with", {"content": [_SESSION]}),
        response_class=Response,
    )
    async def list_sessions() -> Response:
        """List the own sessions."""
        rows = await api.fetch_all(people_query.select_sessions(_own_account(), api.clock()))
        return json_answer(SessionList(content=tuple(answer(row, SessionAnswer) for row in rows)))

    @router.delete("/v1/sessions/{session_id}", summary="End a session", responses=openapi.problems(), status_code=204)
    async def end_session(session_id: Annotated[str, Path(max_length=16)]) -> Response:
        """End one of the own sessions."""
        who = _own_account()
        if not await api.fetch_all(people_query.end_session(who, session_id.replace("\0", ""))):
            raise HttpError(404, "There is no such session; it may be over already.", reason="no-session")
        api.audit.note("signed-out", f"account/{who.actor}", {"session": session_id})
        return Response(status_code=204)

    _add_tokens(router, api)
    return router


def _add_tokens(router: APIRouter, api: Context) -> None:
    @router.get(
        "/v1/tokens",
        summary="List API tokens",
        responses=openapi.answers(TokenList, "The own ones that are valid", {"content": [_TOKEN]}),
        response_class=Response,
    )
    async def list_tokens() -> Response:
        """List the own API tokens that are neither revoked nor expired."""
        rows = await api.fetch_all(people_query.select_tokens(_own_account(), api.clock()))
        return json_answer(TokenList(content=tuple(answer(row, TokenAnswer, token=None) for row in rows)))

    @router.post(
        "/v1/tokens",
        summary="Make an API token",
        responses=openapi.answers(TokenAnswer, "With the token, shown only here", {**_TOKEN, "token": "mw_..."}),
        openapi_extra=openapi.accepts(TokenNew, {"name": "billing", "scopes": ["read"], "days": 90}),
        response_class=Response,
    )
    async def make_token(request: Request) -> Response:
        """Make a token for a program: send it as ``Authorization: Bearer mw_...``."""
        who = _own_account()
        body = parse(await body_of(request), TokenNew)
        beyond = sorted(set(body.scopes) - rules.permissions(who))
        if beyond:
            raise HttpError(403, f"Your role does not include {', '.join(beyond)}.", reason="not-permitted")
        secret, now = new_secret(TOKEN_PREFIX), api.clock()
        rows = await api.fetch_all(
            people_query.add_token(
                who,
                digest=digest_of(secret),
                name=check_name(body.name),
                scopes=sorted(set(body.scopes)),
                now=now,
                expires=now + timedelta(days=body.days),
                limit=LIMIT_TOKENS,
            )
        )
        if not rows:
            raise HttpError(409, f"You have {LIMIT_TOKENS} tokens: revoke one first.", reason="too-many-tokens")
        api.audit.note("changed", f"token/{rows[0]['token_id']}", {"made": sorted(set(body.scopes)), "days": body.days})
        return json_answer(answer(rows[0], TokenAnswer, token=secret))

    @router.delete(
        "/v1/tokens/{token_id}", summary="Revoke an API token", responses=openapi.problems(), status_code=204
    )
    async def revoke_token(token_id: Annotated[int, Path(ge=1, lt=2**31)]) -> Response:
        """Revoke one of the own tokens, at once."""
        if not await api.fetch_all(people_query.revoke_token(_own_account(), token_id, api.clock())):
            raise HttpError(404, f"You have no token {token_id}.", reason="no-token")
        api.audit.note("changed", f"token/{token_id}", {"revoked": True})
        return Response(status_code=204)


async def _begun(api: Context, request: Request, started: Started) -> Response:
    response = json_answer(await _me(api, started.viewer))
    set_session(response, started.secret, scheme=request.url.scheme, headers=request.headers)
    return response


async def _me(api: Context, who: Viewer) -> Me:
    rows = [] if who.account_key is None else await api.fetch_all(people_query.select_me(who, api.clock()))
    return Me(
        login=who.actor,
        role=who.role,
        permissions=tuple(sorted(rules.permissions(who))),
        csrf_token=who.csrf_token,
        home=home_of(who),
        **(dict(rows[0].items()) if rows else {}),
    )


def _own_account() -> Viewer:
    """Return who asks.

    Raises:
        HttpError: 409, nobody in particular: the cloud is open.
    """
    _not_where_open()
    return viewer.get()


def _not_where_open() -> None:
    if viewer.get() is EVERYBODY:
        raise HttpError(
            409,
            "This cloud is open to everybody on its machine: nobody signs in. Remove `[http] open` to have accounts.",
            reason="open",
        )


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
