// Accounts, households and tenants.

import { allMeters, request } from "./api.js";
import { byId, element, text } from "./dom.js";
import { moment, number } from "./format.js";

let me = null;
let accounts = [];
let save = null; // what the dialog does when it is confirmed

function show(id, message) {
  text(byId(id), message);
  byId(id).hidden = !message;
}

/** A button that says beside its label what it is for to those who do not see where it stands. */
function button(label, subject, onClick, errorId) {
  const made = element("button", { className: "button", type: "button", textContent: label });
  made.setAttribute("aria-label", `${label}: ${subject}`);
  made.addEventListener("click", async () => {
    try {
      await onClick();
    } catch (error) {
      show(errorId, error.message);
    }
  });
  return made;
}

async function pages(path) {
  const found = [];
  let after = null;
  do {
    const page = await request(`${path}?limit=500${after === null ? "" : `&after=${encodeURIComponent(after)}`}`);
    found.push(...page.content);
    after = page.nextAfter;
  } while (after !== null);
  return found;
}

// ---- accounts ----

function showLink(answer) {
  const link = element("code", { textContent: location.origin + answer.link });
  byId("link-new").replaceChildren(`Send this link to ${answer.login}; it works once, within a day: `, link);
  byId("link-new").hidden = false;
}

function accountItem(account) {
  const chip = element("span", { className: "chip", textContent: account.role });
  const head = element("div", { className: "item-head" }, element("strong", { textContent: account.login }), chip);
  if (account.disabled) head.append(element("span", { className: "chip unclaimed", textContent: "disabled" }));
  const seen = account.lastSignInTime ? `last here ${moment(new Date(account.lastSignInTime))}` : "never signed in";
  const sub = [account.name, account.tenantId ?? "all tenants", seen].filter(Boolean).join(" · ");
  const item = element("li", {}, head, element("p", { className: "muted", textContent: sub }));
  if (account.login === me.login) return item;
  const path = `/v1/accounts/${encodeURIComponent(account.login)}`;
  const actions = element("div", { className: "actions" });
  if (!account.disabled) {
    const make = async () => showLink(await request(`${path}/link`, { method: "POST" }));
    actions.append(button("New link", account.login, make, "account-error"));
  }
  const toggle = async () => {
    await request(path, { method: "PATCH", body: { disabled: !account.disabled } });
    await loadAccounts();
  };
  actions.append(button(account.disabled ? "Enable" : "Disable", account.login, toggle, "account-error"));
  item.append(actions);
  return item;
}

async function loadAccounts() {
  accounts = await pages("/v1/accounts");
  byId("accounts").replaceChildren(...accounts.map(accountItem));
  byId("accounts-empty").hidden = accounts.length > 0;
  text(byId("accounts-count"), accounts.length ? number(accounts.length, 0) : "");
  const members = accounts.filter((account) => account.role === "member" && !account.disabled);
  byId("logins").replaceChildren(...members.map((account) => element("option", { value: account.login })));
}

async function invite(event) {
  event.preventDefault();
  show("account-error", "");
  const body = { login: byId("account-login").value, role: byId("account-role").value };
  if (byId("account-tenant").value) body.tenantId = byId("account-tenant").value;
  try {
    showLink(await request("/v1/accounts", { method: "POST", body }));
    byId("account-form").reset();
    await loadAccounts();
  } catch (error) {
    show("account-error", error.message);
  }
}

// ---- households ----

function residentItem(household, resident) {
  const until = resident.untilTime ? ` until ${moment(new Date(resident.untilTime))}` : "";
  const words = `${resident.login} from ${moment(new Date(resident.fromTime))}${until}`;
  const line = element("p", { className: "line" }, element("span", { textContent: words }));
  if (!resident.untilTime) {
    const path = `/v1/households/${household.householdId}/residents/${encodeURIComponent(resident.login)}`;
    const moveOut = async () => {
      await request(path, { method: "PATCH", body: { untilTime: new Date().toISOString() } });
      await loadHouseholds();
    };
    line.append(button("Moved out", resident.login, moveOut, "household-said"));
  }
  return line;
}

function meterItem(meter) {
  const line = element("p", { className: "line" }, element("span", { textContent: meter.name ?? meter.meterId }));
  const remove = async () => {
    await request(`/v1/meters/${encodeURIComponent(meter.meterId)}`, { method: "PATCH", body: { householdId: null } });
    await loadHouseholds();
  };
  line.append(button("Remove", meter.name ?? meter.meterId, remove, "household-said"));
  return line;
}

