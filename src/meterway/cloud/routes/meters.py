"""``/v1/meters``, curves, and the live stream."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from msgspec import UNSET

from meterway.cloud import openapi
from meterway.cloud.access import rules
from meterway.cloud.access.viewer import viewer
from meterway.cloud.context import Context, body_of, checked_meter_id, json_answer, no_meter
from meterway.cloud.curve import (
    CurveAnswer,
    Day,
    choose_sources,
    curve_answer,
    local_day,
    register_sources,
    select_curve,
    select_registers,
    select_total,
    total_answer,
)
from meterway.cloud.live import CHANNEL, EventStream
from meterway.cloud.meters import (
    DEFAULT_METERS,
    LIMIT_METERS,
    MeterAnswer,
    MeterChange,
    MeterList,
    change_meter,
    meter_answer,
    parse_change,
    select_meter,
    select_meters,
)
from meterway.cloud.problems import HttpError
from meterway.cloud.query import Statement
from meterway.cloud.store import Row
from meterway.core.errors import BadDataError

MeterId = Annotated[str, Path(description="As in the topic: letters, digits, `_` and `-`")]
DayText = Annotated[str | None, Query(description="YYYY-MM-DD; today without it")]
Zone = Annotated[str, Query(description="IANA time zone whose day it is")]

_METER = {
    "meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff",
    "name": "Flat 3",
    "claimed": True,
    "householdId": 1,
    "state": "online",
    "stateDetail": None,
    "physicalMeterClass": "ELECTRICITY",
    "protocol": "sml",
    "says": None,
    "intervalS": 1,
    "lateAfterS": 60,
    "concentratorId": "cellar",
    "firstSeenTime": "2026-11-01T07:00:00Z",
    "lastReading": {
        "readingId": "019ab000-0000-7000-8000-0000000011aa",
        "readingTime": "2026-11-23T09:15:00Z",
        "storedTime": "2026-11-23T09:15:00.04Z",
        "sequenceNumber": 4711,
        "faultCode": None,
        "propertyValues": [{"propertyName": "OBIS_1.7.0", "numericalValue": 0.412, "unit": "kW"}],
    },
}
_CURVE = {
    "meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff",
    "day": "2026-11-23",
    "zone": "Europe/Berlin",
    "start": "2026-11-22T23:00:00Z",
    "end": "2026-11-23T23:00:00Z",
    "unit": "kW",
    "source": "measured",
    "stepS": 60,
    "times": [1795388400, 1795388460],
    "lines": [{"propertyNames": ["OBIS_1.7.0"], "direction": "import", "values": [0.412, 0.398]}],
    "registers": [
        {"propertyName": "OBIS_1.8.0", "direction": "import", "unit": "kWh", "first": 12345.678, "last": 12345.71}
    ],
}


def meters_router(api: Context) -> APIRouter:
    """Return the routes of the meters."""
    router = APIRouter(tags=["meters"])

    @router.get(
        "/v1/meters",
        summary="List meters",
        responses=openapi.answers(
            MeterList, "Meters with state and last reading", {"content": [_METER], "nextAfter": None}
        ),
        response_class=Response,
    )
    async def list_meters(
        limit: Annotated[int, Query(ge=1, le=LIMIT_METERS)] = DEFAULT_METERS,
        after: Annotated[str, Query(max_length=64, description="`nextAfter` of the page before")] = "",
    ) -> Response:
        """List the meters, ordered by id."""
        rows = await api.fetch(select_meters(after.replace("\0", ""), limit + 1))
        now = api.clock()
        content = tuple(meter_answer(row, now) for row in rows[:limit])
        api.audit.note("read", "meters", {"after": after, "shown": len(content)})
        return json_answer(MeterList(content=content, next_after=content[-1].meter_id if len(rows) > limit else None))

    @router.get(
        "/v1/meters/{meter_id}",
        summary="Show a meter",
        responses=openapi.answers(MeterAnswer, "The meter", _METER),
        response_class=Response,
    )
    async def show_meter(meter_id: MeterId) -> Response:
        """Show one meter."""
        api.audit.note("read", meter_id)
        return json_answer(meter_answer(await _meter_row(api, meter_id), api.clock()))

    @router.patch(
        "/v1/meters/{meter_id}",
        summary="Claim or name a meter",
        responses=openapi.answers(MeterAnswer, "The meter as it is now", _METER),
        openapi_extra=openapi.accepts(MeterChange, {"claimed": True, "name": "Flat 3", "householdId": 1}),
        response_class=Response,
    )
    async def update_meter(meter_id: MeterId, request: Request) -> Response:
        """Change what is given; the rest stays."""
        change = parse_change(await body_of(request))
        if change.household_id is not UNSET and "people" not in rules.permissions(viewer.get()):
            raise HttpError(403, "Households need the permission `people` too.", reason="not-permitted")
        rows = await _changed(api, checked_meter_id(meter_id), change)
        if not rows:
            raise no_meter(meter_id)
        api.audit.note("changed", meter_id, change)
        await api.fetch(Statement("select pg_notify($1, $2)", (CHANNEL, str(rows[0]["meter_key"]))))
        return json_answer(meter_answer(await _meter_row(api, meter_id), api.clock()))

    @router.get(
        "/v1/meters/{meter_id}/curve",
        summary="Curve of a day",
        responses=openapi.answers(CurveAnswer, "At most 1500 points", _CURVE),
        response_class=Response,
    )
    async def show_curve(meter_id: MeterId, day: DayText = None, zone: Zone = "UTC") -> Response:
        """Return power (electricity, heat) or flow (gas, water) over a local day of 23 to 25 hours."""
        local = local_day(day, zone, api.clock())
        row = await _meter_row(api, meter_id)
        api.audit.note("read", meter_id, {"curve": local.day})
        return json_answer(await _curve(api, row, local))

    @router.get(
        "/v1/curve",
        summary="Curve of a day, all electricity meters together",
        responses=openapi.answers(CurveAnswer, "Net power every five minutes", {**_CURVE, "meterId": None}),
        response_class=Response,
    )
    async def show_total_curve(day: DayText = None, zone: Zone = "UTC") -> Response:
        """Return the net power of the electricity meters that send their power: the first hundred that appeared."""
        now = api.clock()
        local = local_day(day, zone, now)
        api.audit.note("read", "meters", {"curve": local.day})
        return json_answer(total_answer(local, list(await api.fetch(select_total(local, now)))))

    @router.get(
        "/v1/live",
        tags=["live"],
        summary="Live stream",
        responses={
            200: {
                "description": "Server-sent events: `meters` with what changed, at most four a second, and `heartbeat`",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **openapi.problems(),
        },
        response_class=Response,
    )
    async def stream_live() -> Response:
        """Stream what changes, until the client leaves."""
        who = viewer.get()
        api.audit.note("read", "live")
        return EventStream(api.live, who, lambda: api.accounts.still(who))

    return router


async def _meter_row(api: Context, meter_id: str) -> Row:
    rows = await api.fetch(select_meter(checked_meter_id(meter_id)))
    if not rows:
        raise no_meter(meter_id)
    return rows[0]


async def _changed(api: Context, meter_id: str, change: MeterChange) -> list[Row]:
    try:
        return await api.fetch(change_meter(meter_id, change))
    except BadDataError as error:
        if error.reason != "refused-by-database" or not isinstance(change.household_id, int):
            raise
        sentence = f"The meter's tenant has no household {change.household_id}; /v1/households lists them."
        raise HttpError(404, sentence, reason="no-household") from error


async def _curve(api: Context, row: Row, day: Day) -> CurveAnswer:
    key, ids, units = row["meter_key"], row["property_ids"], row["units"]
    sources, registers = choose_sources(ids, units), register_sources(ids, units)
    rows = await api.fetch(select_curve(key, day, sources)) if sources else []
    ends = await api.fetch(select_registers(key, day, registers)) if registers else []
    return curve_answer(row["meter_id"], day, sources, list(rows), list(ends))
