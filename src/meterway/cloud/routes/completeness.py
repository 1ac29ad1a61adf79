"""``/v1/completeness`` and that of one meter: which readings are missing, and why."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from meterway.cloud import openapi
from meterway.cloud.context import Context, checked_meter_id, json_answer, no_meter
from meterway.cloud.ledger_answers import CompletenessAnswer, CompletenessList, span_of
from meterway.cloud.ledger_look import look
from meterway.cloud.ledger_query import MeterRow, rows_as, select_backlog, select_meter, select_meters
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Row

DEFAULT_METERS = 100
LIMIT_METERS = 200

FirstDay = Annotated[str | None, Query(alias="from", max_length=40, description="The first day (UTC), YYYY-MM-DD")]
LastDay = Annotated[str | None, Query(alias="to", max_length=40, description="The last day, today without it")]

_GAP = {
    "start": "2026-11-23T09:00:00Z",
    "end": "2026-11-23T10:00:00Z",
    "kind": "not-read",
    "cause": "adapter-off",
    "missing": 3,
    "detail": "the adapter was stopped",
    "firstSequenceNumber": None,
    "lastSequenceNumber": None,
}
_COUNTS = {"expected": 96, "stored": 93, "missing": 3, "lost": 0, "percent": 96.87, "gaps": [_GAP]}
_SUMMARY = {"meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff", "name": "Flat 3", "intervalS": 900, **_COUNTS}
_SPAN = {"firstDay": "2026-11-23", "lastDay": "2026-11-23", "asOf": "2026-11-24T08:00:00Z"}


def completeness_router(api: Context) -> APIRouter:
    """Return the routes of the delivery ledger."""
    router = APIRouter(tags=["completeness"])

    @router.get(
        "/v1/meters/{meter_id}/completeness",
        summary="Completeness of a meter, day by day",
        responses=openapi.answers(
            CompletenessAnswer,
            "Days of UTC, with the gaps of each",
            {**_SPAN, "total": _SUMMARY, "days": [{"day": "2026-11-23", **_COUNTS}]},
        ),
        response_class=Response,
    )
    async def show_completeness(
        meter_id: Annotated[str, Path(description="As in the topic")],
        first_day: FirstDay = None,
        last_day: LastDay = None,
    ) -> Response:
        """Tell how many readings of each day were expected, stored and missing, and why. At most 366 days."""
        span = span_of(first_day, last_day, api.clock())
        await _enter(api)
        meters = rows_as(map(Row.items, await api.fetch(select_meter(checked_meter_id(meter_id)))), MeterRow)
        if not meters:
            raise no_meter(meter_id)
        api.audit.note("read", meter_id, {"completeness": (span.first, span.last)})
        (found,) = await look(api.fetch, meters, span)
        return json_answer(
            CompletenessAnswer(
                first_day=span.first, last_day=span.last, as_of=span.now, total=found.total, days=found.days
            )
        )

    @router.get(
        "/v1/completeness",
        summary="Completeness of all meters",
        responses=openapi.answers(
            CompletenessList, "Meters, each over all days", {**_SPAN, "content": [_SUMMARY], "nextAfter": None}
        ),
        response_class=Response,
    )
    async def list_completeness(
        first_day: FirstDay = None,
        last_day: LastDay = None,
        limit: Annotated[int, Query(ge=1, le=LIMIT_METERS)] = DEFAULT_METERS,
        after: Annotated[str, Query(max_length=64, description="`nextAfter` of the page before")] = "",
    ) -> Response:
        """Tell the same of all meters, ordered by id, each over all days together."""
        span = span_of(first_day, last_day, api.clock())
        api.audit.note("read", "meters", {"completeness": (span.first, span.last)})
        await _enter(api)
        rows = await api.fetch(select_meters(after.replace("\0", ""), limit + 1))
        meters = rows_as(map(Row.items, rows[:limit]), MeterRow)
        content = tuple(each.total for each in await look(api.fetch, meters, span))
        return json_answer(
            CompletenessList(
                first_day=span.first,
                last_day=span.last,
                as_of=span.now,
                content=content,
                next_after=content[-1].meter_id if len(rows) > limit else None,
            )
        )

    return router


async def _enter(api: Context) -> None:
    """See that the ledger knows all that is stored.

    Raises:
        HttpError: 503, the time before the ledger is still being entered, or the database is away.
    """
    if await api.fetch(select_backlog()):
        raise HttpError(
            503,
            "What was stored before the last upgrade is still being entered into the ledger; try again in a while.",
            reason="ledger-building",
            headers={"Retry-After": "30"},
        )
    await api.enter_arrivals()
