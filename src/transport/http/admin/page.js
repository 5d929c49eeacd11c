"use strict";

// The numbers come as server-sent events over `fetch`, which can send a header: `EventSource` cannot.

const LIVE = "/api/v1/admin/live";
const USERS = "/api/v1/admin/users/";

/** Where the key is kept: for this tab, until it is closed. */
const KEPT_AS = "vigie.key";

/** How far back the charts go. */
const SPAN_MS = 180_000;

/** The node says something at least this often, or it is gone. */
const SILENT_MS = 25_000;

/** Pauses between attempts to connect: the first, the longest. */
const RETRY_MS = [1_000, 10_000];

/** A tab that nobody looks at lets go of its stream after this long. */
const HIDDEN_MS = 60_000;

/** How often the charts are described anew to those who cannot see them. */
const DESCRIBE_MS = 15_000;

const at = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const rough = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const date = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const count = (number, one, many) => `${whole.format(number)} ${number === 1 ? one : many}`;

/** An element of HTML with its text or children. */
function element(name, content, properties = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...[content].flat());
  return made;
}

/** An element of SVG. */
function drawn(name, properties) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties)) made.setAttribute(key, value);
  return made;
}

function write(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
}

/** A moment: of today by the time alone. */
function momentOf(ms) {
  const today = new Date(ms).toDateString() === new Date().toDateString();
  return today ? clock.format(ms) : date.format(ms);
}

function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}

// ---- charts

/** One line over the last minutes. */
class Chart {
  /** The line's points: `{ at, value }`, the oldest first. */
  points = [];
  described = 0;

  constructor(name, unit) {
    Object.assign(this, { name, unit });
    this.value = element("span", "–", { class: "value" });
    this.most = element("span", "", { class: "most", "aria-hidden": "true" });
    this.svg = drawn("svg", { viewBox: "0 0 300 100", preserveAspectRatio: "none", role: "img", "aria-label": name });
    this.area = drawn("path", { class: "area" });
    this.line = drawn("path", { class: "line" });
    this.cursor = drawn("line", { class: "cursor", y1: 0, y2: 100, visibility: "hidden" });
    for (const y of [1, 50, 99]) this.svg.append(drawn("line", { class: "grid", x1: 0, x2: 300, y1: y, y2: y }));
    this.svg.append(this.area, this.line, this.cursor);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point());
    const plot = element("div", [this.svg, this.most], { class: "plot" });
    const caption = element("figcaption", [element("span", name, { class: "name" }), this.value]);
    const times = element("div", [element("span", "3 min ago"), element("span", "now")], { class: "times", "aria-hidden": "true" });
    this.figure = element("figure", [caption, plot, times], { class: "chart" });
  }

  push(moment, value) {
    this.points.push({ at: moment, value });
    const first = this.points.findIndex((point) => point.at >= moment - SPAN_MS);
    // One older point stays, so that the line begins at the edge.
    this.points.splice(0, Math.max(0, first - 1));
    this.draw(moment);
  }

  draw(now) {
    const values = this.points.map((point) => point.value);
    // Some room above, and no fractions of people.
    const top = roundUp(Math.max(...values, 1.5) * 1.1);
    const x = (point) => 300 * (1 - (now - point.at) / SPAN_MS);
    const y = (point) => 99 - 98 * (point.value / top);
    const line = this.points.map((point) => `${x(point).toFixed(1)},${y(point).toFixed(1)}`).join("L");
    this.line.setAttribute("d", `M${line}`);
    this.area.setAttribute("d", `M${line}V100H${x(this.points[0]).toFixed(1)}Z`);
    this.most.textContent = rough.format(top);
    this.now = now;
    if (this.cursor.getAttribute("visibility") === "hidden") this.show(values.at(-1));
    if (now - this.described >= DESCRIBE_MS) {
      this.described = now;
      const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => rough.format(value));
      this.svg.setAttribute("aria-label", `${this.name}: ${rough.format(values.at(-1))} now, from ${least} to ${most} in the last three minutes`);
    }
  }

  show(value, moment) {
    const when = moment === undefined ? "" : `${clock.format(moment)} · `;
    this.value.textContent = `${when}${rough.format(value)}${this.unit}`;
  }

  /** Shows what was where the pointer is. */
  point(event) {
    this.cursor.setAttribute("visibility", event && this.points.length > 0 ? "visible" : "hidden");
    if (this.points.length === 0) return;
    if (!event) return this.show(this.points.at(-1).value);
    const box = this.svg.getBoundingClientRect();
    const moment = this.now - SPAN_MS * (1 - (event.clientX - box.left) / box.width);
    const distance = (point) => Math.abs(point.at - moment);
    const nearest = this.points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    const x = 300 * (1 - (this.now - nearest.at) / SPAN_MS);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.show(nearest.value, nearest.at);
  }
}

