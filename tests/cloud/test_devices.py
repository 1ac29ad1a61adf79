"""Devices in the provisioning table: added, enrolled with a code that is good once, changed, revoked."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import Any

import httpx
import pytest

from meterway.authority import Authority
from meterway.bus.refusals import Refusal
from meterway.cloud.api import create_app
from meterway.cloud.devices.answers import NewDevice
from meterway.cloud.devices.directory import DeviceDirectory
from meterway.cloud.devices.notes import DeviceNotes
from meterway.cloud.devices.queries import LIMIT_REFUSALS
from meterway.cloud.devices.registry import CODE_LIFE, BrokerForDevices, Registry, digest_of
from meterway.cloud.query import Statement
from meterway.cloud.store import Row, Store
from meterway.core.enrolment import EnrolmentCode
from meterway.core.errors import BadDataError
from support.cloud_http import client_of, put, reading, value

METER, OTHER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff", "gas-1"
ADAPTER: dict[str, object] = {"kind": "adapter", "id": "cellar", "meterIds": [METER]}


class Clock:
    """A clock that a test can put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(tmp_path: Path) -> BrokerForDevices:
    authority = Authority.open(tmp_path / "authority", clock=lambda: datetime.now(UTC))
    return BrokerForDevices("mqtts://cloud.example", authority.ca_file, authority.ca_file)


@pytest.fixture
async def api(store: Store, clock: Clock, broker: BrokerForDevices) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(store, clock=clock, devices=broker)) as client:
        yield client


async def add(api: httpx.AsyncClient, **device: object) -> Any:
    answer = await api.post("/v1/devices", json=device or ADAPTER)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def enrol(api: httpx.AsyncClient, code: str, kind: str = "adapter") -> httpx.Response:
    return await api.post("/v1/enrol", json={"code": code, "kind": kind})


