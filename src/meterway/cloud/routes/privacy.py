"""``/v1/privacy``: all of a person's data, erasure with proof, and for how long readings are kept."""

import json
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from meterway.cloud import openapi
from meterway.cloud.access import rules
from meterway.cloud.access.people import answer, check_login, parse
from meterway.cloud.access.viewer import viewer
from meterway.cloud.context import Context, body_of, json_answer
from meterway.cloud.privacy import statements
from meterway.cloud.privacy.answers import (
    ErasureAnswer,
    ErasureDetail,
    ErasureList,
    ErasureNew,
    OwnPrivacy,
    OwnProperty,
    RequestAnswer,
    RequestList,
    Residence,
    Retention,
    RetentionList,
    RetentionRule,
    check_erasure,
    check_retention,
)
from meterway.cloud.privacy.export import Person, export
from meterway.cloud.privacy.keeper import Keeper
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Row
from meterway.cloud.store.erasure import EVER, Subject
from meterway.core.properties import catalogue

LIMIT_ERASURES = 500

ErasureId = Annotated[int, Path(ge=1, lt=2**31)]

BACKUPS = (
    "Backups of before the erasure still hold the data until they are removed. `meterway cloud restore --replace` "
    "erases again what the database that it replaces had erased; restored into an empty database, an older backup "
    "brings the data back: keep this proof, and erase again."
)

_OWN = {
    "residences": [
        {
            "householdId": 1,
            "name": "River Lane 3",
            "fromTime": "2026-11-01T00:00:00Z",
            "untilTime": None,
            "meterIds": ["bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"],
        }
    ],
    "erasureRequestedTime": None,
    "properties": [{"propertyId": "OBIS_1.8.0", "description": "Active energy import, register"}],
}
_ERASURE = {
    "erasureId": 7,
    "subjectKind": "account",
    "subjectDigest": "5e88...",
    "reason": "objection",
    "by": "nora",
    "requestedTime": "2026-11-23T09:15:00Z",
    "finishedTime": "2026-11-23T09:15:01Z",
    "counts": {"reading": 35040, "meter_day": 365, "account": 1, "session": 2, "audit": 12},
    "previousDigest": "",
    "digest": "9f86...",
}
_RETENTION = {"tenantId": "main", "rules": [{"propertyId": "OBIS_32.7.0", "keepDays": 30}]}


def privacy_router(api: Context, keeper: Keeper) -> APIRouter:
    """Return the routes of privacy."""
    router = APIRouter(tags=["privacy"])
    _add_own(router, api)
    _add_erasures(router, api, keeper)
    _add_retention(router, api)
    return router


