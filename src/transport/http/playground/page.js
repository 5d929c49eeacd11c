
// The page: its panes, the steps to try, and the back end that publishes updates.

const options = JSON.parse(document.documentElement.dataset.options);

/** Names of the users from id 1 on. */
const NAMES = ["ada", "bob", "cleo", "dan", "eve"];

/** Connected when the page opens. */
const FIRST_USER = 1;

const PANES_MAX = 6;
const TOKEN_TTL_S = 3_600;

const at = (id) => document.getElementById(id);

const nameOf = (user) => (isVisitor(user) ? `visitor ${user - VISITORS_FROM}` : (NAMES[user - 1] ?? `user ${user}`));

/** An element with its text or children. */
function element(name, content, properties = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  made.append(...[content].flat());
  return made;
}

function write(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
}

/** Has screen readers announce a text. */
function announce(text) {
  write("said", text);
}

// ---- tokens

const encoder = new TextEncoder();

/** base64url (RFC 4648) without padding. */
function base64(bytes) {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
}

/** Signs a token (JWT, HS256) with the development secret, as a back end does with a secret of its own. */
async function tokenOf(user) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { iat: now, exp: now + TOKEN_TTL_S, iss: options.issuer ?? undefined, aud: options.audience ?? undefined };
  claims[options.userIdClaim] = String(user);
  const parts = [{ alg: "HS256", typ: "JWT" }, claims].map((part) => base64(encoder.encode(JSON.stringify(part))));
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(options.tokenSecret), algorithm, false, ["sign"]);
  const signature = await crypto.subtle.sign(algorithm, key, encoder.encode(parts.join(".")));
  return [...parts, base64(new Uint8Array(signature))].join(".");
}

// ---- steps

function done(step) {
  const item = at("steps").querySelector(`[data-step="${step}"]`);
  if (item.dataset.done) return;
  item.dataset.done = "yes";
  item.append(element("span", "Done", { class: "visually-hidden" }));
  const all = at("steps").children.length;
  const count = at("steps").querySelectorAll("[data-done]").length;
  announce(`Step done, ${count} of ${all}: ${item.firstElementChild.textContent}`);
  at("next").hidden = count < all;
}

// ---- panes

const panes = [];

const handlers = {
  online(pane) {
    if (pane === panes[0] && [...pane.online].filter(isVisitor).length >= VISITORS_AT_ONCE / 2) done("visitors");
  },
  watching(pane, user) {
    announce(`${pane.name} watches ${nameOf(user)}.`);
    if (!pane.user) done("watch");
  },
  event(pane, name, payload) {
    if (name === "user-status-change") {
      const { userId, status } = payload;
      if (isVisitor(userId)) return;
      if (pane === panes[0]) announce(`${nameOf(userId)} is ${status}.`);
      if (status === "online" && userId !== FIRST_USER && userId !== pane.user) done("online");
      return;
    }
    announce(`${pane.name} received ${name}.`);
    if (name === "profile-update" && pane.watches(Number(payload.user.userID))) done("update");
    const isPlayer = (other) => other.lastMatch === payload?.matchId;
    if (name === "match-found" && panes.filter(isPlayer).length > 1) done("match");
  },
  removed(pane) {
    panes.splice(panes.indexOf(pane), 1);
    announce(`${pane.name} is gone.`);
    renderButtons();
    at(pane.user ? "add-user" : "add-guest").focus();
  },
};

function addPane(user, removable) {
  if (panes.length >= PANES_MAX) return;
  const pane = new Pane(user, handlers);
  if (removable) pane.removable();
  panes.push(pane);
  at("panes").append(pane.section);
  renderButtons();
  pane.open();
}

/** The first user who is in no pane. */
function nextUser() {
  const taken = new Set(panes.map((pane) => pane.user));
  let user = FIRST_USER;
  while (taken.has(user)) user += 1;
  return user;
}

