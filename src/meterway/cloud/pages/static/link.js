// A one-time link: name and password, then in.

import { request } from "./api.js";
import { byId, text } from "./dom.js";
import { onProvider } from "./oidc.js";

function fail(message) {
  text(byId("error"), message);
  byId("error").hidden = false;
}

byId("link").addEventListener("submit", async (event) => {
  event.preventDefault();
  const password = byId("password").value;
  if (password !== byId("again").value) return fail("The two passwords are not the same.");
  event.submitter.disabled = true;
  try {
    const body = { secret: location.pathname.split("/").pop(), name: byId("name").value, password };
    const me = await request("/v1/link", { method: "POST", body });
    location.replace(me.home);
  } catch (error) {
    fail(error.message);
    event.submitter.disabled = false;
  }
});
onProvider("/v1/sign-in/oidc", () => ({ invitation: location.pathname.split("/").pop() }));
byId("name").focus();
