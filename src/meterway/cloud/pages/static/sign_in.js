// Signing in, and back to the page that was asked for.

import { request } from "./api.js";
import { byId, text } from "./dom.js";
import { onProvider } from "./oidc.js";

/** Where to go: a path of this site only; `/.//elsewhere` has one that a browser takes for another site. */
function next(home) {
  const asked = new URLSearchParams(location.search).get("next");
  if (!asked) return home;
  const url = new URL(asked, location.origin);
  return url.origin === location.origin && !url.pathname.startsWith("//") ? url.pathname : home;
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter;
  button.disabled = true;
  byId("error").hidden = true;
  try {
    const body = { login: byId("login").value, password: byId("password").value };
    const me = await request("/v1/sign-in", { method: "POST", body });
    location.assign(next(me.home));
  } catch (error) {
    text(byId("error"), error.message);
    byId("error").hidden = false;
    byId("password").select();
    button.disabled = false;
  }
});
onProvider("/v1/sign-in/oidc", () => ({ next: next("") }));
byId("login").focus();
