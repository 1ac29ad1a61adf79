// Privacy: the own data and consents; for operators erasures and how long is kept; for researchers answers.

import { request } from "./api.js";
import { byId, element, text } from "./dom.js";
import { moment, number } from "./format.js";

const DAY_MS = 86_400_000;
const STEPS = { 900: "quarters of an hour", 3600: "hours", 86400: "days" };

let confirmed = null; // what the dialog does when it is confirmed

function say(id, message) {
  text(byId(id), message);
  byId(id).hidden = !message;
}

/** Do something whose failure the line `errorId` tells. */
async function tell(errorId, work) {
  say(errorId, "");
  try {
    await work();
  } catch (error) {
    say(errorId, error.message);
  }
}

/** A button that says beside its label what it is for to those who do not see where it stands. */
function button(label, subject, onClick, className = "button") {
  const made = element("button", { type: "button", className, textContent: label });
  made.setAttribute("aria-label", `${label}: ${subject}`);
  made.addEventListener("click", onClick);
  return made;
}

function item(title, chip, ...lines) {
  const head = element("div", { className: "item-head" }, element("strong", { textContent: title }));
  if (chip) head.append(element("span", { className: "chip", textContent: chip }));
  return element("li", {}, head, ...lines.map((line) => (typeof line === "string" ? element("p", { className: "muted", textContent: line }) : line)));
}

function ask(title, what, word, act) {
  text(byId("sure-title"), title);
  text(byId("sure-what"), what);
  text(byId("sure-do"), word);
  say("sure-error", "");
  confirmed = act;
  byId("sure").showModal();
}

const day = (time) => moment(new Date(time));

// ---- my data ----

async function loadMine() {
  const mine = await request("/v1/privacy");
  byId("residences").replaceChildren(
    ...mine.residences.map((place) => {
      const until = place.untilTime ? ` until ${day(place.untilTime)}` : "";
      const meters = `${number(place.meterIds.length, 0)} ${place.meterIds.length === 1 ? "meter" : "meters"}`;
      return item(place.name, "", `${meters} · from ${day(place.fromTime)}${until}`);
    }),
  );
  byId("residences-empty").hidden = mine.residences.length > 0;
  byId("erase-ask").hidden = mine.erasureRequestedTime !== null;
  byId("erase-withdraw").hidden = mine.erasureRequestedTime === null;
  say("mine-said", mine.erasureRequestedTime ? `You asked to be erased, ${day(mine.erasureRequestedTime)}.` : "");
  byId("consents-card").hidden = mine.residences.length === 0;
  byId("consent-form").hidden = mine.properties.length === 0;
  const places = new Map(mine.residences.map((place) => [place.householdId, place.name]));
  byId("consent-household").replaceChildren(...[...places].map(([id, name]) => element("option", { value: id, textContent: name })));
  byId("consent-properties").replaceChildren(
    byId("consent-properties").firstElementChild,
    ...mine.properties.map(({ propertyId, description }) =>
      element("label", { className: "check" }, element("input", { type: "checkbox", value: propertyId }), ` ${description || propertyId}`)),
  );
  await loadConsents(places);
}

async function loadConsents(places) {
  const { content } = await request("/v1/consents");
  byId("consents-empty").hidden = content.length > 0;
  byId("consents").replaceChildren(
    ...content.map((consent) => {
      const over = consent.revokedTime ? "revoked" : Date.parse(consent.expiresTime) < Date.now() ? "over" : "";
      const lines = [`${consent.propertyIds.join(", ")} · by ${STEPS[consent.stepS] ?? consent.stepS} · until ${new Date(consent.expiresTime).toISOString().slice(0, 10)}`];
      if (!over) {
        const revoke = button("Revoke", consent.propertyIds.join(", "), () => tell("consent-error", async () => {
          await request(`/v1/consents/${consent.consentId}`, { method: "DELETE" });
          await loadConsents(places);
        }));
        lines.push(element("div", { className: "actions" }, revoke));
      }
      return item(places.get(consent.householdId) ?? `Household ${consent.householdId}`, over || "valid", ...lines);
    }),
  );
}

