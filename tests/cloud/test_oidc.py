"""Signing in with an OpenID Connect provider: a real one on this machine, honest and not, and attackers between."""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import OctKey, RSAKey
from msgspec.structs import replace
from playwright.async_api import Page, async_playwright, expect

from meterway.cloud.access.accounts import Accounts
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.oidc import LIMIT_COOKIE_CHARACTERS, attempt_in, page_of
from meterway.cloud.access.oidc_config import OidcConfig
from meterway.cloud.access.oidc_provider import Provider
from meterway.cloud.access.oidc_tokens import Keys, check_id_token
from meterway.cloud.api import create_app
from meterway.cloud.config import CloudConfig
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from meterway.core.config import convert_config
from meterway.core.errors import BadDataError, SetupError
from support.access import add_account, add_tenant, sign_in, utc_now, with_password
from support.issuer import CLIENT_ID, CLIENT_SECRET, Claims, Issuer, free_port, issuing, new_key, sign

CHROMIUM = which("chromium")
AUDIENCE = "https://meters.example.org/api"


@dataclass
class Town:
    """A cloud, its provider, and browsers."""

    url: str
    issuer: Issuer
    browser: httpx.AsyncClient
    again: Callable[[], httpx.AsyncClient]
    """Returns another browser."""


@asynccontextmanager
async def town(
    store: Store,
    tmp_path: Path,
    settings: Mapping[str, object] | None = None,
    *,
    again_s: float = 0.0,
    has_secret: bool = True,
) -> AsyncIterator[Town]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    async with issuing(f"{url}/sign-in/oidc") as issuer:
        table: dict[str, object] = {
            "issuer": issuer.url,
            "client_id": CLIENT_ID,
            "url": url,
            "name": "City",
            **(settings or {}),
        }
        if has_secret:
            (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
            table["client_secret_file"] = str(tmp_path / "secret")
        else:
            issuer.secret = None
        provider = Provider(convert_config(table, OidcConfig, where="test"), again_s=again_s)
        browsers: list[httpx.AsyncClient] = []

        def another() -> httpx.AsyncClient:
            browsers.append(httpx.AsyncClient(base_url=url, timeout=30, headers={"Accept": "text/html"}))
            return browsers[-1]

        async with serving(create_app(store, is_open=False, provider=provider), port=port):
            try:
                yield Town(url, issuer, another(), another)
            finally:
                for browser in browsers:
                    await browser.aclose()


async def begin(browser: httpx.AsyncClient, **body: str) -> str:
    """Begin, be signed in by the provider, and return where it sends the browser."""
    begun = await browser.post("/v1/sign-in/oidc", json=body)
    assert begun.status_code == 200, begun.text
    answer = await browser.get(begun.json()["url"])
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def come_in(browser: httpx.AsyncClient, **body: str) -> httpx.Response:
    return await browser.get(await begin(browser, **body))


async def login_of(browser: httpx.AsyncClient) -> str | None:
    answer = await browser.get("/v1/account", headers={"Accept": "application/json"})
    return str(answer.json()["login"]) if answer.is_success else None


async def audited(store: Store, browser: httpx.AsyncClient) -> list[tuple[str, str, Claims]]:
    """Return what the audit log says, once what waits is written."""
    rows: list[tuple[str, str, Claims]] = []
    app_writes_within = time.monotonic() + 60
    while not rows and time.monotonic() < app_writes_within:
        await browser.get("/healthz")
        found = await store.fetch("select action, subject, detail from audit order by audit_key")
        rows = [(row["action"], row["subject"], json.loads(row["detail"] or "{}")) for row in found]
    return rows


async def link_for(store: Store, login: str, tenant_key: int | None = 1) -> str:
    accounts = Accounts(store, AuditLog(store, utc_now), utc_now)
    return await accounts.invite(login, "member", tenant_key)


async def test_only_who_was_invited_comes_in(store: Store, tmp_path: Path) -> None:
    secret = await link_for(store, "ada")
    async with town(store, tmp_path) as here:
        refused = await come_in(here.browser)
        assert refused.status_code == 403
        assert "No account here is linked with yours at City" in refused.text
        assert await login_of(here.browser) is None
        used = await come_in(here.browser, invitation=secret)
        assert (used.status_code, used.headers["location"]) == (303, "/")
        assert await login_of(here.browser) == "ada"
        again = here.again()
        assert (await come_in(again, invitation=secret)).status_code == 404
        inside = await come_in(again, next="/account")
        assert (inside.status_code, inside.headers["location"]) == (303, "/account")
        assert await login_of(again) == "ada"
        await store.fetch("update account set disabled = true")
        assert (await come_in(here.again())).status_code == 403
        assert await login_of(again) is None
        entries = await audited(store, again)
        assert ("sign-in-failed", "oidc", {"reason": "no-account", "address": "127.0.0.1"}) in entries


async def test_accounts_are_made_with_role_and_tenant_of_the_claims(store: Store, tmp_path: Path) -> None:
    await add_tenant(store, "north")
    settings: dict[str, object] = {
        "create_accounts": True,
        "role_claim": "realm_access.roles",
        "roles": {"boss": "operator", "people": "member"},
        "tenant_claim": "https://example.org/town",
        "tenants": {"n": "north"},
    }
    async with town(store, tmp_path, settings) as here:
        here.issuer.person = {
            "sub": "7",
            "name": "Grace",
            "email": "Grace@Example.org",
            "email_verified": False,
            "https://example.org/town": "n",
            "realm_access": {"roles": ["people", "boss"]},
        }
        unverified = await come_in(here.browser)
        assert (unverified.status_code, "no verified `email`" in unverified.text) == (403, True)
        here.issuer.person["email_verified"] = True
        assert (await come_in(here.browser)).status_code == 303
        account = "select login, a.name, role, tenant_id from account a join tenant using (tenant_key)"
        assert [tuple(row) for row in await store.fetch(account)] == [
            ("grace@example.org", "Grace", "operator", "north")
        ]
        here.issuer.person["realm_access"] = {"roles": ["people"]}
        assert (await come_in(here.browser)).status_code == 303
        assert (await store.fetch("select role from account"))[0]["role"] == "member"
        here.issuer.person["realm_access"] = {"roles": ["others"]}
        nobody = await come_in(here.again())
        assert (nobody.status_code, "none of the roles" in nobody.text) == (403, True)

        here.issuer.person |= {"sub": "8", "realm_access": {"roles": ["boss"]}}
        taken = await come_in(here.again())
        assert (taken.status_code, "an account grace@example.org already" in taken.text) == (409, True)
        here.issuer.person |= {"email": "alan@example.org", "https://example.org/town": "elsewhere"}
        assert (await come_in(here.again())).status_code == 403
        here.issuer.person |= {"email": "no login", "https://example.org/town": "n"}
        unfit = await come_in(here.again())
        assert (unfit.status_code, "cannot be a login" in unfit.text) == (422, True)
        assert len(await store.fetch("select from account")) == 1


async def test_an_own_account_is_linked_and_the_link_ended(store: Store, tmp_path: Path) -> None:
    await with_password(store, "ada")
    await with_password(store, "eve")
    async with town(store, tmp_path, has_secret=False) as here:
        assert (await sign_in(here.browser, "ada")).is_success
        token = here.browser.headers.pop("X-CSRF-Token")
        assert (await here.browser.post("/v1/account/oidc")).status_code == 403
        here.browser.headers["X-CSRF-Token"] = token
        to_provider = (await here.browser.post("/v1/account/oidc")).json()["url"]
        back = (await here.browser.get(to_provider)).headers["location"]
        eve = here.again()  # has taken over the attempt, but is another session
        assert (await sign_in(eve, "eve")).is_success
        eve.cookies.set("meterway-oidc", here.browser.cookies["meterway-oidc"])
        assert (await eve.get(back)).status_code == 403
        del eve.cookies["meterway-oidc"]
        back = (await here.browser.get(to_provider)).headers["location"]
        linked = await here.browser.get(back)
        assert (linked.status_code, linked.headers["location"]) == (303, "/account")
        assert (await here.browser.get("/v1/account")).json()["oidcLinked"] is True
        with_provider = here.again()
        assert (await come_in(with_provider)).status_code == 303
        assert await login_of(with_provider) == "ada"

        to_provider = (await eve.post("/v1/account/oidc")).json()["url"]
        assert (await eve.get((await eve.get(to_provider)).headers["location"])).status_code == 409
        assert (await here.browser.delete("/v1/account/oidc")).status_code == 204
        assert (await come_in(here.again())).status_code == 403
        await store.fetch("delete from password")
        kept = await here.browser.delete("/v1/account/oidc")
        assert (kept.status_code, kept.json()["reason"]) == (409, "no-password")


async def linked(store: Store, issuer: Issuer, login: str = "ada") -> None:
    key = await add_account(store, login, "operator", 1)
    await store.fetch(
        "update account set oidc_issuer = $1, oidc_subject = $2 where account_key = $3",
        issuer.url,
        issuer.person["sub"],
        key,
    )


async def test_keys_change_and_whoever_has_an_old_one_is_nobody(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path) as here:
        await linked(store, here.issuer)
        for alg in ("RS256", "ES256", "EdDSA", "Ed25519"):
            here.issuer.rotate(alg)
            assert (await come_in(here.browser)).status_code == 303, alg
        stolen = here.issuer.keys[0]
        here.issuer.rotate("ES256", keep_old=True)
        assert (await come_in(here.browser)).status_code == 303
        here.issuer.keys = here.issuer.keys[:1]
        here.issuer.rotate("ES256")
        assert (await come_in(here.browser)).status_code == 303
        here.issuer.forge = lambda claims: sign(claims, stolen, "Ed25519")
        assert (await come_in(here.browser)).status_code == 502


async def test_keys_are_not_asked_for_at_every_forged_token(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path, {"audience": AUDIENCE}, again_s=3600) as here:
        await linked(store, here.issuer)
        assert (await come_in(here.browser)).status_code == 303
        forged = sign(here.issuer.claims(aud=AUDIENCE), new_key("ES256"), "ES256")
        for _ in range(5):
            answer = await here.again().get("/v1/account", headers={"Authorization": f"Bearer {forged}"})
            assert answer.headers["location"].startswith("/sign-in")
        assert here.issuer.asked.count("/jwks") == 1
        assert here.issuer.asked.count("/.well-known/openid-configuration") == 1


Forge = Callable[[Issuer, Claims], str | None]


def changed(**claims: object) -> Forge:
    return lambda issuer, right: sign({**right, **claims}, issuer.keys[0], issuer.alg)


def unsigned(_: Issuer, right: Claims) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "none"}, right)
    ]
    return ".".join((*parts, ""))


