"""The page in a real browser: it ticks, it is calm when things go wrong, and nothing hostile becomes HTML."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from gzip import compress
from pathlib import Path
from shutil import which

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from meterway.cloud import pages
from meterway.cloud.api import create_app
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from meterway.core import reports
from support.cloud_http import fault, put, reading, rejected, value
from support.looks import LOW_CONTRAST, UNNAMED

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
LIMIT_PAGES_BYTES = 72 * 1024
CHROMIUM = which("chromium")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; make setup installs it")


class Watched:
    """A page, and everything about it that should not happen."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.troubles: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.troubles.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith(self.url):
            self.troubles.append(f"external: {request.url}")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        await browser.close()


@pytest.fixture
async def watched(store: Store, browser: Browser) -> AsyncIterator[Watched]:
    """The page on an empty store; ends with nothing on the console and no request to elsewhere."""

    async def replay(ids: object) -> tuple[int, int]:
        await store.fetch("delete from quarantine where quarantine_key = any($1)", ids)
        return 1, 0

    async with serving(create_app(store, replay=replay)) as url:
        context = await browser.new_context(
            viewport={"width": 1280, "height": 800}, timezone_id="Europe/Berlin", locale="en-GB"
        )
        watched = Watched(await context.new_page(), url)
        yield watched
        await context.close()
        assert watched.troubles == []


async def power(
    store: Store, kilowatts: str, meter_id: str = "m1", *, ago_s: float = 0, fault_code: str | None = None
) -> None:
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    values = value("OBIS_1.7.0", kilowatts, "kW"), value("OBIS_1.8.0", "12345.678", "kWh")
    await put(store, reading(meter_id, at, *values, fault_code=fault_code))


async def test_the_page_ticks_when_a_reading_is_stored(store: Store, watched: Watched) -> None:
    page = watched.page
    await power(store, "1.500", ago_s=120)
    await page.goto(watched.url)
    await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#now-number")).to_have_text("1.50")
    await power(store, "0.412")
    await expect(page.locator("#now-number")).to_have_text("412")
    await expect(page.locator("#now-unit")).to_have_text("W")
    await expect(page.locator("#chart canvas")).to_be_visible()
    await expect(page.locator("#zone")).to_have_text("Europe/Berlin")
    await expect(page.locator("#meters .meter-value")).to_have_text("412 W")
    await power(store, "2.000", "m2")
    await expect(page.locator("#meters > li")).to_have_count(3)
    await page.get_by_role("button", name="All meters").click()
    await expect(page.locator("#now-number")).to_have_text("2.41")
    await expect(page.locator("#now-note")).to_have_text("Taking from the grid · 2 of 2 meters report their power")


async def test_empty_states_tell_what_to_do(watched: Watched) -> None:
    await watched.page.goto(watched.url)
    await expect(watched.page.get_by_text("No meter has reported yet.")).to_be_visible()
    await expect(watched.page.get_by_text("meterway demo")).to_be_visible()
    await expect(watched.page.get_by_text("No power has been reported today.")).to_be_visible()
    await expect(watched.page.get_by_text("every message was understood")).to_be_visible()


async def test_nothing_hostile_becomes_html(store: Store, watched: Watched) -> None:
    page = watched.page
    await power(store, "1.5")
    await store.fetch("update meter set claimed = true, name = $1", HOSTILE)
    await put(
        store,
        rejected(HOSTILE.encode(), reason=HOSTILE, message=HOSTILE),
        fault("m1", reports.Fault(time=datetime.now(UTC), reason=HOSTILE, message=HOSTILE, data=HOSTILE.encode())),
    )
    await page.goto(watched.url)
    await expect(page.locator("#quarantine .message")).to_have_text(HOSTILE)
    await expect(page.locator("#quarantine pre")).to_have_text(HOSTILE)
    await expect(page.locator("#faults .message")).to_have_text(HOSTILE)
    await expect(page.locator("#meters .meter-name")).to_have_text(HOSTILE)
    await page.get_by_role("button", name="Show bytes").click()
    await expect(page.locator("#quarantine pre")).to_contain_text("0000  3c 69 6d 67 20")
    assert await page.locator("main img, main script").count() == 0
    assert await page.title() == "Meterway"


async def test_a_meter_is_claimed_and_named_with_the_keyboard(store: Store, watched: Watched) -> None:
    page = watched.page
    await power(store, "1.5")
    await page.goto(watched.url)
    await page.get_by_role("button", name="Claim meter m1").press("Enter")
    await expect(page.get_by_label("Name")).to_be_focused()
    await page.keyboard.type("Flat 3")
    await page.keyboard.press("Enter")
    await expect(page.locator("#meters .meter-name")).to_have_text("Flat 3")
    await expect(page.get_by_text("unclaimed")).to_be_hidden()
    await expect(page.locator("#now-name")).to_have_text("Flat 3")
    rows = await store.fetch("select claimed, name from meter")
    assert [tuple(row) for row in rows] == [(True, "Flat 3")]


async def test_quarantine_can_be_replayed(store: Store, watched: Watched) -> None:
    page = watched.page
    await put(store, rejected(b"bad"), rejected(b"worse"))
    await page.goto(watched.url)
    await expect(page.locator("#quarantine > li")).to_have_count(2)
    await page.get_by_role("button", name="Try again").first.click()
    await expect(page.locator("#quarantine-said")).to_have_text("1 understood now, 0 still not.")
    await expect(page.locator("#quarantine > li")).to_have_count(1)
    await page.get_by_role("button", name="Try all again").click()
    await expect(page.get_by_text("every message was understood")).to_be_visible()


