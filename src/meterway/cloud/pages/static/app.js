// The page: what is now, what was today, which meters there are, and what could not be understood.

import { allMeters, request } from "./api.js";
import * as aside from "./aside.js";
import * as chart from "./chart.js";
import { byId, text } from "./dom.js";
import { age, hourMinuteSecond, number, power, quantity, unitName, zone } from "./format.js";
import * as list from "./meters.js";
import { ageOf, kilo, mainValue, netPower, stateOf, title } from "./values.js";

const CURVE_REFRESH_MS = 300_000;
const LIST_REFRESH_MS = 60_000;
const SILENCE_MS = 45_000; // the server says something at least every 15 seconds

const meters = new Map();
let selected = decodeURIComponent(location.hash.slice(1)) || null;
let curve = null;
let curveTurn = 0;
let clockOffset = 0;
let lastHeard = null;
let stream = null;
let counters = null;
let listed = false;

const serverNow = () => Date.now() + clockOffset;
const isFresh = (meter) => stateOf(meter, serverNow()) === "online";

// ---- now ----

function total() {
  const known = [...meters.values()].map((meter) => [meter, netPower(meter)]).filter(([, net]) => net !== null);
  const fresh = known.filter(([meter]) => isFresh(meter));
  return { known: known.length, fresh: fresh.length, net: fresh.reduce((sum, [, net]) => sum + net, 0) };
}

function showNow() {
  const meter = meters.get(selected);
  text(byId("now-name"), meter ? title(meter) : "All meters");
  if (!meters.size) return figure("–", "", "none", "Waiting for the first reading", false);
  if (!meter) {
    const sum = total();
    const note = sum.known ? `${sum.fresh} of ${sum.known} meters report their power` : "No meter reports its power";
    if (!sum.fresh) return figure("–", "", "stale", note, sum.known > 0);
    return showPower(sum.net, note, false);
  }
  const seconds = ageOf(meter, serverNow());
  const stale = !isFresh(meter);
  const note = Number.isFinite(seconds) ? `Last reading ${age(seconds)}` : "No reading yet";
  const net = netPower(meter);
  const main = mainValue(meter);
  if (net !== null) return showPower(net, note, stale);
  if (!main) return figure("–", "", "none", note, stale);
  const decimals = Math.min(3, (String(main.numericalValue).split(".")[1] ?? "").length);
  return figure(number(main.numericalValue, decimals, true), unitName(main.unit), stale ? "stale" : "none", note, stale);
}

function showPower(net, note, stale) {
  const direction = net < 0 ? "export" : "import";
  const [value, unit] = power(net);
  const words = net < 0 ? "Feeding into the grid" : "Taking from the grid";
  figure(value, unit, stale ? "stale" : direction, stale ? note : `${words} · ${note}`, stale);
}

function figure(value, unit, direction, note, stale) {
  text(byId("now-number"), value);
  text(byId("now-unit"), unit);
  text(byId("now-note"), note);
  byId("now-figure").dataset.direction = direction;
  byId("now-figure").classList.toggle("long", value.length > 6);
  byId("now-stale").hidden = !stale;
}

function showToday() {
  const meter = meters.get(selected);
  const [taken, given] = ["import", "export"].map((direction) => energyToday(meter, direction));
  text(byId("today-import-name"), meter && curve?.unit && curve.unit !== "kW" ? "Used today" : "In today");
  text(byId("today-import"), taken ?? "–");
  text(byId("today-export"), given ?? "–");
  byId("today-export-row").hidden = given === null;
}

/** Exact between two registers; for all meters together, the sum of the curve. */
function energyToday(meter, direction) {
  if (!curve) return null;
  if (curve.meterId === null) {
    const line = curve.lines.find((each) => each.direction === direction);
    if (!line) return null;
    const sum = line.values.reduce((total, value) => total + (value ?? 0), 0);
    return `≈ ${quantity((sum * curve.stepS) / 3600, "kWh", 1)}`;
  }
  const registers = curve.registers.filter((each) => each.direction === direction);
  if (!registers.length) return null;
  const grown = registers.map((register) => {
    const live = meter?.lastReading?.propertyValues.find((value) => value.propertyName === register.propertyName);
    return (live?.unit === register.unit ? Math.max(register.last, live.numericalValue) : register.last) - register.first;
  });
  return quantity(grown.reduce((sum, growth) => sum + growth, 0), registers[0].unit, 2);
}

// ---- today ----

