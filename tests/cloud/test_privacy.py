"""Export, erasure, retention, consents and research, in a real database and over HTTP, as those who must not."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile

import httpx
import pytest

from meterway.cloud.api import create_app
from meterway.cloud.backup import back_up, restore
from meterway.cloud.config import PrivacyConfig
from meterway.cloud.postgres import find_programs
from meterway.cloud.store import Store
from meterway.cloud.store.erasure import EVER, Subject
from meterway.cloud.store.rows import ArrivedReading
from meterway.core import reports, wire
from meterway.core.reading import MeterReading
from meterway.core.topics import SpecificTopic, concentrator_topic, smart_meter_topic
from support.access import PASSWORD, add_account, add_tenant, add_token, clients_of, move_in, sign_in, token_of
from support.access import with_password as add_with_password
from support.cloud_http import fault, put, reading, reading_id, rejected, series, value

NOW = datetime.now(UTC).replace(microsecond=0)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0)
MOVED_IN = NOW - timedelta(hours=3)
METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
BEFORE_KWH, EVES_KWH = "91234.567", "91999.123"


def at(minutes: float, kwh: str, meter_id: str = METER) -> ArrivedReading:
    """Return a reading of so many minutes ago."""
    return reading(
        meter_id,
        NOW - timedelta(minutes=minutes),
        value("OBIS_1.8.0", kwh, "kWh"),
        value("OBIS_1.7.0", "1.5", "kW"),
        sequence_number=int(10_000 - minutes),
    )


@dataclass
class House:
    """Eve lives with a meter since ``MOVED_IN``; her neighbour with another one."""

    store: Store
    client: httpx.AsyncClient
    operator: dict[str, str]
    eve: dict[str, str]
    neighbour: dict[str, str]
    eve_key: int
    household: int

    async def erase(self, **body: object) -> dict[str, object]:
        answer = await self.client.post(
            "/v1/privacy/erasures", headers=self.operator, json={"reason": "objection", **body}
        )
        assert answer.status_code == 200, answer.text
        made: dict[str, object] = answer.json()
        return made

    async def count(self, sql: str) -> int:
        (row,) = await self.store.fetch(sql)
        number: int = row[0]
        return number


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def house(store: Store) -> AsyncIterator[House]:
    await put(store, at(60 * 24, BEFORE_KWH), at(240, BEFORE_KWH), at(120, EVES_KWH), at(20, EVES_KWH))
    await put(store, at(20, EVES_KWH, "next-door"))
    await put(store, rejected(EVES_KWH.encode(), meter_id=METER), rejected(b"other", meter_id="next-door"))
    await put(store, fault(METER, reports.Fault(time=NOW - timedelta(minutes=30), reason="x", message=EVES_KWH)))
    operator = bearer(await token_of(store, "nora", "operator", 1))
    eve = await add_account(store, "eve.adams", "member", 1)
    neighbour = await add_account(store, "neighbour", "member", 1)
    household = await move_in(store, eve, [METER], MOVED_IN, tenant_key=1)
    await move_in(store, neighbour, ["next-door"], MOVED_IN, tenant_key=1)
    eves, neighbours = [bearer(await add_token(store, key)) for key in (eve, neighbour)]
    async with clients_of(create_app(store, is_open=False), None) as (client,):
        yield House(store, client, operator, eves, neighbours, eve, household)


def dump(dsn: str) -> str:
    """Return all that the database holds, as text."""
    parts = urlsplit(dsn)
    environment = {**os.environ, "PGPASSWORD": unquote(parts.password or "")}
    made = subprocess.run(
        [find_programs() / "pg_dump", "--data-only", f"--dbname={dsn}"],
        capture_output=True,
        check=True,
        env=environment,
    )
    return made.stdout.decode()


async def settled(house: House) -> None:
    """Wait until the audit log is written."""
    await house.client.get("/v1/audit", headers=house.operator)


# ---- export ----


async def test_the_export_has_all_of_a_person_and_nothing_of_others(house: House) -> None:
    await house.client.get(f"/v1/meters/{METER}", headers=house.eve)
    await house.client.patch("/v1/accounts/eve.adams", headers=house.operator, json={"name": "Eve"})
    answer = await house.client.get("/v1/privacy/export", headers=house.eve)
    assert answer.status_code == 200, answer.text
    archive = ZipFile(BytesIO(answer.content))
    assert archive.testzip() is None
    files = {name: archive.read(name).decode() for name in archive.namelist()}
    assert "README.txt" in files
    assert json.loads(files["account.json"])[0]["login"] == "eve.adams"
    readings = [json.loads(line) for line in files[f"readings/1-{METER}.ndjson"].splitlines()]
    assert [each["readingTime"] for each in readings] == [
        (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z") for minutes in (120, 20)
    ]
    assert EVES_KWH in files[f"readings/1-{METER}.ndjson"]
    entries = [json.loads(line) for line in files["audit.ndjson"].splitlines()]
    assert ("eve.adams", "read") in {(each["actor"], each["action"]) for each in entries}
    assert ("(staff)", "changed") in {(each["actor"], each["action"]) for each in entries}
    everything = "".join(files.values())
    for secret in (BEFORE_KWH, "next-door", "neighbour", "nora"):
        assert secret not in everything


async def test_a_member_cannot_export_a_neighbour_and_an_auditor_can_within_the_tenant(house: House) -> None:
    answer = await house.client.get("/v1/privacy/export?account=neighbour", headers=house.eve)
    assert (answer.status_code, answer.json()["reason"]) == (403, "not-permitted")
    auditor = bearer(await token_of(house.store, "arno", "auditor", 1))
    assert (await house.client.get("/v1/privacy/export?account=eve.adams", headers=auditor)).status_code == 200
    south = await add_tenant(house.store, "south")
    foreign = bearer(await token_of(house.store, "sam", "auditor", south))
    answer = await house.client.get("/v1/privacy/export?account=eve.adams", headers=foreign)
    assert (answer.status_code, answer.json()["reason"]) == (404, "no-account")
    await settled(house)
    assert await house.count("select count(*) from audit where action = 'exported' and actor = 'arno'") == 1


async def test_researchers_export_their_own_account_but_no_reading(house: House) -> None:
    rosa = await add_account(house.store, "rosa", "researcher", 1)
    await house.store.fetch(
        "insert into resident (account_key, household_key, from_time) values ($1, $2, $3)", rosa, house.household, EVER
    )
    researcher = bearer(await add_token(house.store, rosa))
    await house.client.get("/v1/privacy", headers=researcher)
    for path in ("/v1/privacy/export", "/v1/privacy/export?account=rosa"):
        answer = await house.client.get(path, headers=researcher)
        assert answer.status_code == 200, answer.text
        archive = ZipFile(BytesIO(answer.content))
        files = {name: archive.read(name).decode() for name in archive.namelist()}
        assert json.loads(files["account.json"])[0]["login"] == "rosa"
        assert json.loads(files["sessions.json"])[0]["name"] == "test"
        assert len(json.loads(files["residences.json"])) == 1
        assert "a researcher sees no reading" in files["README.txt"]
        everything = "".join(files.values())
        for secret in (BEFORE_KWH, EVES_KWH, "eve.adams", "neighbour"):
            assert secret not in everything
        assert not [name for name in files if name.startswith("readings/")]
    answer = await house.client.get("/v1/privacy/export?account=eve.adams", headers=researcher)
    assert (answer.status_code, answer.json()["reason"]) == (403, "not-permitted")
    staff = await house.client.get("/v1/privacy/export?account=rosa", headers=house.operator)
    assert f"readings/1-{METER}.ndjson" in ZipFile(BytesIO(staff.content)).namelist()


# ---- erasure ----


async def test_an_erased_account_leaves_nothing_but_a_proof(house: House, database_dsn: str) -> None:
    await house.client.get("/v1/meters", headers=house.eve)
    await house.client.patch("/v1/accounts/eve.adams", headers=house.operator, json={"name": "Eve Adams"})
    made = await house.erase(account="eve.adams")
    counts = made["counts"]
    assert isinstance(counts, dict)
    assert {name: counts[name] for name in ("reading", "account", "api_token", "resident", "fault")} == {
        "reading": 2,
        "account": 1,
        "api_token": 1,
        "resident": 1,
        "fault": 1,
    }
    assert (await house.client.get("/v1/meters", headers=house.eve)).status_code == 401
    await settled(house)
    everything = await asyncio.to_thread(dump, database_dsn)
    for trace in ("eve.adams", "Eve Adams", EVES_KWH.encode().hex()):
        assert trace not in everything
    assert everything.count(EVES_KWH) == 2  # next door: the reading, and the newest one of the meter
    assert BEFORE_KWH in everything  # of before her time
    found = (await house.client.get(f"/v1/privacy/erasures/{made['erasureId']}", headers=house.operator)).json()
    assert found["left"] == dict.fromkeys(found["left"], 0)
    assert found["proofHolds"] is True
    assert (found["digest"], found["by"]) == (made["digest"], "nora")


async def test_what_another_saw_at_the_same_time_stays_theirs(house: House) -> None:
    adam = await add_account(house.store, "adam", "member", 1)
    await house.store.fetch(
        "insert into resident (account_key, household_key, from_time) values ($1, $2, $3)",
        adam,
        house.household,
        NOW - timedelta(minutes=60),
    )
    made = await house.erase(account="eve.adams")
    assert made["counts"]["reading"] == 1  # type: ignore[index]
    left = await house.store.fetch("select reading_time from reading where meter_key = 1 order by 1 desc")
    assert left[0]["reading_time"] == NOW - timedelta(minutes=20)


async def test_a_spool_that_sends_again_brings_nothing_back(house: House) -> None:
    made = await house.erase(account="eve.adams")
    again = [at(120, EVES_KWH), at(20, EVES_KWH), at(60, "93000.5")]
    committed = await house.store.commit_batch(again, now=NOW)
    assert (committed.erased, committed.stored, committed.duplicate) == (3, 0, 0)
    later = await house.store.commit_batch([at(-10, "94000.5"), at(240, BEFORE_KWH)], now=NOW)
    assert (later.erased, later.stored, later.duplicate) == (0, 1, 1)
    found = (await house.client.get(f"/v1/privacy/erasures/{made['erasureId']}", headers=house.operator)).json()
    assert found["left"] == dict.fromkeys(found["left"], 0)


async def test_a_forgotten_meter_leaves_nothing_and_its_readings_do_not_bring_it_back(
    house: House, database_dsn: str
) -> None:
    await house.client.get(f"/v1/meters/{METER}", headers=house.eve)
    await house.client.post("/v1/meterReadings", headers=house.eve, json={"meterIds": [METER]})
    await house.erase(meterId=METER)
    await settled(house)
    assert METER not in await asyncio.to_thread(dump, database_dsn)
    committed = await house.store.commit_batch([at(20, EVES_KWH)], now=NOW)
    assert committed.erased == 1
    assert METER not in await asyncio.to_thread(dump, database_dsn)


async def test_a_part_is_erased_with_what_sums_it_up(house: House) -> None:
    await house.store.enter_arrivals()
    await house.erase(
        householdId=house.household,
        fromTime=(NOW - timedelta(minutes=130)).isoformat(),
        untilTime=(NOW - timedelta(minutes=110)).isoformat(),
    )
    rows = await house.store.fetch(
        "select reading_time from reading join meter using (meter_key) where meter_id = $1", METER
    )
    assert sorted((NOW - row["reading_time"]).total_seconds() / 60 for row in rows) == [20, 240, 1440]
    assert await house.count("select coalesce(sum(stored), 0)::bigint from meter_day where meter_key = 1") == 3


async def test_a_proof_that_was_changed_or_taken_out_shows(house: House) -> None:
    first = await house.erase(householdId=house.household, untilTime=(NOW - timedelta(days=9)).isoformat())
    second = await house.erase(account="eve.adams")
    assert second["previousDigest"] == first["digest"]
    path = f"/v1/privacy/erasures/{second['erasureId']}"
    await house.store.fetch("update erasure set counts = '{\"reading\": 1}' where erasure_key = $1", first["erasureId"])
    assert (await house.client.get(path, headers=house.operator)).json()["proofHolds"] is False
    await house.store.fetch("update erasure set counts = '{}' where erasure_key = $1", first["erasureId"])
    assert (await house.client.get(path, headers=house.operator)).json()["proofHolds"] is True
    await house.store.fetch("delete from erased_span where erasure_key = $1", first["erasureId"])
    await house.store.fetch("delete from erasure where erasure_key = $1", first["erasureId"])
    assert (await house.client.get(path, headers=house.operator)).json()["proofHolds"] is False


async def test_only_an_operator_of_the_tenant_erases(house: House) -> None:
    south = await add_tenant(house.store, "south")
    foreign = bearer(await token_of(house.store, "sam", "operator", south))
    auditor = bearer(await token_of(house.store, "arno", "auditor", 1))
    path = "/v1/privacy/erasures"
    for body in ({"account": "eve.adams"}, {"householdId": house.household}, {"meterId": METER}):
        answer = await house.client.post(path, headers=foreign, json={**body, "reason": "objection"})
        assert answer.status_code == 404, answer.text
        for who in (auditor, house.eve):
            answer = await house.client.post(path, headers=who, json={**body, "reason": "objection"})
            assert answer.status_code == 403
    for body in (
        {},
        {"account": "eve.adams", "meterId": METER},
        {"meterId": METER, "untilTime": "2999-01-01T00:00:00Z"},
    ):
        answer = await house.client.post(path, headers=house.operator, json={**body, "reason": "objection"})
        assert answer.status_code == 422, answer.text
    answer = await house.client.post(path, headers=house.operator, json={"account": "nora", "reason": "objection"})
    assert answer.json()["reason"] == "own-account"
    made = await house.erase(householdId=house.household)
    assert (await house.client.get(f"{path}/{made['erasureId']}", headers=foreign)).status_code == 404
    assert (await house.client.get(path, headers=foreign)).json()["content"] == []


async def test_a_member_asks_to_be_erased_and_an_operator_does_it(house: House) -> None:
    await add_with_password(house.store, "mara", "member", 1)
    assert (await sign_in(house.client, "mara", PASSWORD)).status_code == 200
    path = "/v1/privacy/erasureRequest"
    assert (await house.client.post(path, headers=house.eve)).status_code == 403  # a token is no person
    assert (await house.client.post(path)).status_code == 204
    assert (await house.client.delete(path)).status_code == 204
    assert (await house.client.post(path)).status_code == 204
    assert (await house.client.get("/v1/privacy")).json()["erasureRequestedTime"] is not None
    async with httpx.AsyncClient(base_url=house.client.base_url, headers=house.operator) as operator:
        waiting = (await operator.get("/v1/privacy/erasureRequests")).json()["content"]
        assert [each["login"] for each in waiting] == ["mara"]
    await house.erase(account="mara")
    assert await house.count("select count(*) from erasure_request") == 0


# ---- retention ----


async def test_retention_removes_whole_readings_and_single_properties(house: House) -> None:
    old = NOW - timedelta(days=100)
    await put(
        house.store,
        reading(METER, old, value("OBIS_1.8.0", "5.5", "kWh"), value("OBIS_1.7.0", "7.7", "kW")),
        reading(METER, NOW - timedelta(days=400), value("OBIS_1.8.0", "4.4", "kWh")),
    )
    rules = [{"propertyId": "1.7.0", "keepDays": 30}, {"propertyId": "*", "keepDays": 365}]
    answer = await house.client.put("/v1/privacy/retention", headers=house.operator, json={"rules": rules})
    assert answer.json()["content"] == [
        {
            "tenantId": "main",
            "rules": [{"propertyId": "*", "keepDays": 365}, {"propertyId": "OBIS_1.7.0", "keepDays": 30}],
        }
    ]
    done = await house.store.retain(now=NOW)
    assert (done["value"], done["partition"]) == (1, 1)
    rows = await house.store.fetch(
        "select property_ids, numerical_values from reading join property_set using (property_set_key) "
        "where reading_time < $1",
        NOW - timedelta(days=2),
    )
    assert [(row[0], [str(number) for number in row[1]]) for row in rows] == [(["OBIS_1.8.0"], ["5.5"])]
    assert await house.count("select count(*) from reading") == 6
    assert (await house.store.retain(now=NOW)).total() == 0
    await put(house.store, reading(METER, NOW - timedelta(days=500), value("OBIS_1.8.0", "3.3", "kWh")))
    await add_tenant(house.store, "south")  # which keeps for ever, so no partition may go
    done = await house.store.retain(now=NOW)
    assert (done["reading"], done["partition"]) == (1, 0)


async def test_retention_is_the_tenants_own(house: House) -> None:
    south = await add_tenant(house.store, "south")
    foreign = bearer(await token_of(house.store, "sam", "operator", south))
    rules = {"tenantId": "main", "rules": [{"propertyId": "*", "keepDays": 1}]}
    assert (await house.client.put("/v1/privacy/retention", headers=foreign, json=rules)).status_code == 404
    assert (await house.client.put("/v1/privacy/retention", headers=house.eve, json=rules)).status_code == 403
    assert await house.count("select count(*) from retention") == 0


# ---- consents and research ----

DAY = MIDNIGHT - timedelta(days=1)
K = 4
QUERY = {
    "propertyName": "1.8.0",
    "fromTime": DAY.isoformat(),
    "untilTime": MIDNIGHT.isoformat(),
    "stepS": 3600,
}


async def add_household(store: Store, name: str, *, meters: int = 1, factor: float = 1, step_s: float = 1800) -> int:
    """Add a member with a consent and a household whose meters grow by ``factor`` kWh an hour all day."""
    account = await add_account(store, name, "member", 1)
    ids = [f"{name}-{number}" for number in range(meters)]
    batch = [
        reading(
            meter_id,
            DAY + timedelta(seconds=step_s * index),
            value("OBIS_1.8.0", f"{100 + factor * index * step_s / 3600:.3f}", "kWh"),
        )
        for meter_id in ids
        for index in range(int(86_400 / step_s) + 1)
    ]
    await put(store, *batch)
    household = await move_in(store, account, ids, DAY - timedelta(days=9), tenant_key=1)
    await store.fetch(
        "insert into consent (account_key, household_key, purpose, property_ids, step_s, given_time, expires_time) "
        "values ($1, $2, 'research', '{OBIS_1.8.0}', 3600, $3, $4)",
        account,
        household,
        DAY,
        NOW + timedelta(days=30),
    )
    return account


@dataclass
class Study:
    """A researcher, and K households that consented."""

    store: Store
    client: httpx.AsyncClient
    researcher: dict[str, str]
    accounts: list[int]

    async def ask(self, **changes: object) -> httpx.Response:
        return await self.client.post("/v1/research", headers=self.researcher, json={**QUERY, **changes})

    async def refusal(self, **changes: object) -> object:
        answer = await self.ask(**changes)
        assert answer.status_code == 422, answer.text
        return answer.json()["reason"]


@pytest.fixture
async def study(store: Store) -> AsyncIterator[Study]:
    accounts = [await add_household(store, f"house{number}") for number in range(K)]
    researcher = bearer(await token_of(store, "rosa", "researcher", 1))
    privacy = PrivacyConfig(k=K, dominance_share=0.5)
    async with clients_of(create_app(store, is_open=False, privacy=privacy), None) as (client,):
        yield Study(store, client, researcher, accounts)


async def test_k_households_are_told_as_sums(study: Study) -> None:
    answer = (await study.ask()).json()
    assert (answer["propertyId"], answer["unit"], answer["stepS"], answer["isCoarsened"]) == (
        "OBIS_1.8.0",
        "kWh",
        3600,
        False,
    )
    assert len(answer["content"]) == 24
    assert {(cell["households"], cell["sum"], cell["mean"]) for cell in answer["content"]} == {(K, 4.0, 1.0)}
    assert (await study.client.get("/v1/meters", headers=study.researcher)).status_code == 403


async def test_one_household_less_than_k_is_refused_however_many_rows_and_meters_it_has(study: Study) -> None:
    await study.store.fetch("update consent set revoked_time = now() where account_key = $1", study.accounts[0])
    assert await study.refusal() == "too-few-households"
    await put(study.store, *series("house1-0", DAY, 1000, step_s=80))
    await study.store.fetch(
        "update meter set household_key = (select household_key from meter where meter_id = 'house1-0') "
        "where meter_id = 'house0-0'"
    )
    assert await study.refusal() == "too-few-households"


async def test_a_household_that_dominates_is_refused(study: Study) -> None:
    await add_household(study.store, "factory", factor=40)
    assert await study.refusal() == "one-household-dominates"


async def test_where_hours_may_not_be_told_a_day_is(study: Study) -> None:
    await study.store.fetch("delete from reading where reading_time > $1 and reading_time < $2", DAY, MIDNIGHT)
    answer = (await study.ask()).json()
    assert (answer["isCoarsened"], answer["stepS"]) == (True, 86_400)
    assert [cell["sum"] for cell in answer["content"]] == [96.0]


async def test_an_answer_that_would_tell_of_the_one_who_left_is_refused(study: Study) -> None:
    await add_household(study.store, "leaver")
    assert (await study.ask()).status_code == 200
    await study.store.fetch("update consent set revoked_time = now() where household_key = 5")
    assert await study.refusal() == "tells-a-difference"


async def test_a_consent_counts_only_while_and_for_what_it_is_valid(study: Study) -> None:
    for change in (
        "expires_time = now()",
        "revoked_time = now()",
        "property_ids = '{OBIS_1.7.0}'",
        "from_time = now()",
        "until_time = now() - interval '3 days'",
    ):
        await study.store.fetch(f"update consent set {change} where account_key = $1", study.accounts[0])
        assert await study.refusal() == "too-few-households", change
        await study.store.fetch(
            "update consent set expires_time = now() + interval '1 day', revoked_time = null, "
            "property_ids = '{OBIS_1.8.0}', from_time = null, until_time = null"
        )
    await study.store.fetch("update consent set step_s = 86400 where account_key = $1", study.accounts[0])
    assert (await study.ask()).json()["isCoarsened"] is True


async def test_everybody_who_lives_there_must_consent(study: Study) -> None:
    other = await add_account(study.store, "flatmate", "member", 1)
    await study.store.fetch(
        "insert into resident (account_key, household_key, from_time) values ($1, 1, $2)",
        other,
        DAY - timedelta(days=1),
    )
    assert await study.refusal() == "too-few-households"


async def test_cells_cannot_be_shifted_and_a_researcher_sees_nothing_else(study: Study) -> None:
    assert await study.refusal(fromTime=(DAY + timedelta(minutes=30)).isoformat()) == "bad-time"
    assert await study.refusal(untilTime=(MIDNIGHT + timedelta(days=1)).isoformat()) == "bad-time"
    assert await study.refusal(propertyName="nonsense") == "bad-query"
    south = await add_tenant(study.store, "south")
    foreign = bearer(await token_of(study.store, "sara", "researcher", south))
    answer = await study.client.post("/v1/research", headers=foreign, json=QUERY)
    assert answer.json()["reason"] == "too-few-households"


async def test_a_member_gives_and_revokes_a_consent_for_the_own_household_only(study: Study) -> None:
    await add_with_password(study.store, "mara", "member", 1)
    (row,) = await study.store.fetch("select account_key from account where login = 'mara'")
    own = await move_in(study.store, row["account_key"], [], NOW, tenant_key=1)
    await sign_in(study.client, "mara", PASSWORD)
    body = {"propertyIds": ["1.8.0"], "stepS": 3600, "expiresTime": (NOW + timedelta(days=9)).isoformat()}
    foreign = await study.client.post("/v1/consents", json={**body, "householdId": 1})
    assert (foreign.status_code, foreign.json()["reason"]) == (403, "not-yours")
    given = await study.client.post("/v1/consents", json={**body, "householdId": own})
    assert given.json()["propertyIds"] == ["OBIS_1.8.0"]
    listed = (await study.client.get("/v1/consents")).json()["content"]
    assert [each["login"] for each in listed] == ["mara"]
    assert (await study.client.delete("/v1/consents/1")).status_code == 404
    assert (await study.client.delete(f"/v1/consents/{given.json()['consentId']}")).status_code == 204
    assert (await study.client.get("/v1/consents")).json()["content"][0]["revokedTime"] is not None
    too_long = {**body, "householdId": own, "expiresTime": "2999-01-01T00:00:00Z"}
    assert (await study.client.post("/v1/consents", json=too_long)).status_code == 422


async def test_a_restored_backup_of_before_an_erasure_is_erased_again(database_dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "before.backup"
    async with await Store.connect(database_dsn) as store:
        await store.migrate(now=NOW)
        await put(store, at(120, EVES_KWH), at(20, EVES_KWH), at(20, "1.0", "next-door"))
        await move_in(store, await add_account(store, "eve.adams", "member", 1), [METER], MOVED_IN, tenant_key=1)
        await back_up(database_dsn, file, progress=lambda _: None)
        subject = Subject("account", "eve.adams", EVER, None)
        asked = datetime.now(UTC)
        await store.begin_erasure(subject, reason="objection", tenant_key=1, by_account=None, now=asked)
        assert await store.erase(now=asked) == 1
    said: list[str] = []
    await restore(database_dsn, file, replace=True, progress=said.append)
    assert "erasing again what was erased since the backup" in said
    assert EVES_KWH not in await asyncio.to_thread(dump, database_dsn)
    async with await Store.connect(database_dsn) as store:
        assert [row["login"] for row in await store.fetch("select login from account")] == []
        assert (await store.fetch("select count(*) from reading"))[0][0] == 1
        assert (await store.commit_batch([at(20, EVES_KWH)], now=NOW)).erased == 1
        assert await store.broken_proof() is None


# ---- no person in a message ----


def test_no_message_names_a_person() -> None:
    words = re.compile("account|household|person|login|tenant|resident|member", re.IGNORECASE)
    kinds = [reports.Status, reports.MeterDescription, reports.Fault]
    fields = {name for kind in kinds for name in kind.__struct_fields__}
    payload = wire.encode(
        MeterReading(reading_id(METER, NOW), METER, NOW, (value("OBIS_1.8.0", "1.5", "kWh"),), 1, None)
    ).decode()
    said = [
        *fields,
        *re.findall(r'"(\w+)":', payload),
        concentrator_topic("c", smart_meter_topic("m", SpecificTopic.READINGS)),
    ]
    assert [each for each in said if words.search(each)] == []
    assert {"readingTime", "meterIndividualId"} <= set(said)
