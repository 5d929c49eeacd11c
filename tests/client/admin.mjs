// The operators' page in a real browser, while the official client comes and goes. Argument: a JSON object with the
// addresses, tokens and folders; see tests/hub/admin.rs. Ends with 0 when everything that the page promises holds.

import assert from "node:assert/strict";
import { io } from "socket.io-client";
import { launch } from "./browser.mjs";
import { DESK, PHONE, assertReadable, noteErrors, spokenOf, until } from "./page.mjs";

const world = JSON.parse(process.argv[2]);
const [here, there] = world.nodes;

/** A name that leads to this machine and is none of its own: whoever asks for it is a stranger. */
const STRANGE_HOST = "vigie.test";

/** The only message that the console may show: that a wrong key was refused. */
const REFUSED = /status of 401/;

// ---- what the steps stand on

const errors = [];

/** A tab that notes every error. */
async function open(url, size = DESK) {
  const page = await browser.newPage();
  await page.setViewport(size);
  noteErrors(page, errors);
  await page.goto(url);
  return page;
}

const textOf = (page, id) => page.$eval(`#${id}`, (place) => place.textContent);
const shows = (page, id, text) => until(`#${id} shows ${text}`, async () => {
  const seen = await textOf(page, id);
  return seen === text || seen;
});
const isOpen = (page) => page.$eval("#key-dialog", (dialog) => dialog.open);

/** Enters a text into an empty field and presses Enter, as somebody without a mouse does. */
async function enter(page, id, text) {
  await page.focus(`#${id}`);
  await page.$eval(`#${id}`, (field) => field.select());
  await page.keyboard.press("Delete");
  await page.keyboard.type(text);
  await page.keyboard.press("Enter");
}

async function connect(node, token) {
  const socket = io(`${node.url}/socket.io/`, { auth: { token }, transports: ["websocket"], forceNew: true });
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("connect_error", reject));
  return socket;
}

async function update(user) {
  const response = await fetch(`${there.internalUrl}/api/v1/users/${user}/profile-update`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${world.key}` },
    body: JSON.stringify({ user: { userID: user, username: `user ${user}` } }),
  });
  assert.equal(response.status, 200, await response.clone().text());
  return (await response.json()).revision;
}

// ---- what the page promises

/** A browser on this machine needs no key, and shows transitions on another node. */
async function numbersAreLive() {
  const page = await open(`${here.internalUrl}/admin`);
  await shows(page, "pill-text", "Live");
  assert.equal(await isOpen(page), false);
  assert.equal(await textOf(page, "seen-by"), "as n0 sees it");
  await shows(page, "nodes", "2");
  await shows(page, "online", "0");
  const rows = await page.$$eval("#node-rows tr", (rows) => rows.map((row) => row.cells[0].firstChild.textContent));
  assert.deepEqual(rows, ["n0", "n1"]);

  const [ada, bob] = world.users;
  const sockets = [await connect(there, ada.token), await connect(there, ada.token), await connect(there, bob.token)];
  const guests = [await connect(here, null), await connect(there, null)];
  await shows(page, "online", "2");
  // Nodes tell what they carry with their heartbeat.
  await shows(page, "connections", "5");
  await shows(page, "guests", "2");
  for (const guest of guests) await guest.emitWithAck("watch-profile", { userId: ada.id });
  await shows(page, "topics", "3");
  const revision = await update(ada.id);

  await enter(page, "user-id", String(ada.id));
  await shows(page, "user-name", `User ${ada.id}`);
  assert.equal(await textOf(page, "user-status-text"), "Online");
  assert.equal(await textOf(page, "user-watchers"), "2 connections");
  assert.match(await textOf(page, "user-since"), /20\d\d/);
  const items = (id) => page.$$eval(`#${id} li`, (items) => items.map((item) => item.textContent));
  const connections = await items("user-connections");
  assert.equal(connections.length, 2);
  for (const connection of connections) assert.match(connection, /^n1, number \d+since .*\d\d:\d\d:\d\d$/);
  assert.match((await items("user-updates")).join(), new RegExp(`^profile, revision ${revision}`));
  assert.match(await textOf(page, "said"), /is online with 2 connections on 1 node, watched by 2 connections/);

  const rate = (place) => page.$$eval(".chart .value", (values, place) => Number.parseFloat(values[place].textContent), place);
  await until("deliveries are drawn", async () => {
    await update(ada.id);
    const seen = await rate(2);
    return seen > 0 || seen;
  });
  const path = await page.$$eval(".chart .line", (lines) => lines.map((line) => line.getAttribute("d")));
  assert.ok(path.every((line) => /^M[\d.]+,[\d.]+L/.test(line)), path.join("\n"));

  sockets[2].emit("join-matchmaking");
  await shows(page, "queue", "1");
  sockets[2].emit("leave-matchmaking");
  await shows(page, "queue", "0");

  await readableEverywhere(page);

  for (const socket of [...sockets, ...guests]) socket.close();
  await shows(page, "online", "0");
  await shows(page, "connections", "0");
  await enter(page, "user-id", String(bob.id));
  await shows(page, "user-status-text", "Offline");
  await enter(page, "user-id", "0");
  await until("a bad id is refused", async () => (await textOf(page, "user-problem")) !== "" && (await page.$eval("#user", (place) => place.hidden)));
  // That is a request which the browser says was refused.
  assert.equal(errors.splice(0).filter((error) => !/status of 400/.test(error)).join("\n"), "");
  await page.close();
}

/** In light and dark, on a desk and on a phone, with a keyboard, by ear, and without motion. */
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

  const animation = () => page.$eval("#pill .dot", (dot) => getComputedStyle(dot).animationName);
  assert.equal(await animation(), "breathe");
  await page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value: "reduce" }]);
  assert.equal(await animation(), "none");

  await page.reload();
  await shows(page, "pill-text", "Live");
  const reached = [];
  for (let step = 0; step < 3; step += 1) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => {
      const style = getComputedStyle(document.activeElement);
      return [document.activeElement.id || document.activeElement.textContent, style.outlineStyle];
    }));
  }
  assert.deepEqual(reached.map(([name]) => name), ["Skip to the numbers", "user-id", "Look up"]);
  for (const [name, outline] of reached) assert.equal(outline, "solid", `focus shows on ${name}`);

  const told = (said) => /^(img|image) .* now, from .* in the last three minutes$/.test(said);
  let spoken;
  await until("every chart is told", async () => {
    spoken = spokenOf(await page.accessibility.snapshot({ interestingOnly: false }));
    return spoken.filter(told).length === 4 || spoken;
  });
  for (const wanted of ["heading Vigie", "textbox User id", "button Look up", "table Nodes", "rowheader n0 version"]) {
    assert.ok(spoken.some((said) => said.startsWith(wanted)), `"${wanted}" in\n${spoken.join("\n")}`);
  }
}

