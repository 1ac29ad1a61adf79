"""``/v1/quarantine``, ``/v1/faults``, ``/v1/conflicts``: what did not become a reading, and the way back."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from meterway.cloud import openapi
from meterway.cloud.context import Context, ReplayAnswer, body_of, json_answer
from meterway.cloud.kept_aside import (
    DEFAULT_ITEMS,
    LIMIT_ITEMS,
    ConflictItem,
    ConflictList,
    FaultItem,
    FaultList,
    QuarantineDetail,
    QuarantineItem,
    QuarantineList,
    ReplayRequest,
    item,
    parse_replay,
    select_conflicts,
    select_faults,
    select_quarantine,
    select_quarantined,
)
from meterway.cloud.problems import HttpError

Limit = Annotated[int, Query(ge=1, le=LIMIT_ITEMS)]
Before = Annotated[int | None, Query(ge=1, lt=2**63, description="`nextBefore` of the page before")]
ItemId = Annotated[int, Path(ge=1, lt=2**63)]

_TOPIC = "concentrator/cellar/smartMeterMessage/bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff/readings"
_QUARANTINED = {
    "id": 7,
    "topic": _TOPIC,
    "reason": "naive-time",
    "message": "readingTime 2026-11-23T10:15:00 has no zone",
    "sizeBytes": 412,
    "seenCount": 1,
    "receivedTime": "2026-11-23T09:15:00Z",
    "preview": '{"readingTime": "2026-11-23T10:15:00", ...',
}
_FAULT = {
    "id": 3,
    "concentratorId": "cellar",
    "meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff",
    "faultTime": "2026-11-23T09:14:58Z",
    "reason": "bad-checksum",
    "message": "the checksum is 1a2b, the telegram says 1a2c",
    "preview": "/EXA5...",
    "receivedTime": "2026-11-23T09:15:00Z",
}
_CONFLICT = {
    "id": 1,
    "meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff",
    "readingTime": "2026-11-23T09:15:00Z",
    "readingId": "019ab000-0000-7000-8000-0000000011aa",
    "topic": _TOPIC,
    "preview": '{"meterReadingIdentifier": ...',
    "receivedTime": "2026-11-23T09:15:02Z",
}


def kept_aside_router(api: Context) -> APIRouter:
    """Return the routes of what was kept aside."""
    router = APIRouter(tags=["kept aside"])

    @router.get(
        "/v1/quarantine",
        summary="List quarantined messages",
        responses=openapi.answers(QuarantineList, "Newest first", {"content": [_QUARANTINED], "nextBefore": None}),
        response_class=Response,
    )
    async def list_quarantine(limit: Limit = DEFAULT_ITEMS, before: Before = None) -> Response:
        """List the messages that could not be understood, with the reason."""
        api.audit.note("read", "quarantine", {"before": before})
        rows = await api.fetch(select_quarantine(before, limit + 1))
        content = tuple(item(row, QuarantineItem) for row in rows[:limit])
        return json_answer(QuarantineList(content=content, next_before=content[-1].id if len(rows) > limit else None))

    @router.get(
        "/v1/quarantine/{item_id}",
        summary="Show a quarantined message",
        responses=openapi.answers(QuarantineDetail, "With its bytes", {**_QUARANTINED, "payload": "eyJyZWFkaW5n"}),
        response_class=Response,
    )
    async def show_quarantined(item_id: ItemId) -> Response:
        """Show one message with its bytes."""
        api.audit.note("read", f"quarantine/{item_id}")
        rows = await api.fetch(select_quarantined(item_id))
        if not rows:
            raise HttpError(404, f"Nothing in quarantine has the id {item_id}; it may have been replayed.")
        return json_answer(item(rows[0], QuarantineDetail))

    @router.post(
        "/v1/quarantine/replay",
        summary="Try quarantined messages again",
        responses=openapi.answers(ReplayAnswer, "What became of them", {"accepted": 1, "rejected": 1}),
        openapi_extra=openapi.accepts(ReplayRequest, {"ids": [7, 8]}),
        response_class=Response,
    )
    async def replay_quarantine(request: Request) -> Response:
        """Decide messages anew, after a fix; what is still not understood stays, with the reason of this time."""
        wanted = parse_replay(await body_of(request))
        api.audit.note("changed", "quarantine", {"replayed": wanted.ids[:100], "count": len(wanted.ids)})
        return json_answer(await api.replayed(wanted.ids))

    @router.get(
        "/v1/faults",
        summary="List faults",
        responses=openapi.answers(FaultList, "Newest first", {"content": [_FAULT], "nextBefore": None}),
        response_class=Response,
    )
    async def list_faults(limit: Limit = DEFAULT_ITEMS, before: Before = None) -> Response:
        """List the telegrams that adapters and concentrators rejected."""
        api.audit.note("read", "faults", {"before": before})
        rows = await api.fetch(select_faults(before, limit + 1))
        content = tuple(item(row, FaultItem) for row in rows[:limit])
        return json_answer(FaultList(content=content, next_before=content[-1].id if len(rows) > limit else None))

    @router.get(
        "/v1/conflicts",
        summary="List conflicts",
        responses=openapi.answers(ConflictList, "Newest first", {"content": [_CONFLICT], "nextBefore": None}),
        response_class=Response,
    )
    async def list_conflicts(limit: Limit = DEFAULT_ITEMS, before: Before = None) -> Response:
        """List the readings whose identifier was taken by one with another content."""
        api.audit.note("read", "conflicts", {"before": before})
        rows = await api.fetch(select_conflicts(before, limit + 1))
        content = tuple(item(row, ConflictItem) for row in rows[:limit])
        return json_answer(ConflictList(content=content, next_before=content[-1].id if len(rows) > limit else None))

    return router
