// The playground in a real browser, by the keyboard alone. Argument: a JSON object with the addresses and folders; see
// tests/hub/playground.rs. Ends with 0 when everything that the page promises holds.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { launch } from "./browser.mjs";
import { DESK, PHONE, assertReadable, noteErrors, spokenOf, until } from "./page.mjs";

const world = JSON.parse(process.argv[2]);

/** Entries of a log, as the page bounds them. */
const ENTRIES_MAX = 60;

const errors = [];

// ---- what the steps stand on

/** A tab that notes every error and every violation of the page's policy, and whose sockets the test can break. */
async function open(address) {
  const page = await browser.newPage();
  await page.setViewport(DESK);
  noteErrors(page, errors);
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
    window.sockets = [];
    const Original = WebSocket;
    window.WebSocket = class extends Original {
      constructor(url) {
        super(window.hubIsAway ? url.replace("socket.io", "nowhere") : url);
        window.sockets.push(this);
      }
    };
  });
  await page.goto(`${address}/playground`);
  return page;
}

const paneAt = (number) => `.pane:nth-child(${number})`;
const within = (number, place) => `${paneAt(number)} [data-at="${place}"]`;
const textOf = (page, selector) => page.$eval(selector, (place) => place.textContent);

/** Waits until a place shows a text, or one that matches. */
const shows = (page, selector, wanted) => until(`${selector} shows ${wanted}`, async () => {
  const seen = await page.$$eval(selector, (places) => places[0]?.textContent);
  return (typeof wanted === "string" ? seen === wanted : wanted.test(seen)) || seen;
});

const stepDone = (page, step) => until(`step ${step} is done`, () => page.$eval(`[data-step="${step}"]`, (item) => item.dataset.done === "yes"));

/** The entries of a pane's log of one kind and name, the newest first. */
const entries = (page, number, kind, name) => page.$$eval(
  `${within(number, "log")} [data-kind="${kind}"][data-name="${name}"] code`,
  (places) => places.map((place) => JSON.parse(place.textContent)),
);

/** Waits for an entry of which something is true; returns it. */
async function entry(page, number, kind, name, condition = () => true) {
  let found;
  await until(`pane ${number}: ${kind} ${name}`, async () => {
    const all = await entries(page, number, kind, name);
    found = all.find(condition);
    return found !== undefined || all;
  });
  return found;
}

/** Presses Tab until the focus is there; it shows wherever it stops. */
async function tabTo(page, selector) {
  for (let step = 0; step < 120; step += 1) {
    const stop = await page.evaluate((selector) => {
      const focused = document.activeElement;
      const shown = focused === document.body || getComputedStyle(focused).outlineStyle === "solid";
      return { there: focused.matches(selector), shown, name: focused.outerHTML.slice(0, 90) };
    }, selector);
    if (step > 0) assert.ok(stop.shown, `focus shows on ${stop.name}`);
    if (stop.there) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`no Tab leads to ${selector}`);
}

async function press(page, selector) {
  await tabTo(page, selector);
  await page.keyboard.press("Enter");
}

/** Replaces the text of a field. */
async function type(page, selector, text) {
  await tabTo(page, selector);
  await page.keyboard.down("Control");
  await page.keyboard.press("a");
  await page.keyboard.up("Control");
  await page.keyboard.type(text);
}

/** The words that a shell makes of a line that begins with `curl`. */
function wordsOf(line) {
  const output = execFileSync("sh", ["-c", `curl() { printf '%s\\0' "$@"; }\n${line}`], { encoding: "utf8" });
  return output.split("\0").slice(0, -1);
}

/** Sends what the words ask for, as curl does. */
function asCurl([url, ...flags]) {
  const headers = {};
  let body;
  for (let place = 0; place < flags.length; place += 2) {
    const [flag, value] = flags.slice(place, place + 2);
    if (flag === "-H") headers[value.slice(0, value.indexOf(":"))] = value.slice(value.indexOf(":") + 2);
    else if (flag === "-d") body = value;
    else throw new Error(`unknown flag ${flag}`);
  }
  return { url, headers, body };
}

