
// One pane: a guest or a user with a connection of its own, and a log of all that it sends and receives.

/** Entries of a pane's log, and characters of a payload in it. */
const ENTRIES_MAX = 60;
const PAYLOAD_MAX = 600;

/** Profiles that one pane watches. */
const WATCHED_MAX = 8;

/** Online users that a pane names; it counts the others. */
const NAMED_MAX = 4;

const REFUSED = {
  invalid_token: "The hub refused the token. Does it still use the development secret? Reload this page; if that does not help, start the hub without VIGIE_AUTH__SECRET.",
  token_expired: "The token has expired by the hub's clock. Correct the clock of this machine and press Connect.",
  account_deleted: "This account was deleted. Sign in as another user.",
};

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

class Pane {
  #places = {};
  #connection;
  /** Id of the last match that this pane received. */
  lastMatch;
  #online = new Set();
  #watched = new Set();
  #queued = false;
  /** The newest entry of the log. */
  #newest;

  /** `on` has the handlers `online(pane)`, `event(pane, name, payload)`, `watching(pane, user)` and `removed(pane)`. */
  constructor(user, on) {
    this.user = user;
    this.on = on;
    this.section = at("pane").content.cloneNode(true).firstElementChild;
    for (const place of this.section.querySelectorAll("[data-at]")) this.#places[place.dataset.at] = place;
    this.title = this.section.querySelector("h3");
    this.#connection = new Connection(options.socketUrl, {
      token: async () => (this.user ? await tokenOf(this.user) : null),
      state: (name, detail) => this.#onState(name, detail),
      event: (name, payload) => this.#onEvent(name, payload),
    });
    this.#bind();
    this.#renderWho();
  }

  get name() {
    return this.user ? nameOf(this.user) : "guest";
  }

  get online() {
    return this.#online;
  }

  watches(user) {
    return this.#watched.has(user);
  }

  open() {
    if (mayConnect) this.#connection.open();
  }

  #bind() {
    const places = this.#places;
    places["sign-in"].elements.user.value = 3;
    places.watch.elements.user.value = 1;
    onSubmit(places["sign-in"], (user) => this.#signIn(user));
    onSubmit(places.watch, (user) => this.#watch(user));
    places["sign-out"].addEventListener("click", () => this.#signIn(null));
    places.match.addEventListener("click", () => this.#joinOrLeave());
    places.connect.addEventListener("click", () => this.#closeOrOpen());
    places.remove.addEventListener("click", () => this.remove());
  }

  removable() {
    this.#places.remove.hidden = false;
  }

  remove() {
    this.#connection.close();
    this.section.remove();
    this.on.removed(this);
  }

  /** Signs in, or out with `null`: the token goes with CONNECT, so the connection is opened anew. */
  #signIn(user) {
    this.user = user;
    this.#renderWho();
    this.open();
    // The focused control is hidden now.
    (user ? this.#places["sign-out"] : this.#places["sign-in"].elements.user).focus();
  }

  #closeOrOpen() {
    if (this.#places.connect.dataset.does === "close") this.#connection.close();
    else this.open();
  }

  async #watch(user) {
    if (this.#watched.size >= WATCHED_MAX && !this.#watched.has(user)) {
      return this.#problem(`A pane watches ${WATCHED_MAX} profiles at most (a connection may watch 100). Stop watching one.`);
    }
    const answer = await this.#emit("watch-profile", { userId: user });
    if (!answer.ok) return;
    this.#watched.add(user);
    this.#renderWatched();
    this.on.watching(this, user);
  }

  async #unwatch(user) {
    this.#watched.delete(user);
    this.#renderWatched();
    this.#places.watch.elements.user.focus();
    await this.#emit("unwatch-profile", { userId: user });
  }

  async #joinOrLeave() {
    const joins = !this.#queued;
    const answer = await this.#emit(joins ? "join-matchmaking" : "leave-matchmaking");
    if (answer.ok) this.#setQueued(joins && answer.status !== "matched");
  }

  async #emit(name, payload) {
    if (!this.#connection.connected) {
      // A problem that is shown already says more.
      this.#problem(this.#places.problem.textContent || "This pane is not connected: press Connect first.");
      return refusal("not_connected", "the connection is not open");
    }
    this.#problem("");
    this.#log("sent", name, payload);
    const answer = await this.#connection.emit(name, payload);
    this.#log("answer", name, answer);
    if (answer.ok === false) this.#problem(`The hub refused ${name}: ${answer.message} (${answer.error}).`);
    return answer;
  }

  async #onState(name, detail) {
    this.section.dataset.state = name;
    const online = name === "connected";
    if (!online) {
      this.#online.clear();
      this.#renderOnline();
      this.#setQueued(false);
    }
    const shown = {
      connecting: ["", "Connecting"],
      connected: ["good", "Connected"],
      lost: ["bad", "Not connected"],
      refused: ["bad", "Refused"],
      ended: ["warn", "Ended by the hub"],
      closed: ["", "Disconnected"],
    }[name];
    const again = ["closed", "ended", "refused"].includes(name);
    this.#places.connect.textContent = again ? "Connect" : "Disconnect";
    this.#places.connect.dataset.does = again ? "open" : "close";
    // While the hub is away, the state does not alternate with each attempt.
    if (name === "connecting" && this.#places.state.textContent === "Not connected") return;
    this.#renderState(...shown);
    if (name === "lost") {
      return this.#problem(`The hub does not answer at ${options.socketUrl}. Start it if it has stopped; this page tries again by itself.`);
    }
    if (name === "refused") return this.#problem(REFUSED[detail] ?? `The hub refused the connection: ${detail}.`);
    if (name === "ended") return this.#problem("The hub has ended this connection for good. Press Connect to come back.");
    this.#problem("");
    if (online) await this.#begin();
  }

  /** Gets the online users and watches again, as every page does whenever it is connected. */
  async #begin() {
    const watched = [...this.#watched].map((user) => this.#emit("watch-profile", { userId: user }));
    const online = await this.#emit("get-online-users");
    if (Array.isArray(online)) {
      this.#online = new Set(online);
      this.#renderOnline();
    }
    await Promise.all(watched);
  }

  async #onEvent(name, payload) {
    this.#log("received", name, payload);
    if (name === "user-status-change") {
      if (payload.status === "online") this.#online.add(payload.userId);
      else this.#online.delete(payload.userId);
      this.#renderOnline();
    } else if (name === "match-found" || name === "match-timeout") {
      this.#setQueued(false);
      this.lastMatch = payload?.matchId;
    } else if (name === "token-expiring" && this.user) {
      await this.#emit("refresh-token", { token: await tokenOf(this.user) });
    }
    this.on.event(this, name, payload);
  }

  #setQueued(queued) {
    this.#queued = queued;
    this.#places.match.textContent = queued ? "Leave matchmaking" : "Join matchmaking";
  }

  #problem(text) {
    if (this.#places.problem.textContent === text) return;
    this.#places.problem.textContent = text;
    if (text) announce(`${this.name}: ${text}`);
  }

  #renderWho() {
    const signedIn = Boolean(this.user);
    this.title.textContent = signedIn ? `${nameOf(this.user)}, user ${this.user}` : "A guest";
    this.section.setAttribute("aria-label", this.title.textContent);
    this.#places.log.setAttribute("aria-label", `Events of ${this.name}`);
    this.#places["sign-in"].hidden = signedIn;
    this.#places["sign-out"].hidden = !signedIn;
    this.#places.match.hidden = !signedIn;
  }

  #renderState(state, text) {
    const pill = this.#places.state.parentElement;
    pill.dataset.state = state;
    this.#places.state.textContent = text;
  }

  #renderOnline() {
    const users = [...this.#online].sort((a, b) => a - b);
    const visitors = users.filter(isVisitor).length;
    const others = users.filter((user) => !isVisitor(user));
    const names = others.slice(0, NAMED_MAX).map(nameOf);
    if (others.length > NAMED_MAX) names.push(`${others.length - NAMED_MAX} more`);
    if (visitors > 0) names.push(visitors === 1 ? "1 visitor" : `${visitors} visitors`);
    this.#places.count.textContent = this.#connection.connected ? users.length : "–";
    this.#places.names.textContent = names.length > 0 ? `: ${names.join(", ")}` : "";
    this.on.online(this);
  }

  #renderWatched() {
    this.#places.watched.replaceChildren(...[...this.#watched].map((user) => {
      const button = element("button", "Stop", { type: "button", class: "quiet", "aria-label": `Stop watching ${nameOf(user)}` });
      button.addEventListener("click", () => this.#unwatch(user));
      return element("li", [`Watches ${nameOf(user)}`, button]);
    }));
  }

  /** Adds an entry on top. Consecutive status changes of visitors share one, so that they displace nothing. */
  #log(kind, name, payload) {
    const repeats = name === "user-status-change" && isVisitor(payload.userId);
    const shown = payload === undefined ? "" : shorten(JSON.stringify(payload, null, 1).replace(/\n\s*/g, " "));
    const newest = this.#newest;
    if (repeats && newest?.repeats) {
      newest.count += 1;
      newest.counted.textContent = `× ${newest.count}`;
      newest.payload.textContent = shown;
      return;
    }
    const now = new Date();
    const counted = element("span", "", { class: "counted" });
    const text = element("code", shown);
    const entry = element("li", [
      element("time", clock.format(now), { datetime: now.toISOString() }),
      element("span", kind, { class: "kind" }),
      element("b", name),
      counted,
      text,
    ], { "data-kind": kind, "data-name": name });
    this.#newest = { repeats, count: 1, counted, payload: text };
    const log = this.#places.log;
    log.prepend(entry);
    if (log.childElementCount > ENTRIES_MAX) log.lastElementChild.remove();
  }
}

function shorten(text) {
  return text.length > PAYLOAD_MAX ? `${text.slice(0, PAYLOAD_MAX)} …` : text;
}

/** Calls `act` with the user id that somebody enters. */
function onSubmit(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const field = form.elements.user;
    const user = Number(field.value);
    const valid = Number.isSafeInteger(user) && user > 0;
    field.setCustomValidity(valid ? "" : "A user id is a whole number from 1 on.");
    if (valid) act(user);
    else field.reportValidity();
  });
  form.elements.user.addEventListener("input", () => form.elements.user.setCustomValidity(""));
}