/** The next number that reads well on an axis. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

const charts = {
  online: new Chart("People online", ""),
  transitions: new Chart("Coming and going, all nodes", "/s"),
  deliveries: new Chart("Deliveries, this node", "/s"),
  queue: new Chart("Waiting for an opponent", ""),
};
at("charts").append(...Object.values(charts).map((chart) => chart.figure));

// ---- a sample

/** Totals of the sample before, from which rates are told. */
let before;

function render(sample) {
  const nodes = sample.nodes;
  const sum = (field) => whole.format(nodes.reduce((total, node) => total + node[field], 0));
  write("online", whole.format(sample.online));
  if (nodes) {
    write("guests", sum("guests"));
    write("connections", sum("connections"));
    write("topics", sum("topics"));
    write("nodes", whole.format(nodes.length));
    renderNodes(nodes, sample);
  }
  if (sample.queue) renderQueue(sample.queue);
  renderIncidents(sample.incidents);
  renderState(sample);
  document.title = `${whole.format(sample.online)} online · Vigie`;

  charts.online.push(sample.at, sample.online);
  if (sample.queue) charts.queue.push(sample.at, sample.queue.queueLength);
  for (const name of ["transitions", "deliveries"]) {
    // A node that was started again counts from nothing.
    if (before && sample.at > before.at && sample[name] >= before[name]) {
      charts[name].push(sample.at, ((sample[name] - before[name]) * 1000) / (sample.at - before.at));
    }
  }
  before = sample;
}

function renderState(sample) {
  write("seen-by", `as ${sample.node} sees it`);
  write("incidents-node", sample.node);
  const banner = [];
  if (sample.failing.length > 0) banner.push(`This node cannot do its work: ${sample.failing.join(", ")}.`);
  if (sample.degraded.length > 0) banner.push(`It does without: ${sample.degraded.join(", ")}.`);
  if (!sample.nodes) banner.push("Numbers of other nodes, and of the queue, are old.");
  at("banner").hidden = banner.length === 0;
  write("banner", banner.join(" "));
  const state = sample.failing.length > 0 ? "bad" : sample.degraded.length > 0 ? "warn" : "good";
  const names = { good: "Live", warn: "Live, degraded", bad: "Live, not ready" };
  setState(state, names[state]);
}

function renderNodes(nodes, sample) {
  at("no-nodes").hidden = nodes.length > 0;
  const most = Math.max(1, ...nodes.map((node) => node.connections));
  const rows = at("node-rows");
  const known = new Map([...rows.children].map((row) => [row.dataset.node, row]));
  const ordered = nodes.map((node) => {
    const row = known.get(node.incarnation) ?? rowOf(node);
    const left = Math.max(0, node.leaseEndsAt - (sample.engineAt ?? sample.at));
    const share = Math.min(1, left / sample.leaseMs);
    const state = share > 0.34 ? "good" : share > 0 ? "warn" : "bad";
    fill(row, "lease", share, `${rough.format(left / 1000)} s`, state);
    fill(row, "connections", node.connections / most, whole.format(node.connections));
    for (const field of ["guests", "users", "topics"]) set(row, field, whole.format(node[field]));
    set(row, "up", duration(sample.at - node.startedAt));
    return row;
  });
  const kept = new Set(ordered);
  for (const row of known.values()) if (!kept.has(row)) row.remove();
  ordered.forEach((row, place) => {
    if (rows.children[place] !== row) rows.insertBefore(row, rows.children[place] ?? null);
  });
}