function renderButtons() {
  const user = nextUser();
  at("add-user").textContent = NAMES[user - 1] ? `Add user ${user}, ${nameOf(user)}` : `Add user ${user}`;
  for (const id of ["add-user", "add-guest"]) at(id).disabled = panes.length >= PANES_MAX;
}

at("add-user").addEventListener("click", () => addPane(nextUser(), true));
at("add-guest").addEventListener("click", () => addPane(null, true));

// ---- visitors

const visitors = new Visitors(renderVisitors);
let visitorsWere = 0;

function renderVisitors() {
  const { size, connected } = visitors;
  write("visitors", size > 0 ? `${connected} of ${size} visitors are here; they come and go, then stay away.` : "");
  at("add-visitors").disabled = !mayConnect || size >= VISITORS_MAX;
  const focused = document.activeElement === at("send-away");
  at("send-away").hidden = size === 0;
  if (focused && size === 0) at("add-visitors").focus();
  if (size > visitorsWere) announce(`${size} visitors come and go.`);
  else if (size === 0 && visitorsWere > 0) announce("All visitors have left.");
  visitorsWere = size;
}

at("add-visitors").addEventListener("click", () => visitors.add());
at("send-away").addEventListener("click", () => visitors.sendAway());

// ---- the back end

/** The request that the button sends and the line shows. */
function request() {
  const { user, username, email } = at("update").elements;
  const userID = Number(user.value);
  return {
    url: `${location.origin}/api/v1/users/${userID}/profile-update`,
    headers: { "X-API-Key": options.apiKey, "Content-Type": "application/json" },
    body: JSON.stringify({ user: { userID, username: username.value, email: email.value } }),
  };
}

/** A word for a shell, whatever is in it. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function curlLine({ url, headers, body }) {
  const flags = Object.entries(headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
  // Some shells take the brackets of an IPv6 address for a pattern.
  const target = url.includes("[") ? quoted(url) : url;
  return [`curl ${target}`, ...flags, `-d ${quoted(body)}`].join(" \\\n  ");
}

const renderLine = () => write("curl", curlLine(request()));

async function publish() {
  const { url, headers, body } = request();
  write("answer", "");
  try {
    const response = await fetch(url, { method: "POST", headers, body });
    const answer = await response.json();
    at("answer").dataset.state = response.ok ? "good" : "bad";
    write("answer", `${response.status} ${response.ok ? JSON.stringify(answer) : answer.detail}`);
  } catch {
    at("answer").dataset.state = "bad";
    write("answer", `The hub does not answer at ${location.origin}. Start it if it has stopped, then try again.`);
  }
}

onSubmit(at("update"), publish);
at("update").addEventListener("input", renderLine);

at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("curl").textContent);
    announce("Copied.");
    at("copy").textContent = "Copied";
    setTimeout(() => { at("copy").textContent = "Copy"; }, 2_000);
  } catch {
    // Without the right to write, the line is selected at least.
    getSelection().selectAllChildren(at("curl"));
    announce("The line is selected: copy it with the keyboard.");
  }
});

// ---- start

/** The reason why this page cannot connect at all, and what to do; empty if there is none. */
function obstacle() {
  const { allowedOrigins } = options;
  if (!crypto.subtle) {
    return `Browsers sign tokens only on pages of this machine: open http://localhost:${location.port}/playground there.`;
  }
  if (!allowedOrigins.includes("*") && !allowedOrigins.includes(location.origin)) {
    return `http.allowed_origins does not list ${location.origin}, so this page may not connect. Add it (VIGIE_HTTP__ALLOWED_ORIGINS), start the hub again and reload this page.`;
  }
  return "";
}

const hindered = obstacle();
const mayConnect = hindered === "";
at("banner").hidden = mayConnect;
write("banner", hindered);
write("next-code", `io("${options.socketUrl.replace("ws:", "http:")}", { auth: { token } })`);
renderLine();
renderVisitors();
addPane(null, false);
addPane(FIRST_USER, false);