function householdItem(household) {
  const head = element("div", { className: "item-head" }, element("strong", { textContent: household.name }),
    element("span", { className: "muted", textContent: `number ${household.householdId}` }));
  if (me.tenantId === null) head.append(element("span", { className: "chip", textContent: household.tenantId }));
  const addResident = button("Add somebody", household.name, () => askResident(household), "household-said");
  const addMeter = button("Add a meter", household.name, () => askMeter(household), "household-said");
  return element(
    "li",
    {},
    head,
    ...household.residents.map((resident) => residentItem(household, resident)),
    ...household.meters.map(meterItem),
    element("div", { className: "actions" }, addResident, addMeter),
  );
}

async function loadHouseholds() {
  const households = await pages("/v1/households");
  byId("households").replaceChildren(...households.map(householdItem));
  byId("households-empty").hidden = households.length > 0;
  text(byId("households-count"), households.length ? number(households.length, 0) : "");
}

async function addHousehold(event) {
  event.preventDefault();
  show("household-said", "");
  try {
    await request("/v1/households", { method: "POST", body: { name: byId("household-name").value } });
    byId("household-form").reset();
    await loadHouseholds();
  } catch (error) {
    show("household-said", error.message);
  }
}

function ask(title, fields, onSave) {
  text(byId("dialog-title"), title);
  for (const id of ["resident-fields", "meter-fields"]) byId(id).hidden = id !== fields;
  show("dialog-error", "");
  save = onSave;
  byId("dialog").showModal();
}

function askResident(household) {
  byId("resident-from").valueAsDate = new Date();
  ask(`Who lives in ${household.name}?`, "resident-fields", () => {
    const fromTime = new Date(`${byId("resident-from").value}T00:00:00`).toISOString();
    const body = { login: byId("resident-login").value, fromTime };
    return request(`/v1/households/${household.householdId}/residents`, { method: "POST", body });
  });
}

async function askMeter(household) {
  const meters = await allMeters();
  const options = meters.map((meter) =>
    element("option", { value: meter.meterId, textContent: meter.name ? `${meter.name} (${meter.meterId})` : meter.meterId }),
  );
  byId("meter-id").replaceChildren(...options);
  ask(`Which meter is of ${household.name}?`, "meter-fields", () =>
    request(`/v1/meters/${encodeURIComponent(byId("meter-id").value)}`, { method: "PATCH", body: { householdId: household.householdId } }),
  );
}

async function confirmDialog(event) {
  event.preventDefault();
  try {
    await save();
    byId("dialog").close();
    await loadHouseholds();
  } catch (error) {
    show("dialog-error", error.message);
  }
}

// ---- tenants ----

const count = (many, what) => `${number(many, 0)} ${what}${many === 1 ? "" : "s"}`;

async function loadTenants() {
  const { content } = await request("/v1/tenants");
  byId("tenants").replaceChildren(
    ...content.map((tenant) => {
      const chip = element("span", { className: "chip", textContent: tenant.tenantId });
      const head = element("div", { className: "item-head" }, element("strong", { textContent: tenant.name }), chip);
      const words = `${count(tenant.meters, "meter")}, ${count(tenant.accounts, "account")}`;
      return element("li", {}, head, element("p", { className: "muted", textContent: words }));
    }),
  );
  if (me.tenantId !== null || !me.permissions.includes("people")) return;
  byId("tenant-form").hidden = false;
  byId("account-tenant-row").hidden = content.length < 2;
  byId("account-tenant").replaceChildren(
    element("option", { value: "", textContent: "all tenants (a member: the first)" }),
    ...content.map((tenant) => element("option", { value: tenant.tenantId, textContent: tenant.name })),
  );
}

async function addTenant(event) {
  event.preventDefault();
  show("tenant-error", "");
  try {
    const body = { tenantId: byId("tenant-id").value, name: byId("tenant-name").value };
    await request("/v1/tenants", { method: "POST", body });
    byId("tenant-form").reset();
    await loadTenants();
  } catch (error) {
    show("tenant-error", error.message);
  }
}

byId("account-form").addEventListener("submit", invite);
byId("household-form").addEventListener("submit", addHousehold);
byId("tenant-form").addEventListener("submit", addTenant);
byId("dialog-form").addEventListener("submit", confirmDialog);
byId("dialog-cancel").addEventListener("click", () => byId("dialog").close());
me = await request("/v1/account");
await Promise.all([loadAccounts(), loadHouseholds(), loadTenants()]);
