"""``POST /v1/meterReadings`` and its bulk download on a real server and a real database."""

import csv
import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import httpx

from meterway.cloud.store import Store
from support.cloud_http import put, reading, reading_id, series, value

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
STEP = timedelta(minutes=15)


async def query(client: httpx.AsyncClient, **body: object) -> dict[str, list[dict[str, object]]]:
    answer = await client.post("/v1/meterReadings", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, list[dict[str, object]]] = answer.json()
    return found


def times(answer: dict[str, list[dict[str, object]]]) -> list[datetime]:
    return [datetime.fromisoformat(str(each["readingTime"])) for each in answer["content"]]


async def test_a_reading_is_answered_with_exactly_its_digits(store: Store, client: httpx.AsyncClient) -> None:
    values = (
        value("OBIS_1.8.0", "12345.678", "kWh"),
        value("OBIS_2.8.0", "1.2300", "kWh"),
        value("OBIS_1.7.0", "-0.050", "kW"),
        value("OBIS_C.1.0", text='meter "7", Straße'),
    )
    await put(store, reading("m1", NOON, *values, sequence_number=4711))
    answer = await client.post("/v1/meterReadings", content=b"")
    assert answer.headers["content-type"] == "application/json"
    assert '"numericalValue":12345.678,' in answer.text
    assert '"numericalValue":1.2300,' in answer.text
    assert '"numericalValue":-0.050,' in answer.text
    found = answer.json()
    assert datetime.fromisoformat(found["content"][0].pop("storedTime")) <= datetime.now(UTC)
    assert found == {
        "page": {"number": 1, "size": 100, "more": False, "nextPageToken": None},
        "content": [
            {
                "readingId": str(reading_id("m1", NOON)),
                "readingTime": NOON.isoformat().replace("+00:00", "Z"),
                "meterId": "m1",
                "sequenceNumber": 4711,
                "faultCode": None,
                "propertyValues": [
                    {"propertyName": "OBIS_1.8.0", "numericalValue": 12345.678, "unit": "kWh"},
                    {"propertyName": "OBIS_2.8.0", "numericalValue": 1.23, "unit": "kWh"},
                    {"propertyName": "OBIS_1.7.0", "numericalValue": -0.05, "unit": "kW"},
                    {"propertyName": "OBIS_C.1.0", "textValue": 'meter "7", Straße', "unit": None},
                ],
            }
        ],
    }


async def test_the_time_range_is_half_open(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, *(reading("m1", NOON + index * STEP, value("OBIS_1.8.0", "1", "kWh")) for index in range(4)))
    start, end = (NOON + STEP).isoformat(), (NOON + 3 * STEP).isoformat()
    assert times(await query(client, readingTimeStart=start, readingTimeEnd=end)) == [NOON + STEP, NOON + 2 * STEP]
    assert len((await query(client, readingTimeStart=start))["content"]) == 3
    assert len((await query(client, readingTimeEnd=start))["content"]) == 1


async def test_only_the_named_meters_are_answered_in_order_of_time(store: Store, client: httpx.AsyncClient) -> None:
    for meter_id in ("m1", "m2", "m3"):
        await put(store, *(reading(meter_id, NOON + i * STEP, value("OBIS_1.8.0", "1", "kWh")) for i in range(2)))
    answer = await query(client, meterIds=["m3", "m1", "unknown"])
    assert [each["meterId"] for each in answer["content"]] == ["m1", "m3", "m1", "m3"]


PROPERTY_FILTERS: list[tuple[list[dict[str, object]], list[int]]] = [
    ([{"specificPropertyName": "OBIS_1.7.0"}], [0, 1, 2]),
    ([{"specificPropertyName": "1.7.0", "numericalValueGreaterThan": 1}], [1, 2]),
    ([{"specificPropertyName": "OBIS_1.7.0", "numericalValueLessThan": 2.0}], [0, 1]),
    ([{"specificPropertyName": "OBIS_1.7.0", "numericalValueEqualTo": 1.50}], [1]),
    (
        [{"specificPropertyName": "OBIS_1.7.0", "numericalValueGreaterThan": 1, "numericalValueLessThan": 2}],
        [1],
    ),
    ([{"specificPropertyName": "OBIS_96.13.0", "textValueEqualTo": "serial"}], [3]),
    ([{"specificPropertyName": "OBIS_96.13.0", "textValueEqualTo": "'; drop table reading; --"}], []),
    ([{"textValueEqualTo": "serial"}], [3]),
    ([{"numericalValueGreaterThan": 200}], [0, 2]),
    ([{"numericalValueGreaterThan": 1e60}], []),
    ([{"specificPropertyName": "OBIS_1.7.0"}, {"specificPropertyName": "OBIS_96.13.0"}], [0, 1, 2, 3]),
    (
        [
            {"specificPropertyName": "OBIS_1.7.0", "numericalValueGreaterThan": 1},
            {"specificPropertyName": "OBIS_32.7.0", "numericalValueLessThan": 235},
        ],
        [1],
    ),
    (
        [
            {"specificPropertyName": "OBIS_1.7.0", "numericalValueGreaterThan": 1},
            {"specificPropertyName": "OBIS_96.13.0"},
        ],
        [1, 2],
    ),
]
"""Entries of the query, and which of four readings they select."""


