"""Accounts, households and tenants by API and page, in a real browser."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from shutil import which

import httpx
import pytest
from playwright.async_api import ConsoleMessage, Page, Route, async_playwright, expect

from meterway.cloud.access.rules import ROLES
from meterway.cloud.api import create_app
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from support.access import PASSWORD, add_tenant, clients_of, move_in, token_of, with_password
from support.cloud_http import put, reading, rejected, value
from support.looks import look

CHROMIUM = which("chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


async def test_people_are_invited_housed_and_shut_out(store: Store) -> None:
    await put(store, reading("m1", datetime.now(UTC), value("OBIS_1.8.0", "1.0", "kWh")))
    ada = await token_of(store, "ada", "operator")
    async with clients_of(create_app(store, is_open=False), ada, None) as (operator, eve):
        invited = (await operator.post("/v1/accounts", json={"login": "Eve@Example.org", "role": "member"})).json()
        assert invited["login"] == "eve@example.org"
        again = await operator.post("/v1/accounts", json={"login": "eve@example.org", "role": "member"})
        assert (again.status_code, again.json()["reason"]) == (409, "login-taken")
        assert (await operator.post("/v1/accounts", json={"login": "a b", "role": "member"})).status_code == 422
        secret = invited["link"].rpartition("/")[2]
        body = {"secret": secret, "name": "Eve", "password": PASSWORD}
        assert (await eve.post("/v1/link", json=body)).status_code == 200
        assert (await eve.get("/v1/meters")).json()["content"] == []
        house = (await operator.post("/v1/households", json={"name": "River Lane 3"})).json()["householdId"]
        assert (await operator.post("/v1/households", json={"name": "River Lane 3"})).status_code == 409
        moved = {"login": "eve@example.org", "fromTime": "2020-01-01T00:00:00Z"}
        assert (await operator.post(f"/v1/households/{house}/residents", json=moved)).status_code == 204
        meter = (await operator.patch("/v1/meters/m1", json={"householdId": house})).json()
        assert meter["householdId"] == house
        answer = await operator.patch("/v1/meters/m1", json={"householdId": house + 1})
        assert (answer.status_code, answer.json()["reason"]) == (404, "no-household")
        (listed,) = (await operator.get("/v1/households")).json()["content"]
        assert [each["login"] for each in listed["residents"]] == ["eve@example.org"]
        assert [each["meterId"] for each in listed["meters"]] == ["m1"]
        assert [each["meterId"] for each in (await eve.get("/v1/meters")).json()["content"]] == ["m1"]
        out = {"untilTime": "2021-01-01T00:00:00Z"}
        path = f"/v1/households/{house}/residents/eve@example.org"
        assert (await operator.patch(path, json=out)).status_code == 204
        assert (await eve.get("/v1/meters")).json()["content"] == []
        assert (await operator.patch("/v1/accounts/eve@example.org", json={"disabled": True})).json()["disabled"]
        assert (await eve.get("/v1/meters")).status_code == 401
        own = await operator.patch("/v1/accounts/ada", json={"disabled": True})
        assert (own.status_code, own.json()["reason"]) == (409, "own-account")


async def test_a_concentrator_is_given_to_a_tenant_with_its_meters(store: Store) -> None:
    await put(store, reading("m1", datetime.now(UTC), value("OBIS_1.8.0", "1.0", "kWh")))
    ada = await token_of(store, "ada", "operator")
    async with clients_of(create_app(store, is_open=False), ada) as (operator,):
        assert (await operator.post("/v1/tenants", json={"tenantId": "north", "name": "North"})).status_code == 200
        assert (await operator.post("/v1/tenants", json={"tenantId": "north", "name": "X"})).status_code == 409
        rows = await store.fetch("select concentrator_id from concentrator")
        given = {"concentratorId": rows[0]["concentrator_id"]}
        tenants = (await operator.post("/v1/tenants/north/concentrators", json=given)).json()["content"]
        assert [(each["tenantId"], each["meters"], each["concentrators"]) for each in tenants] == [
            ("main", 0, 0),
            ("north", 1, 1),
        ]
        assert (await operator.post("/v1/tenants/nowhere/concentrators", json=given)).status_code == 404


async def test_an_open_cloud_has_nobody_to_sign_in(client: httpx.AsyncClient) -> None:
    for method, path in (("POST", "/v1/sign-in"), ("GET", "/v1/tokens"), ("POST", "/v1/sign-out")):
        answer = await client.request(method, path, json={"login": "a", "password": "b"} if method == "POST" else None)
        assert (answer.status_code, answer.json()["reason"]) == (409, "open")
    assert (await client.get("/v1/account")).json()["login"] == "(open)"
    assert (await client.get("/people")).status_code == 200


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page on a phone; nothing but refused passwords may be on its console."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        context = await browser.new_context(viewport={"width": 390, "height": 800}, locale="en-GB")
        page = await context.new_page()
        troubles: list[str] = []

        def note(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"} and "401" not in message.text:
                troubles.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        yield page
        await browser.close()
        assert troubles == []


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make setup installs it")
async def test_the_first_operator_comes_in_by_the_link_and_invites_somebody(store: Store, page: Page) -> None:
    await put(store, reading("m1", datetime.now(UTC), value("OBIS_1.8.0", "1.0", "kWh")))
    app = create_app(store, is_open=False)
    async with serving(app) as url:
        await page.goto(f"{url}/link/{await app.state.accounts.first_link()}")
        await look(page, "link")
        await page.get_by_label("Your name").fill("Ada")
        await page.get_by_label("New password").fill(PASSWORD)
        await page.get_by_label("The same again").fill(PASSWORD)
        await page.get_by_role("button", name="Set the password").click()
        await expect(page.locator("#connection")).to_have_text("Live")
        await expect(page.locator("#meters .meter-name")).to_have_count(1)
        await page.get_by_role("link", name="People").click()
        await page.locator("#account-login").fill("eve")
        await page.get_by_role("button", name="Invite").click()
        await expect(page.locator("#link-new code")).to_contain_text(f"{url}/link/")
        await expect(page.locator("#accounts strong")).to_have_text(["eve", "operator"])
        await page.locator("#household-name").fill("River Lane 3")
        await page.locator("#household-form button").click()
        await page.get_by_role("button", name="Add somebody").click()
        await page.locator("#resident-login").fill("eve")
        await page.get_by_role("button", name="Save").click()
        await expect(page.locator("#households .line")).to_have_count(1)
        await page.get_by_role("button", name="Add a meter").click()
        await page.get_by_role("button", name="Save").click()
        await expect(page.locator("#households .line")).to_have_count(2)
        await look(page, "people")
        await page.get_by_role("link", name="Account").click()
        await expect(page.locator("#token-scopes input:checked")).to_have_count(1)
        await page.locator("#token-name").fill("billing")
        await page.get_by_role("button", name="Make a token").click()
        await expect(page.locator("#token-new code")).to_contain_text("mw_")
        await look(page, "account")
        await page.get_by_label("Old password").fill(PASSWORD)
        await page.get_by_label("New password").fill(PASSWORD)
        await page.get_by_role("button", name="Change the password").click()
        await expect(page.locator("#password-said")).to_have_text(
            "The password is changed, and you are signed out everywhere else. 1 API token still works: revoke what you "
            "no longer trust under API tokens."
        )
        await expect(page).to_have_url(f"{url}/account")
        await look(page, "account, with a new password")
        await page.locator("#password-said a").click()
        await page.get_by_role("button", name="Revoke: billing").click()
        await expect(page.locator("#tokens-empty")).to_be_visible()
        await page.get_by_role("link", name="Audit").click()
        await expect(page.locator("#entries li").first).to_be_visible()
        await look(page, "audit")
        await page.get_by_role("link", name="Privacy").click()
        await expect(page.locator("#rule-tenant option")).to_have_count(1)  # it has loaded the rules
        await page.locator("#rule-days").fill("9999")
        await page.get_by_role("button", name="Set …").click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        await look(page, "privacy, with a question")
        await page.get_by_role("button", name="Set the rule").click()
        await expect(page.locator("#rules li")).to_have_count(1)
        await expect(page.locator("#erase-ask")).to_be_visible()
        await expect(page.locator("#erasures-empty")).to_be_visible()
        await look(page, "privacy")
        await page.get_by_role("link", name="Account").click()
        await expect(page.locator("#sessions li")).to_have_count(1)
        await page.get_by_role("button", name="Sign out").click()
        await expect(page).to_have_url(f"{url}/sign-in")
        await page.goto(f"{url}/audit")
        await page.get_by_label("Login").fill("operator")
        await page.get_by_label("Password").fill("not the password")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#error")).to_have_text("Login or password is wrong.")
        await look(page, "sign-in")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page).to_have_url(f"{url}/audit")
        await page.goto(f"{url}/sign-in?next=/.//evil.example/")
        await page.get_by_label("Login").fill("operator")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page).to_have_url(f"{url}/")
        await page.close()  # before its server: a page that is left open says on its console that it is gone


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make setup installs it")
async def test_a_page_offers_only_what_its_reader_may_do(store: Store, page: Page) -> None:
    await put(store, reading("m1", datetime.now(UTC), value("OBIS_1.8.0", "1.0", "kWh")), rejected(b"bad"))
    readers = {role: may for role, may in ROLES.items() if "read" in may}
    for role in ROLES:
        await with_password(store, role, role, 1 if role == "member" else None)
    (member,) = await store.fetch("select account_key from account where login = 'member'")
    await move_in(store, member["account_key"], ["m1"], datetime(2020, 1, 1, tzinfo=UTC), tenant_key=1)
    await with_password(store, "nora", "operator", await add_tenant(store, "north"))
    async with serving(create_app(store, is_open=False)) as url:
        for role, may in readers.items():
            await enter(page, url, role)
            writes = 1 if "write" in may else 0
            await expect(page.locator("#meters .meter-name")).to_have_count(1)
            await expect(page.locator("#meters .edit")).to_have_count(writes)
            quarantined = 1 if "audit" in may else 0
            await expect(page.locator("#quarantine li")).to_have_count(quarantined)
            await expect(page.locator("#quarantine-title")).to_be_visible(visible=bool(quarantined))
            await expect(page.get_by_role("button", name="Try again")).to_have_count(writes)
            await expect(page.get_by_role("button", name="Try all again")).to_have_count(writes)
            links = {"devices": "Devices", "people": "People", "audit": "Audit"}
            for permission, name in links.items():
                await expect(page.get_by_role("link", name=name)).to_have_count(1 if permission in may else 0)
            await page.goto(f"{url}/privacy")
            await expect(page.locator("#erase-ask")).to_be_visible()
            for form in ("#erase-form", "#rule-form"):
                await expect(page.locator(form)).to_have_count(1 if "people" in may else 0)
            if role == "member":
                await page.get_by_label("Active energy import").check()
                await page.get_by_role("button", name="Give the consent").click()
                await expect(page.locator("#consents .chip")).to_have_text("valid")
            await look(page, f"privacy of {role}")
        await enter(page, url, "researcher")
        await expect(page).to_have_url(f"{url}/privacy")
        await expect(page.get_by_role("link", name="Export my data")).to_be_visible()
        await expect(page.locator("#erase-ask")).to_be_visible()
        await expect(page.get_by_text("readings of the time you live there")).to_have_count(0)
        await look(page, "privacy of researcher")
        for login, collecting in (("operator", True), ("nora", False)):
            await enter(page, url, login)
            await page.goto(f"{url}/devices")
            await expect(page.locator("#devices-empty")).to_be_visible()
            await page.locator("#add-kind").select_option("concentrator")
            await expect(page.locator("#add-collects")).to_be_visible(visible=collecting)
        await page.close()  # before its server: a page that is left open says on its console that it is gone


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make setup installs it")
async def test_who_signs_out_while_the_page_still_asks_comes_to_the_sign_in_page(store: Store, page: Page) -> None:
    await with_password(store, "ada")
    signed_out = asyncio.Event()
    asked = asyncio.Event()

    async def late(route: Route) -> None:
        asked.set()
        await signed_out.wait()
        await route.continue_()

    async def sign_out(route: Route) -> None:
        answer = await route.fetch()
        async with page.expect_response("**/v1/tokens"):
            signed_out.set()
        await route.fulfill(response=answer)

    async with serving(create_app(store, is_open=False)) as url:
        await enter(page, url, "ada")
        await page.route("**/v1/tokens", late)
        await page.route("**/v1/sign-out", sign_out)
        await page.get_by_role("link", name="Account").click()
        await asked.wait()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page).to_have_url(f"{url}/sign-in")
        await page.unroute_all(behavior="ignoreErrors")
        await page.close()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make setup installs it")
async def test_who_sees_no_meter_yet_is_told_what_comes_next(store: Store, page: Page) -> None:
    roles = {
        "operator": "No meter has reported yet.",
        "auditor": "No meter has reported yet.",
        "member": "No meter is yours yet.",
    }
    for role in roles:
        await with_password(store, role, role, 1)  # type: ignore[arg-type]
    async with serving(create_app(store, is_open=False)) as url:
        for role, sentence in roles.items():
            await enter(page, url, role)
            empty = page.locator("#meters-empty")
            await expect(empty.locator("strong")).to_have_text(sentence)
            await expect(empty).not_to_contain_text("meterway demo")
            await expect(empty.get_by_role("link", name="Devices")).to_have_count(1 if role == "operator" else 0)
            await expect(page.locator("#connection")).to_have_text("Live")
            await look(page, f"no meter for {role}")
        await page.close()  # before its server: a page that is left open says on its console that it is gone


async def enter(page: Page, url: str, login: str) -> None:
    """Sign in as somebody else."""
    await page.goto("about:blank")  # a page that still asks something without its cookie goes to the sign-in by itself
    await page.context.clear_cookies()
    await page.goto(f"{url}/sign-in")
    await expect(page.get_by_role("link", name="API")).to_have_count(0)  # it asks who it is
    await page.get_by_label("Login").fill(login)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("link", name="Account")).to_be_visible()
