// Devices: who may log in at the broker, the code by which a new one does, and what was refused to each.

import { request } from "./api.js";
import { byId, element, text } from "./dom.js";
import { age, hourMinute, moment, number } from "./format.js";

const REFRESH_MS = 10_000;
const CONNECTED_S = 120;
const LIMIT = 1000;
const STATES = { waiting: "waiting for its code", expired: "code expired", enrolled: "enrolled", revoked: "revoked" };

let devices = [];
let chosen = null;
let me = null;
const opened = new Map(); // user name to its refusals: they stay shown when the list is loaded again

const path = (device, more = "") => `/v1/devices/${device.kind}/${encodeURIComponent(device.deviceId)}${more}`;
const idsIn = (area) => [...new Set(area.value.split(/[\s,;]+/).filter(Boolean))];
const secondsSince = (time) => (Date.now() - Date.parse(time)) / 1000;

// ---- the list ----

async function load() {
  try {
    const found = [];
    let after = "";
    while (after !== null && found.length < LIMIT) {
      const page = await request(`/v1/devices?limit=500&after=${encodeURIComponent(after)}`);
      found.push(...page.content);
      after = page.nextAfter;
    }
    me ??= await request("/v1/account");
    devices = found;
    await Promise.all(devices.filter((each) => opened.has(each.username)).map(refresh));
    byId("lost").hidden = true;
    show();
  } catch (error) {
    text(byId("lost"), error.message);
    byId("lost").hidden = false;
  }
}

async function refresh(device) {
  opened.set(device.username, (await request(path(device))).refusals);
}

function show() {
  const wanted = byId("filter").value.trim().toLowerCase();
  const matching = devices.filter((each) => [each.username, ...each.meterIds].some((name) => name.toLowerCase().includes(wanted)));
  const focus = document.activeElement?.dataset?.key;
  byId("devices").replaceChildren(...matching.map(item));
  if (focus) document.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  text(byId("devices-count"), devices.length ? number(devices.length, 0) : "");
  byId("devices-empty").hidden = devices.length > 0;
  byId("filter-box").hidden = devices.length < 8;
}

function item(device) {
  const head = element("div", { className: "item-head" },
    element("strong", { className: "device-id", textContent: device.deviceId }),
    element("span", { className: "muted", textContent: device.kind }),
    chip(device));
  const lines = [element("p", { className: "muted", textContent: facts(device) })];
  if (device.refusedCount) lines.push(...refusals(device));
  return element("li", {}, head, ...lines, element("div", { className: "actions" }, ...actions(device)));
}

function chip(device) {
  const connected = device.state === "enrolled" && device.lastSeenTime && secondsSince(device.lastSeenTime) < CONNECTED_S;
  const made = element("span", { className: "chip", textContent: connected ? "connected" : STATES[device.state] });
  made.dataset.state = connected ? "online" : { waiting: "waiting", expired: "offline", revoked: "offline" }[device.state] ?? "enrolled";
  return made;
}

function facts(device) {
  const meters = device.meterIds.length;
  const said = [];
  if (device.kind === "adapter") said.push(meters ? `${number(meters, 0)} ${meters === 1 ? "meter" : "meters"}` : "no meter yet");
  if (device.collects) said.push("reads every adapter here");
  if (device.state === "waiting") said.push(`code good until ${hourMinute(new Date(device.codeExpiresTime))}`);
  else if (device.lastSeenTime) said.push(`seen ${age(secondsSince(device.lastSeenTime))}`);
  else if (device.enrolledTime) said.push(`enrolled ${age(secondsSince(device.enrolledTime))}, not seen yet`);
  if (device.revokedTime) said.push(`revoked ${moment(new Date(device.revokedTime))}`);
  return said.join(" · ");
}

function refusals(device) {
  const known = opened.get(device.username);
  const told = `The broker refused ${number(device.refusedCount, 0)} ${device.refusedCount === 1 ? "message" : "messages"} or log-ins, last ${age(secondsSince(device.refusedTime))}.`;
  if (!known) return [element("p", { className: "message refused", textContent: told })];
  const items = known.map((each) => element("li", {},
    element("div", { className: "item-head" },
      element("span", { className: "reason", textContent: `${each.kind} × ${number(each.count, 0)}` }),
      element("time", { dateTime: each.lastTime, textContent: `since ${moment(new Date(each.firstTime))}` })),
    ...(each.topic ? [element("p", { className: "mono muted", textContent: each.topic })] : []),
    element("p", { className: "message", textContent: each.reason })));
  return [element("p", { className: "message refused", textContent: told }), element("ul", { className: "refusals" }, ...items)];
}

