// Drives the official Socket.IO client for the Rust tests.
//
// Commands come in on stdin, one JSON object a line; what sockets live through goes out on stdout,
// one JSON object a line, in the order in which the client saw it. Ends when stdin ends.
// `tests/hub/harness/bridge.rs` is the other end.

import http from "node:http";
import readline from "node:readline";
import { io } from "socket.io-client";
import WebSocket from "ws";

/** Sockets of the official client, by the number that the Rust side gave them. */
const sockets = new Map();

// A write to a pipe is synchronous here, so lines keep their order and none is lost at the end.
const tell = (record) => process.stdout.write(JSON.stringify(record) + "\n");

/** JSON has no bytes: `{"$bytes": "00ff"}` stands for a Buffer, sent as a binary attachment. */
function revive(value) {
  if (Array.isArray(value)) return value.map(revive);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$bytes === "string") return Buffer.from(value.$bytes, "hex");
  const revived = {};
  for (const [key, inner] of Object.entries(value)) {
    // Not by assignment: that would set the prototype where the key is `__proto__`.
    Object.defineProperty(revived, key, {
      value: revive(inner),
      enumerable: true,
      writable: true,
      configurable: true,
    });
  }
  return revived;
}

function open({ socket: number, url, auth, tokenMs, options, steady, from }) {
  const socket = io(url, {
    // With an address of its own, for what tells clients apart by it.
    ...(from && { agent: new http.Agent({ localAddress: from, keepAlive: true }) }),
    forceNew: true,
    reconnectionDelay: 20,
    reconnectionDelayMax: 200,
    ...options,
    // As pages do that fetch their token anew for each connection.
    auth: tokenMs === null ? auth : (answer) => setTimeout(() => answer(auth), tokenMs),
  });
  sockets.set(number, socket);
  const note = (record) => tell({ socket: number, ...record });
  const transport = () => socket.io.engine?.transport?.name ?? null;

  socket.on("connect", () => note({ kind: "connect", transport: transport() }));
  socket.on("connect_error", (error) => note({ kind: "connect_error", message: error.message }));
  socket.on("disconnect", (reason) => note({ kind: "disconnect", reason }));
  socket.onAny((event, ...args) => note({ kind: "event", event, args }));
  const hook = () => {
    socket.io.engine.on("upgrade", ({ name }) => note({ kind: "upgrade", transport: name }));
  };
  socket.io.on("open", hook);
  if (steady) keepSteady(number, socket);
}

/** Pause of a steady client before it tries again what the hub could not do. */
const RETRY_MS = 200;

/** Behaves like a front end that stays: at each connect it watches all users in `followed` again. */
function keepSteady(number, socket) {
  socket.followed = new Set();
  socket.on("connect", () => {
    emit(number, { event: "get-online-users", args: [], ack: 0 });
    socket.followed.forEach((userId) => watchSteadily(number, userId));
  });
}

function watchSteadily(number, userId) {
  const socket = sockets.get(number);
  const { id } = socket;
  const wanted = () => socket.connected && socket.id === id && socket.followed.has(userId);
  socket.emit("watch-profile", { userId }, (answer) => {
    tell({ socket: number, kind: "ack", ack: 0, event: "watch-profile", args: [{ userId, ...answer }] });
    if (!answer.ok) setTimeout(() => wanted() && watchSteadily(number, userId), RETRY_MS);
  });
}

function emit(number, { event, args, ack }) {
  const values = args.map(revive);
  if (typeof ack === "number") {
    values.push((...answers) => tell({ socket: number, kind: "ack", ack, event, args: answers }));
  }
  sockets.get(number).emit(event, ...values);
}

/** Pulls the plug: the hub sees a closed transport, and nothing was said. */
function abort(socket) {
  const engine = socket.io.engine;
  if (engine?.transport?.ws?.terminate) engine.transport.ws.terminate();
  else engine?.close();
}