function rowOf(node) {
  const cell = (field, label, content, kind) =>
    element("td", content, { role: "cell", class: kind, "data-field": field, "data-label": label });
  const gauge = () => {
    const track = element("span", element("span", "", { class: "fill" }), { class: "track", "aria-hidden": "true" });
    return element("div", [track, element("span", "", { class: "figure" })], { class: "gauge" });
  };
  const row = element("tr", [
    element("td", [node.id, element("small", `version ${node.version}`)], { role: "rowheader", class: "who" }),
    cell("lease", "Lease", gauge()),
    cell("connections", "Connections", gauge()),
    cell("guests", "Guests", "", "number"),
    cell("users", "Users", "", "number"),
    cell("topics", "Topics", "", "number"),
    cell("up", "Up for", "", "number"),
  ], { role: "row" });
  row.dataset.node = node.incarnation;
  return row;
}

function set(row, field, text) {
  const place = row.querySelector(`[data-field="${field}"]`);
  if (place.textContent !== text) place.textContent = text;
}

function fill(row, field, share, text, state) {
  const cell = row.querySelector(`[data-field="${field}"]`);
  const bar = cell.querySelector(".fill");
  bar.style.setProperty("--share", `${Math.round(share * 100)}%`);
  if (state) bar.dataset.state = state;
  cell.querySelector(".figure").textContent = text;
}

function renderQueue(queue) {
  write("queue", whole.format(queue.queueLength));
  write("queue-length", count(queue.queueLength, "user", "users"));
  write("queue-wait", queue.queueLength > 0 ? duration(queue.oldestWaitMs) : "–");
  write("queue-matches", whole.format(queue.matchesPerMinute));
  write("queue-pending", whole.format(queue.pendingMatches));
}

/** What is told of each kind of incident, and how bad it is. */
const TOLD = {
  node_came: ({ node }) => [`${node} is here`, ""],
  node_left: ({ node }) => [`${node} has stopped`, ""],
  node_died: ({ node }) => [`${node} is dead: its lease is over`, "bad"],
  node_reaped: ({ node }) => [`Took the lease of ${node} away, which was over`, "warn"],
  connections_reaped: ({ node, connections }) => [`Released ${count(connections, "connection", "connections")} of ${node}`, ""],
  lease_lost: () => ["Own lease lost; started over", "bad"],
  presence_gap: () => ["Gap in the transitions; read anew who is online", "warn"],
  interrupted: () => ["Messages may have been missed; caught up", "warn"],
};

let incidentsShown = "";

function renderIncidents(incidents) {
  const all = JSON.stringify(incidents);
  if (all === incidentsShown) return;
  incidentsShown = all;
  at("no-incidents").hidden = incidents.length > 0;
  at("incidents").hidden = incidents.length === 0;
  at("incidents").replaceChildren(...incidents.map((incident) => {
    const [text, state] = (TOLD[incident.kind] ?? (() => [incident.kind, ""]))(incident);
    const moment = new Date(incident.at);
    const time = element("time", clock.format(moment), { datetime: moment.toISOString(), title: date.format(moment) });
    return element("li", [time, element("span", text, { "data-state": state })]);
  }));
}

// ---- the stream

/** The stream that is open, if one is. */
let stream;
let retryMs = RETRY_MS[0];
let retry;

function key() {
  return sessionStorage.getItem(KEPT_AS);
}

function headers(presented = key()) {
  return presented ? { authorization: `Bearer ${presented}` } : {};
}

function setState(state, text) {
  const pill = at("pill");
  if (at("pill-text").textContent === text) return;
  pill.dataset.state = state;
  write("pill-text", text);
  // Said aloud when it changes, and at no other time.
  write("said", text);
}