function giveConsent(event) {
  event.preventDefault();
  tell("consent-error", async () => {
    const propertyIds = [...byId("consent-properties").querySelectorAll("input:checked")].map((box) => box.value);
    if (!propertyIds.length) throw new Error("Choose at least one value.");
    const expiresTime = new Date(Date.now() + Number(byId("consent-days").value) * DAY_MS).toISOString();
    const body = { householdId: Number(byId("consent-household").value), propertyIds, stepS: Number(byId("consent-step").value), expiresTime };
    await request("/v1/consents", { method: "POST", body });
    byId("consent-form").reset();
    await loadMine();
  });
}

async function changeRequest(method) {
  await request("/v1/privacy/erasureRequest", { method });
  await loadMine();
}

// ---- erasures ----

async function loadRequests() {
  const { content } = await request("/v1/privacy/erasureRequests");
  byId("requests").replaceChildren(
    ...content.map((asked) => {
      const erase = button("Erase …", asked.login, () => askErase("account", asked.login, "objection"), "button danger");
      return item(asked.login, "asks to be erased", `since ${day(asked.requestedTime)}`, element("div", { className: "actions" }, erase));
    }),
  );
}

function askErase(kind, name, reason) {
  const words = { account: `the account ${name}, with the readings of that person`, householdId: `all readings of household ${name}`, meterId: `the meter ${name} with all its readings` };
  ask("Erase for good?", `This deletes ${words[kind]}. Nobody can bring it back.`, "Erase", async () => {
    await request("/v1/privacy/erasures", { method: "POST", body: { [kind]: kind === "householdId" ? Number(name) : name, reason } });
    byId("erase-form").reset();
    await Promise.all([loadRequests(), loadErasures()]);
  });
}

async function loadErasures() {
  const { content } = await request("/v1/privacy/erasures");
  byId("erasures-empty").hidden = content.length > 0;
  byId("erasures").replaceChildren(
    ...content.map((erasure) => {
      const counts = Object.entries(erasure.counts).map(([name, count]) => `${name} ${number(count, 0)}`).join(" · ");
      const proof = erasure.digest ? element("p", { className: "mono muted", textContent: `proof ${erasure.digest.slice(0, 16)}…` }) : "";
      const said = element("p", { className: "muted", textContent: "" });
      const verify = button("Verify", `Erasure ${erasure.erasureId}`, async () => {
        try {
          const found = await request(`/v1/privacy/erasures/${erasure.erasureId}`);
          const left = Object.values(found.left).reduce((sum, count) => sum + count, 0);
          const proofs = found.proofHolds ? "All proofs hold." : "The proofs do not follow from each other!";
          text(said, `${left ? `${number(left, 0)} rows are there again.` : "Nothing is left."} ${proofs}`);
        } catch (error) {
          text(said, error.message);
        }
      });
      const lines = [`${erasure.reason} · ${day(erasure.requestedTime)}${erasure.by ? ` · by ${erasure.by}` : ""}`, counts || "there was nothing", ...(proof ? [proof] : []), said, element("div", { className: "actions" }, verify)];
      return item(`Erasure ${erasure.erasureId}`, erasure.finishedTime ? erasure.subjectKind : "under way", ...lines);
    }),
  );
}

// ---- how long is kept ----

let tenants = [];

