"""Nobody sees what is another's: attackers of another tenant, next door, of the time before, and with another role."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from msgspec import structs

from meterway.cloud.access.viewer import EVERYBODY, NOBODY, Viewer
from meterway.cloud.api import create_app
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.store import ArrivedReading, Store
from meterway.core import reports
from meterway.core.errors import SetupError
from meterway.core.identifiers import columns_identifier
from support.access import add_account, add_tenant, add_token, clients_of, move_in, token_of
from support.cloud_http import fault, put, reading, rejected, value

NOW = datetime.now(UTC).replace(microsecond=0)
MOVED_IN = NOW - timedelta(hours=2)
SECRET_KWH = "987654.321"
"""What only the north may see."""


@dataclass
class Town:
    """Two tenants: the north with two households and their meters, and the south with one meter."""

    store: Store
    north: int
    south: int
    eve: int
    """Lives with meter n1 since ``MOVED_IN``."""

    async def token(self, login: str, role: str, tenant_key: int | None) -> str:
        return await token_of(self.store, login, role, tenant_key)  # type: ignore[arg-type]


def heard(meter_id: str, concentrator_id: str, at: datetime, kwh: str) -> ArrivedReading:
    """Return a reading as it arrives through a concentrator; the identifiers of n1 tell their time."""
    made = reading(meter_id, at, value("OBIS_1.8.0", kwh, "kWh"), value("OBIS_1.7.0", "1.5", "kW"))
    topic = made.topic.replace(f"/{made.concentrator_id}/", f"/{concentrator_id}/")
    columns = made.reading
    if meter_id == "n1":
        columns = structs.replace(columns, identifier=columns_identifier(meter_id, at, columns.columns))
    return ArrivedReading(topic, made.payload, concentrator_id, columns)


@pytest.fixture
async def town(store: Store) -> Town:
    north = await add_tenant(store, "north", "cellar-north")
    south = await add_tenant(store, "south", "cellar-south")
    for minutes in (60 * 48, 180, 90, 10):
        at = NOW - timedelta(minutes=minutes)
        await put(
            store,
            heard("n1", "cellar-north", at, SECRET_KWH),
            heard("n2", "cellar-north", at, SECRET_KWH),
            heard("s1", "cellar-south", at, "1.000"),
        )
    eve = await add_account(store, "eve", "member", north)
    await move_in(store, eve, ["n1"], MOVED_IN, tenant_key=north)
    neighbour = await add_account(store, "neighbour", "member", north)
    await move_in(store, neighbour, ["n2"], NOW - timedelta(days=100), tenant_key=north)
    north_topic = "concentrator/cellar-north/smartMeterMessage/n1/readings"
    bad = rejected(SECRET_KWH.encode())
    await put(store, type(bad)(north_topic, bad.payload, bad.reason, SECRET_KWH))
    broken = fault("n1", reports.Fault(time=NOW, reason="bad-checksum", message=SECRET_KWH, data=b"x"))
    await put(store, type(broken)(broken.topic, broken.payload, "cellar-north", "n1", broken.fault))
    return Town(store, north, south, eve)


@pytest.fixture
async def client(town: Town) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(town.store, is_open=False, devices=BrokerForDevices("mqtt://127.0.0.1"))
    async with clients_of(app, None) as (client,):
        yield client


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


READS = [
    ("GET", "/v1/meters"),
    ("GET", "/v1/meters/n1"),
    ("GET", "/v1/meters/n1/curve"),
    ("GET", "/v1/meters/n1/signingKey"),
    ("GET", "/v1/curve"),
    ("POST", "/v1/meterReadings"),
    ("GET", "/v1/meterReadings/bulk"),
    ("GET", "/v1/meterReadings/bulk?meterIds=n1&format=csv"),
    ("GET", "/v1/meters/n1/completeness"),
    ("GET", "/v1/completeness"),
    ("GET", "/v1/quarantine"),
    ("GET", "/v1/quarantine/1"),
    ("GET", "/v1/faults"),
    ("GET", "/v1/conflicts"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/accounts"),
    ("GET", "/v1/households"),
    ("GET", "/v1/tenants"),
    ("GET", "/v1/devices"),
    ("GET", "/v1/privacy/erasures"),
    ("GET", "/v1/privacy/erasureRequests"),
    ("GET", "/v1/privacy/retention"),
]


async def test_an_operator_of_another_tenant_reads_nothing_by_any_route(town: Town, client: httpx.AsyncClient) -> None:
    north = await town.token("nora", "operator", town.north)
    south = await town.token("sam", "operator", town.south)
    told = 0
    for method, path in READS:
        own = await client.request(method, path, headers=as_(north))
        assert own.status_code == 200, (path, own.text)
        told += SECRET_KWH in own.text or "n1" in own.text
        others = await client.request(method, path, headers=as_(south))
        if path == "/v1/audit":  # has the attacker's own questions
            assert {each["actor"] for each in others.json()["content"]} == {"sam"}
            continue
        leaked = [
            each for each in (SECRET_KWH, "n1", "n2", "cellar-north", "eve", "nora") if f'"{each}"' in others.text
        ]
        assert leaked == [], (path, others.text)
        assert SECRET_KWH not in others.text, path
    assert told >= 10  # the attack would have found it
    meters = (await client.get("/v1/meters", headers=as_(south))).json()["content"]
    assert [each["meterId"] for each in meters] == ["s1"]


async def test_an_operator_of_another_tenant_changes_nothing(town: Town, client: httpx.AsyncClient) -> None:
    south = as_(await town.token("sam", "operator", town.south))
    found = (
        await client.post("/v1/meterReadings", headers=as_(await town.token("nora", "operator", town.north)))
    ).json()
    reading_id = found["content"][0]["readingId"]
    await town.store.fetch(
        "insert into device (tenant_key, kind, device_id, secret_digest) values ($1, 'adapter', 'a', 'd')", town.north
    )
    attempts = [
        ("PATCH", "/v1/meters/n1", {"name": "mine"}, 404),
        ("PATCH", "/v1/meters/s1", {"householdId": 1}, 404),
        ("PUT", "/v1/meters/n1/signingKey", {"publicKey": "A" * 43}, 404),
        ("DELETE", "/v1/meters/n1/signingKey", None, 404),
        ("PATCH", "/v1/devices/adapter/a", {"meterIds": ["s1"]}, 404),
        ("POST", "/v1/devices/adapter/a/code", None, 404),
        ("DELETE", "/v1/devices/adapter/a", None, 404),
        ("POST", "/v1/privacy/erasures", {"account": "eve", "reason": "objection"}, 404),
        ("POST", "/v1/privacy/erasures", {"householdId": 1, "reason": "objection"}, 404),
        ("POST", "/v1/privacy/erasures", {"meterId": "n1", "reason": "objection"}, 404),
        ("PUT", "/v1/privacy/retention", {"tenantId": "north", "rules": []}, 404),
        ("GET", "/v1/privacy/export?account=eve", None, 404),
        ("DELETE", f"/v1/meterReadings?id={reading_id}", None, 200),
        ("POST", "/v1/quarantine/replay", {"ids": [1]}, 503),
        ("PATCH", "/v1/accounts/eve", {"disabled": True}, 404),
        ("POST", "/v1/accounts/eve/link", None, 404),
        ("POST", "/v1/accounts", {"login": "x", "role": "operator", "tenantId": "north"}, 403),
        ("POST", "/v1/households", {"name": "x", "tenantId": "north"}, 409),
        ("POST", "/v1/households/1/residents", {"login": "sam", "fromTime": NOW.isoformat()}, 404),
        ("PATCH", "/v1/households/1/residents/eve", {"untilTime": NOW.isoformat()}, 404),
        ("POST", "/v1/tenants", {"tenantId": "mine", "name": "Mine"}, 403),
        ("POST", "/v1/tenants/south/concentrators", {"concentratorId": "cellar-north"}, 403),
    ]
    tables = ("meter", "reading", "account", "household", "resident", "tenant", "sign_in_link", "erasure")
    sql = (
        "select "
        + ", ".join(f"(select count(*) from {table})" for table in tables)
        + ", (select max(name) from meter), (select count(secret_digest) from device)"
    )
    before = tuple((await town.store.fetch(sql))[0])
    for method, path, body, status in attempts:
        answer = await client.request(method, path, json=body, headers=south)
        if path.startswith("/v1/meterReadings"):
            assert answer.json() == {"deleted": 0}
        assert (method, path, answer.status_code) == (method, path, status), answer.text
    assert tuple((await town.store.fetch(sql))[0]) == before


async def test_a_member_sees_the_own_meter_from_the_day_they_moved_in(town: Town, client: httpx.AsyncClient) -> None:
    eve = as_(await add_token(town.store, town.eve))
    meters = (await client.get("/v1/meters", headers=eve)).json()["content"]
    assert [each["meterId"] for each in meters] == ["n1"]
    for query in ({}, {"meterIds": ["n1", "n2", "s1"]}):
        found = (await client.post("/v1/meterReadings", json=query, headers=eve)).json()["content"]
        times = [datetime.fromisoformat(each["readingTime"]) for each in found]
        assert [(NOW - at) // timedelta(minutes=1) for at in times] == [90, 10]
        assert {each["meterId"] for each in found} == {"n1"}
    bulk = (await client.get("/v1/meterReadings/bulk", headers=eve)).text.splitlines()
    assert [json.loads(line)["meterId"] for line in bulk] == ["n1", "n1"]
    for path in ("/v1/meters/n2", "/v1/meters/n2/curve", "/v1/meters/n2/completeness", "/v1/meters/s1"):
        assert (await client.get(path, headers=eve)).status_code == 404
    before = (NOW - timedelta(days=2)).date()
    curve = (await client.get("/v1/meters/n1/curve", params={"day": str(before)}, headers=eve)).json()
    assert curve["registers"] == []
    assert (await client.get("/v1/quarantine", headers=eve)).json()["content"] == []
    assert [each["reason"] for each in (await client.get("/v1/faults", headers=eve)).json()["content"]] == [
        "bad-checksum"
    ]
    for method, path in (("PATCH", "/v1/meters/n1"), ("GET", "/v1/accounts"), ("GET", "/v1/audit"), ("GET", "/people")):
        assert (await client.request(method, path, headers=eve)).status_code == 403


async def test_who_moved_out_or_in_sees_nothing_of_the_others_time(town: Town, client: httpx.AsyncClient) -> None:
    eve = as_(await add_token(town.store, town.eve))
    await town.store.fetch("update resident set until_time = $1 where account_key = $2", NOW, town.eve)
    assert (await client.get("/v1/meters", headers=eve)).json()["content"] == []
    assert (await client.post("/v1/meterReadings", headers=eve)).json()["content"] == []
    # Moved in after the last reading: it stands in the row of the meter, which therefore is not shown yet.
    await town.store.fetch(
        "update resident set from_time = $1, until_time = null where account_key = $2",
        NOW - timedelta(minutes=5),
        town.eve,
    )
    assert (await client.get("/v1/meters", headers=eve)).json()["content"] == []
    await put(town.store, heard("n1", "cellar-north", NOW, "987655.000"))
    shown = (await client.get("/v1/meters/n1", headers=eve)).json()
    assert shown["lastReading"]["propertyValues"][0]["numericalValue"] == 987655.0


async def test_a_researcher_reads_no_row(town: Town, client: httpx.AsyncClient) -> None:
    for tenant_key in (None, town.north):
        headers = as_(await town.token(f"rosa-{tenant_key}", "researcher", tenant_key))
        for method, path in READS:
            assert (await client.request(method, path, headers=headers)).status_code == 403
    # Even if a route forgot to ask: the database shows nothing.
    rosa = Viewer(account_key=town.eve, tenant_key=town.north, actor="rosa", role="researcher")
    for who in (rosa, NOBODY):
        for table in ("meter", "reading", "quarantine", "fault", "account", "audit", "household", "concentrator"):
            assert await town.store.fetch_as(who, f"select 1 from {table}") == []


async def test_the_database_gives_viewers_nothing_but_what_policies_show(town: Town) -> None:
    eve = Viewer(account_key=town.eve, tenant_key=town.north, actor="eve", role="member")
    for table in ("password", "session", "api_token", "sign_in_link", "arrival", "schema_version"):
        with pytest.raises(SetupError, match="permission denied"):
            await town.store.fetch_as(eve, f"select * from {table}")
    rows = await town.store.fetch("select relname from pg_class where relname like 'reading\\_2%' limit 1")
    with pytest.raises(SetupError, match="permission denied"):  # past the policies of the whole
        await town.store.fetch_as(eve, f"select * from {rows[0][0]}")
    for sql in (
        "delete from reading",
        "update meter set tenant_key = 1",
        "insert into tenant (tenant_id, name) values ('a', 'b')",
    ):
        with pytest.raises(SetupError, match="permission denied"):
            await town.store.fetch_as(eve, sql)
    assert await town.store.fetch_as(eve, "update meter set name = 'mine' returning 1") == []
    # The role ends with the transaction: the same connection serves the process again.
    for _ in range(12):
        assert (await town.store.fetch_as(EVERYBODY, "select count(*) from meter"))[0][0] == 3
        assert (await town.store.fetch_as(eve, "select count(*) from meter"))[0][0] == 1


async def test_every_table_is_shut_to_viewers_or_has_policies(store: Store) -> None:
    rows = await store.fetch(
        "select c.relname, c.relrowsecurity, exists (select from pg_policy p where p.polrelid = c.oid) as has_policy, "
        "has_table_privilege('meterway_viewer', c.oid, 'select') as may_select from pg_class c "
        "where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition"
    )
    assert len(rows) > 15
    for row in rows:
        assert row["may_select"] == row["relrowsecurity"] == row["has_policy"], row


SAYS_NOTHING = {"property_set", "ledger_backlog"}
"""Tables that everybody may see: names of properties, and how far the ledger is; nothing in them is anybody's."""

