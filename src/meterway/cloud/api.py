"""The HTTP interface of the cloud: assembles the routes, the guard, access and the error pages into one application."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from meterway import __version__
from meterway.cloud import kept_aside, ledger_answers, meters, openapi, query, signing_keys
from meterway.cloud.access import people
from meterway.cloud.access.accounts import Accounts
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.audit_query import AuditList
from meterway.cloud.access.middleware import Access
from meterway.cloud.access.oidc import OidcSignIn
from meterway.cloud.access.pages import add_access_pages
from meterway.cloud.access.routes_account import account_router
from meterway.cloud.access.routes_audit import audit_router
from meterway.cloud.access.routes_oidc import OidcBegin, OidcBegun, oidc_router
from meterway.cloud.access.routes_people import people_router
from meterway.cloud.answers import QueryAnswer
from meterway.cloud.config import PrivacyConfig
from meterway.cloud.context import Context, Replay, ReplayAnswer, utc_now
from meterway.cloud.curve import CurveAnswer
from meterway.cloud.devices import answers as device_answers
from meterway.cloud.devices.desk import Desk
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.guard import Guard
from meterway.cloud.live import LiveEvent, LiveHub
from meterway.cloud.pages import add_page, add_pages
from meterway.cloud.privacy import answers as privacy_answers
from meterway.cloud.privacy.keeper import Keeper
from meterway.cloud.problems import HttpError, problem_response
from meterway.cloud.routes.completeness import completeness_router
from meterway.cloud.routes.consents import consents_router
from meterway.cloud.routes.devices import devices_router
from meterway.cloud.routes.enrolment import enrolment_router
from meterway.cloud.routes.kept_aside import kept_aside_router
from meterway.cloud.routes.meters import meters_router
from meterway.cloud.routes.privacy import privacy_router
from meterway.cloud.routes.readings import DeletedAnswer, readings_router
from meterway.cloud.routes.signing_keys import signing_keys_router
from meterway.cloud.routes.system import RequestCounter, system_router
from meterway.cloud.store import Store
from meterway.core import enrolment
from meterway.core.errors import BadDataError

if TYPE_CHECKING:
    from meterway.cloud.access.oidc_provider import Provider

QUERY_TIMEOUT_S = 30.0

_KINDS = (
    query.ReadingQuery,
    QueryAnswer,
    meters.MeterList,
    meters.MeterChange,
    CurveAnswer,
    LiveEvent,
    kept_aside.QuarantineList,
    kept_aside.QuarantineDetail,
    kept_aside.FaultList,
    kept_aside.ConflictList,
    kept_aside.ReplayRequest,
    ReplayAnswer,
    ledger_answers.CompletenessAnswer,
    ledger_answers.CompletenessList,
    device_answers.DeviceList,
    device_answers.DeviceDetail,
    device_answers.NewDevice,
    device_answers.DeviceChange,
    device_answers.CodeAnswer,
    enrolment.EnrolmentRequest,
    enrolment.EnrolmentAnswer,
    enrolment.OwnAnswer,
    signing_keys.SigningKeyAnswer,
    signing_keys.SigningKeyChange,
    DeletedAnswer,
    people.SignIn,
    people.LinkUse,
    people.PasswordChange,
    people.Me,
    OidcBegin,
    OidcBegun,
    people.SessionList,
    people.TokenNew,
    people.TokenList,
    people.AccountNew,
    people.AccountChange,
    people.AccountList,
    people.LinkAnswer,
    people.TenantNew,
    people.TenantList,
    people.ConcentratorGiven,
    people.HouseholdNew,
    people.HouseholdList,
    people.ResidentNew,
    people.ResidentChange,
    AuditList,
    privacy_answers.OwnPrivacy,
    privacy_answers.ErasureNew,
    privacy_answers.ErasureAnswer,
    privacy_answers.ErasureList,
    privacy_answers.ErasureDetail,
    privacy_answers.RequestList,
    privacy_answers.Retention,
    privacy_answers.RetentionList,
    privacy_answers.ConsentNew,
    privacy_answers.ConsentAnswer,
    privacy_answers.ConsentList,
    privacy_answers.ResearchQuery,
    privacy_answers.ResearchAnswer,
)

_log = logging.getLogger(__name__)


def create_app(
    store: Store,
    *,
    replay: Replay | None = None,
    hosts: Sequence[str] = (),
    ready: Callable[[], str | None] = lambda: None,
    counters: Callable[[], Mapping[str, int]] = dict,
    gauges: Callable[[], Mapping[str, float]] = dict,
    clock: Callable[[], datetime] = utc_now,
    timeout_s: float = QUERY_TIMEOUT_S,
    is_open: bool = True,
    keep_audit: timedelta = timedelta(days=400),
    devices: BrokerForDevices | None = None,
    provider: "Provider | None" = None,
    privacy: PrivacyConfig | None = None,
) -> FastAPI:
    """Return the application.

    ``replay`` decides quarantined messages anew (without it the route answers 503); ``hosts`` are names beside
    loopback under which it may be addressed; ``ready``, ``counters`` and ``gauges`` add what else the process does to
    /readyz and /metrics; ``timeout_s`` bounds every query. Where it ``is_open`` everybody may do everything, else
    people sign in; the audit log is kept for ``keep_audit``. ``devices`` is told to devices that enrol; without it
    none can; ``provider`` is an OpenID Connect one to sign in with. ``privacy`` says when research is answered.
    """
    privacy = privacy or PrivacyConfig()
    audit = AuditLog(store, clock, keep_audit)
    accounts = Accounts(store, audit, clock)
    oidc = OidcSignIn(provider, store, accounts, audit, clock) if provider is not None else None
    live = LiveHub(store, clock)
    keeper = Keeper(store, audit, clock)
    api = Context(
        store=store,
        live=live,
        accounts=accounts,
        audit=audit,
        clock=clock,
        timeout_s=timeout_s,
        replay=replay,
        ready=ready,
        counters=counters,
        gauges=gauges,
        oidc=oidc,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with audit.running(), live.running(), keeper.running():
            yield

    app = FastAPI(title="Meterway", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.live = live
    app.state.accounts = accounts
    for router in (
        readings_router,
        meters_router,
        signing_keys_router,
        completeness_router,
        kept_aside_router,
        system_router,
        account_router,
        oidc_router,
        people_router,
        audit_router,
    ):
        app.include_router(router(api))
    app.include_router(privacy_router(api, keeper))
    app.include_router(consents_router(api, k=privacy.k, dominance_share=privacy.dominance_share))
    desk = Desk(api, devices)
    for device_router in (enrolment_router, devices_router):
        app.include_router(device_router(desk))
    add_pages(app)
    add_access_pages(app, api)
    add_page(app, "/devices", "devices.html")
    add_page(app, "/privacy", "privacy.html")
    openapi.document(app, _KINDS)
    _add_problems(app)
    if not is_open:
        app.add_middleware(Access, accounts=accounts, oidc=oidc)
    app.add_middleware(Guard, hosts=tuple(hosts))
    app.add_middleware(RequestCounter, requests=api.requests)
    return app


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(HttpError)
    async def on_http_error(_: Request, error: HttpError) -> Response:
        return error.response()

    @app.exception_handler(BadDataError)
    async def on_bad_data(_: Request, error: BadDataError) -> Response:
        return problem_response(422, str(error), reason=error.reason)

    @app.exception_handler(RequestValidationError)
    async def on_bad_parameter(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return problem_response(422, f"`{name}`: {first['msg']}. See /openapi.json.", reason="bad-parameter")

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return problem_response(error.status_code, _sentence(request, error), headers=headers)

    @app.exception_handler(Exception)
    async def on_defect(request: Request, error: Exception) -> Response:
        _log.error("! %s %s: %s", request.method, request.url.path[:200], type(error).__name__)
        return problem_response(
            500, "This is a defect of Meterway; the server's log says more. Please report it.", reason="defect"
        )


def _sentence(request: Request, error: HTTPException) -> str:
    if error.status_code == 404:  # noqa: PLR2004
        return f"There is nothing at {request.url.path[:200]}; /openapi.json lists what there is."
    if error.status_code == 405:  # noqa: PLR2004
        allowed = Headers(dict(error.headers or {})).get("allow", "another method")
        return f"{request.method} is not possible at {request.url.path[:200]}; use {allowed}."
    return str(error.detail)