const engineUrl = (url) => url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket";
const prefixOf = (namespace) => (namespace === "/" ? "" : namespace + ",");

/** Opens a bare WebSocket, waits for Engine.IO's opening packet and hands it over. */
function raw(url, onopen) {
  return new Promise((resolve) => {
    const ws = new WebSocket(engineUrl(url));
    ws.on("error", () => {});
    ws.on("close", resolve);
    ws.on("message", (data) => {
      const text = data.toString();
      if (text.startsWith("0")) onopen(ws);
      else if (text === "2") ws.send("3");
      else ws.emit("packet", text);
    });
  });
}

/** Sends CONNECT `count` times, each on a transport that is gone before the answer is read. */
async function vanish({ url, namespace, tokens, count }) {
  for (let turn = 0; turn < count; turn += 1) {
    const token = tokens[turn % tokens.length];
    await raw(url, (ws) => {
      ws.send(`40${prefixOf(namespace)}${JSON.stringify({ token })}`, () => {
        // From "at once" to "about when the answer is under way".
        if (turn % 4 === 0) ws.terminate();
        else if (turn % 4 === 1) setImmediate(() => ws.terminate());
        else if (turn % 4 === 2) setTimeout(() => ws.terminate(), 1);
        else ws.close();
      });
    });
  }
}

/** Sends CONNECT twice on each of `count` transports, then leaves in one of several ways. */
async function connectTwice({ url, namespace, tokens, count }) {
  const prefix = prefixOf(namespace);
  for (let turn = 0; turn < count; turn += 1) {
    const connect = `40${prefix}${JSON.stringify({ token: tokens[turn % tokens.length] })}`;
    await raw(url, (ws) => {
      if (turn % 4 === 0) {
        ws.send(connect);
        ws.send(connect, () => ws.terminate());
        return;
      }
      let answered = false;
      ws.on("packet", (text) => {
        if (answered || !text.startsWith("40")) return;
        answered = true;
        if (turn % 4 === 1) {
          // Once more while the first one is open.
          ws.send(connect, () => setTimeout(() => ws.terminate(), 2));
        } else if (turn % 4 === 2) {
          ws.send(`41${prefix}`, () => ws.close());
        } else {
          ws.close();
        }
      });
      ws.send(connect);
      ws.send(connect);
    });
  }
}

const verbs = {
  open,
  emit: (command) => emit(command.socket, command),
  // Everything in one turn of the event loop, so that it leaves in one burst.
  burst: ({ socket, emits }) => emits.forEach((one) => emit(socket, one)),
  connect: ({ socket }) => sockets.get(socket).connect(),
  disconnect: ({ socket }) => sockets.get(socket).disconnect(),
  reconnect: ({ socket, times }) => {
    for (let turn = 0; turn < times; turn += 1) sockets.get(socket).disconnect().connect();
  },
  // The front end's login, word for word.
  login: ({ socket: number, token }) => {
    const socket = sockets.get(number);
    socket.auth = { token };
    socket.disconnect().connect();
  },
  follow: ({ socket, userId }) => {
    sockets.get(socket).followed.add(userId);
    // The client would send an event emitted while it is away once it is back, a second time.
    if (sockets.get(socket).connected) watchSteadily(socket, userId);
  },
  unfollow: ({ socket: number, userId }) => {
    const socket = sockets.get(number);
    socket.followed.delete(userId);
    if (socket.connected) emit(number, { event: "unwatch-profile", args: [{ userId }] });
  },
  abort: ({ socket }) => abort(sockets.get(socket)),
  drop: ({ socket }) => {
    sockets.get(socket)?.disconnect();
    sockets.delete(socket);
  },
  vanish,
  connect_twice: connectTwice,
};

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const command = JSON.parse(line);
  await verbs[command.verb](command);
  if (typeof command.call === "number") tell({ call: command.call });
});
lines.on("close", () => process.exit(0));
