"""Attackers with an account, a token or a device of their own: they get no further, and crowd nobody out."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from meterway.cloud.access.tries import Tries
from meterway.cloud.access.viewer import EVERYBODY, Role, Viewer
from meterway.cloud.api import create_app
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.live import LIMIT_CLIENTS_EACH, LiveHub
from meterway.cloud.problems import HttpError
from meterway.cloud.store import ArrivedFault, ArrivedReading, Bounds, Rejected, Store
from meterway.core import reports
from support.access import add_account, add_tenant, add_token, clients_of, token_of, utc_now
from support.cloud_http import fault, put, reading, value

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(store, is_open=False, devices=BrokerForDevices("mqtt://127.0.0.1"))
    async with clients_of(app, None) as (client,):
        yield client


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def through(concentrator_id: str, meter_id: str, at: datetime = NOW) -> ArrivedReading:
    made = reading(meter_id, at, value("OBIS_1.8.0", "1.0", "kWh"))
    topic = f"concentrator/{concentrator_id}/smartMeterMessage/{meter_id}/readings"
    return ArrivedReading(topic, made.payload, concentrator_id, made.reading)


async def test_a_token_for_people_gives_nobody_what_it_has_not(store: Store, client: httpx.AsyncClient) -> None:
    ada = await add_account(store, "ada", "operator")
    await add_account(store, "rosa", "researcher")
    narrow = as_(await add_token(store, ada, ["people"]))
    wide = as_(await add_token(store, ada))
    attempts: tuple[tuple[str, str, object], ...] = (
        ("POST", "/v1/accounts/ada/link", None),
        ("POST", "/v1/accounts", {"login": "me", "role": "operator"}),
        ("POST", "/v1/accounts", {"login": "me", "role": "member"}),
        ("PATCH", "/v1/accounts/rosa", {"role": "auditor"}),
    )
    for method, path, body in attempts:
        refused = await client.request(method, path, json=body, headers=narrow)
        assert (path, refused.status_code, refused.json()["reason"]) == (path, 403, "not-permitted")
    assert (await store.fetch("select count(*) from sign_in_link"))[0][0] == 0
    assert (await client.patch("/v1/accounts/rosa", json={"disabled": True}, headers=narrow)).status_code == 200
    for method, path, body in attempts[:3:2]:
        assert (await client.request(method, path, json=body, headers=wide)).status_code == 200
    both = as_(await add_token(store, ada, ["people", "read", "export"]))
    invited = await client.post("/v1/accounts", json={"login": "eve", "role": "member"}, headers=both)
    assert invited.status_code == 200, invited.text


async def test_what_collects_for_all_tenants_is_not_for_the_operator_of_one(
    store: Store, client: httpx.AsyncClient
) -> None:
    everything = as_(await token_of(store, "ada", "operator"))
    own = as_(await token_of(store, "mia", "operator", 1))
    await add_tenant(store, "north")
    device = {"kind": "concentrator", "id": "hub", "collects": True}
    assert (await client.post("/v1/devices", json=device, headers=everything)).status_code == 200
    assert (await client.get("/v1/devices/concentrator/hub", headers=own)).status_code == 200
    assert (await client.post("/v1/devices/concentrator/hub/code", headers=own)).status_code == 403
    assert (await client.delete("/v1/devices/concentrator/hub", headers=own)).status_code == 403
    assert (await client.post("/v1/devices/concentrator/hub/code", headers=everything)).status_code == 200
    assert (await client.delete("/v1/devices/concentrator/hub", headers=everything)).status_code == 200


async def test_nobody_reads_the_receipts_of_another_tenant_by_taking_a_name(
    store: Store, client: httpx.AsyncClient
) -> None:
    north = await add_tenant(store, "north", "cellar-north")
    await add_tenant(store, "south")
    south = await store.fetch("select tenant_key from tenant where tenant_id = 'south'")
    sam = as_(await token_of(store, "sam", "operator", south[0][0]))
    await put(store, through("cellar-north", "n1"))
    as_meter = {"kind": "adapter", "id": "a", "meterIds": ["cellar-north"]}
    as_concentrator = {"kind": "concentrator", "id": "n1"}
    for device in (as_meter, as_concentrator):
        assert (await client.post("/v1/devices", json=device, headers=sam)).status_code == 409
    assert await store.fetch("select from meter where meter_id = 'cellar-north'") == []
    assert await store.fetch("select from concentrator where concentrator_id = 'n1'") == []
    nora = as_(await token_of(store, "nora", "operator", north))
    for device in ({"kind": "adapter", "id": "b", "meterIds": ["n1"]}, {"kind": "concentrator", "id": "cellar-north"}):
        answer = await client.post("/v1/devices", json=device, headers=nora)
        assert answer.status_code == 200, answer.text


async def test_changing_a_signing_key_and_reading_what_was_kept_aside_is_in_the_audit_log(
    store: Store, client: httpx.AsyncClient
) -> None:
    ada = as_(await token_of(store, "ada", "operator"))
    await put(store, through("c1", "m1"))
    await store.commit_batch([Rejected("t", b"x", "bad-json", "no")], now=NOW)
    key = {"publicKey": "tuRUhFeVOKvhMYs1QLrXgAlhpTTu5oLZalgiNiwRFws", "required": True}
    assert (await client.put("/v1/meters/m1/signingKey", json=key, headers=ada)).status_code == 200
    assert (await client.delete("/v1/meters/m1/signingKey", headers=ada)).status_code == 200
    assert (await client.post("/v1/accounts/nobody/link", headers=ada)).status_code == 404
    reads = ["/v1/quarantine", "/v1/quarantine/1", "/v1/faults", "/v1/conflicts", "/v1/meters/m1/completeness"]
    for path in (*reads, "/v1/completeness", "/v1/accounts", "/v1/households"):
        assert (await client.get(path, headers=ada)).status_code == 200
    entries = (await client.get("/v1/audit", headers=ada)).json()["content"]
    said = {(each["action"], each["subject"]) for each in entries}
    assert said == {("changed", "m1"), *(("read", each) for each in ("quarantine", "quarantine/1", "faults"))} | {
        ("read", each) for each in ("conflicts", "m1", "meters", "accounts", "households")
    }
    changes = [each["detail"] for each in entries if each["action"] == "changed"]
    assert changes == [{"signingKey": None}, {"signingKey": key}]


async def test_no_login_of_a_stranger_stops_the_audit_log(store: Store, client: httpx.AsyncClient) -> None:
    ada = as_(await token_of(store, "ada", "operator"))
    for login in ("x\0y", "x" * 900):
        assert (await client.post("/v1/sign-in", json={"login": login, "password": "p"})).status_code == 401
    for half in (b'{"login": "\\ud800", "password": "p"}', b'{"login": "y", "password": "\\ud800"}'):
        assert (await client.post("/v1/sign-in", content=half)).status_code == 422, half
    assert (await client.post("/v1/accounts/ad%00a/link", headers=ada)).status_code == 200
    seen = (await client.get("/v1/audit", headers=ada)).json()["content"]
    assert [each["subject"] for each in seen] == ["account/ad\ufffda", f"account/{'x' * 192}", "account/x\ufffdy"]


async def test_metrics_count_all_tenants_and_are_for_those_who_see_all(store: Store, client: httpx.AsyncClient) -> None:
    people: tuple[tuple[str, Role, int | None, int], ...] = (
        ("ada", "operator", None, 200),
        ("alan", "auditor", None, 200),
        ("nora", "operator", 1, 403),
        ("eve", "member", 1, 403),
    )
    for login, role, tenant_key, status in people:
        headers = as_(await token_of(store, login, role, tenant_key))
        assert (await client.get("/metrics", headers=headers)).status_code == status


async def test_a_concentrator_reports_no_fault_of_another_tenants_meter(store: Store) -> None:
    await add_tenant(store, "north", "cellar-north")
    await add_tenant(store, "south", "cellar-south")
    await put(store, through("cellar-north", "n1"))
    made = fault("n1", reports.Fault(time=NOW, reason="bad-checksum", message="pay here", data=b"x"))
    forged = ArrivedFault(made.topic, made.payload, "cellar-south", "n1", made.fault)
    committed = await store.commit_batch([forged], now=NOW)
    assert [each.reason for each in committed.rejected] == ["foreign-meter"]
    assert await store.fetch("select from fault") == []


async def test_who_floods_the_quarantine_pushes_out_only_the_own(database_dsn: str) -> None:
    def bad(concentrator_id: str, number: int) -> Rejected:
        topic = f"concentrator/{concentrator_id}/smartMeterMessage/m/readings"
        return Rejected(topic, b"%d" % number, "bad-json", "not JSON")

    async with await Store.connect(database_dsn, bounds=Bounds(rows=50)) as store:
        await store.migrate(now=NOW)
        await store.commit_batch([bad("quiet", number) for number in range(20)], now=NOW)
        for start in range(0, 400, 40):
            await store.commit_batch([bad("loud", number) for number in range(start, start + 40)], now=NOW)
        rows = await store.fetch(
            "select split_part(topic, '/', 2) as sender, count(*) as count from quarantine group by 1 order by 1"
        )
        assert [(row["sender"], row["count"]) for row in rows] == [("loud", 30), ("quiet", 20)]


async def test_who_invents_meters_uses_up_the_number_of_the_own_tenant(database_dsn: str) -> None:
    async with await Store.connect(database_dsn, limit_unclaimed_meters=5) as store:
        await store.migrate(now=NOW)
        await add_tenant(store, "north", "cellar-north")
        await add_tenant(store, "south", "cellar-south")
        flood = await store.commit_batch([through("cellar-south", f"x{number}") for number in range(9)], now=NOW)
        assert (flood.stored, {each.reason for each in flood.rejected}) == (5, {"too-many-meters"})
        good = await store.commit_batch([through("cellar-north", "n1"), through("cellar-south", "x9")], now=NOW)
        assert (good.stored, len(good.rejected)) == (1, 1)


async def test_one_account_has_a_share_of_the_live_streams(store: Store) -> None:
    hub = LiveHub(store, utc_now)
    eve = Viewer(account_key=1, tenant_key=1, actor="eve", role="member")
    ada = Viewer(account_key=2, tenant_key=1, actor="ada", role="member")
    clients = [hub.connect(eve) for _ in range(LIMIT_CLIENTS_EACH)]
    with pytest.raises(HttpError, match="close some") as refused:
        hub.connect(eve)
    assert refused.value.status == 429
    hub.connect(ada)
    for _ in range(LIMIT_CLIENTS_EACH + 1):
        hub.connect(EVERYBODY)
    hub.disconnect(clients[0])
    hub.connect(eve)


def test_the_addresses_of_one_ipv6_network_are_one_attacker() -> None:
    tries = Tries(free=3, longest_s=900)
    for number in range(5):
        tries.failed(f"2001:db8:1:2::{number:x}", 0.0)
    assert tries.pause_s("2001:db8:1:2:ffff::1", 0.0) > 0
    for other in ("2001:db8:1:3::1", "192.0.2.1", "::ffff:192.0.2.1", "ada"):
        assert tries.pause_s(other, 0.0) == 0
    tries.succeeded("2001:db8:1:2::77")
    assert tries.pause_s("2001:db8:1:2::1", 0.0) == 0
