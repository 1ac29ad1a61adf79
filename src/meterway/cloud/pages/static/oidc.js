// Signing in with an OpenID Connect provider: the browser goes there, and comes back to /sign-in/oidc.

import { request } from "./api.js";
import { byId, text } from "./dom.js";

/** Have the button `#oidc`, if there is one, begin at `path`; `body` tells what is sent. */
export function onProvider(path, body) {
  byId("oidc")?.addEventListener("click", async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    byId("oidc-error").hidden = true;
    try {
      const { url } = await request(path, { method: "POST", body: body?.() });
      location.assign(url);
    } catch (error) {
      text(byId("oidc-error"), error.message);
      byId("oidc-error").hidden = false;
      button.disabled = false;
    }
  });
}
