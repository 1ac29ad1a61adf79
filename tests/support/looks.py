"""What some people could not use of a page in a browser: scripts that return it, [] if all is well."""

from playwright.async_api import Page

LOW_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${node.className || node.tagName}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""
"""Visible text with less contrast to its ground than 4.5 to 1 (WCAG 2.2, 1.4.3)."""

UNNAMED = """() => [...document.querySelectorAll(
  "button, a, input, select, textarea, section, dialog, [role=img]"
)].filter((node) => {
  const label = node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim();
  const by = (node.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
  const needs = ["SECTION", "DIALOG"].includes(node.tagName) ? by.length > 0 : label || by.length > 0;
  if (!node.checkVisibility() && node.tagName !== "DIALOG") return false;
  return !needs || by.some((id) => !document.getElementById(id));
}).map((node) => node.outerHTML.slice(0, 80))"""
"""What a screen reader would have no name for (WCAG 2.2, 4.1.2)."""


async def look(page: Page, name: str) -> None:
    """See that nothing is wider than the window, and that all can be read and has a name, in light and dark."""
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert await page.evaluate(UNNAMED) == [], name
    for scheme in ("light", "dark"):
        # Without motion: a colour on its way to another one is none of either scheme.
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
        assert await page.evaluate(LOW_CONTRAST) == [], (name, scheme)
