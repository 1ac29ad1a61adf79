"""``/v1/consents`` and ``/v1/research``: what a household allows, and the answers about many of them."""

import asyncio
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from meterway.cloud import openapi
from meterway.cloud.access.people import answer, parse
from meterway.cloud.access.viewer import viewer
from meterway.cloud.context import Context, body_of, json_answer
from meterway.cloud.privacy.answers import (
    ConsentAnswer,
    ConsentList,
    ConsentNew,
    ResearchAnswer,
    ResearchQuery,
    check_consent,
)
from meterway.cloud.privacy.disclosure import Rule
from meterway.cloud.privacy.research import Research
from meterway.cloud.privacy.statements import add_consent, revoke_consent, select_consents
from meterway.cloud.problems import HttpError

_CONSENT = {
    "consentId": 4,
    "login": "ada",
    "householdId": 1,
    "purpose": "research",
    "propertyIds": ["OBIS_1.8.0"],
    "stepS": 3600,
    "fromTime": None,
    "untilTime": None,
    "givenTime": "2026-11-23T09:15:00Z",
    "expiresTime": "2027-11-23T09:15:00Z",
    "revokedTime": None,
}
_NEW = {"householdId": 1, "propertyIds": ["OBIS_1.8.0"], "stepS": 3600, "expiresTime": "2027-11-23T09:15:00Z"}
_QUERY = {
    "propertyName": "OBIS_1.8.0",
    "fromTime": "2026-11-22T00:00:00Z",
    "untilTime": "2026-11-23T00:00:00Z",
    "stepS": 3600,
}
_ANSWER = {
    "propertyId": "OBIS_1.8.0",
    "unit": "kWh",
    "stepS": 3600,
    "isCoarsened": False,
    "content": [{"start": "2026-11-22T00:00:00Z", "households": 120, "sum": 34.250, "mean": 0.2854}],
}


def consents_router(api: Context, *, k: int, dominance_share: float) -> APIRouter:
    """Return the routes of consents and research."""
    router = APIRouter(tags=["privacy"])
    research = Research(api, Rule(k, Decimal(str(dominance_share))))
    alone = asyncio.Lock()

    @router.get(
        "/v1/consents",
        summary="List consents",
        responses=openapi.answers(ConsentList, "The own ones; of staff: those of the tenant", {"content": [_CONSENT]}),
        response_class=Response,
    )
    async def list_consents() -> Response:
        """List consents, also those that are revoked or over; a thousand at most, newest first."""
        rows = await api.fetch(select_consents())
        return json_answer(ConsentList(content=tuple(answer(row, ConsentAnswer) for row in rows)))

    @router.post(
        "/v1/consents",
        summary="Give a consent",
        responses=openapi.answers(ConsentAnswer, "The consent", _CONSENT),
        openapi_extra=openapi.accepts(ConsentNew, _NEW),
        response_class=Response,
    )
    async def give_consent(request: Request) -> Response:
        """Allow that readings of the own household are used, in sums over many households only."""
        new = check_consent(parse(await body_of(request), ConsentNew), api.clock())
        rows = await api.fetch_all(add_consent(viewer.get(), new, api.clock()))
        if not rows:
            raise HttpError(
                403, f"You never lived in household {new.household_id}: who lives there consents.", reason="not-yours"
            )
        api.audit.note("changed", f"consent/{rows[0]['consent_id']}", new)
        return json_answer(answer(rows[0], ConsentAnswer))

    @router.delete(
        "/v1/consents/{consent_id}", summary="Revoke a consent", responses=openapi.problems(), status_code=204
    )
    async def end_consent(consent_id: Annotated[int, Path(ge=1, lt=2**31)]) -> Response:
        """Revoke one of the own consents, at once."""
        if not await api.fetch_all(revoke_consent(viewer.get(), consent_id, api.clock())):
            raise HttpError(404, f"You have no consent {consent_id} that is not revoked.", reason="no-consent")
        api.audit.note("changed", f"consent/{consent_id}", {"revoked": True})
        return Response(status_code=204)

    @router.post(
        "/v1/research",
        summary="Ask about many households",
        responses=openapi.answers(ResearchAnswer, "Sums over households that consented", _ANSWER),
        openapi_extra=openapi.accepts(ResearchQuery, _QUERY),
        response_class=Response,
    )
    async def ask(request: Request) -> Response:
        """Sum one property over all households with a valid consent; refused where it would tell of few of them."""
        query = parse(await body_of(request), ResearchQuery)
        async with alone:  # one answer is noted before the next is judged
            return json_answer(await research.ask(query))

    return router
