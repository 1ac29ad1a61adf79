"""``/v1/meterReadings``: the query of the public specification, and its bulk download."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from meterway.cloud import openapi
from meterway.cloud.access.viewer import viewer
from meterway.cloud.answers import (
    CSV_HEADER,
    PageAnswer,
    QueryAnswer,
    ReadingAnswer,
    csv_lines,
    encoder,
    reading_answer,
)
from meterway.cloud.bulk import PARAMETERS, Kind, bulk_link, parse_bulk, select_meters
from meterway.cloud.context import Context, body_of, checked_meter_id, json_answer
from meterway.cloud.paging import encode_token, page_of, rows_of
from meterway.cloud.query import Cursor, ReadingQuery, parse_query, select_readings
from meterway.cloud.store import Row
from meterway.core.errors import BadDataError

BULK_ROWS = 1000
"""What the bulk download holds in memory at a time; no transaction stays open while a slow client reads."""
LIMIT_DELETED = 100
"""The most readings that one request deletes."""
SLICE_ROWS = 200
"""A long answer is made in slices, so that ingest and other requests go on beside it."""

_MEDIA_TYPES = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "signed": "application/x-ndjson",
}
_FILE_NAMES = {"ndjson": "meterReadings.ndjson", "csv": "meterReadings.csv", "signed": "signedReadings.ndjson"}

_QUERY = {
    "readingTimeStart": "2026-11-23T00:00:00+01:00",
    "readingTimeEnd": "2026-11-24T00:00:00+01:00",
    "meterIds": ["bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"],
    "operationalProperties": [{"specificPropertyName": "OBIS_1.8.0", "numericalValueGreaterThan": 12000}],
    "pageSize": 1,
}
_READING = {
    "readingId": "019ab000-0000-7000-8000-0000000011aa",
    "readingTime": "2026-11-23T09:15:00Z",
    "meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff",
    "sequenceNumber": 4711,
    "faultCode": None,
    "propertyValues": [{"propertyName": "OBIS_1.8.0", "numericalValue": 12345.678, "unit": "kWh"}],
}
_ANSWER = {
    "linkToBulk": "http://localhost:8080/v1/meterReadings/bulk?format=ndjson",
    "page": {"number": 1, "size": 1, "more": True, "nextPageToken": "WyJhYjQi"},
    "content": [_READING],
}


class DeletedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a deletion did."""

    deleted: int
    """How many of the readings were there; those of another tenant are not."""


def readings_router(api: Context) -> APIRouter:
    """Return the routes of the readings."""
    router = APIRouter(tags=["readings"])

    @router.post(
        "/v1/meterReadings",
        summary="Query readings",
        responses=openapi.answers(QueryAnswer, "A page of readings, in order of time", _ANSWER),
        openapi_extra=openapi.accepts(ReadingQuery, _QUERY, required=False),
        response_class=Response,
    )
    async def query_readings(request: Request) -> Response:
        """Answer the readings that match all filters; everything in the body is optional."""
        query = parse_query(await body_of(request))
        link = str(request.base_url).rstrip("/") + bulk_link(query)
        api.audit.note("read", "readings", query)
        if query.preferred_download == "bulk":
            return json_answer(QueryAnswer(link_to_bulk=link))
        return json_answer(await _answer(api, query, link))

    @router.get(
        "/v1/meterReadings/bulk",
        summary="Download all readings of a query",
        responses={
            200: {
                "description": "NDJSON: one reading, or signed payload, a line. CSV: one value a line. "
                "Meter by meter, each in time.",
                "content": {
                    "application/x-ndjson": {"schema": {"type": "string"}},
                    "text/csv": {"schema": {"type": "string"}},
                },
            },
            **openapi.problems(),
        },
        openapi_extra={"parameters": [_parameter(name, text) for name, text in PARAMETERS.items()]},
        response_class=Response,
    )
    async def download_readings(request: Request) -> Response:
        """Stream the whole result; memory stays bounded however long it is."""
        query, kind = parse_bulk(request.query_params.multi_items())
        api.audit.note("exported", "readings", query)
        pages = _pages(api, query, kind)
        first = await anext(pages, None)  # so that a query that fails is a problem, not a broken download
        return StreamingResponse(
            _encoded(first or b"", pages, kind),
            media_type=_MEDIA_TYPES[kind],
            headers={"Content-Disposition": f'attachment; filename="{_FILE_NAMES[kind]}"'},
        )

    @router.delete(
        "/v1/meterReadings",
        summary="Delete readings",
        responses=openapi.answers(DeletedAnswer, "How many there were", {"deleted": 1}),
        response_class=Response,
    )
    async def delete_readings(
        reading_ids: Annotated[list[UUID], Query(alias="id", description="`readingId` of an answer; repeat for more")],
        meter_id: Annotated[str | None, Query(alias="meterId", max_length=64, description="Only of this meter")] = None,
    ) -> Response:
        """Delete readings for good. What was deleted is no gap: it was delivered."""
        if len(reading_ids) > LIMIT_DELETED:
            raise BadDataError(f"At most {LIMIT_DELETED} readings at a time; send more requests.", reason="bad-query")
        meter_id = None if meter_id is None else checked_meter_id(meter_id)
        tenant_key = viewer.get().tenant_key
        gone = await api.in_time(api.store.delete_readings(reading_ids, meter_id=meter_id, tenant_key=tenant_key))
        for row in gone:
            what = {"reading": row["reading_identifier"], "readingTime": row["reading_time"]}
            api.audit.note("deleted", row["meter_id"], what)
        return json_answer(DeletedAnswer(deleted=len(gone)))

    return router