async function problemOf(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The node answered ${response.status}.`;
  }
}

/** Shows what comes until it ends, and comes back. `presented` is a key that has just been entered. */
async function connect(presented) {
  stop();
  const own = (stream = new AbortController());
  const watchdog = () => setTimeout(() => own.abort(), SILENT_MS);
  let silent = watchdog();
  try {
    const response = await fetch(LIVE, { headers: headers(presented), signal: own.signal, cache: "no-store" });
    if (response.status === 401) return askForKey(presented || key() ? "This key is not valid. Is it the one of this hub?" : "");
    if (!response.ok) throw new Error(await problemOf(response));
    accept(presented);
    retryMs = RETRY_MS[0];
    for await (const sample of samples(response.body)) {
      clearTimeout(silent);
      silent = watchdog();
      if (sample) render(sample);
    }
    throw new Error("The stream has ended.");
  } catch (error) {
    if (stream !== own) return;
    setState("bad", "Not connected");
    at("banner").hidden = false;
    write("banner", `${error.name === "Error" ? error.message : "The node does not answer."} The numbers are old; trying again.`);
    // Whoever is entering a key is told there.
    if (at("key-dialog").open) write("key-problem", error.name === "Error" ? error.message : "The node does not answer; try again.");
    retry = setTimeout(() => connect(presented), retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MS[1]);
  } finally {
    clearTimeout(silent);
  }
}

function stop() {
  clearTimeout(retry);
  const old = stream;
  stream = undefined;
  old?.abort();
}

/** Reads server-sent events: each sample, and `undefined` for a sign of life. */
async function* samples(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      yield data.length > 0 ? JSON.parse(data.join("\n")) : undefined;
    }
  }
}

// ---- the key

/** Whether there is nothing to see before a key is entered. */
let closed = false;

function askForKey(problem) {
  stop();
  closed = true;
  sessionStorage.removeItem(KEPT_AS);
  at("forget").hidden = true;
  setState("warn", "Needs a key");
  write("key-problem", problem);
  const dialog = at("key-dialog");
  if (!dialog.open) dialog.showModal();
  at("key").select();
}

/** The key is right, or none is needed. */
function accept(presented) {
  closed = false;
  if (presented) sessionStorage.setItem(KEPT_AS, presented);
  at("forget").hidden = !key();
  at("key").value = "";
  if (at("key-dialog").open) at("key-dialog").close();
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const presented = at("key").value.trim();
  // What no header can carry is no key.
  if (!/^[\x21-\x7e][\x20-\x7e]*$/.test(presented)) return write("key-problem", "A key has letters, digits and signs of ASCII only.");
  write("key-problem", "");
  connect(presented);
});

// Escape leads nowhere.
at("key-dialog").addEventListener("close", () => {
  if (closed) at("key-dialog").showModal();
});

at("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEPT_AS);
  location.reload();
});

// ---- looking up a user

let lookedUp = 0;

at("user-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const own = ++lookedUp;
  const id = at("user-id").value.trim();
  write("user-problem", "");
  let found, problem;
  try {
    const response = await fetch(USERS + encodeURIComponent(id), { headers: headers(), cache: "no-store" });
    if (response.status === 401) return askForKey("The key is not valid any more.");
    if (response.ok) found = await response.json();
    else problem = await problemOf(response);
  } catch {
    problem = "The node does not answer; try again.";
  }
  if (own !== lookedUp) return;
  at("user").hidden = !found;
  write("user-problem", problem ?? "");
  if (found) renderUser(found);
});

function renderUser(user) {
  const online = user.status === "online";
  const state = user.deleted ? "bad" : online ? "good" : "";
  const status = user.deleted ? "Deleted" : online ? "Online" : "Offline";
  at("user-status").dataset.state = state;
  write("user-status-text", status);
  write("user-name", `User ${user.userId}`);
  write("user-since", user.since ? `${date.format(user.since)} (${duration(Date.now() - user.since)})` : "–");
  const { count: watching, nodes, complete } = user.watchers;
  const least = complete ? "" : "at least ";
  write("user-watchers", `${least}${count(watching, "connection", "connections")}`);
  at("user-watchers").title = `${count(nodes, "node listens", "nodes listen")} to this user`;
  const pair = (left, right) => element("li", [element("span", left), element("span", right)]);
  const none = (text) => [element("li", text, { class: "empty" })];
  at("user-connections").replaceChildren(...(user.connections.length > 0
    ? user.connections.map(({ node, id, since }) => pair(`${node}, number ${id}`, `since ${momentOf(since)}`))
    : none("None is open.")));
  at("user-updates").replaceChildren(...(user.updates.length > 0
    ? user.updates.map((update) => pair(`${update.kind}, revision ${update.revision}`, momentOf(update.at)))
    : none("None is kept.")));
  const on = new Set(user.connections.map((connection) => connection.node)).size;
  const where = user.connections.length > 0 ? ` with ${count(user.connections.length, "connection", "connections")} on ${count(on, "node", "nodes")}` : "";
  write("said", `User ${user.userId} is ${status.toLowerCase()}${where}, watched by ${least}${count(watching, "connection", "connections")}.`);
}

// ---- from here on

let hidden;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.hidden) hidden = setTimeout(() => { stop(); setState("", "Paused"); }, HIDDEN_MS);
  else if (!stream && !at("key-dialog").open) connect();
});

if (document.documentElement.dataset.key === "needed" && !key()) askForKey("");
else connect();