function actions(device) {
  const made = [];
  const add = (label, act, className = "button") => {
    const button = element("button", { type: "button", className, textContent: label });
    button.dataset.key = `${device.username} ${label}`;
    button.setAttribute("aria-label", `${label}: ${device.username}`);
    button.addEventListener("click", () => act(device));
    made.push(button);
  };
  if (device.refusedCount) add(opened.has(device.username) ? "Hide refusals" : "Show refusals", toggle);
  if (device.collects && me.tenantId !== null) return made; // it is there for all tenants
  if (device.kind === "adapter") add("Meters", editMeters);
  add("New code", newCode);
  if (device.state !== "revoked") add("Revoke", askRevoke, "button danger");
  return made;
}

async function toggle(device) {
  if (opened.delete(device.username)) return show();
  await tell(() => refresh(device));
  show();
}

async function newCode(device) {
  await tell(async () => showCode(await request(path(device, "/code"), { method: "POST" })));
}

/** Do something whose failure the banner tells. */
async function tell(work) {
  try {
    await work();
  } catch (error) {
    text(byId("lost"), error.message);
    byId("lost").hidden = false;
  }
}

// ---- adding, and the code ----

function showCode(issued) {
  text(byId("code-command"), issued.command);
  text(byId("code-copy"), "Copy");
  const until = hourMinute(new Date(issued.expiresTime));
  const onEdge = issued.device.kind === "concentrator" ? " On an edge: “meterway edge enroll”, and edge.toml." : "";
  text(byId("code-note"), `The code is shown this once. It is good until ${until}, for one device.${onEdge}`);
  byId("code-dialog").showModal();
  load();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("code-command").textContent);
    text(byId("code-copy"), "Copied");
  } catch {
    getSelection().selectAllChildren(byId("code-command"));
    text(byId("code-copy"), "Selected: copy it by hand");
  }
}

function chooseKind() {
  const isAdapter = byId("add-kind").value === "adapter";
  byId("add-meters-box").hidden = !isAdapter;
  byId("add-collects-box").hidden = isAdapter || me?.tenantId !== null;
}

async function add(event) {
  event.preventDefault();
  const kind = byId("add-kind").value;
  const more = kind === "adapter" ? { meterIds: idsIn(byId("add-meters")) } : { collects: byId("add-collects").checked };
  await submit("add", async () => {
    const issued = await request("/v1/devices", { method: "POST", body: { kind, id: byId("add-id").value.trim(), ...more } });
    byId("add").reset();
    chooseKind();
    showCode(issued);
  });
}

/** Send a form; its own line tells a failure. */
async function submit(name, work) {
  const button = document.querySelector(`#${name} [type=submit], #${name}-form [type=submit]`);
  button.disabled = true;
  byId(`${name}-error`).hidden = true;
  try {
    await work();
  } catch (error) {
    text(byId(`${name}-error`), error.message);
    byId(`${name}-error`).hidden = false;
  } finally {
    button.disabled = false;
  }
}

// ---- meters and revocation ----

function editMeters(device) {
  chosen = device;
  text(byId("meters-device"), device.username);
  byId("meters-ids").value = device.meterIds.join("\n");
  byId("meters-error").hidden = true;
  byId("meters-dialog").showModal();
}

function askRevoke(device) {
  chosen = device;
  text(byId("revoke-device"), device.username);
  byId("revoke-error").hidden = true;
  byId("revoke-dialog").showModal();
}

function change(name, options) {
  return (event) => {
    event.preventDefault();
    submit(name, async () => {
      await request(path(chosen), options());
      byId(`${name}-dialog`).close();
      await load();
    });
  };
}

byId("add").addEventListener("submit", add);
byId("add-kind").addEventListener("change", chooseKind);
byId("filter").addEventListener("input", show);
byId("code-copy").addEventListener("click", copy);
byId("meters-form").addEventListener("submit", change("meters", () => ({ method: "PATCH", body: { meterIds: idsIn(byId("meters-ids")) } })));
byId("revoke-form").addEventListener("submit", change("revoke", () => ({ method: "DELETE" })));
for (const name of ["meters", "revoke"]) byId(`${name}-cancel`).addEventListener("click", () => byId(`${name}-dialog`).close());
load();
setInterval(() => document.hidden || document.querySelector("dialog[open]") || load(), REFRESH_MS);
