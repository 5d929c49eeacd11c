// The code of the existing front end, as it stands but for the address, run by the official
// client. Argument: a JSON object with the addresses and tokens; see tests/hub/frontend.rs.
// Ends with 0 when everything that the front end relies on has happened.

import assert from "node:assert/strict";
import { io } from "socket.io-client";

const world = JSON.parse(process.argv[2]);

// ---- the front end

const socket = io(world.url + "/socket.io/", {
  auth: { token: null },
  transports: ["websocket"],
  autoConnect: true,
});

const onlineUsers = new Set();
const profiles = new Map();

socket.on("connect", () => {
  socket.emit("get-online-users", (userIds) => {
    onlineUsers.clear();
    userIds.forEach((userId) => onlineUsers.add(userId));
  });
});

socket.on("user-status-change", ({ userId, status }) => {
  if (status === "online") onlineUsers.add(userId);
  else onlineUsers.delete(userId);
});

socket.on("profile-update", ({ user }) => profiles.set(user.userID, user));

function login(token) {
  socket.auth = { token };
  socket.disconnect().connect();
}

// ---- what must come true

process.on("exit", (code) => {
  if (code !== 0) console.error({ onlineUsers, profiles, connected: socket.connected });
});
socket.on("connect_error", (error) => {
  console.error("connect_error:", error.message);
});

/** Waits for a condition; the deadline is generous, since nothing is timed. */
async function until(what, condition) {
  const deadline = Date.now() + 15_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not within 15 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const sorted = () => [...onlineUsers].sort((a, b) => a - b);

async function post(path, body) {
  const response = await fetch(world.internalUrl + path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${world.key}` },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}

const { user, friend } = world;

// A guest sees who is online.
await until("the guest's list", () => onlineUsers.size === world.onlineBefore.length);
assert.deepEqual(sorted(), world.onlineBefore);
assert.equal(socket.nsp, "/socket.io/");

// Signing in makes the user appear, to himself as well.
login(user.token);
await until("own presence", () => socket.connected && onlineUsers.has(user.id));

// Somebody comes and goes on the other node.
const other = io(world.otherUrl + "/socket.io/", {
  auth: { token: friend.token },
  transports: ["websocket"],
});
await until("the friend's coming", () => onlineUsers.has(friend.id));
other.disconnect();
await until("the friend's going", () => !onlineUsers.has(friend.id));

// Signing in again, as after a reload of the token, changes nothing for the others.
login(user.token);
await until("the list after signing in again", () => socket.connected && onlineUsers.has(user.id));

// Watching here, the update told to the other node.
socket.emit("watch-profile", { userId: friend.id });
const watched = await socket.emitWithAck("watch-profile", { userId: friend.id });
assert.deepEqual(watched, {
  ok: true,
  profile: null,
  stats: null,
  revisions: { profile: null, stats: null },
});
const told = { userID: friend.id, username: "bob", avatar: "/bob.png", email: "bob@example.org" };
const { revision, nodes } = await post(`/api/v1/users/${friend.id}/profile-update`, { user: told });
assert.ok(revision > 0 && nodes === 1);
await until("the update", () => profiles.has(friend.id));
assert.deepEqual(profiles.get(friend.id), {
  userID: friend.id,
  username: "bob",
  avatar: "/bob.png",
});

// An update of the own profile arrives without watching, in full.
const own = { userID: user.id, username: "ada", email: "ada@example.org" };
await post(`/api/v1/users/${user.id}/profile-update`, { user: own });
await until("the own update", () => profiles.has(user.id));
assert.deepEqual(profiles.get(user.id), own);

assert.deepEqual(sorted(), [user.id, ...world.onlineBefore].sort((a, b) => a - b));
socket.disconnect();