async function loadRules(answer) {
  tenants = (answer ?? (await request("/v1/privacy/retention"))).content;
  byId("rule-tenant-row").hidden = tenants.length < 2;
  const chosen = byId("rule-tenant").value;
  byId("rule-tenant").replaceChildren(...tenants.map((each) => element("option", { value: each.tenantId, textContent: each.tenantId })));
  if (chosen) byId("rule-tenant").value = chosen;
  byId("rules").replaceChildren(
    ...tenants.flatMap((tenant) =>
      tenant.rules.map((rule) => {
        const name = rule.propertyId === "*" ? "Whole readings" : rule.propertyId;
        const remove = button("Remove", name, () => tell("rule-error", () => putRules(tenant, tenant.rules.filter((each) => each !== rule))));
        return item(name, tenants.length > 1 ? tenant.tenantId : "", `${number(rule.keepDays, 0)} days`, element("div", { className: "actions" }, remove));
      }),
    ),
  );
}

async function putRules(tenant, rules) {
  await loadRules(await request("/v1/privacy/retention", { method: "PUT", body: { tenantId: tenant.tenantId, rules } }));
}

function setRule(event) {
  event.preventDefault();
  const tenant = tenants.find((each) => each.tenantId === byId("rule-tenant").value) ?? tenants[0];
  const rule = { propertyId: byId("rule-property").value.trim(), keepDays: Number(byId("rule-days").value) };
  const what = rule.propertyId === "*" ? "All readings" : `The values of ${rule.propertyId}`;
  ask("Remove what is older?", `${what} that are older than ${number(rule.keepDays, 0)} days are removed within the hour, now and always. Nobody can bring them back.`, "Set the rule", () =>
    putRules(tenant, [...tenant.rules.filter((each) => each.propertyId !== rule.propertyId), rule]));
}

// ---- research ----

function research(event) {
  event.preventDefault();
  byId("cells").replaceChildren();
  say("research-said", "");
  tell("research-error", async () => {
    const fromTime = `${byId("research-from").value}T00:00:00Z`;
    const untilTime = new Date(Date.parse(`${byId("research-until").value}T00:00:00Z`) + DAY_MS).toISOString();
    const body = { propertyName: byId("research-property").value, fromTime, untilTime, stepS: Number(byId("research-step").value) };
    const found = await request("/v1/research", { method: "POST", body });
    say("research-said", `${found.propertyId}, by ${STEPS[found.stepS]}${found.isCoarsened ? ": shorter cells would tell of single households" : ""}.`);
    byId("cells").replaceChildren(
      ...found.content.map((cell) => item(`${number(cell.sum, 3)} ${found.unit ?? ""}`, `${number(cell.households, 0)} households`, `${new Date(cell.start).toISOString().slice(0, 16).replace("T", " ")} UTC · mean ${number(cell.mean, 4)}`)),
    );
  });
}

byId("sure-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("sure-do").disabled = true;
  tell("sure-error", async () => {
    await confirmed();
    byId("sure").close();
  }).finally(() => (byId("sure-do").disabled = false));
});
byId("sure-cancel").addEventListener("click", () => byId("sure").close());

const loads = [];
if (byId("residences")) {
  byId("erase-ask").addEventListener("click", () => ask("Ask to be erased?", "An operator confirms it. Then your account and your readings are gone for good.", "Ask", () => changeRequest("POST")));
  byId("erase-withdraw").addEventListener("click", () => tell("mine-said", () => changeRequest("DELETE")));
  byId("consent-form").addEventListener("submit", giveConsent);
  loads.push(loadMine());
}
if (byId("requests")) {
  byId("erase-form").addEventListener("submit", (event) => {
    event.preventDefault();
    askErase(byId("erase-kind").value, byId("erase-name").value.trim(), byId("erase-reason").value);
  });
  byId("rule-form").addEventListener("submit", setRule);
  loads.push(loadRequests(), loadRules());
}
if (byId("erasures")) loads.push(loadErasures());
if (byId("research-form")) {
  const yesterday = new Date(Date.now() - DAY_MS);
  byId("research-from").valueAsDate = yesterday;
  byId("research-until").valueAsDate = yesterday;
  byId("research-form").addEventListener("submit", research);
}
await Promise.all(loads);