def _add_own(router: APIRouter, api: Context) -> None:
    @router.get(
        "/v1/privacy",
        summary="What is known of me, in short",
        responses=openapi.answers(OwnPrivacy, "Where one lives, and what was asked for", _OWN),
        response_class=Response,
    )
    async def show_own() -> Response:
        """Tell where the one who asks lives and lived, and whether they asked to be erased."""
        who = viewer.get()
        rows = await api.fetch_all(statements.select_residences(who.account_key))
        asked = await api.fetch_all(statements.select_request(who))
        properties = await api.fetch_all(statements.select_properties(who.account_key))
        return json_answer(
            OwnPrivacy(
                residences=tuple(answer(row, Residence, meter_ids=tuple(row["meter_ids"])) for row in rows),
                erasure_requested_time=asked[0]["requested_time"] if asked else None,
                properties=tuple(_own_property(row["property_id"]) for row in properties),
            )
        )

    @router.get(
        "/v1/privacy/export",
        summary="Download all of a person's data",
        responses={
            200: {
                "description": "A ZIP; its README.txt says what is what",
                "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            },
            **openapi.problems(),
        },
        response_class=Response,
    )
    async def download_own(
        account: Annotated[
            str | None, Query(max_length=128, description="A login; only for operators and auditors")
        ] = None,
    ) -> Response:
        """Stream all that is known of who asks, or of an account of the tenant. A researcher gets no reading."""
        person = await _person(api, account)
        api.audit.note("exported", f"account/{person.login}")
        pieces = export(api, person)
        first = await anext(pieces)  # so that an export that fails is a problem, not a broken download
        return StreamingResponse(
            _joined(first, pieces),
            media_type="application/zip",
            headers={"Content-Disposition": 'attachment; filename="meterway-export.zip"'},
        )

    @router.post(
        "/v1/privacy/erasureRequest", summary="Ask to be erased", responses=openapi.problems(), status_code=204
    )
    async def ask_erasure() -> Response:
        """Ask the operators to erase the own account, and the readings of the time that one lived there alone."""
        who = viewer.get()
        if who.account_key is None:
            raise HttpError(409, "Nobody in particular asks: this cloud is open.", reason="open")
        await api.fetch_all(statements.request_erasure(who, api.clock()))
        api.audit.note("changed", f"account/{who.actor}", {"erasure": "requested"})
        return Response(status_code=204)

    @router.delete(
        "/v1/privacy/erasureRequest", summary="Take the request back", responses=openapi.problems(), status_code=204
    )
    async def withdraw_erasure() -> Response:
        """Stay."""
        who = viewer.get()
        await api.fetch_all(statements.withdraw_request(who))
        api.audit.note("changed", f"account/{who.actor}", {"erasure": "withdrawn"})
        return Response(status_code=204)


def _add_erasures(router: APIRouter, api: Context, keeper: Keeper) -> None:
    @router.get(
        "/v1/privacy/erasureRequests",
        summary="List who asked to be erased",
        responses=openapi.answers(
            RequestList,
            "Longest waiting first",
            {"content": [{"login": "ada", "requestedTime": "2026-11-23T09:15:00Z"}]},
        ),
        response_class=Response,
    )
    async def list_requests() -> Response:
        """List the accounts that asked to be erased; ``POST /v1/privacy/erasures`` does it."""
        rows = await api.fetch(statements.select_requests())
        return json_answer(RequestList(content=tuple(answer(row, RequestAnswer) for row in rows)))

    @router.post(
        "/v1/privacy/erasures",
        summary="Erase",
        responses=openapi.answers(ErasureAnswer, "Done, or under way if it takes longer than 20 seconds", _ERASURE),
        openapi_extra=openapi.accepts(ErasureNew, {"account": "ada", "reason": "objection"}),
        response_class=Response,
    )
    async def erase(request: Request) -> Response:
        """Delete for good a person's account and readings, or those of a household or meter; and prove it.

        Readings of the erased time are not stored again, whoever sends them.
        """
        new = check_erasure(parse(await body_of(request), ErasureNew), api.clock())
        subject, tenant_key = await _subject(api, new)
        who = viewer.get()
        key = await api.in_time(
            api.store.begin_erasure(
                subject, reason=new.reason, tenant_key=tenant_key, by_account=who.account_key, now=api.clock()
            )
        )
        api.audit.note("deleted", f"erasure/{key}", {"kind": subject.kind, "reason": new.reason})
        await keeper.erase_soon()
        (row,) = await api.fetch_all(statements.select_erasure(key))
        return json_answer(_erasure(row))

    @router.get(
        "/v1/privacy/erasures",
        summary="List erasures",
        responses=openapi.answers(ErasureList, "Newest first", {"content": [_ERASURE], "nextBefore": None}),
        response_class=Response,
    )
    async def list_erasures(
        limit: Annotated[int, Query(ge=1, le=LIMIT_ERASURES)] = 100,
        before: Annotated[int, Query(ge=1, lt=2**31, description="`nextBefore` of the page before")] = 2**31 - 1,
    ) -> Response:
        """List what was erased, with the proofs."""
        rows = await api.fetch(statements.select_erasures(before, limit + 1))
        content = tuple(map(_erasure, rows[:limit]))
        return json_answer(
            ErasureList(content=content, next_before=content[-1].erasure_id if len(rows) > limit else None)
        )

    @router.get(
        "/v1/privacy/erasures/{erasure_id}",
        summary="Verify an erasure",
        responses=openapi.answers(
            ErasureDetail,
            "With what is there now",
            {**_ERASURE, "left": {"reading": 0}, "proofHolds": True, "backups": BACKUPS},
        ),
        response_class=Response,
    )
    async def verify_erasure(erasure_id: ErasureId) -> Response:
        """Count again what was erased, and check its proof and all others."""
        rows = await api.fetch(statements.select_erasure(erasure_id))
        if not rows:
            raise HttpError(404, f"There is no erasure {erasure_id}.", reason="no-erasure")
        left = await api.in_time(api.store.recount_erased(erasure_id))
        broken = await api.in_time(api.store.broken_proof())
        return json_answer(_erasure(rows[0], ErasureDetail, left=left, proof_holds=broken is None, backups=BACKUPS))


def _add_retention(router: APIRouter, api: Context) -> None:
    @router.get(
        "/v1/privacy/retention",
        summary="For how long readings are kept",
        responses=openapi.answers(RetentionList, "What has no rule is kept for ever", {"content": [_RETENTION]}),
        response_class=Response,
    )
    async def show_retention() -> Response:
        """List the rules of each tenant."""
        return json_answer(await _retention(api))

    @router.put(
        "/v1/privacy/retention",
        summary="Change for how long readings are kept",
        responses=openapi.answers(RetentionList, "The rules as they are now", {"content": [_RETENTION]}),
        openapi_extra=openapi.accepts(Retention, _RETENTION),
        response_class=Response,
    )
    async def change_retention(request: Request) -> Response:
        """Replace the rules of a tenant. What is older is removed within the hour, for good."""
        new = check_retention(parse(await body_of(request), Retention))
        rows = await api.fetch_all(statements.set_retention(viewer.get(), new))
        if not rows:
            raise HttpError(404, f"There is no tenant {new.tenant_id}.", reason="no-tenant")
        api.audit.note("changed", f"retention/{rows[0]['tenant_id']}", new)
        return json_answer(await _retention(api))


async def _person(api: Context, login: str | None) -> Person:
    """Return whose data are asked for.

    Raises:
        HttpError: 403, somebody else's; 404, there is no such account; 409, nobody in particular asks.
    """
    who = viewer.get()
    with_readings = "read" in rules.ROLES[who.role]
    if login is None:
        if who.account_key is None:
            raise HttpError(409, "Nobody in particular asks: name an `account`.", reason="open")
        return Person(who.account_key, who.actor, with_readings)
    if who.role not in ("operator", "auditor") and login != who.actor:
        raise HttpError(403, "You may export your own data only: leave out `account`.", reason="not-permitted")
    rows = await api.fetch_all(statements.select_subject("account", check_login(login), who))
    if not rows:
        raise HttpError(404, f"There is no account {login}.", reason="no-account")
    return Person(rows[0]["key"], check_login(login), with_readings)


async def _subject(api: Context, new: ErasureNew) -> tuple[Subject, int | None]:
    """Return what to erase, and its tenant.

    Raises:
        HttpError: 404, it is not there, or another tenant's; 409, the own account.
    """
    who = viewer.get()
    start, end = new.from_time or EVER, new.until_time
    if new.account is not None:
        subject = Subject("account", check_login(new.account), EVER, None)
    elif new.household_id is not None:
        subject = Subject("household", str(new.household_id), start, end)
    else:
        subject = Subject("meter", str(new.meter_id), start, end)
    if subject.kind == "account" and subject.name == who.actor:
        raise HttpError(409, "This is your own account; let another operator erase it.", reason="own-account")
    rows = await api.fetch_all(statements.select_subject(subject.kind, subject.name, who))
    if not rows:
        raise HttpError(404, f"There is no {subject.kind} {subject.name}.", reason=f"no-{subject.kind}")
    return subject, rows[0]["tenant_key"]


async def _retention(api: Context) -> RetentionList:
    rows = await api.fetch(statements.select_retention())
    return RetentionList(
        content=tuple(
            Retention(
                tenant_id=tenant_id,
                rules=tuple(answer(row, RetentionRule) for row in group if row["property_id"] is not None),
            )
            for tenant_id, group in groupby(rows, lambda row: str(row["tenant_id"]))
        )
    )


def _own_property(property_id: str) -> OwnProperty:
    found = catalogue().find(property_id)
    return OwnProperty(property_id=property_id, description=found.description if found else "")


def _erasure(row: Row, kind: type[ErasureAnswer] = ErasureAnswer, **more: object) -> ErasureAnswer:
    return answer(row, kind, counts=json.loads(row["counts"]), **more)


async def _joined(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