ROWS_OF_THE_NORTH = (
    "insert into audit (tenant_key, actor, action, subject) values ($1, 'nora', 'read', 'n1')",
    (
        "insert into conflict (digest, meter_id, reading_time, reading_identifier, topic, payload) "
        "select 'd', meter_id, last_reading_time, last_reading_identifier, 't', 'p' from meter "
        "where meter_id = 'n1' and tenant_key = $1"
    ),
    "insert into state_change (subject, change_time, state, since) select 'n1', now(), 'off', now() where $1 > 0",
    "insert into device (tenant_key, kind, device_id) values ($1, 'adapter', 'a')",
    "insert into enrolment_code select device_key, 'd', now() from device where tenant_key = $1",
    "insert into refusal select device_key, 'publish', 't', '', now(), now(), 1 from device where tenant_key = $1",
    (
        "insert into consent (account_key, household_key, purpose, property_ids, step_s, given_time, expires_time) "
        "select account_key, household_key, 'research', '{OBIS_1.8.0}', 900, now(), now() "
        "from resident join household using (household_key) where tenant_key = $1"
    ),
    "insert into erasure_request select account_key, now() from account where tenant_key = $1",
    (
        "insert into erasure (tenant_key, subject_kind, subject_digest, reason, requested_time) "
        "values ($1, 'meter', 'd', 'objection', now())"
    ),
    "insert into retention values ($1, '*', 100)",
)


