"""``/v1/accounts``, ``/v1/tenants``, ``/v1/households``: who may sign in, and who lives where."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from msgspec import UnsetType

from meterway.cloud import openapi
from meterway.cloud.access import people_query, rules
from meterway.cloud.access.accounts import LINK_LIFE
from meterway.cloud.access.people import (
    LIMIT_PAGE,
    AccountAnswer,
    AccountChange,
    AccountList,
    AccountNew,
    ConcentratorGiven,
    HouseholdAnswer,
    HouseholdList,
    HouseholdMeter,
    HouseholdNew,
    LinkAnswer,
    ResidentAnswer,
    ResidentChange,
    ResidentNew,
    TenantAnswer,
    TenantList,
    TenantNew,
    answer,
    check_login,
    check_name,
    parse,
)
from meterway.cloud.access.viewer import Role, viewer
from meterway.cloud.context import Context, body_of, json_answer
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Row
from meterway.core.topics import check_id

Limit = Annotated[int, Query(ge=1, le=LIMIT_PAGE)]
Login = Annotated[str, Path(max_length=128)]
HouseholdId = Annotated[int, Path(ge=1, lt=2**31)]

_ACCOUNT = {
    "login": "ada",
    "name": "Ada",
    "role": "member",
    "tenantId": "main",
    "disabled": False,
    "createdTime": "2026-11-23T07:00:00Z",
    "lastSignInTime": None,
}
_LINK = {"login": "ada", "link": "/link/...", "expiresTime": "2026-11-24T07:00:00Z"}
_TENANT = {"tenantId": "main", "name": "Main", "meters": 120, "accounts": 4, "concentrators": 2}
_HOUSEHOLD = {
    "householdId": 1,
    "name": "River Lane 3",
    "tenantId": "main",
    "residents": [{"login": "ada", "name": "Ada", "fromTime": "2026-11-01T00:00:00Z", "untilTime": None}],
    "meters": [{"meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff", "name": "Flat 3"}],
}


def people_router(api: Context) -> APIRouter:
    """Return the routes of people."""
    router = APIRouter(tags=["people"])
    _add_accounts(router, api)
    _add_tenants(router, api)
    _add_households(router, api)
    return router


def _add_accounts(router: APIRouter, api: Context) -> None:
    @router.get(
        "/v1/accounts",
        summary="List accounts",
        responses=openapi.answers(AccountList, "Ordered by login", {"content": [_ACCOUNT], "nextAfter": None}),
        response_class=Response,
    )
    async def list_accounts(limit: Limit = 200, after: Annotated[str, Query(max_length=128)] = "") -> Response:
        """List the accounts of the own tenant."""
        api.audit.note("read", "accounts", {"after": after})
        rows = await api.fetch(people_query.select_accounts(after.replace("\0", ""), limit + 1))
        content = tuple(answer(row, AccountAnswer) for row in rows[:limit])
        return json_answer(AccountList(content=content, next_after=content[-1].login if len(rows) > limit else None))

    @router.post(
        "/v1/accounts",
        summary="Invite somebody",
        responses=openapi.answers(LinkAnswer, "The link to send them", _LINK),
        openapi_extra=openapi.accepts(AccountNew, {"login": "ada", "role": "member"}),
        response_class=Response,
    )
    async def add_account(request: Request) -> Response:
        """Make an account, and a one-time link with which its owner sets name and password."""
        body = parse(await body_of(request), AccountNew)
        _may_give(body.role)
        login = check_login(body.login)
        tenant_id = await _tenant_of(api, body.tenant_id)
        if tenant_id is None and body.role == "member":
            tenant_id = "main"  # who lives somewhere is somebody's
        rows = await api.fetch_all(people_query.add_account(login, check_name(body.name), body.role, tenant_id))
        if not rows:
            raise HttpError(
                409, f"The login {login} is taken, or there is no tenant {tenant_id}.", reason="login-taken"
            )
        api.audit.note("changed", f"account/{login}", {"made": body.role, "tenant": tenant_id})
        return await _linked(api, login)

    @router.patch(
        "/v1/accounts/{login}",
        summary="Change an account",
        responses=openapi.answers(AccountAnswer, "The account as it is now", _ACCOUNT),
        openapi_extra=openapi.accepts(AccountChange, {"disabled": True}),
        response_class=Response,
    )
    async def change_account(login: Login, request: Request) -> Response:
        """Change name or role of somebody else, or disable the account: then its sessions and tokens end at once."""
        change = parse(await body_of(request), AccountChange)
        if isinstance(change.name, str):
            check_name(change.name)
        _may_give(change.role)
        if login == viewer.get().actor:
            raise HttpError(409, "This is your own account; let another operator change it.", reason="own-account")
        rows = await api.fetch_all(people_query.change_account(viewer.get(), login.replace("\0", ""), change))
        if not rows:
            raise _no_account(login)
        api.audit.note("changed", f"account/{login}", change)
        return json_answer(answer(rows[0], AccountAnswer))

    @router.post(
        "/v1/accounts/{login}/link",
        summary="Make a new link",
        responses=openapi.answers(LinkAnswer, "The link to send them", _LINK),
        response_class=Response,
    )
    async def make_link(login: Login) -> Response:
        """Make a one-time link for a forgotten password; older links end."""
        _may_give("operator")  # whatever the role of the account is: who has the link is in
        linked = await _linked(api, login.replace("\0", ""))
        api.audit.note("changed", f"account/{login}", {"made": "link"})
        return linked


def _add_tenants(router: APIRouter, api: Context) -> None:
    @router.get(
        "/v1/tenants",
        summary="List tenants",
        responses=openapi.answers(TenantList, "Those one may see", {"content": [_TENANT]}),
        response_class=Response,
    )
    async def list_tenants() -> Response:
        """List the tenants: all, or the own one."""
        rows = await api.fetch(people_query.select_tenants())
        return json_answer(TenantList(content=tuple(answer(row, TenantAnswer) for row in rows)))

    @router.post(
        "/v1/tenants",
        summary="Add a tenant",
        responses=openapi.answers(TenantAnswer, "The tenant", _TENANT),
        openapi_extra=openapi.accepts(TenantNew, {"tenantId": "north", "name": "North Energy"}),
        response_class=Response,
    )
    async def add_tenant(request: Request) -> Response:
        """Add a tenant; only operators of all tenants may."""
        _of_all_tenants()
        body = parse(await body_of(request), TenantNew)
        rows = await api.fetch_all(people_query.add_tenant(body.tenant_id, check_name(body.name)))
        if not rows:
            raise HttpError(409, f"There is a tenant {body.tenant_id} already.", reason="tenant-taken")
        api.audit.note("changed", f"tenant/{body.tenant_id}", {"made": True})
        return json_answer(answer(rows[0], TenantAnswer))

    @router.post(
        "/v1/tenants/{tenant_id}/concentrators",
        summary="Give a concentrator to a tenant",
        responses=openapi.answers(TenantList, "The tenants as they are now", {"content": [_TENANT]}),
        openapi_extra=openapi.accepts(ConcentratorGiven, {"concentratorId": "cellar"}),
        response_class=Response,
    )
    async def give_concentrator(tenant_id: Annotated[str, Path(max_length=32)], request: Request) -> Response:
        """Give a concentrator to a tenant, with the meters that are heard through it: they leave their households."""
        _of_all_tenants()
        body = parse(await body_of(request), ConcentratorGiven)
        concentrator_id = check_id(body.concentrator_id, "concentrator id")
        rows = await api.fetch_all(people_query.give_concentrator(tenant_id.replace("\0", ""), concentrator_id))
        if not rows:
            raise HttpError(404, f"There is no tenant {tenant_id}.", reason="no-tenant")
        moved = {"concentrator": concentrator_id, "metersMoved": rows[0]["meters"]}
        api.audit.note("changed", f"tenant/{tenant_id}", moved)
        return await list_tenants()


def _add_households(router: APIRouter, api: Context) -> None:
    @router.get(
        "/v1/households",
        summary="List households",
        responses=openapi.answers(HouseholdList, "Ordered by number", {"content": [_HOUSEHOLD], "nextAfter": None}),
        response_class=Response,
    )
    async def list_households(limit: Limit = 200, after: Annotated[int, Query(ge=0, lt=2**31)] = 0) -> Response:
        """List the households with who lives there and their meters."""
        api.audit.note("read", "households", {"after": after})
        rows = await api.fetch(people_query.select_households(after, limit + 1))
        content = await _households(api, rows[:limit])
        next_after = content[-1].household_id if len(rows) > limit else None
        return json_answer(HouseholdList(content=content, next_after=next_after))

    @router.post(
        "/v1/households",
        summary="Add a household",
        responses=openapi.answers(HouseholdAnswer, "The household", {**_HOUSEHOLD, "residents": [], "meters": []}),
        openapi_extra=openapi.accepts(HouseholdNew, {"name": "River Lane 3"}),
        response_class=Response,
    )
    async def add_household(request: Request) -> Response:
        """Add a household; ``PATCH /v1/meters/{meterId}`` gives it its meters."""
        body = parse(await body_of(request), HouseholdNew)
        rows = await api.fetch_all(people_query.add_household(viewer.get(), check_name(body.name), body.tenant_id))
        if not rows:
            raise HttpError(
                409,
                f"There is a household {body.name!r} already, or no tenant {body.tenant_id} of yours.",
                reason="household-taken",
            )
        api.audit.note("changed", f"household/{rows[0]['household_id']}", {"made": True})
        return json_answer((await _households(api, rows))[0])

    @router.post(
        "/v1/households/{household_id}/residents",
        summary="Have somebody live in a household",
        responses=openapi.problems(),
        openapi_extra=openapi.accepts(ResidentNew, {"login": "ada", "fromTime": "2026-11-01T00:00:00+01:00"}),
        status_code=204,
    )
    async def add_resident(household_id: HouseholdId, request: Request) -> Response:
        """Say from when on (and until when) somebody lives there: they see its meters in that time only."""
        body = parse(await body_of(request), ResidentNew)
        if body.until_time is not None and body.until_time <= body.from_time:
            raise HttpError(422, "`untilTime` must be later than `fromTime`.", reason="bad-time")
        login = check_login(body.login)
        if not await api.fetch_all(people_query.add_resident(viewer.get(), household_id, login, body)):
            raise HttpError(
                404, f"There is no household {household_id} and account {login} of one tenant.", reason="no-household"
            )
        api.audit.note("changed", f"household/{household_id}", body)
        return Response(status_code=204)

    @router.patch(
        "/v1/households/{household_id}/residents/{login}",
        summary="Have somebody move out",
        responses=openapi.problems(),
        openapi_extra=openapi.accepts(ResidentChange, {"untilTime": "2026-12-01T00:00:00+01:00"}),
        status_code=204,
    )
    async def end_residence(household_id: HouseholdId, login: Login, request: Request) -> Response:
        """Say until when somebody lives there."""
        body = parse(await body_of(request), ResidentChange)
        statement = people_query.end_residence(viewer.get(), household_id, login.replace("\0", ""), body.until_time)
        if not await api.fetch_all(statement):
            raise HttpError(
                404, f"{login} does not live in household {household_id}, or moved in later.", reason="no-resident"
            )
        api.audit.note("changed", f"household/{household_id}", {"login": login, "until": body.until_time})
        return Response(status_code=204)


async def _households(api: Context, rows: list[Row]) -> tuple[HouseholdAnswer, ...]:
    keys = [row["household_id"] for row in rows]
    residents = await api.fetch(people_query.select_residents(keys))
    meters = await api.fetch(people_query.select_household_meters(keys))
    return tuple(
        answer(
            row,
            HouseholdAnswer,
            residents=tuple(answer(r, ResidentAnswer) for r in residents if r["household_key"] == row["household_id"]),
            meters=tuple(answer(m, HouseholdMeter) for m in meters if m["household_key"] == row["household_id"]),
        )
        for row in rows
    )


async def _linked(api: Context, login: str) -> Response:
    rows = await api.fetch_all(people_query.select_account_key(viewer.get(), login))
    if not rows:
        raise _no_account(login)
    secret = await api.in_time(api.accounts.make_link(rows[0]["account_key"]))
    return json_answer(LinkAnswer(login=login, link=f"/link/{secret}", expires_time=api.clock() + LINK_LIFE))


async def _tenant_of(api: Context, tenant_id: str | None) -> str | None:
    """Return the tenant that a new account is of: the own one, or as an operator of all tenants whichever is named.

    Raises:
        HttpError: 403, it is another's.
    """
    who = viewer.get()
    if who.tenant_key is None:
        return tenant_id
    own = str((await api.fetch(people_query.select_tenants()))[0]["tenant_id"])
    if tenant_id not in (None, own):
        raise HttpError(403, f"{tenant_id} is not your tenant.", reason="not-permitted")
    return own


def _may_give(role: Role | UnsetType) -> None:
    """See that nobody gives what they do not have: a token for people would else become an operator by inviting one.

    Raises:
        HttpError: 403, the role may more than who asks.
    """
    if isinstance(role, UnsetType):
        return
    lacking = sorted(rules.ROLES[role] - rules.permissions(viewer.get()))
    if lacking:
        raise HttpError(403, f"The token lacks {', '.join(lacking)}, which this would give.", reason="not-permitted")


def _of_all_tenants() -> None:
    if viewer.get().tenant_key is not None:
        raise HttpError(403, "Only operators of all tenants may do this.", reason="not-permitted")


def _no_account(login: str) -> HttpError:
    return HttpError(404, f"There is no account {login[:80]} that is not disabled.", reason="no-account")