// ---- what the page promises

async function fiveMinutes() {
  const page = await open(world.internalUrl);
  for (const number of [1, 2]) await shows(page, within(number, "state"), "Connected");
  await shows(page, within(1, "count"), "1");
  assert.equal(await textOf(page, within(1, "names")), ": ada");
  assert.deepEqual(await page.$$eval(".pane h3", (titles) => titles.map((title) => title.textContent)), ["A guest", "ada, user 1"]);
  assert.equal(await page.$$eval("[data-done]", (done) => done.length), 0, "nothing is done yet");

  await press(page, "#add-user");
  await entry(page, 1, "received", "user-status-change", ({ userId, status }) => userId === 2 && status === "online");
  await stepDone(page, "online");
  await shows(page, within(1, "count"), "2");
  assert.match(await textOf(page, "#said"), /bob is online|Step done, 1 of 5/);

  await press(page, `${within(1, "watch")} input`);
  await shows(page, `${within(1, "watched")} li`, "Watches adaStop");
  assert.equal((await entry(page, 1, "answer", "watch-profile")).ok, true);
  await stepDone(page, "watch");

  await updatesArrive(page);
  await opponentsAreTold(page);
  await somebodySignsIn(page);
  await visitorsComeAndGo(page);
  assert.equal(await page.$eval("#next", (next) => next.hidden), false, "every step is done");
  assert.match(await textOf(page, "#next-code"), new RegExp(world.url));

  await readableEverywhere(page);
  await nothingGrows(page);
  await connectionsComeBack(page);
  assert.deepEqual(await page.evaluate(() => window.violations), []);
  assert.deepEqual(errors.splice(0), []);
  await page.close();
}

/** The button and the line do the same, whatever is in the fields; guests get the public fields only. */
async function updatesArrive(page) {
  const sent = [];
  page.on("request", (request) => {
    if (request.method() === "POST") sent.push(request);
  });
  const name = `it's "ada" \\ $HOME <b>&`;
  await type(page, '#update [name="username"]', name);
  await press(page, '#update button');
  const isNew = ({ user }) => user.username === name;
  const shown = await entry(page, 1, "received", "profile-update", isNew);
  assert.deepEqual(Object.keys(shown.user).sort(), ["userID", "username"]);
  const own = await entry(page, 2, "received", "profile-update", isNew);
  assert.equal(own.user.email, "ada@example.org");
  await stepDone(page, "update");
  await shows(page, "#answer", /^200 \{"revision":\d+,"nodes":1\}$/);

  const line = await textOf(page, "#curl");
  const wanted = asCurl(wordsOf(line));
  assert.equal(sent.length, 1);
  assert.equal(sent[0].url(), wanted.url);
  assert.equal(sent[0].postData(), wanted.body);
  for (const [name, value] of Object.entries(wanted.headers)) assert.equal(sent[0].headers()[name.toLowerCase()], value);
  const response = await fetch(wanted.url, { method: "POST", ...wanted });
  assert.equal(response.status, 200, await response.text());
  await until("the line publishes, too", async () => (await entries(page, 1, "received", "profile-update")).filter(isNew).length === 2);

  await browser.defaultBrowserContext().overridePermissions(world.internalUrl, ["clipboard-read", "clipboard-write", "clipboard-sanitized-write"]);
  await press(page, "#copy");
  await shows(page, "#said", "Copied.");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), line);

  await type(page, '#update [name="user"]', "0");
  await page.keyboard.press("Enter");
  assert.equal(await page.$eval('#update [name="user"]', (field) => field.validity.valid), false);
  assert.equal(sent.length, 1, "nothing is sent for a user who cannot be");
  await type(page, '#update [name="user"]', "1");
}

