"""``/v1/audit``: who read, changed, exported, deleted."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from meterway.cloud import openapi
from meterway.cloud.access.audit_query import (
    DEFAULT_ENTRIES,
    LIMIT_ENTRIES,
    AuditFilter,
    AuditList,
    entry,
    select_audit,
)
from meterway.cloud.context import Context, json_answer
from meterway.core.errors import BadDataError

Text = Annotated[str | None, Query(max_length=200)]
Moment = Annotated[str | None, Query(max_length=40, description="RFC 3339 with zone")]

_ENTRY = {
    "id": 17,
    "time": "2026-11-23T09:15:00Z",
    "actor": "ada",
    "action": "read",
    "subject": "readings",
    "detail": {"meterIds": ["bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"]},
}


def audit_router(api: Context) -> APIRouter:
    """Return the route of the audit log."""
    router = APIRouter(tags=["audit"])

    @router.get(
        "/v1/audit",
        summary="Who did what",
        responses=openapi.answers(AuditList, "Newest first", {"content": [_ENTRY], "nextBefore": None}),
        response_class=Response,
    )
    async def list_audit(
        *,
        actor: Text = None,
        action: Text = None,
        subject: Text = None,
        start: Annotated[Moment, Query(alias="from")] = None,
        end: Annotated[Moment, Query(alias="to")] = None,
        limit: Annotated[int, Query(ge=1, le=LIMIT_ENTRIES)] = DEFAULT_ENTRIES,
        before: Annotated[int | None, Query(ge=1, lt=2**63, description="`nextBefore` of the page before")] = None,
    ) -> Response:
        """List who read, changed, exported and deleted what, and who signed in or tried to."""
        wanted = _filter(actor=actor, action=action, subject=subject, start=start, end=end)
        await api.in_time(api.audit.flush())
        rows = await api.fetch(select_audit(wanted, before, limit + 1))
        content = tuple(map(entry, rows[:limit]))
        api.audit.note("read", "audit", wanted)
        return json_answer(AuditList(content=content, next_before=content[-1].id if len(rows) > limit else None))

    return router


def _filter(**given: str | None) -> AuditFilter:
    texts = {name: None if text is None else text.replace("\0", "") for name, text in given.items()}
    try:
        return msgspec.convert({name: text for name, text in texts.items() if text}, AuditFilter, strict=False)
    except msgspec.ValidationError as error:
        raise BadDataError(f"`from` or `to` is no moment: {error}.", reason="bad-time") from error
