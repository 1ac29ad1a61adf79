// The own account: password, API tokens, sessions.

import { request, signOut } from "./api.js";
import { byId, element, text } from "./dom.js";
import { moment, number } from "./format.js";
import { onProvider } from "./oidc.js";

const WORDS = {
  read: "read meters and readings",
  write: "change meters, delete readings",
  devices: "enrol devices",
  people: "manage people",
  audit: "read the audit log",
  export: "export personal data",
  research: "ask about many households",
};

const CHANGED = "#password-changed";

function show(id, message) {
  text(byId(id), message);
  byId(id).hidden = !message;
}

function listItem(title, sub, button, onClick) {
  const head = element("div", { className: "item-head" }, element("strong", { textContent: title }));
  const item = element("li", {}, head, element("p", { className: "muted", textContent: sub }));
  if (button) {
    const made = element("button", { className: "button", type: "button", textContent: button });
    made.setAttribute("aria-label", `${button}: ${title}, ${sub}`);
    made.addEventListener("click", () => onClick().catch((error) => show("token-error", error.message)));
    item.append(element("div", { className: "actions" }, made));
  }
  return item;
}

async function loadTokens() {
  const { content } = await request("/v1/tokens");
  byId("tokens-empty").hidden = content.length > 0;
  byId("tokens").replaceChildren(
    ...content.map((token) => {
      const used = token.lastUsedTime ? `last used ${moment(new Date(token.lastUsedTime))}` : "never used";
      const sub = `${token.scopes.join(", ")} · until ${moment(new Date(token.expiresTime))} · ${used}`;
      return listItem(token.name, sub, "Revoke", async () => {
        await request(`/v1/tokens/${token.tokenId}`, { method: "DELETE" });
        await loadTokens();
      });
    }),
  );
}

async function loadSessions() {
  const { content } = await request("/v1/sessions");
  byId("sessions").replaceChildren(
    ...content.map((session) => {
      const title = session.current ? "This browser" : "Another browser";
      const sub = `since ${moment(new Date(session.createdTime))} · last used ${moment(new Date(session.lastUsedTime))}`;
      if (session.current) return listItem(title, sub);
      return listItem(title, sub, "Sign out there", async () => {
        await request(`/v1/sessions/${session.sessionId}`, { method: "DELETE" });
        await loadSessions();
      });
    }),
  );
}

function scopeBox(name) {
  const box = element("input", { type: "checkbox", value: name, checked: name === "read" });
  return element("label", { className: "check" }, box, ` ${WORDS[name] ?? name}`);
}

async function makeToken(event) {
  event.preventDefault();
  show("token-error", "");
  const scopes = [...byId("token-scopes").querySelectorAll("input:checked")].map((box) => box.value);
  try {
    const body = { name: byId("token-name").value, scopes, days: Number(byId("token-days").value) };
    const token = await request("/v1/tokens", { method: "POST", body });
    const code = element("code", { textContent: token.token });
    byId("token-new").replaceChildren("Copy it now, it is not shown again: ", code);
    byId("token-new").hidden = false;
    byId("token-form").reset();
    await loadTokens();
  } catch (error) {
    show("token-error", error.message);
  }
}

async function changePassword(event) {
  event.preventDefault();
  try {
    const body = { old: byId("old").value, new: byId("new").value };
    await request("/v1/account/password", { method: "POST", body });
    history.replaceState(null, "", CHANGED);
    location.reload(); // the session is a new one, and so is its token against forged requests
  } catch (error) {
    show("password-said", error.message);
  }
}

/** Sessions ended with the old password, tokens did not: say how many there are, and where they end. */
function sayChanged(tokens) {
  history.replaceState(null, "", location.pathname); // to be said once
  const still = tokens === 1 ? "1 API token still works" : `${number(tokens, 0)} API tokens still work`;
  const end = [` ${still}: revoke what you no longer trust under `, element("a", { href: "#tokens-title", textContent: "API tokens" }), "."];
  byId("password-said").replaceChildren("The password is changed, and you are signed out everywhere else.", ...(tokens ? end : []));
  byId("password-said").hidden = false;
}

function showProvider(linked) {
  const button = byId("oidc");
  const { provider } = button.dataset;
  text(byId("oidc-said"), linked ? `You may sign in with ${provider} as well.` : "");
  text(button, linked ? `Sign in with ${provider} no more` : `Link with ${provider}`);
  button.hidden = false;
  if (!linked) return onProvider("/v1/account/oidc");
  button.addEventListener("click", () =>
    request("/v1/account/oidc", { method: "DELETE" }).then(
      () => location.reload(),
      (error) => show("oidc-error", error.message),
    ),
  );
}

if (byId("token-form")) {
  byId("token-form").addEventListener("submit", makeToken);
  byId("password-form").addEventListener("submit", changePassword);
  byId("sign-out").addEventListener("click", () => signOut().catch((error) => show("password-said", error.message)));
}
const me = await request("/v1/account");
if (location.hash === CHANGED && byId("password-said")) sayChanged(me.tokens);
if (byId("oidc")) showProvider(me.oidcLinked);
text(byId("me"), [me.name, me.role, me.tenantId ?? "all tenants"].filter(Boolean).join(" · "));
if (byId("token-form")) {
  byId("token-scopes").append(...me.permissions.map(scopeBox));
  await Promise.all([loadTokens(), loadSessions()]);
}