/** A browser on another machine shows nothing without the key, and asks for it once per tab. */
async function keyOpensThePage() {
  const port = new URL(here.internalUrl).port;
  const address = `http://${STRANGE_HOST}:${port}/admin`;
  const page = await open(address, PHONE);
  await until("the key is asked for", () => isOpen(page));
  assert.equal(await textOf(page, "online"), "–");
  assert.equal(await page.evaluate(() => document.activeElement.id), "key");
  assert.deepEqual(errors, []);
  await assertReadable(page, "the dialog");

  await page.keyboard.press("Escape");
  await until("there is nothing to see without it", () => isOpen(page));

  await enter(page, "key", "wrong");
  await until("a wrong key is refused", async () => /not valid/.test(await textOf(page, "key-problem")));
  assert.equal(await isOpen(page), true);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.ok(errors.length > 0 && errors.splice(0).every((error) => REFUSED.test(error)));

  await enter(page, "key", world.key);
  await shows(page, "pill-text", "Live");
  assert.equal(await isOpen(page), false);
  await shows(page, "nodes", "2");
  await enter(page, "user-id", "42");
  await shows(page, "user-name", "User 42");
  await page.reload();
  await shows(page, "pill-text", "Live");
  assert.equal(page.url(), address, "the key is in no address");
  assert.equal(await page.$eval("body", (body, key) => body.innerText.includes(key), world.key), false);

  const other = await open(address);
  await until("another tab asks for itself", () => isOpen(other));
  await other.close();

  await Promise.all([page.waitForNavigation(), page.click("#forget")]);
  await until("the key is forgotten", () => isOpen(page));
  assert.deepEqual(errors, []);
  await page.close();
}

const browser = await launch({
  // All that it leaves behind, also where it is killed, goes with the test's own folder.
  userDataDir: `${world.scratch}/profile`,
  env: { ...process.env, TMPDIR: world.scratch },
  args: [`--host-resolver-rules=MAP ${STRANGE_HOST} 127.0.0.1`],
});
try {
  await numbersAreLive();
  await keyOpensThePage();
} finally {
  await browser.close();
}
process.exit(0);