def login(username: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{username}:{password}".encode()).decode()}


async def test_a_code_becomes_credentials_once(api: httpx.AsyncClient, broker: BrokerForDevices, store: Store) -> None:
    made = await add(api)
    assert made["device"]["state"] == "waiting"
    assert made["command"] == f"meterway adapter enroll {api.base_url} {made['code']} --config adapter.toml"
    assert broker.ca_file is not None
    certificate = (await api.get("/v1/enrol/ca")).text
    assert certificate == broker.ca_file.read_text()
    assert EnrolmentCode.parse(made["code"]).pins(PEM_cert_to_DER_cert(certificate))

    answer = (await enrol(api, made["code"])).json()
    assert answer == {
        "kind": "adapter",
        "deviceId": "cellar",
        "meterIds": [METER],
        "collects": False,
        "brokerUrl": "mqtts://cloud.example",
        "username": "adapter-cellar",
        "password": answer["password"],
        "caCertificate": certificate,
    }
    (row,) = await store.fetch("select secret_digest from device")
    assert row[0] == digest_of(answer["password"])
    assert (await api.get("/v1/devices/adapter/cellar")).json()["state"] == "enrolled"

    again = await enrol(api, made["code"])
    assert again.status_code == 403
    assert "was used at" in again.json()["detail"]
    assert "revoke the device" in again.json()["detail"]


async def test_of_two_that_use_a_code_at_the_same_time_one_gets_it(api: httpx.AsyncClient) -> None:
    code = (await add(api))["code"]
    answers = await asyncio.gather(*(enrol(api, code) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [403] * 7


async def test_a_code_is_good_for_a_quarter_of_an_hour_and_for_its_kind(api: httpx.AsyncClient, clock: Clock) -> None:
    code = (await add(api))["code"]
    other = await enrol(api, code, kind="concentrator")
    assert (other.status_code, other.json()["detail"]) == (403, "This code is for a device of the kind adapter.")
    clock.ahead = CODE_LIFE
    late = await enrol(api, code)
    assert late.status_code == 403
    assert "was good until" in late.json()["detail"]
    renewed = (await api.post("/v1/devices/adapter/cellar/code")).json()
    assert (await enrol(api, code)).status_code == 403
    assert (await enrol(api, renewed["code"])).status_code == 200


async def test_who_tries_codes_must_wait(api: httpx.AsyncClient) -> None:
    code = (await add(api))["code"]
    pin = EnrolmentCode.parse(code).pin
    guesses = [str(EnrolmentCode(bytes([number]) * 11, pin)) for number in range(12)]
    statuses = [(await enrol(api, guess)).status_code for guess in guesses]
    assert statuses == [403] * 10 + [429] * 2
    refused = await enrol(api, code)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 0


async def test_enrolled_again_a_device_has_a_new_password_and_the_old_one_ends(api: httpx.AsyncClient) -> None:
    first = (await enrol(api, (await add(api))["code"])).json()
    code = (await api.post("/v1/devices/adapter/cellar/code")).json()["code"]
    assert (await api.get("/v1/devices/self", headers=login("adapter-cellar", first["password"]))).status_code == 200
    second = (await enrol(api, code)).json()
    old, new = [
        await api.get("/v1/devices/self", headers=login("adapter-cellar", each["password"])) for each in (first, second)
    ]
    assert old.status_code == 401
    assert new.json() == {"kind": "adapter", "deviceId": "cellar", "meterIds": [METER], "refusals": []}


async def test_a_revoked_device_has_neither_password_nor_code(api: httpx.AsyncClient) -> None:
    password = (await enrol(api, (await add(api))["code"])).json()["password"]
    code = (await api.post("/v1/devices/adapter/cellar/code")).json()["code"]
    assert (await api.delete("/v1/devices/adapter/cellar")).json()["state"] == "revoked"
    assert (await enrol(api, code)).status_code == 403
    assert (await api.get("/v1/devices/self", headers=login("adapter-cellar", password))).status_code == 401
    again = (await api.post("/v1/devices/adapter/cellar/code")).json()
    assert (await enrol(api, again["code"])).status_code == 200
    assert (await api.get("/v1/devices/adapter/cellar")).json()["state"] == "enrolled"


async def test_a_device_that_cannot_be_is_refused_with_a_sentence(api: httpx.AsyncClient) -> None:
    await add(api)
    cases: tuple[tuple[dict[str, object], int, str], ...] = (
        ({"kind": "adapter", "id": "a b"}, 422, "device id 'a b'"),
        ({"kind": "adapter", "id": "x" * 52}, 422, "at most 51"),
        ({"kind": "meter", "id": "x"}, 422, "kind"),
        ({"kind": "adapter", "id": "x", "meterIds": ["a/b"]}, 422, "smart meter id"),
        ({"kind": "adapter", "id": "x", "meterIds": ["a", "a"]}, 422, "twice"),
        ({"kind": "concentrator", "id": "x", "meterIds": ["a"]}, 422, "passes on any meter"),
        ({"kind": "adapter", "id": "x", "collects": True}, 422, "concentrator's"),
        ({"kind": "adapter", "id": "x", "tenant": "nobody"}, 403, "no tenant nobody"),
        (ADAPTER, 409, "already"),
    )
    for device, status, said in cases:
        answer = await api.post("/v1/devices", json=device)
        assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


async def test_devices_are_listed_page_by_page(api: httpx.AsyncClient) -> None:
    for name in ("b", "a", "c"):
        await add(api, kind="adapter", id=name)
    await add(api, kind="concentrator", id="a")
    first = (await api.get("/v1/devices?limit=3")).json()
    second = (await api.get("/v1/devices", params={"limit": 3, "after": first["nextAfter"]})).json()
    assert [each["username"] for each in first["content"]] == ["adapter-a", "adapter-b", "adapter-c"]
    assert [each["username"] for each in second["content"]] == ["concentrator-a"]
    assert second["nextAfter"] is None
    assert (await api.get("/v1/devices/adapter/nobody")).status_code == 404


async def registry_of(store: Store, clock: Clock, tenant: str) -> Registry:
    (row,) = await store.fetch("insert into tenant (tenant_id, name) values ($1, $1) returning tenant_key", tenant)

    async def fetch(statement: Statement) -> list[Row]:
        return await store.fetch(statement.sql, *statement.args)

    return Registry(fetch, BrokerForDevices("mqtt://localhost"), clock, row[0])


async def test_a_tenant_has_its_own_devices_and_cannot_take_anothers_meters(store: Store, clock: Clock) -> None:
    await put(store, reading("wild", clock(), value("OBIS_1.8.0", "1", "kWh")))
    north, south = await registry_of(store, clock, "north"), await registry_of(store, clock, "south")
    await north.add(NewDevice(kind="adapter", id="a", meter_ids=(METER,)))
    for taken in (METER, "wild"):
        with pytest.raises(BadDataError, match=f"Another tenant has {taken} already"):
            await south.add(NewDevice(kind="adapter", id="b", meter_ids=(OTHER, taken)))
    await south.add(NewDevice(kind="adapter", id="b", meter_ids=(OTHER,)))
    with pytest.raises(BadDataError, match="Another tenant has"):
        await south.set_meters("adapter", "b", (METER,))
    with pytest.raises(BadDataError, match="no device adapter a"):
        await south.revoke("adapter", "a")
    with pytest.raises(BadDataError, match="no device adapter a"):
        await south.renew("adapter", "a")
    with pytest.raises(BadDataError, match="reads all tenants' meters"):
        await south.add(NewDevice(kind="concentrator", id="c", collects=True))
    assert [each.device_id for each in (await south.list(("", ""), 10)).content] == ["b"]
    rows = await store.fetch(
        "select tenant_id, claimed from meter join tenant using (tenant_key) where meter_id = $1", METER
    )
    assert [tuple(row) for row in rows] == [("north", True)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_directory_follows_the_table(store: Store, api: httpx.AsyncClient) -> None:
    changed: list[tuple[str, bool]] = []
    directory = DeviceDirectory(store, lambda device: changed.append((device.username, device.revoked)))
    code = (await add(api))["code"]
    async with directory.running():
        assert directory.find("adapter-cellar") is None
        password = (await enrol(api, code)).json()["password"]
        await until(lambda: directory.find("adapter-cellar"))
        found = directory.find("adapter-cellar")
        assert found is not None
        assert found.secret_digest == digest_of(password)
        assert f"smartMeterMessage/{METER}/#" in found.grant.publish
        assert f"smartMeterMessage/{OTHER}/#" not in found.grant.publish

        answer = await api.patch("/v1/devices/adapter/cellar", json={"meterIds": [METER, OTHER]})
        assert answer.json()["meterIds"] == [METER, OTHER]
        await until(lambda: changed)
        found = directory.find("adapter-cellar")
        assert found is not None
        assert f"smartMeterMessage/{OTHER}/#" in found.grant.publish
        assert changed == [("adapter-cellar", False)]

        await api.delete("/v1/devices/adapter/cellar")
        await until(lambda: directory.find("adapter-cellar") is None)
        assert changed[-1] == ("adapter-cellar", True)


async def test_what_changed_while_the_database_was_away_is_known_after(store: Store, api: httpx.AsyncClient) -> None:
    await enrol(api, (await add(api))["code"])
    directory = DeviceDirectory(store)
    async with directory.running():
        assert directory.find("adapter-cellar") is not None
        lost = "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen %'"
        async with asyncio.timeout(60):
            while not await store.fetch(lost):
                await asyncio.sleep(0.02)
        await api.delete("/v1/devices/adapter/cellar")
        await until(lambda: directory.find("adapter-cellar") is None)


async def test_a_concentrator_beside_the_cloud_reads_what_adapters_publish(
    store: Store, api: httpx.AsyncClient
) -> None:
    for device_id, collects in (("far", False), ("near", True)):
        code = (await add(api, kind="concentrator", id=device_id, collects=collects))["code"]
        assert (await enrol(api, code, kind="concentrator")).json()["collects"] is collects
    directory = DeviceDirectory(store)
    async with directory.running():
        far, near = directory.find("concentrator-far"), directory.find("concentrator-near")
    assert far is not None
    assert near is not None
    assert (far.grant.publish, far.grant.read) == (("concentrator/far/#",), ("receipt/far",))
    assert near.grant.publish == ("concentrator/near/#", "receipt/+")
    assert near.grant.read == ("receipt/near", "smartMeterMessage/#")


async def test_refusals_are_kept_and_say_what_to_do(store: Store, api: httpx.AsyncClient, clock: Clock) -> None:
    password = (await enrol(api, (await add(api))["code"])).json()["password"]
    notes = DeviceNotes(store, clock)

    def refuse(topic: str, count: int = 1, kind: Any = "publish", detail: str = "") -> None:
        notes.on_refused(
            Refusal(kind=kind, username="adapter-cellar", client_id="", topic=topic, count=count, detail=detail)
        )

    async def written(count: int) -> Any:
        async with asyncio.timeout(60):
            while (shown := (await api.get("/v1/devices/adapter/cellar")).json())["refusedCount"] < count:
                await asyncio.sleep(0.02)
        return shown

    async with notes.running():
        refuse("smartMeterMessage/x/readings", 11)
        refuse("smartMeterMessage/x/readings")
        refuse("a\0b")
        refuse("", kind="flood", detail="The device published more than 2000 messages a second in the long run.")
        notes.on_refused(Refusal(kind="publish", username="stranger", client_id="", topic="t"))
        await notes.write_seen(["adapter-cellar", "stranger"])
        shown = await written(14)
        assert shown["lastSeenTime"] is not None
        by_topic = {each["topic"]: each for each in shown["refusals"]}
        refused = by_topic["smartMeterMessage/x/readings"]
        assert (refused["kind"], refused["count"]) == ("publish", 12)
        assert refused["reason"] == (
            f"This device may only publish for {METER}; add the meter x on the devices page if it is its own, or "
            "revoke the device."
        )
        assert by_topic["a\ufffdb"]["reason"].endswith("correct its configuration, or revoke it.")
        assert by_topic[""]["reason"].startswith("The device published more than 2000")
        await api.patch("/v1/devices/adapter/cellar", json={"meterIds": [METER, "x"]})
        own = (await api.get("/v1/devices/self", headers=login("adapter-cellar", password))).json()
        reasons = {each["topic"]: each["reason"] for each in own["refusals"]}
        assert reasons["smartMeterMessage/x/readings"] == "It could not do this then; it may now."

        for number in range(LIMIT_REFUSALS + 10):
            refuse(f"topic/{number}")
        async with asyncio.timeout(60):
            while len((await api.get("/v1/devices/adapter/cellar")).json()["refusals"]) != LIMIT_REFUSALS:
                await asyncio.sleep(0.02)
        code = (await api.post("/v1/devices/adapter/cellar/code")).json()["code"]
        await enrol(api, code)
        assert (await api.get("/v1/devices/adapter/cellar")).json()["refusals"] == []