async function opponentsAreTold(page) {
  for (const number of [2, 3]) await press(page, within(number, "match"));
  const [ada, bob] = [await entry(page, 2, "received", "match-found"), await entry(page, 3, "received", "match-found")];
  assert.equal(ada.matchId, bob.matchId);
  assert.deepEqual([ada.opponent.userId, bob.opponent.userId], [2, 1]);
  await stepDone(page, "match");
  for (const number of [2, 3]) await shows(page, within(number, "match"), "Join matchmaking");

  await press(page, within(2, "match"));
  await shows(page, within(2, "match"), "Leave matchmaking");
  await press(page, within(2, "match"));
  await shows(page, within(2, "match"), "Join matchmaking");
}

/** A guest becomes a user and a guest again; what it watches stays watched. */
async function somebodySignsIn(page) {
  await type(page, `${within(1, "sign-in")} input`, "4");
  await page.keyboard.press("Enter");
  await shows(page, `${paneAt(1)} h3`, "dan, user 4");
  assert.equal(await page.evaluate(() => document.activeElement.dataset.at), "sign-out", "the focus is not lost");
  await entry(page, 2, "received", "user-status-change", ({ userId, status }) => userId === 4 && status === "online");
  await until("it watches again", async () => (await entries(page, 1, "answer", "watch-profile")).length === 2);
  await page.keyboard.press("Enter");
  await shows(page, `${paneAt(1)} h3`, "A guest");
  await shows(page, within(1, "state"), "Connected");
  await entry(page, 2, "received", "user-status-change", ({ userId, status }) => userId === 4 && status === "offline");

  await press(page, `${within(1, "watched")} button`);
  await entry(page, 1, "answer", "unwatch-profile");
  await press(page, `${within(1, "watch")} input`);
  await shows(page, `${within(1, "watched")} li`, "Watches adaStop");
}

async function visitorsComeAndGo(page) {
  const online = () => textOf(page, within(1, "count"));
  assert.equal(await online(), "2");
  await press(page, "#add-visitors");
  await until("visitors are online", async () => Number(await online()) >= 12 || (await online()));
  await stepDone(page, "visitors");
  await shows(page, within(1, "names"), /: ada, bob, 1\d visitors|: ada, bob, 20 visitors/);
  await shows(page, "#visitors", /^\d+ of 20 visitors are here/);
  const counted = await textOf(page, `${within(1, "log")} [data-name="user-status-change"] .counted`);
  assert.match(counted, /^× \d+$/, "they are one entry");
  await press(page, "#send-away");
  await shows(page, within(1, "count"), "2");
  await shows(page, "#visitors", "");
  assert.equal(await page.evaluate(() => document.activeElement.id), "add-visitors", "the focus is not lost");
}

/** In light and dark, on a desk and on a phone, and by ear. */
async function readableEverywhere(page) {
  const grounds = new Set();
  for (const scheme of ["light", "dark"]) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    grounds.add(await page.$eval("body", (body) => getComputedStyle(body).backgroundColor));
    for (const size of [DESK, PHONE]) {
      await page.setViewport(size);
      await assertReadable(page, `${scheme}, ${size.width} pixels`);
    }
  }
  assert.equal(grounds.size, 2, "light and dark differ");
  await page.setViewport(DESK);
  const spoken = spokenOf(await page.accessibility.snapshot({ interestingOnly: false }));
  for (const wanted of [
    "heading Vigie playground", "region ada, user 1", "textbox username", "textbox Profile of user",
    "button Publish", "button Stop watching ada", "button Send them away", "list Events of guest",
  ]) {
    const hidden = wanted === "button Send them away";
    assert.equal(spoken.some((said) => said.startsWith(wanted)), !hidden, `"${wanted}" in\n${spoken.join("\n")}`);
  }
}