def of_public_key(issuer: Issuer, right: Claims) -> str:
    """A token whose HMAC has the public key for its secret."""
    public = json.dumps(issuer.keys[0].as_dict(private=False))
    return sign(right, OctKey.import_key(public.encode(), {"kid": issuer.keys[0].kid or ""}), "HS256")


def of_another_key(issuer: Issuer, right: Claims) -> str:
    return sign(right, new_key("ES256"), "ES256", kid=issuer.keys[0].kid or "")


def with_own_key(_: Issuer, right: Claims) -> str:
    """A token that brings its key along (RFC 7515, section 4.1.3)."""
    key = new_key("ES256")
    return sign(right, key, "ES256", jwk=key.as_dict(private=False))  # type: ignore[arg-type]


def altered(issuer: Issuer, right: Claims) -> str:
    head, _, signature = sign(right, issuer.keys[0], issuer.alg).split(".")
    body = base64.urlsafe_b64encode(json.dumps({**right, "sub": "root"}).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


ATTACKS: dict[str, tuple[Forge, str]] = {
    "unsigned": (unsigned, "not accepted"),
    "signed with the public key": (of_public_key, "not accepted"),
    "another key": (of_another_key, "signature"),
    "brings its key": (with_own_key, "does not publish"),
    "altered": (altered, "signature"),
    "for another client": (changed(aud="other"), "(aud)"),
    "for several clients": (changed(aud=[CLIENT_ID, "other"]), "(azp)"),
    "another presenter": (changed(azp="other"), "(azp)"),
    "another nonce": (changed(nonce="other"), "(nonce)"),
    "no nonce": (changed(nonce=None), "(nonce)"),
    "another issuer": (changed(iss="https://evil.example"), "(iss)"),
    "expired": (changed(exp=int(time.time()) - 120), "(exp)"),
    "never expires": (changed(exp=None), "exp"),
    "of the future": (changed(iat=int(time.time()) + 600), "(iat, nbf)"),
    "not yet": (changed(nbf=int(time.time()) + 600), "(iat, nbf)"),
    "old": (changed(iat=int(time.time()) - 90_000), "(iat)"),
    "nobody": (changed(sub=""), "(sub)"),
    "a number for somebody": (changed(sub=1234), "sub"),
    "no token": (lambda _issuer, _right: "x.y", "no signed token"),
    "a token of noise": (lambda _issuer, _right: "!!.??.##", "header"),
}


async def test_no_forged_token_lets_anybody_in(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path) as here:
        await linked(store, here.issuer)
        for name, (forge, why) in ATTACKS.items():
            browser = here.again()
            here.issuer.forge = lambda right, forge=forge: forge(here.issuer, right)  # type: ignore[misc]
            answer = await come_in(browser)
            assert (name, answer.status_code, why in answer.text) == (name, 502, True), answer.text
            assert (await login_of(browser), "meterway" in browser.cookies) == (None, False)
        here.issuer.forge = lambda _: None
        assert (await come_in(here.browser)).status_code == 303  # so it was the forgery that was refused


async def test_an_answer_counts_once_and_in_the_browser_that_began(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path) as here:
        await linked(store, here.issuer)
        back = await begin(here.browser)
        victim = here.again()
        for browser in (victim, here.again()):  # one with nothing begun, one with an attempt of its own
            answer = await browser.get(back)
            assert (answer.status_code, "no attempt to sign in" in answer.text) == (400, True)
            await begin(victim)
        assert (await here.browser.get(back.replace("state=", "state=x"))).status_code == 400

        back = await begin(here.browser)
        kept = here.browser.cookies["meterway-oidc"]
        assert (await here.browser.get(back)).status_code == 303
        assert "meterway-oidc" not in here.browser.cookies
        assert (await here.browser.get(back)).status_code == 400
        thief = here.again()  # has even the cookie: the code is used up
        thief.cookies.set("meterway-oidc", kept)
        answer = await thief.get(back)
        assert (answer.status_code, "invalid_grant" in answer.text) == (502, True)


async def test_a_code_of_another_session_does_not_count(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path) as here:
        await linked(store, here.issuer)
        stolen = parse_qs(urlsplit(await begin(here.browser)).query)["code"][0]
        thief = here.again()
        own = await begin(thief)
        mine = parse_qs(urlsplit(own).query)["code"][0]
        answer = await thief.get(own.replace(mine, stolen))
        assert (answer.status_code, "invalid_grant" in answer.text) == (502, True)
        own = await begin(thief)
        mixed_up = own.replace("iss=http%3A%2F%2F127", "iss=http%3A%2F%2F128")
        assert (await thief.get(mixed_up)).status_code == 502
        assert await login_of(thief) is None


async def test_nothing_leads_to_another_site(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path) as here:
        await linked(store, here.issuer)
        for path in (
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "/v1/account",
            "/static/x",
            "javascript:",
        ):
            assert page_of(path) == ""
            answer = await come_in(here.browser, next=path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
        back = await begin(here.browser)
        attempt = attempt_in(here.browser.cookies["meterway-oidc"])
        assert attempt is not None
        here.browser.cookies.clear()
        here.browser.cookies.set("meterway-oidc", replace(attempt, next="//evil.example").in_cookie())
        assert (await here.browser.get(back)).headers["location"] == "/"
        foreign = await here.browser.post(
            "/v1/sign-in/oidc", json={}, headers={"Origin": "https://evil.example", "Accept": "application/json"}
        )
        assert foreign.status_code == 403
        port = here.url.rpartition(":")[2]
        other = await here.browser.post("/v1/sign-in/oidc", json={}, headers={"Host": f"localhost:{port}"})
        assert (other.status_code, other.json()["reason"]) == (409, "wrong-address")


async def test_what_the_provider_says_is_shown_as_text(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path) as here:
        begun = await here.browser.post("/v1/sign-in/oidc", json={})
        state = parse_qs(urlsplit(begun.json()["url"]).query)["state"][0]
        said = {"state": state, "error": "access_denied", "error_description": "<b>no</b>\nreally"}
        answer = await here.browser.get("/sign-in/oidc", params=said)
        assert answer.status_code == 403
        assert "City did not sign you in: &lt;b&gt;no&lt;/b&gt; really." in answer.text
        answer = await here.browser.get("/sign-in/oidc", params={**said, "state": "x"})
        assert (answer.status_code, "really" in answer.text) == (400, False)
    assert attempt_in("x" * (LIMIT_COOKIE_CHARACTERS + 1)) is None
    assert attempt_in("e30") is None
    assert attempt_in("\xff") is None


async def test_a_provider_that_is_away_or_odd_is_named(store: Store, tmp_path: Path) -> None:
    async with town(store, tmp_path) as here:
        await linked(store, here.issuer)

        async def refused() -> str:
            answer = await here.browser.post("/v1/sign-in/oidc", json={})
            assert answer.status_code in (502, 503)
            return str(answer.json()["detail"])

        here.issuer.is_away = True
        assert "the provider answers 503" in await refused()
        here.issuer.is_away = False
        odd: tuple[tuple[Claims, str], ...] = (
            ({"issuer": "https://evil.example"}, "calls itself 'https://evil.example'"),
            ({"token_endpoint": "http://192.0.2.1/token"}, "without TLS"),
            ({"jwks_uri": "file:///etc/passwd"}, "without TLS"),
            ({"jwks_uri": None}, "cannot be read"),
            ({"padding": "x" * 300_000}, "longer than"),
        )
        for metadata, why in odd:
            here.issuer.metadata = metadata
            assert why in await refused()
        here.issuer.metadata = {"jwks_uri": f"{here.issuer.url}/.well-known/openid-configuration"}
        assert (await come_in(here.browser)).status_code == 502  # its keys are none


async def test_a_program_sends_an_access_token_of_the_provider(store: Store, tmp_path: Path) -> None:
    settings: dict[str, object] = {
        "audience": AUDIENCE,
        "role_claim": "groups",
        "roles": {"a": "auditor", "b": "member"},
    }
    async with town(store, tmp_path, settings) as here:
        await linked(store, here.issuer)

        async def ask(token: str, path: str = "/v1/meters") -> int:
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            return (await here.browser.get(path, headers=headers)).status_code

        access = here.issuer.access_token
        assert await ask(access(aud=AUDIENCE, groups=["a"])) == 200
        assert await ask(access(aud=AUDIENCE, groups=["a"]), "/v1/audit") == 200
        assert await ask(access(aud=AUDIENCE, groups=["b"]), "/v1/audit") == 403
        assert await ask(access(aud=AUDIENCE, groups="a", scope="openid read"), "/v1/audit") == 403
        assert await ask(access(aud=AUDIENCE, groups="a", scope="openid read")) == 200
        assert await ask(access(aud=AUDIENCE, groups="a"), "/v1/tokens") == 403  # for sessions alone
        for wrong in (
            access(aud=AUDIENCE),
            access(aud=AUDIENCE, groups=["c"]),
            access(aud=CLIENT_ID, groups=["a"]),
            access(aud=AUDIENCE, groups=["a"], sub="stranger"),
            access(aud=AUDIENCE, groups=["a"], exp=int(time.time()) - 120),
            access(aud=AUDIENCE, groups=["a"], iss="https://evil.example"),
            sign(here.issuer.claims(aud=AUDIENCE, groups=["a"]), here.issuer.keys[0], "ES256", typ="logout+jwt"),
            unsigned(here.issuer, here.issuer.claims(aud=AUDIENCE, groups=["a"])),
            "a.b.c",
            "a",
        ):
            assert await ask(wrong) == 401
        async with here.browser.stream(
            "GET", "/v1/live", headers={"Authorization": f"Bearer {access(aud=AUDIENCE, groups=['a'])}"}
        ) as live:
            assert live.status_code == 200
        await store.fetch("update account set disabled = true")
        assert await ask(access(aud=AUDIENCE, groups=["a"])) == 401


def test_a_key_that_is_too_weak_or_no_key_is_left_out() -> None:
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    good = new_key("ES256")
    odd: list[object] = [
        {"kty": "RSA", "n": "!", "e": "?"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "P-1"},
        {},
    ]
    published = [*odd, weak.as_dict(private=False), good.as_dict(private=False)]
    keys = Keys(json.dumps({"keys": published}).encode())
    claims = {"iss": "i", "sub": "s", "aud": "a", "exp": 2_000_000_000, "iat": 1_900_000_000, "nonce": "n"}
    token = keys.verify(sign(claims, good, "ES256"))
    check_id_token(token, issuer="i", client_id="a", nonce="n", now=datetime.fromtimestamp(1_900_000_000, UTC))
    with pytest.raises(BadDataError, match="does not publish"):
        keys.verify(sign(claims, weak, "RS256"))
    with pytest.raises(BadDataError, match="no JWK set"):
        Keys(b"[]")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"issuer": "http://login.example.org"}, "must begin with https"),
        ({"url": "http://192.0.2.1"}, "must begin with https"),
        ({"url": "https://a.example/path"}, "must not have a path"),
        ({"issuer": "login.example.org"}, "no address"),
        ({"scopes": ["profile"]}, "openid"),
        ({"role_claim": "groups"}, "stand together"),
        ({"tenants": {"a": "b"}}, "stand together"),
        ({"audience": "meterway"}, "audience is client_id"),
        ({"role": "operator"}, "operator"),
    ],
)
def test_a_configuration_that_would_be_unsafe_is_refused(table: dict[str, object], why: str) -> None:
    right = {"issuer": "https://login.example.org", "client_id": "meterway", "url": "https://meters.example.org"}
    convert_config({"oidc": right}, CloudConfig, where="test")
    with pytest.raises(SetupError, match=why):
        convert_config({"oidc": {**right, **table}}, CloudConfig, where="test")
    with pytest.raises(SetupError, match="where nobody signs in"):
        convert_config({"oidc": right, "http": {"open": True}}, CloudConfig, where="test")