async def test_bytes_stay_shown_when_the_list_is_loaded_again(store: Store, watched: Watched) -> None:
    page = watched.page
    await put(store, rejected(b"bad"))
    await page.goto(watched.url)
    await page.get_by_role("button", name="Show bytes").click()
    await expect(page.locator("#quarantine pre")).to_contain_text("0000  62 61 64")
    await put(store, rejected(b"worse"))
    await expect(page.locator("#quarantine > li")).to_have_count(2)
    await expect(page.locator("#quarantine pre.hex")).to_contain_text("0000  62 61 64")
    await expect(page.get_by_role("button", name="Show bytes")).to_have_count(1)


async def test_meters_are_filtered_by_name_and_id(store: Store, watched: Watched) -> None:
    page = watched.page
    for number in range(9):
        await power(store, "1.5", f"m{number}")
    await store.fetch("update meter set claimed = true, name = 'Flat 3' where meter_id = 'm3'")
    await page.goto(watched.url)
    shown = page.locator("#meters > li:visible")
    await expect(shown).to_have_count(10)
    await page.get_by_label("Filter meters").fill("flat")
    await expect(shown).to_have_text(re.compile("Flat 3"))
    await page.get_by_label("Filter meters").fill("m4")
    await expect(shown).to_have_text(re.compile("m4"))
    await page.get_by_label("Filter meters").fill("nobody")
    await expect(shown).to_have_count(0)
    await expect(page.get_by_text("No meter has this in its name or id.")).to_be_visible()
    await page.get_by_label("Filter meters").fill("")
    await expect(shown).to_have_count(10)


async def test_a_doubtful_reading_is_shown_as_doubtful(store: Store, watched: Watched) -> None:
    page = watched.page
    await power(store, "1.5", "m1")
    await power(store, "1.5", "m2", fault_code="register-fell,clock-wrong")
    await page.goto(watched.url)
    chip = page.get_by_text("register fell")
    await expect(chip).to_have_count(1)
    await expect(chip).to_have_attribute("title", re.compile("register-fell, clock-wrong"))
    await power(store, "1.6", "m2")
    await expect(chip).to_be_hidden()


async def test_a_heat_meter_shows_its_heat(store: Store, watched: Watched) -> None:
    volume, energy = value("HEAT_volume", "711.376", "m3"), value("HEAT_energy", "24819", "kWh")
    await put(store, reading("m1", datetime.now(UTC), volume, energy))
    await watched.page.goto(watched.url)
    await expect(watched.page.locator("#meters .meter-value")).to_have_text("24,819 kWh")


async def test_an_old_reading_is_shown_as_stale(store: Store, watched: Watched) -> None:
    page = watched.page
    await power(store, "1.5")
    await store.fetch("update meter set last_stored_time = now() - interval '1 hour'")
    await page.goto(watched.url)
    await expect(page.locator("#now-stale")).to_be_visible()
    await expect(page.locator("#now-note")).to_have_text("Last reading 60 min ago")
    await expect(page.locator("#meters .chip").first).to_have_text("silent")


async def test_a_lost_connection_is_said_and_mended(store: Store, browser: Browser) -> None:
    await power(store, "1.5")
    page = await browser.new_page()
    async with serving(create_app(store)) as url:
        await page.goto(url)
        await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#connection")).to_have_text("Offline")
    await expect(page.get_by_role("alert")).to_contain_text("Connection lost, trying again")
    async with serving(create_app(store), port=int(url.rpartition(":")[2])):
        await expect(page.locator("#connection")).to_have_text("Live")
        await expect(page.locator("#lost")).to_be_hidden()
        await page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_a_phone_and_can_be_read(store: Store, browser: Browser, scheme: str) -> None:
    await power(store, "1.5")
    await power(store, "0.5", "a-meter-with-a-very-long-name-" + "x" * 34)
    await put(store, rejected(b"a" * 5000, reason="r" * 60, message="m" * 300))
    async with serving(create_app(store)) as url:
        page = await browser.new_page(
            viewport={"width": 360, "height": 740}, color_scheme="dark" if scheme == "dark" else "light"
        )
        await page.goto(url)
        await expect(page.locator("#connection")).to_have_text("Live")
        await expect(page.locator("#quarantine > li")).to_have_count(1)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        assert await page.evaluate(LOW_CONTRAST) == []
        assert await page.evaluate(UNNAMED) == []
        assert await page.evaluate("document.documentElement.lang") == "en"
        assert await page.locator("main").count() == await page.locator("h1").count() == 1
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        await page.close()


def test_all_pages_together_are_small() -> None:
    folder = Path(pages.__file__).parent
    files = [path for path in folder.rglob("*") if path.suffix in {".html", ".css", ".js", ".svg"}]
    assert sum(len(compress(path.read_bytes())) for path in files) < LIMIT_PAGES_BYTES


def test_the_page_has_no_inline_code_and_names_no_other_host() -> None:
    folder = Path(pages.__file__).parent
    html = (folder / "templates/index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)
    for path in folder.rglob("*"):
        if path.suffix in {".html", ".css", ".js"} and "vendor" not in path.parts:
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text
            assert "https://" not in text
            assert "innerHTML" not in text
