"""``/healthz``, ``/readyz`` and ``/metrics``: for those who run the server."""

from collections import Counter
from collections.abc import Mapping

from fastapi import APIRouter, Response
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meterway.cloud import openapi
from meterway.cloud.access.viewer import viewer
from meterway.cloud.context import Context
from meterway.cloud.problems import HttpError
from meterway.cloud.query import Statement

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LEDGER_WAITING = "select count(*) from (select from arrival limit $1) waiting"
_LEDGER_COUNTED = 10_000
"""Batches beyond are not counted: many seconds behind is what the number is to show."""

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


def system_router(api: Context) -> APIRouter:
    """Return the routes for operation."""
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="Alive?", responses=openapi.problems(), response_class=PlainTextResponse)
    async def show_health() -> Response:
        """Answer as long as the process does; says nothing about the database."""
        return PlainTextResponse("ok\n")

    @router.get("/readyz", summary="Ready?", responses=openapi.problems(), response_class=PlainTextResponse)
    async def show_readiness() -> Response:
        """Answer 200 when database and ingest work, else a problem 503 that says what is missing."""
        await api.fetch(Statement("select 1 from meter limit 1", ()))
        missing = api.ready()
        if missing is not None:
            raise HttpError(503, missing, reason="not-ready", headers={"Retry-After": "2"})
        return PlainTextResponse("ready\n")

    @router.get("/metrics", summary="Metrics", responses=openapi.problems(), response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Answer counters in the Prometheus text format; never with a meter's id. They count what all tenants do."""
        if not viewer.get().sees_everything:
            raise HttpError(403, "Metrics are for operators and auditors of all tenants.", reason="not-permitted")
        return PlainTextResponse(_metrics(api, await _ledger_waiting(api)), media_type=_METRICS_TYPE)

    return router


class RequestCounter:
    """ASGI middleware that counts answers by route, method and status."""

    def __init__(self, app: ASGIApp, requests: Counter[tuple[str, str, int]]) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # The pattern, never the path: paths have meter ids. Methods are whatever a stranger sends.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._requests[route, method, status or 500] += 1


async def _ledger_waiting(api: Context) -> dict[str, float]:
    """Return how many batches wait to be entered into the delivery ledger; nothing while the database is away."""
    try:
        rows = await api.fetch_all(Statement(_LEDGER_WAITING, (_LEDGER_COUNTED,)))
    except HttpError:
        return {}
    return {"ledger_waiting_batches": rows[0][0]}


def _metrics(api: Context, waiting: Mapping[str, float]) -> str:
    lines = ["# TYPE meterway_http_requests_total counter"]
    for (route, method, status), count in sorted(api.requests.items()):
        labels = f'route="{route}",method="{method}",status="{status}"'
        lines.append(f"meterway_http_requests_total{{{labels}}} {count}")
    gauges: dict[str, float] = {
        "meterway_live_clients": api.live.clients,
        **{f"meterway_{name}": value for name, value in (*api.gauges().items(), *waiting.items())},
    }
    counters = {
        "meterway_live_events_total": api.live.events,
        "meterway_live_dropped_total": api.live.dropped,
        **{f"meterway_{name}_total": count for name, count in api.counters().items()},
    }
    for kind, values in (("gauge", gauges), ("counter", counters)):
        for name, value in sorted(values.items()):
            lines.extend((f"# TYPE {name} {kind}", f"{name} {float(value):.15g}"))
    return "\n".join(lines) + "\n"
