"""Signing in with an OpenID Connect provider: where it begins, where the browser comes back, and linking an account."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta
from starlette.responses import RedirectResponse

from meterway.cloud import openapi
from meterway.cloud.access import oidc
from meterway.cloud.access.middleware import session_secret, set_session
from meterway.cloud.access.oidc import ATTEMPT_S, Attempt, OidcSignIn
from meterway.cloud.access.oidc_config import CALLBACK
from meterway.cloud.access.people import parse
from meterway.cloud.access.viewer import EVERYBODY, viewer
from meterway.cloud.context import Context, body_of, json_answer
from meterway.cloud.pages import home_of, page
from meterway.cloud.problems import HttpError

COOKIE = "meterway-oidc"
SECURE_COOKIE = "__Host-meterway-oidc"

_BEGUN = {"url": "https://login.example.org/authorize?response_type=code&client_id=meterway"}


class OidcBegin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The body of ``POST /v1/sign-in/oidc``."""

    next: Annotated[str, Meta(max_length=500)] = ""
    """The path of the page to come back to."""
    invitation: Annotated[str, Meta(max_length=100)] = ""
    """The last part of a one-time link, to use it up without a password."""


class OidcBegun(msgspec.Struct, frozen=True, kw_only=True):
    """Where the browser goes to sign in."""

    url: str


def oidc_router(api: Context) -> APIRouter:
    """Return the routes of the provider; without one they answer 404."""
    router = APIRouter(tags=["account"])

    @router.post(
        "/v1/sign-in/oidc",
        summary="Sign in with the OpenID Connect provider",
        responses=openapi.answers(OidcBegun, "Where the browser goes", _BEGUN),
        openapi_extra=openapi.accepts(OidcBegin, {"next": "/devices"}),
        response_class=Response,
    )
    async def begin(request: Request) -> Response:
        """Begin an attempt; it is kept in a cookie of this browser, for ten minutes."""
        body = parse(await body_of(request), OidcBegin)
        return await _begun(api, request, oidc.new_attempt(next_path=body.next, invitation=body.invitation))

    @router.post(
        "/v1/account/oidc",
        summary="Link the own account",
        responses=openapi.answers(OidcBegun, "Where the browser goes", _BEGUN),
        response_class=Response,
    )
    async def begin_link(request: Request) -> Response:
        """Begin to link the own account with the person that one is at the provider."""
        return await _begun(api, request, oidc.new_attempt(linker=viewer.get()))

    @router.delete("/v1/account/oidc", summary="End the link", responses=openapi.problems(), status_code=204)
    async def unlink() -> Response:
        """End the link of the own account with the provider."""
        await api.in_time(_sign_in(api).people.unlink(viewer.get()))
        return Response(status_code=204)

    @router.get(CALLBACK, include_in_schema=False)
    async def come_back(request: Request) -> Response:
        try:
            return await _finished(api, request)
        except HttpError as error:
            return page("sign_in_failed.html", status=error.status, sentence=str(error))

    return router


async def _begun(api: Context, request: Request, attempt: Attempt) -> Response:
    sign_in = _sign_in(api)
    host = request.headers.get("host", "").lower()
    if f"//{host}" != sign_in.config.origin.partition(":")[2]:
        raise HttpError(
            409,
            f"With {sign_in.config.name} one signs in under {sign_in.config.origin} alone: open that.",
            reason="wrong-address",
        )
    answer = json_answer(OidcBegun(url=await sign_in.begin(attempt)))
    _set_attempt(answer, sign_in, attempt.in_cookie())
    return answer


async def _finished(api: Context, request: Request) -> Response:
    sign_in = _sign_in(api)
    scheme = sign_in.config.origin.partition(":")[0]
    attempt = oidc.attempt_in(request.cookies.get(_cookie_name(sign_in), ""))
    secret = session_secret(scheme, request.headers)
    who = await api.in_time(api.accounts.by_session(secret)) if secret else None
    address = request.client.host if request.client else ""
    try:
        started = await api.in_time(sign_in.finish(attempt, request.query_params, who, address))
    except HttpError as error:
        failed = page("sign_in_failed.html", status=error.status, sentence=str(error))
        _set_attempt(failed, sign_in, None)
        return failed
    if started is None or attempt is None:
        answer = RedirectResponse("/account", 303)
    else:
        answer = RedirectResponse(oidc.page_of(attempt.next) or home_of(started.viewer), 303)
        set_session(answer, started.secret, scheme=scheme, headers=request.headers)
    _set_attempt(answer, sign_in, None)
    return answer


def _sign_in(api: Context) -> OidcSignIn:
    if api.oidc is None or viewer.get() is EVERYBODY:
        raise HttpError(404, "No OpenID Connect provider is configured: [oidc].", reason="no-oidc")
    return api.oidc


def _cookie_name(sign_in: OidcSignIn) -> str:
    return SECURE_COOKIE if sign_in.config.origin.startswith("https:") else COOKIE


def _set_attempt(response: Response, sign_in: OidcSignIn, value: str | None) -> None:
    """Have the browser keep an attempt, or with None forget it."""
    name = _cookie_name(sign_in)
    is_secure = name == SECURE_COOKIE
    if value is None:
        response.delete_cookie(name, httponly=True, samesite="lax", secure=is_secure)
    else:
        response.set_cookie(name, value, httponly=True, samesite="lax", secure=is_secure, max_age=ATTEMPT_S)
