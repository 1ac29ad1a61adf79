// The list of meters, and the dialog that claims and names one.

import { request } from "./api.js";
import { byId, element, icon, text } from "./dom.js";
import { age, power, quantity } from "./format.js";
import { ageOf, doubts, isPower, mainValue, netPower, stateOf, title } from "./values.js";

const WORDS = { online: "online", silent: "silent", offline: "offline", waiting: "no reading yet" };
const FILTER_FROM = 8;
const DOUBT_LENGTH = 30;
const rows = new Map();
let all = null;
let pick = () => {};

export function build(onSelect, onChanged) {
  pick = onSelect;
  all = row("sum", () => pick(null));
  text(all.name, "All meters");
  byId("filter").addEventListener("input", filter);
  if (byId("dialog")) prepareDialog(onChanged);
}

/** Show `meters` (a Map by id): new ones are added, known ones updated in place. */
export function show(meters, selected) {
  const list = byId("meters");
  for (const meter of meters.values()) {
    if (!rows.has(meter.meterId)) rows.set(meter.meterId, meterRow(meter));
  }
  const order = [...meters.values()].sort((a, b) => title(a).localeCompare(title(b), undefined, { numeric: true }));
  const wanted = order.map((meter) => rows.get(meter.meterId).item);
  if (meters.size > 1) wanted.unshift(all.item);
  if (wanted.length !== list.children.length || wanted.some((item, index) => list.children[index] !== item)) {
    list.replaceChildren(...wanted);
  }
  byId("meters-empty").hidden = meters.size > 0;
  byId("filter-box").hidden = meters.size < FILTER_FROM;
  text(byId("meters-count"), meters.size ? String(meters.size) : "");
  for (const meter of meters.values()) update(meter);
  select(selected);
  filter();
}

export function update(meter) {
  const shown = rows.get(meter.meterId);
  shown.meter = meter;
  text(shown.name, title(meter));
  shown.pick.title = meter.name ? meter.meterId : "";
  const net = netPower(meter);
  const main = mainValue(meter);
  const register = main ? quantity(main.numericalValue, main.unit) : "";
  text(shown.value, net === null ? register : signed(net));
  text(shown.sub, [net === null || isPower(main) ? "" : register, meter.protocol ?? ""].filter(Boolean).join(" · "));
  if (shown.edit) {
    text(shown.editWord, meter.claimed ? "Rename" : "Claim");
    shown.edit.setAttribute("aria-label", `${meter.claimed ? "Rename" : "Claim"} meter ${title(meter)}`);
  }
  shown.unclaimed.hidden = meter.claimed;
  showDoubts(shown.doubt, doubts(meter));
  const use = shown.image.firstChild;
  const href = `/static/icons.svg#${meter.physicalMeterClass ?? "meter"}`;
  if (use.getAttribute("href") !== href) use.setAttribute("href", href); // setting it loads the file again
  text(shown.kind, (meter.physicalMeterClass ?? "meter").toLowerCase());
}

/** Encryption without proof is how some meters are made, so it is said, but not as a warning. */
function showDoubts(chip, words) {
  chip.hidden = words.length === 0;
  if (chip.hidden) return;
  chip.className = words[0] === "unverified" ? "chip" : "chip doubt";
  chip.title = `Doubtful, and kept as it came: ${words.join(", ")} (docs/plausibility.md)`;
  text(chip, words[0].replaceAll("-", " ").slice(0, DOUBT_LENGTH));
}

const signed = (net) => `${net < 0 ? "−" : ""}${power(net).join(" ")}`;

/** Let ages and states follow the clock. */
export function tick(now, sum) {
  for (const shown of rows.values()) {
    const seconds = ageOf(shown.meter, now);
    const state = stateOf(shown.meter, now);
    text(shown.age, Number.isFinite(seconds) ? age(seconds) : "");
    if (shown.chip.dataset.state !== state) shown.chip.dataset.state = state;
    text(shown.chip, WORDS[state]);
    shown.chip.title = shown.meter.stateDetail ?? "";
  }
  text(all.sub, sum.known ? `${sum.fresh} of ${sum.known} report their power` : "");
  text(all.value, sum.fresh ? signed(sum.net) : "");
}

export function select(id) {
  for (const [key, shown] of [[null, all], ...rows]) {
    shown.item.classList.toggle("selected", key === id);
    shown.pick.setAttribute("aria-pressed", String(key === id));
  }
}

function filter() {
  const wanted = byId("filter-box").hidden ? "" : byId("filter").value.trim().toLowerCase();
  let found = 0;
  for (const { item, meter } of rows.values()) {
    item.hidden = !`${meter.name ?? ""} ${meter.meterId}`.toLowerCase().includes(wanted);
    found += item.hidden ? 0 : 1;
  }
  all.item.hidden = wanted !== "";
  byId("meters-none").hidden = wanted === "" || found > 0;
}

function row(image, onPick) {
  const shown = {
    image: icon(image, "meter-icon"),
    name: element("span", { className: "meter-name" }),
    kind: element("span", { className: "visually-hidden" }),
    value: element("span", { className: "meter-value" }),
    chip: element("span", { className: "chip" }),
    unclaimed: element("span", { className: "chip unclaimed", textContent: "unclaimed", hidden: true }),
    doubt: element("span", { className: "chip", hidden: true }),
    sub: element("span", { className: "meter-sub" }),
    age: element("span", { className: "meter-age" }),
  };
  const state = element("span", { className: "meter-state" }, shown.kind, shown.sub);
  shown.state = state;
  shown.pick = element("button", { type: "button", className: "meter-pick", onclick: onPick },
    shown.image, shown.name, shown.value, state, shown.age);
  shown.item = element("li", { className: "meter" }, shown.pick);
  return shown;
}

function meterRow(meter) {
  const shown = row("meter", () => pick(meter.meterId));
  shown.meter = meter;
  shown.state.prepend(shown.chip, shown.unclaimed, shown.doubt);
  if (!byId("dialog")) return shown; // the server leaves it out for who may change nothing
  shown.editWord = element("span");
  shown.edit = element("button", { type: "button", className: "button quiet edit", onclick: () => open(shown.meter) },
    icon("edit", "edit-icon"), shown.editWord);
  shown.item.append(shown.edit);
  return shown;
}

let edited = null;

function open(meter) {
  edited = meter;
  text(byId("dialog-title"), meter.claimed ? "Rename meter" : "Claim meter");
  text(byId("dialog-id"), meter.meterId);
  byId("dialog-name").value = meter.name ?? "";
  byId("dialog-claimed").checked = true;
  byId("dialog-error").hidden = true;
  byId("dialog").showModal();
  byId("dialog-name").focus();
}

function prepareDialog(onChanged) {
  byId("dialog-cancel").addEventListener("click", () => byId("dialog").close());
  byId("dialog-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = { name: byId("dialog-name").value, claimed: byId("dialog-claimed").checked };
    try {
      onChanged(await request(`/v1/meters/${encodeURIComponent(edited.meterId)}`, { method: "PATCH", body }));
      byId("dialog").close();
    } catch (error) {
      text(byId("dialog-error"), error.message);
      byId("dialog-error").hidden = false;
    }
  });
}