async def test_no_table_shows_a_row_to_somebody_of_another_tenant(town: Town) -> None:
    await town.store.enter_arrivals()
    for sql in ROWS_OF_THE_NORTH:
        await town.store.fetch(sql, town.north)
    rows = await town.store.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relrowsecurity order by 1"
    )
    nora = Viewer(account_key=10_001, tenant_key=town.north, actor="nora", role="operator")
    strangers = [
        Viewer(account_key=10_002, tenant_key=10_000, actor="x", role=role)
        for role in ("operator", "auditor", "member", "researcher")
    ]
    for table in {row["relname"] for row in rows} - SAYS_NOTHING:
        sql = f"select count(*) from {table}"
        counts = [(await town.store.fetch_as(who, sql))[0][0] for who in (nora, *strangers)]
        assert counts[0] > 0, f"{table}: add a row to ROWS_OF_THE_NORTH, else nothing could leak"
        assert counts[1:] == [0, 0, 0, 0], f"{table} shows rows to another tenant"
    assert {row["relname"] for row in rows} > SAYS_NOTHING


async def test_live_streams_show_each_viewer_their_own(town: Town) -> None:
    south = await town.token("sam", "operator", town.south)
    eve = await add_token(town.store, town.eve)
    everything = await town.token("ada", "operator", None)
    app = create_app(town.store, is_open=False)
    async with clients_of(app, south, eve, everything) as clients:
        seen: list[list[str]] = []
        streams = [client.stream("GET", "/v1/live") for client in clients]
        opened = [await stream.__aenter__() for stream in streams]
        lines = [answer.aiter_lines() for answer in opened]
        try:
            for each in lines:
                first = await event(each)
                assert first["meters"] == []
                assert first["counters"] is None
            for meter_id, concentrator in (("n1", "north"), ("n2", "north"), ("s1", "south")):
                await put(
                    town.store, heard(meter_id, f"cellar-{concentrator}", NOW + timedelta(minutes=1), "2000000.0")
                )
            last = {"s1", "n1", "n2"}
            for each, wanted in zip(lines, ({"s1"}, {"n1"}, last), strict=True):
                ids: list[str] = []
                while not wanted <= set(ids):
                    ids += [meter["meterId"] for meter in (await event(each))["meters"]]
                seen.append(ids)
        finally:
            for stream in streams:
                await stream.__aexit__(None, None, None)
    assert [set(ids) for ids in seen] == [{"s1"}, {"n1"}, {"n1", "n2", "s1"}]


