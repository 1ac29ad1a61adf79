"""Meters, their curves, and what was kept aside, on a real server and a real database."""

import base64
from datetime import UTC, datetime, timedelta

import httpx

from meterway.cloud.api import create_app
from meterway.cloud.config import IngestConfig
from meterway.cloud.ingest import Ingest
from meterway.cloud.store import Store
from meterway.core import reports
from support.cloud_http import client_of, fault, ids, put, reading, rejected, report, series, value

NOW = datetime.now(UTC)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
POWER = value("OBIS_1.7.0", "0.412", "kW")

DESCRIPTION = reports.MeterDescription(
    meter_individual_id="m1", physical_meter_class="GAS", protocol="p1", link="tcp", family="dsmr", interval_s=300
)


async def test_a_meter_is_listed_with_its_last_reading(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, reading("m1", NOW - timedelta(seconds=9), POWER), reading("m1", NOW, POWER, sequence_number=2))
    await put(store, report("m1", DESCRIPTION))
    (meter,) = (await client.get("/v1/meters")).json()["content"]
    assert meter["meterId"] == "m1"
    assert (meter["state"], meter["claimed"], meter["name"]) == ("online", False, None)
    assert (meter["physicalMeterClass"], meter["protocol"], meter["lateAfterS"]) == ("GAS", "p1", 1500)
    assert meter["lastReading"]["sequenceNumber"] == 2
    assert meter["lastReading"]["propertyValues"] == [
        {"propertyName": "OBIS_1.7.0", "numericalValue": 0.412, "unit": "kW"}
    ]


async def test_meters_come_page_by_page(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, *(reading(f"m{number}", NOW, POWER) for number in range(5)))
    first = (await client.get("/v1/meters?limit=3")).json()
    rest = (await client.get(f"/v1/meters?limit=3&after={first['nextAfter']}")).json()
    assert ids(first["content"]) == ["m0", "m1", "m2"]
    assert ids(rest["content"]) == ["m3", "m4"]
    assert rest["nextAfter"] is None


async def test_the_state_is_what_the_adapter_says_unless_readings_say_more(
    store: Store, client: httpx.AsyncClient
) -> None:
    async def state() -> object:
        return (await client.get("/v1/meters/m1")).json()["state"]

    await put(store, report("m1", reports.Status(state="waiting", since=NOW)))
    assert await state() == "waiting"
    await put(store, reading("m1", NOW, POWER))
    assert await state() == "online"
    await put(store, report("m1", reports.Status(state="offline", since=NOW, detail="the port is gone")))
    assert await state() == "offline"
    await put(store, reading("m1", NOW + timedelta(seconds=1), POWER))
    assert await state() == "online"
    await store.fetch("update meter set last_stored_time = now() - interval '1 hour', status = null")
    assert await state() == "silent"


async def test_a_meter_can_be_claimed_and_named(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, reading("m1", NOW, POWER))
    answer = await client.patch("/v1/meters/m1", json={"claimed": True, "name": "  <b>Flat 3</b> "})
    assert (answer.json()["claimed"], answer.json()["name"]) == (True, "<b>Flat 3</b>")
    answer = await client.patch("/v1/meters/m1", json={"name": None})
    assert (answer.json()["claimed"], answer.json()["name"]) == (True, None)
    answer = await client.patch("/v1/meters/m1", json={"claimed": False})
    assert answer.json()["claimed"] is False


BAD_CHANGES: list[tuple[dict[str, object], str]] = [
    ({}, "Nothing to change: send `claimed`, `name` or `householdId`."),
    ({"name": "x" * 81}, "at `$.name`"),
    ({"name": "a\nb"}, "`name` must not have control characters."),
    ({"name": "a\0b"}, "`name` must not have control characters."),
    ({"claimed": "yes"}, "at `$.claimed`"),
    ({"owner": "me"}, "unknown field `owner`"),
]


async def test_a_bad_change_is_refused(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, reading("m1", NOW, POWER))
    for body, sentence in BAD_CHANGES:
        answer = await client.patch("/v1/meters/m1", json=body)
        assert answer.status_code == 422
        assert sentence in answer.json()["detail"]


async def test_the_curve_of_a_day_is_its_mean_power_and_its_registers(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, *series("m1", MIDNIGHT, 120, step_s=30))
    curve = (await client.get(f"/v1/meters/m1/curve?day={MIDNIGHT.date()}")).json()
    assert (curve["unit"], curve["source"], curve["stepS"]) == ("kW", "measured", 60)
    assert curve["times"] == [int(MIDNIGHT.timestamp()) + 60 * minute for minute in range(60)]
    assert curve["lines"] == [{"propertyNames": ["OBIS_1.7.0"], "direction": "import", "values": [1.0] * 60}]
    assert curve["registers"] == [
        {"propertyName": "OBIS_1.8.0", "direction": "import", "unit": "kWh", "first": 100.0, "last": 100.992}
    ]


async def test_the_curve_of_a_long_day_has_at_most_1500_points(store: Store, client: httpx.AsyncClient) -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # Berlin sets its clocks back on the 25th
    await put(store, *series("m1", start - timedelta(hours=1), 27 * 60), now=start)
    curve = (await client.get("/v1/meters/m1/curve?day=2026-10-25&zone=Europe/Berlin")).json()
    assert len(curve["times"]) == 1500
    assert (curve["start"], curve["end"]) == ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")