async function loadCurve() {
  const turn = ++curveTurn;
  const path = selected ? `/v1/meters/${encodeURIComponent(selected)}/curve` : "/v1/curve";
  try {
    const next = await request(`${path}?zone=${encodeURIComponent(zone)}`);
    if (turn !== curveTurn) return;
    curve = next;
    chart.show(next);
  } catch (error) {
    if (turn !== curveTurn) return;
    curve = null;
    chart.clear(error.message);
  }
  showToday();
}

function appendLive(changed) {
  if (curve && serverNow() >= Date.parse(curve.end)) return void loadCurve();
  if (selected === null) {
    const sum = total();
    if (sum.fresh) chart.append(serverNow(), sum.net);
    return;
  }
  const meter = changed.find((each) => each.meterId === selected);
  const net = meter && netPower(meter);
  if (meter && net !== null) chart.append(Date.parse(meter.lastReading.readingTime), net);
}

// ---- meters ----

function choose(id) {
  selected = id;
  history.replaceState(null, "", id === null ? location.pathname : `#${encodeURIComponent(id)}`);
  list.select(id);
  byId("now-title").scrollIntoView({ block: "nearest", behavior: "smooth" });
  curve = null;
  showNow();
  showToday();
  loadCurve();
}

async function loadMeters() {
  const found = await allMeters();
  listed = true;
  meters.clear();
  found.forEach((meter) => meters.set(meter.meterId, meter));
  if (meters.size === 1 && selected === null) selected = found[0].meterId;
  if (selected !== null && !meters.has(selected)) selected = null;
  refresh();
}

function refresh() {
  list.show(meters, selected);
  tick();
}

function changed(found) {
  const isNew = found.some((meter) => !meters.has(meter.meterId) || meters.get(meter.meterId).name !== meter.name);
  found.forEach((meter) => meters.set(meter.meterId, meter));
  if (isNew) refresh();
  else found.forEach((meter) => list.update(meter));
}

function tick() {
  list.tick(serverNow(), total());
  showNow();
  if (lastHeard !== null && byId("connection").dataset.state === "lost") {
    text(byId("lost"), `Connection lost, trying again. What you see is from ${hourMinuteSecond(lastHeard)}.`);
  }
}

// ---- live ----

function connection(state, words) {
  byId("connection").dataset.state = state;
  text(byId("connection"), words);
  byId("lost").hidden = state !== "lost";
}

function connect() {
  stream = new EventSource("/v1/live");
  stream.addEventListener("open", () => {
    lastHeard = new Date();
    connection("live", "Live");
    loadAll();
  });
  stream.addEventListener("error", () => {
    lost();
    // A browser gives up for good when the server answers with an error; we do not.
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  });
  stream.addEventListener("heartbeat", () => (lastHeard = new Date()));
  stream.addEventListener("meters", (message) => hear(JSON.parse(message.data)));
}

function lost() {
  text(byId("lost"), "Connection lost, trying again.");
  connection("lost", "Offline");
}

/** A connection can die without a word, as when the laptop slept. */
function watch() {
  if (byId("connection").dataset.state !== "live" || Date.now() - lastHeard < SILENCE_MS) return;
  stream.close();
  lost();
  connect();
}

function hear(event) {
  lastHeard = new Date();
  clockOffset = Date.parse(event.time) - Date.now();
  if (event.counters) count(event.counters);
  if (!event.meters.length || !listed) return;
  changed(event.meters);
  appendLive(event.meters);
  tick();
  showToday();
}

function count(next) {
  const again =
    !counters || next.quarantined !== counters.quarantined || next.faultsLastDay !== counters.faultsLastDay;
  counters = next;
  aside.count(next);
  const conflicts = next.conflicts ? `, ${number(next.conflicts, 0)} conflicts kept aside` : "";
  text(byId("stored"), `${number(next.readingsLastDay, 0)} readings in the last 24 hours${conflicts}.`);
  if (again) aside.load().catch(() => {});
}

async function loadAll() {
  try {
    await loadMeters();
    await Promise.all([loadCurve(), aside.load()]);
  } catch (error) {
    text(byId("lost"), error.message);
    byId("lost").hidden = false;
    setTimeout(loadAll, 5000);
  }
}

text(byId("zone"), zone);
list.build(choose, (meter) => {
  meters.set(meter.meterId, meter);
  refresh();
});
aside.build();
connect();
setInterval(tick, 1000);
setInterval(watch, 5000);
setInterval(() => document.visibilityState === "visible" && loadCurve(), CURVE_REFRESH_MS);
setInterval(() => loadMeters().catch(() => {}), LIST_REFRESH_MS);
