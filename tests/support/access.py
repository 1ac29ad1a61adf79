"""People for tests: accounts, tenants, and clients that sign in as them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
from fastapi import FastAPI

from meterway.cloud.access.accounts import Accounts
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.rules import PERMISSIONS
from meterway.cloud.access.secret import TOKEN_PREFIX, digest_of, new_secret
from meterway.cloud.access.viewer import Role
from meterway.cloud.server import serving
from meterway.cloud.store import Store

PASSWORD = "correct horse battery"


def utc_now() -> datetime:
    return datetime.now(UTC)


async def add_tenant(store: Store, tenant_id: str, *concentrators: str) -> int:
    """Add a tenant with its concentrators; return its key."""
    rows = await store.fetch("insert into tenant (tenant_id, name) values ($1, $1) returning tenant_key", tenant_id)
    key: int = rows[0]["tenant_key"]
    for each in concentrators:
        await store.fetch("insert into concentrator (concentrator_id, tenant_key) values ($1, $2)", each, key)
    return key


async def add_account(store: Store, login: str, role: Role, tenant_key: int | None = None) -> int:
    """Add an account without a password; return its key."""
    rows = await store.fetch(
        "insert into account (login, name, role, tenant_key) values ($1, $1, $2, $3) returning account_key",
        login,
        role,
        tenant_key,
    )
    key: int = rows[0]["account_key"]
    return key


async def add_token(store: Store, account_key: int, scopes: Sequence[str] = (), *, days: float = 1) -> str:
    """Return an API token of an account; without ``scopes`` it may all that the role may."""
    secret = new_secret(TOKEN_PREFIX)
    await store.fetch(
        "insert into api_token (digest, account_key, name, scopes, expires_time) values ($1, $2, 'test', $3, $4)",
        digest_of(secret),
        account_key,
        list(scopes or PERMISSIONS),
        utc_now() + timedelta(days=days),
    )
    return secret


async def token_of(store: Store, login: str, role: Role, tenant_key: int | None = None) -> str:
    """Return an API token of a new account."""
    return await add_token(store, await add_account(store, login, role, tenant_key))


async def move_in(store: Store, account_key: int, meter_ids: Sequence[str], since: datetime, *, tenant_key: int) -> int:
    """Have somebody live, since then, in a new household with these meters; return its key."""
    rows = await store.fetch(
        "insert into household (tenant_key, name) values ($1, 'household of ' || $2::text) returning household_key",
        tenant_key,
        str(account_key),
    )
    key: int = rows[0]["household_key"]
    await store.fetch(
        "insert into resident (account_key, household_key, from_time) values ($1, $2, $3)", account_key, key, since
    )
    await store.fetch("update meter set household_key = $1 where meter_id = any($2)", key, list(meter_ids))
    return key


async def with_password(store: Store, login: str, role: Role = "operator", tenant_key: int | None = None) -> None:
    """Add an account that signs in with ``PASSWORD``."""
    accounts = Accounts(store, AuditLog(store, utc_now), utc_now)
    await accounts.use_link(await accounts.invite(login, role, tenant_key), login.title(), PASSWORD, "test")
    await store.fetch("delete from session")


@asynccontextmanager
async def clients_of(app: FastAPI, *tokens: str | None) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Serve ``app``; yields a client for each token, None for one without."""
    async with serving(app) as url:
        clients = [
            httpx.AsyncClient(base_url=url, timeout=30, headers={"Authorization": f"Bearer {token}"} if token else {})
            for token in tokens
        ]
        try:
            yield clients
        finally:
            for client in clients:
                await client.aclose()


async def sign_in(client: httpx.AsyncClient, login: str, password: str = PASSWORD) -> httpx.Response:
    """Sign in; the session stays in the client's cookies, and it sends the token against forged requests."""
    answer = await client.post("/v1/sign-in", json={"login": login, "password": password})
    if answer.is_success:
        me = (await client.get("/v1/account")).json()
        client.headers["X-CSRF-Token"] = me["csrfToken"]
    return answer