/** Panes, visitors and logs have their bounds. */
async function nothingGrows(page) {
  const request = asCurl(wordsOf(await textOf(page, "#curl")));
  for (let number = 0; number <= ENTRIES_MAX; number += 1) {
    const body = JSON.stringify({ user: { userID: 1, username: `ada ${number}` } });
    await fetch(request.url, { method: "POST", ...request, body });
  }
  await entry(page, 1, "received", "profile-update", ({ user }) => user.username === `ada ${ENTRIES_MAX}`);
  assert.equal(await page.$$eval(`${within(1, "log")} li`, (entries) => entries.length), ENTRIES_MAX);
  for (let number = 3; number < 6; number += 1) await press(page, number % 2 ? "#add-guest" : "#add-user");
  assert.equal(await page.$eval("#add-user", (button) => button.disabled), true);
  assert.equal(await page.$$eval(".pane", (panes) => panes.length), 6);
  for (let number = 6; number > 3; number -= 1) {
    await press(page, within(number, "remove"));
    assert.match(await page.evaluate(() => document.activeElement.id), /^add-/, "the focus is not lost");
  }
}

/** A loss is said and ends by itself; the hub's own end, and a refusal, wait for the person. */
async function connectionsComeBack(page) {
  const lose = (away) => page.evaluate((away) => {
    window.hubIsAway = away;
    for (const socket of window.sockets.splice(0)) socket.close();
  }, away);
  const watchesBefore = (await entries(page, 1, "answer", "watch-profile")).length;
  await lose(true);
  await shows(page, within(1, "state"), "Not connected");
  await shows(page, within(1, "problem"), /does not answer at ws:.*tries again by itself/);
  await shows(page, within(1, "count"), "–");
  await until("every pane tries again", () => page.evaluate(() => window.sockets.length >= 3));
  await lose(false);
  for (const number of [1, 2, 3]) await shows(page, within(number, "state"), "Connected");
  await shows(page, within(1, "problem"), "");
  await shows(page, within(1, "count"), "2");
  await until("it watches again", async () => (await entries(page, 1, "answer", "watch-profile")).length > watchesBefore);
  const failed = errors.splice(0);
  assert.ok(failed.length > 0 && failed.every((error) => /WebSocket/.test(error)), failed.join("\n"));

  const request = asCurl(wordsOf(await textOf(page, "#curl")));
  const url = request.url.replace("profile-update", "disconnect");
  assert.equal((await fetch(url, { method: "POST", headers: request.headers })).status, 200);
  await shows(page, within(2, "state"), "Ended by the hub");
  await press(page, within(2, "connect"));
  await shows(page, within(2, "state"), "Connected");
  await press(page, within(2, "connect"));
  await shows(page, within(2, "state"), "Disconnected");
  await press(page, within(2, "connect"));
  await shows(page, within(2, "state"), "Connected");

  assert.equal((await fetch(request.url.replace("profile-update", "account-deleted"), { method: "POST", headers: request.headers })).status, 200);
  await shows(page, within(2, "state"), "Ended by the hub");
  await press(page, within(2, "connect"));
  await shows(page, within(2, "state"), "Refused");
  await shows(page, within(2, "problem"), /account was deleted.*another user/);
}

/** Where the page may not connect it says what to do, and tries nothing. */
async function obstaclesAreSaid() {
  const page = await open(world.hinderedUrl);
  await shows(page, "#banner", new RegExp(`does not list ${world.hinderedUrl}.*VIGIE_HTTP__ALLOWED_ORIGINS.*reload`));
  assert.equal(await page.evaluate(() => window.sockets.length), 0);
  await assertReadable(page, "the banner");
  assert.deepEqual(errors.splice(0), []);
  await page.close();
}

const browser = await launch({
  // All that it leaves behind, also where it is killed, goes with the test's own folder.
  userDataDir: `${world.scratch}/profile`,
  env: { ...process.env, TMPDIR: world.scratch },
});
try {
  await fiveMinutes();
  await obstaclesAreSaid();
} finally {
  await browser.close();
}
process.exit(0);
