"""The devices page in a real browser: a device is added, its refusals read, and it is revoked."""

from datetime import UTC, datetime
from shutil import which

import httpx
import pytest
from playwright.async_api import async_playwright, expect

from meterway.bus.refusals import Refusal
from meterway.cloud.api import create_app
from meterway.cloud.devices.notes import DeviceNotes
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from support.looks import look

CHROMIUM = which("chromium")
HOSTILE = "<img src=x onerror=alert(1)>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make setup installs it")


async def test_a_device_is_added_read_about_and_revoked(store: Store) -> None:
    troubles: list[str] = []
    notes = DeviceNotes(store, lambda: datetime.now(UTC))
    app = create_app(store, devices=BrokerForDevices("mqtt://127.0.0.1"))
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as api, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        await page.goto(f"{url}/devices")
        await expect(page.get_by_text("No device yet.")).to_be_visible()
        await look(page, "no devices")
        await page.get_by_label("Id", exact=True).fill("cellar")
        await page.get_by_role("textbox", name="Meters").fill("m1\nm2")
        await page.get_by_role("button", name="Add").click()
        command = page.locator("#code-command")
        await expect(command).to_contain_text(f"meterway adapter enroll {url} ")
        code = (await command.inner_text()).split()[4]
        await look(page, "a code")
        await page.get_by_role("button", name="Done").click()
        await expect(page.locator("#devices .chip")).to_have_text("waiting for its code")

        assert (await api.post("/v1/enrol", json={"code": code, "kind": "adapter"})).status_code == 200
        async with notes.running():
            notes.on_refused(Refusal(kind="publish", username="adapter-cellar", client_id="", topic=HOSTILE, count=12))
            while (await api.get("/v1/devices/adapter/cellar")).json()["refusedCount"] != 12:
                pass
        await page.reload()
        await expect(page.locator("#devices .refused")).to_contain_text("The broker refused 12 messages or log-ins")
        await page.get_by_role("button", name="Show refusals").click()
        await expect(page.locator(".refusals .mono")).to_have_text(HOSTILE)
        await expect(page.locator(".refusals .message")).to_contain_text("This device may only publish for m1, m2")
        await look(page, "refusals")

        await page.get_by_role("button", name="Revoke: adapter-cellar").click()
        await look(page, "shall it be revoked?")
        await page.get_by_role("button", name="Revoke", exact=True).click()
        await expect(page.locator("#devices .chip")).to_have_text("revoked")
        await look(page, "revoked")
        await browser.close()
    assert troubles == []
