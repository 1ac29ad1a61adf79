// The audit log, newest first.

import { request } from "./api.js";
import { byId, element, text } from "./dom.js";
import { moment } from "./format.js";

let oldest = null;

function item(entry) {
  const head = element(
    "div",
    { className: "item-head" },
    element("strong", { textContent: entry.actor }),
    element("span", { className: "chip", textContent: entry.action }),
    element("span", { className: "mono", textContent: entry.subject }),
    element("time", { dateTime: entry.time, textContent: moment(new Date(entry.time)) }),
  );
  const made = element("li", {}, head);
  const detail = Object.entries(entry.detail ?? {}).filter(([, value]) => value !== null && value !== "");
  const words = detail.map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`);
  if (words.length) made.append(element("p", { className: "mono muted", textContent: words.join(" · ") }));
  return made;
}

async function load(before) {
  const query = new URLSearchParams();
  for (const id of ["actor", "action", "subject"]) if (byId(id).value) query.set(id, byId(id).value);
  if (before) query.set("before", before);
  byId("error").hidden = true;
  try {
    const page = await request(`/v1/audit?${query}`);
    if (!before) byId("entries").replaceChildren();
    byId("entries").append(...page.content.map(item));
    byId("entries-empty").hidden = byId("entries").children.length > 0;
    oldest = page.nextBefore;
    byId("more").hidden = oldest === null;
  } catch (error) {
    text(byId("error"), error.message);
    byId("error").hidden = false;
  }
}

byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  load();
});
byId("more").addEventListener("click", () => load(oldest));
load();