async def _answer(api: Context, query: ReadingQuery, link: str) -> QueryAnswer:
    page = page_of(query)
    limit = rows_of(query, page)
    rows: list[Row] = []
    if limit:
        # One row more than asked for tells whether there is another page.
        rows = await api.fetch(select_readings(query, limit + 1, offset=page.offset, after=page.after))
    end = page.rows_before() + len(rows[:limit])
    more = len(rows) > limit and (query.max_rows is None or end < query.max_rows)
    shown = rows[:limit]
    token = encode_token(query, _cursor(shown[-1], end)) if more and shown else None
    content: list[ReadingAnswer] = []
    for start in range(0, len(shown), SLICE_ROWS):
        content.extend(reading_answer(row, _names(query)) for row in shown[start : start + SLICE_ROWS])
        await asyncio.sleep(0)
    return QueryAnswer(
        link_to_bulk=link if more else QueryAnswer().link_to_bulk,
        page=PageAnswer(number=page.number, size=page.size, more=more, next_page_token=token),
        content=tuple(content),
    )


async def _pages(api: Context, query: ReadingQuery, kind: Kind) -> AsyncIterator[bytes]:
    """Yield the readings of a query, encoded, in pieces: each meter along its primary key."""
    names, left = _names(query), query.max_rows
    async for meter_key in _meter_keys(api, query):
        after: Cursor | None = None
        while left is None or left > 0:
            limit = BULK_ROWS if left is None else min(BULK_ROWS, left)
            rows = await api.fetch(
                select_readings(query, limit, after=after, meter_key=meter_key, signed=kind == "signed")
            )
            if rows:
                yield _lines(rows, names, kind)
                after = _cursor(rows[-1], len(rows))
                left = None if left is None else left - len(rows)
            if len(rows) < limit:
                break


async def _meter_keys(api: Context, query: ReadingQuery) -> AsyncIterator[int]:
    key = 0
    while rows := await api.fetch(select_meters(query, key, BULK_ROWS)):
        for row in rows:
            key = row["meter_key"]
            yield key


async def _encoded(first: bytes, pages: AsyncIterator[bytes], kind: Kind) -> AsyncIterator[bytes]:
    if kind == "csv":
        yield CSV_HEADER
    yield first
    async for page in pages:
        yield page


def _lines(rows: list[Row], names: frozenset[str], kind: Kind) -> bytes:
    if kind == "signed":
        return b"".join(row["signed_payload"] + b"\n" for row in rows)
    readings = [reading_answer(row, names) for row in rows]
    if kind == "ndjson":
        return encoder.encode_lines(readings)
    return b"".join(line for reading in readings for line in csv_lines(reading))


def _cursor(row: Row, rows: int) -> Cursor:
    return Cursor(rows, row["reading_time"], row["meter_key"], row["reading_identifier"])


def _names(query: ReadingQuery) -> frozenset[str]:
    """Return the properties to list; with an entry that compares all of them, all are listed."""
    names = [entry.specific_property_name for entry in query.operational_properties]
    return frozenset() if None in names else frozenset(name for name in names if name)


def _parameter(name: str, text: str) -> openapi.Part:
    single: openapi.Part = {"type": "string"}
    schema = {"type": "array", "items": single} if name == "meterIds" else single
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