def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = OidcConfig(issuer="https://a.example", client_id="m", url="https://b.example")
    for key, path in (("client_secret_file", tmp_path / "none"), ("ca_file", tmp_path / "none")):
        with pytest.raises(SetupError, match=key):
            Provider(convert_config({**_plain(config), key: str(path)}, OidcConfig, where="test"))
    (tmp_path / "empty").touch()
    with pytest.raises(SetupError, match="empty"):
        Provider(
            convert_config({**_plain(config), "client_secret_file": str(tmp_path / "empty")}, OidcConfig, where="t")
        )


def _plain(config: OidcConfig) -> dict[str, object]:
    return {"issuer": config.issuer, "client_id": config.client_id, "url": config.url}


async def sign_out(page: Page, url: str) -> None:
    """Sign out on the account's page once it has all it asks for, so that nothing of it is refused."""
    await expect(page.get_by_text("This browser")).to_be_visible()
    await expect(page.get_by_text("No tokens.")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_url(f"{url}/sign-in")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make setup installs it")
async def test_people_sign_in_with_the_button_and_link_their_account(store: Store, tmp_path: Path) -> None:
    secret = await link_for(store, "ada")
    await with_password(store, "grace")
    troubles: list[str] = []
    async with town(store, tmp_path) as here, async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await chromium.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        await page.goto(f"{here.url}/link/{secret}")
        await page.get_by_role("button", name="Sign in with City").click()
        await expect(page).to_have_url(f"{here.url}/")
        await page.goto(f"{here.url}/account")
        await expect(page.get_by_text("You may sign in with City as well.")).to_be_visible()
        await sign_out(page, here.url)
        await page.goto(f"{here.url}/sign-in?next=%2Faccount")
        await page.get_by_role("button", name="Sign in with City").click()
        await expect(page).to_have_url(f"{here.url}/account")
        await expect(page.get_by_role("heading", name="ada")).to_be_visible()
        await sign_out(page, here.url)

        here.issuer.person = {"sub": "5678"}
        await page.get_by_label("Login").fill("grace")
        await page.get_by_label("Password").fill("correct horse battery")
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await expect(page).to_have_url(f"{here.url}/")
        await page.goto(f"{here.url}/account")
        await page.get_by_role("button", name="Link with City").click()
        await page.get_by_role("button", name="Sign in with City no more").click()
        await expect(page.get_by_role("button", name="Link with City")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        await sign_out(page, here.url)
        await page.screenshot(path=tmp_path / "sign-in.png")
        await chromium.close()
    assert troubles == []