async def test_readings_are_selected_by_their_properties(store: Store, client: httpx.AsyncClient) -> None:
    await put(
        store,
        reading("m1", NOON, value("OBIS_1.7.0", "0.5", "kW"), value("OBIS_32.7.0", "230", "V")),
        reading("m1", NOON + STEP, value("OBIS_1.7.0", "1.5", "kW"), value("OBIS_32.7.0", "150", "V")),
        reading("m1", NOON + 2 * STEP, value("OBIS_1.7.0", "2.0", "kW"), value("OBIS_32.7.0", "240", "V")),
        reading("m1", NOON + 3 * STEP, value("OBIS_96.13.0", text="serial")),
    )
    found = [times(await query(client, operationalProperties=entries)) for entries, _ in PROPERTY_FILTERS]
    assert found == [[NOON + index * STEP for index in expected] for _, expected in PROPERTY_FILTERS]


async def test_only_named_properties_are_listed(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, reading("m1", NOON, value("OBIS_1.7.0", "0.5", "kW"), value("OBIS_32.7.0", "230", "V")))
    answer = await query(client, operationalProperties=[{"specificPropertyName": "OBIS_32.7.0"}])
    assert [each["propertyName"] for each in answer["content"][0]["propertyValues"]] == ["OBIS_32.7.0"]  # type: ignore[attr-defined]
    answer = await query(client, operationalProperties=[{"numericalValueGreaterThan": 100}])
    assert len(answer["content"][0]["propertyValues"]) == 2  # type: ignore[arg-type]


async def test_pages_by_token_neither_skip_nor_repeat_while_others_are_stored(
    store: Store, client: httpx.AsyncClient
) -> None:
    for meter_id in ("m1", "m2"):
        await put(store, *series(meter_id, NOON, 30))
    before = {each["readingId"] for each in (await query(client, pageSize=1000))["content"]}
    seen: list[object] = []
    token = None
    for turn in range(100):
        body = {"pageSize": 7, "pageToken": token} if token else {"pageSize": 7}
        answer = (await client.post("/v1/meterReadings", json=body)).json()
        seen.extend(each["readingId"] for each in answer["content"])
        # Others store behind, at and before the cursor, also at the very same time.
        await put(store, reading("m0", NOON + timedelta(seconds=turn), value("OBIS_1.8.0", str(turn), "kWh")))
        await put(store, reading("m3", NOON + timedelta(minutes=turn), value("OBIS_1.8.0", str(turn), "kWh")))
        token = answer["page"]["nextPageToken"]
        if not answer["page"]["more"]:
            break
    assert len(seen) == len(set(seen))
    assert before <= set(seen)


async def test_pages_by_number_cover_everything_once(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, *series("m1", NOON, 25))
    pages = [(await client.post("/v1/meterReadings", json={"pageSize": 10, "pageNumber": n})).json() for n in (1, 2, 3)]
    assert [len(page["content"]) for page in pages] == [10, 10, 5]
    assert [page["page"]["more"] for page in pages] == [True, True, False]
    assert len({each["readingId"] for page in pages for each in page["content"]}) == 25


async def test_max_rows_ends_the_last_page(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, *series("m1", NOON, 25))
    first = (await client.post("/v1/meterReadings", json={"pageSize": 10, "maxRows": 12})).json()
    assert first["page"]["more"]
    token = first["page"]["nextPageToken"]
    second = (await client.post("/v1/meterReadings", json={"pageSize": 10, "maxRows": 12, "pageToken": token})).json()
    assert len(second["content"]) == 2
    assert second["page"] == {"number": 2, "size": 10, "more": False, "nextPageToken": None}
    assert (await client.post("/v1/meterReadings", json={"maxRows": 12})).json()["page"]["more"] is False


async def test_the_link_to_bulk_leads_to_all_readings_of_the_query(store: Store, client: httpx.AsyncClient) -> None:
    for meter_id in ("m1", "m2", "m3"):
        await put(store, *series(meter_id, NOON, 1200, step_s=1))
    body = {"meterIds": ["m1", "m3"], "operationalProperties": [{"specificPropertyName": "OBIS_1.8.0"}]}
    answer = (await client.post("/v1/meterReadings", json=body)).json()
    download = await client.get(answer["linkToBulk"])
    assert download.headers["content-type"] == "application/x-ndjson"
    readings = [json.loads(line) for line in download.text.splitlines()]
    assert len({each["readingId"] for each in readings}) == len(readings) == 2400
    assert {each["meterId"] for each in readings} == {"m1", "m3"}
    assert {each["propertyName"] for reading in readings for each in reading["propertyValues"]} == {"OBIS_1.8.0"}


async def test_bulk_can_be_preferred(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, *series("m1", NOON, 3))
    answer = (await client.post("/v1/meterReadings", json={"preferredDownload": "bulk", "maxRows": 2})).json()
    assert list(answer) == ["linkToBulk"]
    assert len((await client.get(answer["linkToBulk"])).text.splitlines()) == 2


async def test_csv_has_a_line_a_value_and_no_formulas(store: Store, client: httpx.AsyncClient) -> None:
    values = (value("OBIS_1.7.0", "-1.50", "kW"), value("OBIS_96.13.0", text='=cmd|"x", y'))
    await put(store, reading("m1", NOON, *values))
    download = await client.get("/v1/meterReadings/bulk?format=csv")
    assert download.headers["content-type"] == "text/csv; charset=utf-8"
    assert download.headers["content-disposition"] == 'attachment; filename="meterReadings.csv"'
    lines = list(csv.DictReader(StringIO(download.text)))
    assert [line["numericalValue"] for line in lines] == ["-1.50", ""]
    assert [line["textValue"] for line in lines] == ["", '\'=cmd|"x", y']
    assert {line["readingId"] for line in lines} == {str(reading_id("m1", NOON))}


async def test_an_empty_store_answers_an_empty_page_and_an_empty_download(client: httpx.AsyncClient) -> None:
    assert (await query(client))["content"] == []
    assert (await client.get("/v1/meterReadings/bulk")).text == ""
