// Requests to the server. A failure is an Error whose message is the server's own sentence.

const csrfToken = document.querySelector('meta[name="csrf-token"]')?.content;
let signIn = `/sign-in?next=${encodeURIComponent(location.pathname)}`;
let leaving = false;

/** Goes to the sign-in page, once however many requests are refused. The promise never ends: the page is left. */
function leave() {
  if (!leaving) location.assign(signIn);
  leaving = true;
  return new Promise(() => {});
}

export async function request(path, { method = "GET", body } = {}) {
  let response;
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (csrfToken && method !== "GET") headers["X-CSRF-Token"] = csrfToken;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer; trying again helps when the connection is back.");
  }
  const answer = await response.json().catch(() => ({}));
  if (answer.reason === "sign-in" && csrfToken) return leave();
  if (!response.ok) throw new Error(answer.detail ?? `The server answers ${response.status}.`);
  return answer;
}

/** Ends the session and shows the sign-in page, also where other requests are under way, which are refused then. */
export async function signOut() {
  signIn = "/sign-in";
  await request("/v1/sign-out", { method: "POST" });
  return leave();
}

/** All meters, page by page, up to `limit`. */
export async function allMeters(limit = 1000) {
  const found = [];
  let after = "";
  while (after !== null && found.length < limit) {
    const page = await request(`/v1/meters?limit=500&after=${encodeURIComponent(after)}`);
    found.push(...page.content);
    after = page.nextAfter;
  }
  return found;
}