async def test_a_meter_without_power_draws_its_register(store: Store, client: httpx.AsyncClient) -> None:
    await put(
        store,
        *(
            reading("m1", MIDNIGHT + timedelta(minutes=15 * n), value("GAS_volume", f"{n * 0.5:.3f}", "m3"))
            for n in range(5)
        ),
    )
    curve = (await client.get(f"/v1/meters/m1/curve?day={MIDNIGHT.date()}")).json()
    assert (curve["unit"], curve["source"]) == ("m3/h", "register")
    assert curve["lines"][0]["values"] == [2.0] * 5
    assert (curve["registers"][0]["first"], curve["registers"][0]["last"]) == (0, 2)


async def test_the_total_curve_is_the_net_power_of_all_electricity_meters(store: Store) -> None:
    for minute in range(0, 30, 5):
        at = MIDNIGHT + timedelta(minutes=minute)
        await put(
            store,
            reading("m1", at, value("OBIS_1.7.0", "0.5", "kW"), value("OBIS_2.7.0", "0", "kW")),
            reading("m2", at, value("OBIS_16.7.0", "-1500", "W")),
            reading("gas", at, value("GAS_volume", "1", "m3")),
        )
    async with client_of(create_app(store, clock=lambda: MIDNIGHT + timedelta(minutes=30))) as early:
        curve = (await early.get("/v1/curve")).json()
    assert curve["lines"][0]["values"] == [0] * 6
    assert curve["lines"][1]["values"] == [1.0] * 6


async def test_quarantine_shows_reason_topic_and_bytes(store: Store, client: httpx.AsyncClient) -> None:
    payload = b"<script>alert(1)</script>\x00\xff"
    await put(store, rejected(payload, message="not JSON at all"), rejected(b"other"))
    listed = (await client.get("/v1/quarantine")).json()
    item = next(each for each in listed["content"] if each["message"] == "not JSON at all")
    assert item["preview"] == "<script>alert(1)</script>··"
    assert (item["reason"], item["sizeBytes"], item["seenCount"]) == ("not-json", len(payload), 1)
    detail = (await client.get(f"/v1/quarantine/{item['id']}")).json()
    assert base64.b64decode(detail["payload"]) == payload
    first = (await client.get("/v1/quarantine?limit=1")).json()
    second = (await client.get(f"/v1/quarantine?limit=1&before={first['nextBefore']}")).json()
    assert {first["content"][0]["id"], second["content"][0]["id"]} == {each["id"] for each in listed["content"]}


async def test_a_replay_stores_what_is_understood_now(store: Store) -> None:
    good = (
        f'{{"readingTime": "{NOW.isoformat()}", "meterId": "m1", "propertyValues": '
        '[{"propertyName": "1.7.0", "numericalValue": "133", "unit": "W"}]}'
    )
    await put(store, rejected(good.encode(), reason="old-defect"), rejected(b"never"))
    ingest = Ingest(store, IngestConfig(), clock=lambda: datetime.now(UTC))
    async with client_of(create_app(store, replay=ingest.replay)) as client:
        found = [each["id"] for each in (await client.get("/v1/quarantine")).json()["content"]]
        answer = await client.post("/v1/quarantine/replay", json={"ids": found})
        assert answer.json() == {"accepted": 1, "rejected": 1}
        assert len((await client.get("/v1/quarantine")).json()["content"]) == 1
        assert ids((await client.get("/v1/meters")).json()["content"]) == ["m1"]


async def test_a_bad_replay_is_refused(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{}", b'{"ids": []}', b'{"ids": ["a"]}', b'{"ids": [0]}', b'{"ids": [1e300]}'):
        answer = await client.post("/v1/quarantine/replay", content=body)
        assert answer.status_code == 422
        assert 'Send {"ids": [1, 2]}.' in answer.json()["detail"]


async def test_faults_and_conflicts_are_listed(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, fault("m1", reports.Fault(time=NOW, reason="bad-checksum", message="sum", data=b"/EXA\r\n")))
    await put(store, reading("m1", NOW, POWER))
    await put(store, reading("m1", NOW, value("OBIS_1.7.0", "9", "kW")))
    (item,) = (await client.get("/v1/faults")).json()["content"]
    assert (item["reason"], item["meterId"], item["preview"]) == ("bad-checksum", "m1", "/EXA··")
    (conflict,) = (await client.get("/v1/conflicts")).json()["content"]
    assert conflict["meterId"] == "m1"


async def test_metrics_count_requests_and_name_no_meter(store: Store) -> None:
    def counters() -> dict[str, int]:
        return {"ingest_stored": 7}

    async with client_of(create_app(store, counters=counters)) as client:
        await client.get("/v1/meters/secret-meter")
        await client.get("/nothing/secret-meter")
        text = (await client.get("/metrics")).text
    assert 'meterway_http_requests_total{route="/v1/meters/{meter_id}",method="GET",status="404"} 1' in text
    assert 'route="other",method="GET",status="404"} 1' in text
    assert "meterway_ingest_stored_total 7" in text
    assert "secret-meter" not in text


async def test_health_and_readiness_differ(store: Store) -> None:
    trouble: str | None = "the broker is away; it is tried again"
    async with client_of(create_app(store, ready=lambda: trouble)) as client:
        assert (await client.get("/healthz")).text == "ok\n"
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["detail"] == "the broker is away; it is tried again"
    async with client_of(create_app(store)) as client:
        assert (await client.get("/readyz")).text == "ready\n"
