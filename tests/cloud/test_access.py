"""Who comes in: passwords, sessions, tokens, links; and what is shut to everybody else."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from meterway.cloud.access import rules
from meterway.cloud.access.accounts import IDLE, LINK_LIFE, LONGEST, Accounts
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.tries import LIMIT_KEYS, Tries
from meterway.cloud.access.viewer import Viewer
from meterway.cloud.api import create_app
from meterway.cloud.store import Store
from support.access import (
    PASSWORD,
    add_account,
    add_token,
    clients_of,
    sign_in,
    token_of,
    utc_now,
    with_password,
)

OPEN = {rule for rule, demand in rules.RULES.items() if demand == "anybody"}


@pytest.fixture
async def stranger(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has not signed in."""
    async with clients_of(create_app(store, is_open=False), None) as (client,):
        yield client


def routes_of(app: FastAPI | APIRouter) -> list[str]:
    """Return every method and path of the application, as in the rules."""
    found = []
    for route in app.routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            found += routes_of(included)
            continue
        if isinstance(route, (APIRoute, Route)):
            found += [f"{method} {route.path}" for method in sorted(route.methods or ()) if method != "HEAD"]
        else:
            assert isinstance(route, Mount), f"a kind of route that this test does not know: {route}"
            found.append(f"GET {route.path}/{{file:path}}")
    return found


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    routes = set(routes_of(create_app(None, is_open=False)))  # type: ignore[arg-type]
    assert len(routes) > 40
    assert routes == set(rules.RULES)


