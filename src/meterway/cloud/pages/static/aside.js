// Quarantine and faults. What is shown here may be hostile: it is only ever text.

import { request } from "./api.js";
import { byId, element, text } from "./dom.js";
import { bytes, hexdump, moment, number } from "./format.js";

let oldest = null;
const opened = new Map(); // entry id to its bytes: they stay shown when the list is loaded again

export function build() {
  byId("replay-all")?.addEventListener("click", () => replay([...byId("quarantine").children].map((item) => item.itemId)));
  byId("quarantine-more").addEventListener("click", more);
}

export async function load() {
  const [quarantine, faults] = await Promise.all([request("/v1/quarantine?limit=20"), request("/v1/faults?limit=20")]);
  const listed = new Set(quarantine.content.map((entry) => entry.id));
  for (const id of opened.keys()) if (!listed.has(id)) opened.delete(id);
  fill("quarantine", quarantine.content.map(quarantined));
  remember(quarantine);
  fill("faults", faults.content.map(fault));
}

export function count(counters) {
  text(byId("quarantine-count"), counters.quarantined ? number(counters.quarantined, 0) : "");
  text(byId("faults-count"), counters.faultsLastDay ? `${number(counters.faultsLastDay, 0)} in 24 h` : "");
}

function fill(name, items) {
  byId(name).replaceChildren(...items);
  byId(`${name}-empty`).hidden = items.length > 0;
  if (byId("replay-all")) byId("replay-all").hidden = byId("quarantine").children.length === 0;
}

function remember(page) {
  oldest = page.nextBefore;
  byId("quarantine-more").hidden = oldest === null;
}

async function more() {
  try {
    const page = await request(`/v1/quarantine?limit=20&before=${oldest}`);
    byId("quarantine").append(...page.content.map(quarantined));
    remember(page);
  } catch (error) {
    say(error.message);
  }
}

function head(reason, time, ...more) {
  const at = new Date(time);
  const when = element("time", { dateTime: at.toISOString(), textContent: moment(at) });
  return element("div", { className: "item-head" }, element("span", { className: "reason", textContent: reason }), ...more, when);
}

function quarantined(entry) {
  const detail = element("pre", { tabIndex: 0, textContent: readable(entry.preview) });
  detail.setAttribute("aria-label", "Beginning of the message");
  const size = element("span", { className: "muted", textContent: bytes(entry.sizeBytes) + (entry.seenCount > 1 ? ` · ${entry.seenCount} times` : "") });
  const show = element("button", { type: "button", className: "button", textContent: "Show bytes" });
  show.addEventListener("click", () => openBytes(entry.id, detail, show));
  const again = byId("replay-all") ? [element("button", { type: "button", className: "button", textContent: "Try again" })] : [];
  again[0]?.addEventListener("click", () => replay([entry.id]));
  const item = element("li", {},
    head(entry.reason, entry.receivedTime, size),
    element("p", { className: "message", textContent: entry.message }),
    element("p", { className: "mono muted", textContent: entry.topic }),
    detail,
    element("div", { className: "actions" }, ...again, show));
  item.itemId = entry.id;
  if (opened.has(entry.id)) showBytes(opened.get(entry.id), detail, show);
  return item;
}

function fault(entry) {
  return element("li", {},
    head(entry.reason, entry.faultTime),
    element("p", { className: "message", textContent: entry.message }),
    element("p", { className: "mono muted", textContent: [entry.meterId, entry.concentratorId].filter(Boolean).join(" via ") }),
    ...(entry.preview ? [element("pre", { textContent: entry.preview })] : []));
}

/** Text that is mostly unprintable says nothing; its bytes do. */
function readable(preview) {
  const dots = preview.split("·").length - 1;
  return dots * 3 > preview.length ? "(not text: “Show bytes” shows it)" : preview || "(empty)";
}

async function openBytes(id, target, button) {
  try {
    const item = await request(`/v1/quarantine/${id}`);
    opened.set(id, Uint8Array.from(atob(item.payload), (mark) => mark.charCodeAt(0)));
    showBytes(opened.get(id), target, button);
  } catch (error) {
    say(error.message);
  }
}

function showBytes(data, target, button) {
  target.className = "hex";
  target.textContent = hexdump(data) || "(empty)";
  button.remove();
}

async function replay(ids) {
  const buttons = document.querySelectorAll("#quarantine button, #replay-all");
  buttons.forEach((button) => (button.disabled = true));
  try {
    const { accepted, rejected } = await request("/v1/quarantine/replay", { method: "POST", body: { ids } });
    say(`${number(accepted, 0)} understood now, ${number(rejected, 0)} still not.`);
    await load();
  } catch (error) {
    say(error.message);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

function say(sentence) {
  byId("quarantine-said").hidden = false;
  text(byId("quarantine-said"), sentence);
}
