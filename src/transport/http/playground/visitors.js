
// Visitors: users without a pane, who come and go by themselves.

const VISITORS_AT_ONCE = 20;
const VISITORS_MAX = 60;

/** Their ids follow this one. */
const VISITORS_FROM = 1_000;

const VISITS = 2;

/** In ms. Pauses exceed the default `presence.offline_grace`, so that visitors go offline in between. */
const ARRIVE = [0, 1_500];
const STAY = [8_000, 16_000];
const AWAY = [4_000, 7_000];

const isVisitor = (user) => user > VISITORS_FROM && user <= VISITORS_FROM + VISITORS_MAX;

const between = ([least, most]) => least + Math.random() * (most - least);

class Visitors {
  /** User id of each visitor who has not left for good, with the connection and the timer of the next step. */
  #visits = new Map();
  #changed;

  /** `changed()` is called whenever a visitor comes or goes. */
  constructor(changed) {
    this.#changed = changed;
  }

  get size() {
    return this.#visits.size;
  }

  get connected() {
    return [...this.#visits.values()].filter(({ connection }) => connection.connected).length;
  }

  /** Adds as many as there is room for. */
  add() {
    let added = 0;
    for (let user = VISITORS_FROM + 1; isVisitor(user) && added < VISITORS_AT_ONCE; user += 1) {
      if (this.#visits.has(user)) continue;
      added += 1;
      const connection = new Connection(options.socketUrl, { token: () => tokenOf(user), state: () => this.#changed() });
      const visit = { connection, timer: undefined };
      this.#visits.set(user, visit);
      visit.timer = setTimeout(() => this.#come(user, visit, VISITS), between(ARRIVE));
    }
    this.#changed();
  }

  sendAway() {
    for (const { connection, timer } of this.#visits.values()) {
      clearTimeout(timer);
      connection.close();
    }
    this.#visits.clear();
    this.#changed();
  }

  #come(user, visit, visitsLeft) {
    visit.connection.open();
    visit.timer = setTimeout(() => this.#go(user, visit, visitsLeft - 1), between(STAY));
  }

  #go(user, visit, visitsLeft) {
    visit.connection.close();
    if (visitsLeft > 0) visit.timer = setTimeout(() => this.#come(user, visit, visitsLeft), between(AWAY));
    else this.#visits.delete(user);
    this.#changed();
  }
}