async def test_a_stranger_gets_nothing_but_what_is_open(store: Store, stranger: httpx.AsyncClient) -> None:
    await add_account(store, "ada", "operator")
    for rule in sorted(set(rules.RULES) - OPEN):
        method, _, path = rule.partition(" ")
        path = path.replace("{meter_id}", "m1").replace("{", "").replace("}", "")
        answer = await stranger.request(method, path, json={} if method != "GET" else None)
        assert (rule, answer.status_code, answer.json()["reason"]) == (rule, 401, "sign-in")
    assert (await stranger.get("/nothing-of-the-kind")).status_code == 401
    assert (await stranger.get("/healthz")).text == "ok\n"
    assert (await stranger.get("/readyz")).text == "ready\n"
    assert (await stranger.get("/sign-in")).status_code == 200
    assert (await stranger.get("/static/style.css")).status_code == 200
    assert (await stranger.get("/static/../../api.py")).status_code in (401, 404)
    page = await stranger.get("/people", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=%2Fpeople")


def test_what_is_not_in_the_table_is_refused() -> None:
    assert rules.find("GET", "/v1/meters/m1").demand == "read"
    assert rules.find("HEAD", "/v1/meters").demand == "read"
    assert rules.find("PUT", "/v1/meters/m1") == rules.Found(None, ("GET", "PATCH"))
    assert rules.find("GET", "/v1/quarantine/replay") == rules.Found(None, ("POST",))
    for path in ("/v1/meters/", "/v1/meters/a/b/c", "/v1/meters\n", "//v1/meters", "/v1", "/v1/meters/{meter_id}/x"):
        assert rules.find("GET", path) == rules.Found(None, ())
    member = Viewer(account_key=1, tenant_key=1, actor="a", role="member")
    assert rules.permissions(member) == {"read", "export"}
    assert all("export" in may for may in rules.ROLES.values())  # everybody's right, of what is kept of themselves
    token = Viewer(account_key=1, tenant_key=1, actor="a", role="member", scopes=frozenset({"read", "write"}))
    assert rules.permissions(token) == {"read"}
    assert not rules.meets(token, "session")


async def test_signing_in_and_out(store: Store, stranger: httpx.AsyncClient) -> None:
    await with_password(store, "ada")
    assert (await sign_in(stranger, "ada", "wrong password")).status_code == 401
    answer = await sign_in(stranger, " ADA ")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    me = (await stranger.get("/v1/account")).json()
    assert (me["login"], me["role"], me["name"]) == ("ada", "operator", "Ada")
    assert (await stranger.get("/v1/meters")).status_code == 200
    assert (await stranger.post("/v1/sign-out")).status_code == 204
    assert (await stranger.get("/v1/meters")).status_code == 401
    rows = await store.fetch("select count(*) from session")
    assert rows[0][0] == 0


async def test_the_answer_to_signing_in_says_who_one_is(store: Store, stranger: httpx.AsyncClient) -> None:
    for login, role in (("eve", "member"), ("rosa", "researcher")):
        await with_password(store, login, role, 1)  # type: ignore[arg-type]
        me = (await sign_in(stranger, login)).json()
        assert (me["login"], me["name"], me["role"], me["tenantId"]) == (login, login.title(), role, "main")
        assert me == (await stranger.get("/v1/account")).json()


async def test_neither_status_nor_sentence_tells_whether_there_is_such_a_login(
    store: Store, stranger: httpx.AsyncClient
) -> None:
    await with_password(store, "ada")
    await add_account(store, "without-password", "operator")
    answers = [await sign_in(stranger, login, "wrong password") for login in ("ada", "nobody", "without-password")]
    assert {(answer.status_code, answer.json()["detail"]) for answer in answers} == {
        (401, "Login or password is wrong.")
    }


async def test_a_cookie_alone_changes_nothing(store: Store, stranger: httpx.AsyncClient) -> None:
    await with_password(store, "ada")
    await sign_in(stranger, "ada")
    token = stranger.headers.pop("X-CSRF-Token")
    for forged in ("", token[:-1] + ("1" if token.endswith("0") else "0"), "0" * 64):
        headers = {"X-CSRF-Token": forged} if forged else {}
        answer = await stranger.post("/v1/tenants", json={"tenantId": "x", "name": "X"}, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "csrf")
    answer = await stranger.post("/v1/tenants", json={"tenantId": "x", "name": "X"}, headers={"X-CSRF-Token": token})
    assert answer.status_code == 200


async def test_a_session_ends_with_its_account_its_time_and_a_new_password(store: Store) -> None:
    await with_password(store, "ada")
    async with clients_of(create_app(store, is_open=False), None, None) as (here, there):
        for client in (here, there):
            await sign_in(client, "ada")
        new = "another good password"
        answer = await here.post("/v1/account/password", json={"old": "wrong password", "new": new})
        assert answer.status_code == 403
        assert (await here.post("/v1/account/password", json={"old": PASSWORD, "new": "short"})).status_code == 422
        await here.post("/v1/tokens", json={"name": "billing", "scopes": ["read"]})
        changed = await here.post("/v1/account/password", json={"old": PASSWORD, "new": new})
        assert (changed.status_code, changed.json()["tokens"]) == (200, 1)
        here.headers["X-CSRF-Token"] = changed.json()["csrfToken"]
        assert (await here.get("/v1/meters")).status_code == 200
        assert (await there.get("/v1/meters")).status_code == 401
        assert (await sign_in(there, "ada", new)).status_code == 200
        await store.fetch("update session set last_used_time = $1", utc_now() - IDLE)
        assert (await here.get("/v1/meters")).status_code == 401
        await sign_in(here, "ada", new)
        await store.fetch("update session set expires_time = $1", utc_now() - timedelta(seconds=1))
        assert (await here.get("/v1/meters")).status_code == 401
        await sign_in(here, "ada", new)
        await store.fetch("update account set disabled = true")
        assert (await here.get("/v1/meters")).status_code == 401
        assert (await sign_in(here, "ada", new)).status_code == 401
    assert IDLE < LONGEST


async def test_guessing_is_slowed_down(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_password(store, "ada")
    now_s = 1000.0
    monkeypatch.setattr("meterway.cloud.access.accounts.monotonic", lambda: now_s)
    app = create_app(store, is_open=False)
    for _ in range(9):
        app.state.accounts._by_login.failed("ada", now_s)
    async with clients_of(app, None) as (client,):
        assert (await sign_in(client, "ada", "wrong password")).status_code == 401
        answer = await sign_in(client, "ada")  # the right one
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        now_s += 1.1
        assert (await sign_in(client, "ada")).status_code == 200


def test_pauses_double_and_are_forgotten() -> None:
    tries = Tries(free=2, longest_s=60)
    for now_s in (0.0, 1.0):
        assert tries.pause_s("a", now_s) == 0
        tries.failed("a", now_s)
    assert tries.pause_s("a", 1.0) == 1
    tries.failed("a", 2.0)
    assert tries.pause_s("a", 2.0) == 2
    for _ in range(20):
        tries.failed("a", 3.0)
    assert tries.pause_s("a", 3.0) == 60
    tries.failed("a", 10_000.0)
    assert tries.pause_s("a", 10_000.0) == 0
    tries.failed("b", 0.0)
    tries.succeeded("b")
    for number in range(LIMIT_KEYS + 10):
        tries.failed(f"login-{number}", 10_001.0)
    assert len(tries._failures) == LIMIT_KEYS


async def test_tokens_do_what_their_scopes_say_until_they_end(store: Store) -> None:
    ada = await add_account(store, "ada", "operator")
    read = await add_token(store, ada, ["read"])
    expired = await add_token(store, ada, days=-0.001)
    async with clients_of(create_app(store, is_open=False), read, expired, "mw_made-up") as (reads, ended, made_up):
        assert (await reads.get("/v1/meters")).status_code == 200
        for method, path in (("POST", "/v1/tenants"), ("GET", "/v1/audit"), ("PATCH", "/v1/meters/m1")):
            answer = await reads.request(method, path, json={"claimed": True} if method != "GET" else None)
            assert (answer.status_code, answer.json()["reason"]) == (403, "not-permitted")
        for path in ("/v1/tokens", "/v1/sessions"):  # a token makes no tokens
            assert (await reads.get(path)).status_code == 403
        assert (await ended.get("/v1/meters")).status_code == 401
        assert (await made_up.get("/v1/meters")).status_code == 401
        await store.fetch("update api_token set revoked_time = now()")
        assert (await reads.get("/v1/meters")).status_code == 401


async def test_a_token_is_made_shown_once_and_revoked(store: Store, stranger: httpx.AsyncClient) -> None:
    await with_password(store, "eve", "member", 1)
    await sign_in(stranger, "eve")
    beyond = await stranger.post("/v1/tokens", json={"name": "x", "scopes": ["read", "people"]})
    assert (beyond.status_code, beyond.json()["reason"]) == (403, "not-permitted")
    assert (await stranger.post("/v1/tokens", json={"name": "x", "scopes": ["read"], "days": 400})).status_code == 422
    made = (await stranger.post("/v1/tokens", json={"name": "billing", "scopes": ["read"], "days": 30})).json()
    assert made["token"].startswith("mw_")
    listed = (await stranger.get("/v1/tokens")).json()["content"]
    assert [(each["name"], each["scopes"], "token" in each) for each in listed] == [("billing", ["read"], False)]
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert (await stranger.get("/v1/account", headers=bearer)).json()["permissions"] == ["read"]
    assert (await stranger.delete(f"/v1/tokens/{made['tokenId']}")).status_code == 204
    assert (await stranger.get("/v1/account", headers=bearer)).status_code == 401
    stored = await store.fetch("select digest::text from api_token")
    assert made["token"] not in str(stored)


async def test_the_first_link_makes_the_first_operator_once(store: Store, stranger: httpx.AsyncClient) -> None:
    accounts = Accounts(store, AuditLog(store, utc_now), utc_now)
    secret = await accounts.first_link()
    assert secret is not None
    assert await accounts.first_link() is None
    assert "operator" in (await stranger.get(f"/link/{secret}")).text
    body = {"secret": secret, "name": "Ada", "password": "short"}
    assert (await stranger.post("/v1/link", json=body)).status_code == 422
    assert (await stranger.post("/v1/link", json={**body, "password": PASSWORD})).status_code == 200
    assert (await stranger.get("/v1/account")).json()["role"] == "operator"
    assert (await stranger.post("/v1/link", json={**body, "password": PASSWORD})).status_code == 404
    assert (await stranger.get(f"/link/{secret}")).status_code == 404
    late = await accounts.invite("operator", "operator", None)
    await store.fetch("update sign_in_link set expires_time = $1", utc_now())
    assert (await stranger.post("/v1/link", json={**body, "secret": late, "password": PASSWORD})).status_code == 404
    assert timedelta(hours=1) < LINK_LIFE <= timedelta(days=1)


async def test_who_did_what_is_told(store: Store) -> None:
    operator = await token_of(store, "ada", "operator")
    auditor = await token_of(store, "otto", "auditor")
    member = await token_of(store, "eve", "member", 1)
    async with clients_of(create_app(store, is_open=False), operator, auditor, member, None) as (ada, otto, eve, anon):
        await ada.post("/v1/meterReadings", json={"meterIds": ["m1"]})
        await ada.get("/v1/meterReadings/bulk", params={"meterIds": "m1"})
        await ada.post("/v1/tenants", json={"tenantId": "north", "name": "North"})
        await sign_in(anon, "nobody", "wrong password")
        seen = (await otto.get("/v1/audit", params={"actor": "ada"})).json()["content"]
        assert [(each["action"], each["subject"]) for each in seen] == [
            ("changed", "tenant/north"),
            ("exported", "readings"),
            ("read", "readings"),
        ]
        assert seen[-1]["detail"] == {"meterIds": ["m1"]}
        failed = (await otto.get("/v1/audit", params={"action": "sign-in-failed"})).json()["content"]
        assert [each["subject"] for each in failed] == ["account/nobody"]
        page = (await otto.get("/v1/audit", params={"actor": "ada", "limit": 2})).json()
        rest = (await otto.get("/v1/audit", params={"actor": "ada", "before": page["nextBefore"]})).json()
        assert [each["action"] for each in rest["content"]] == ["read"]
        assert (await otto.post("/v1/tenants", json={"tenantId": "x", "name": "X"})).status_code == 403
        assert (await eve.get("/v1/audit")).status_code == 403


async def test_tokens_that_ended_longer_ago_than_is_audited_are_forgotten(store: Store) -> None:
    ada = await add_account(store, "ada", "operator")
    for days in (-11.0, -9.0, 9.0):
        await add_token(store, ada, days=days)
    await store.fetch("update api_token set revoked_time = $1 where expires_time > now()", utc_now())
    async with AuditLog(store, utc_now, keep=timedelta(days=10)).running(), asyncio.timeout(60):
        while (await store.fetch("select count(*) from api_token"))[0][0] > 2:
            await asyncio.sleep(0.01)
    rows = await store.fetch("select revoked_time is null from api_token order by expires_time")
    assert [row[0] for row in rows] == [True, False]


async def test_the_audit_log_waits_while_the_database_is_away_and_counts_what_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meterway.cloud.access.audit.LIMIT_WAITING", 3)
    audit = AuditLog(store, utc_now)
    who = Viewer(account_key=None, tenant_key=None, actor="ada", role="operator")
    for number in range(5):
        audit.note("read", f"m{number}", who=who)
    assert (audit.waiting, audit.lost) == (3, 2)
    async with audit.running():
        async with asyncio.timeout(60):
            while audit.waiting:
                await asyncio.sleep(0.01)
    rows = await store.fetch("select subject from audit order by audit_key")
    assert [row["subject"] for row in rows] == ["m0", "m1", "m2"]