async def event(lines: AsyncIterator[str]) -> dict[str, Any]:
    """Return the next event of a stream that is about meters."""
    async for line in lines:
        if line.startswith("data: {") and "meters" in line:
            found: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return found
    raise AssertionError("the stream ended")


async def test_a_live_stream_ends_when_its_viewer_is_shut_out(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meterway.cloud.live.HEARTBEAT_S", 0.05)
    token = await add_token(town.store, town.eve)
    async with (
        clients_of(create_app(town.store, is_open=False), token) as (client,),
        client.stream("GET", "/v1/live") as answer,
    ):
        lines = answer.aiter_lines()
        await event(lines)
        await town.store.fetch("update account set disabled = true where account_key = $1", town.eve)
        async for _ in lines:  # ends, or the client's own time-out says that it does not
            pass


async def test_a_concentrator_carries_no_meter_of_another_tenant(town: Town) -> None:
    forged = heard("n1", "cellar-south", NOW + timedelta(minutes=2), "0.001")
    unknown = heard("s1", "nobodys-cellar", NOW + timedelta(minutes=2), "0.002")
    good = heard("s1", "cellar-south", NOW + timedelta(minutes=2), "3.000")
    committed = await town.store.commit_batch([forged, good, unknown], now=NOW)
    assert (committed.stored, [each.reason for each in committed.rejected]) == (1, ["foreign-meter"] * 2)
    rows = await town.store.fetch("select meter_id, tenant_key from meter order by 1")
    assert [tuple(row) for row in rows] == [("n1", town.north), ("n2", town.north), ("s1", town.south)]
    rows = await town.store.fetch("select last_numerical_values[1]::text from meter where meter_id = 'n1'")
    assert rows[0][0] == SECRET_KWH
    await put(town.store, heard("new", "nobodys-cellar", NOW, "1.0"))
    assert (await town.store.fetch("select tenant_key from meter where meter_id = 'new'"))[0][0] == 1


async def test_deleted_readings_are_gone_from_all_that_shows_them(town: Town, client: httpx.AsyncClient) -> None:
    nora = as_(await town.token("nora", "operator", town.north))
    before = (await client.get("/v1/meters/n1/completeness", headers=nora)).json()
    found = (await client.post("/v1/meterReadings", json={"meterIds": ["n1"]}, headers=nora)).json()["content"]
    newest, one_before = found[-1], found[-2]
    twice = [("id", newest["readingId"]), ("id", newest["readingId"])]
    answer = await client.delete("/v1/meterReadings", params=twice, headers=nora)
    assert answer.json() == {"deleted": 1}
    left = (await client.post("/v1/meterReadings", json={"meterIds": ["n1"]}, headers=nora)).json()["content"]
    assert left == found[:-1]
    shown = (await client.get("/v1/meters/n1", headers=nora)).json()["lastReading"]
    assert shown["readingId"] == one_before["readingId"]
    assert (await client.get("/v1/meters/n1/completeness", headers=nora)).json()["total"] == before["total"]
    rest = [("id", each["readingId"]) for each in left]
    assert (await client.delete("/v1/meterReadings", params=[*rest, ("meterId", "n2")], headers=nora)).json() == {
        "deleted": 0
    }
    assert (await client.delete("/v1/meterReadings", params=rest, headers=nora)).json() == {"deleted": 3}
    assert (await client.get("/v1/meters/n1", headers=nora)).json()["lastReading"] is None
    assert (await client.delete("/v1/meterReadings", headers=nora)).status_code == 422
    timeless = (await client.post("/v1/meterReadings", json={"meterIds": ["n2"]}, headers=nora)).json()["content"]
    ids = [("id", each["readingId"]) for each in timeless]
    assert (await client.delete("/v1/meterReadings", params=ids, headers=nora)).json() == {"deleted": 4}
    entries = (await client.get("/v1/audit", params={"action": "deleted"}, headers=nora)).json()["content"]
    assert [each["subject"] for each in entries] == ["n2"] * 4 + ["n1"] * 4
