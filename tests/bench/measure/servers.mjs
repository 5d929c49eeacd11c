// Starts and ends processes: a private Redis, the nodes of a peer, the load on them. None outlives this one.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, openSync, closeSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { load, peers } from "./peers.mjs";

const START_WITHIN_MS = 15_000;
const END_WITHIN_MS = 5_000;
const LOAD_WITHIN_MS = 15 * 60_000;

const running = new Set();
const scratch = mkdtempSync(join(tmpdir(), "vigie-bench-"));
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(scratch, { recursive: true, force: true });
});
for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]]) {
  process.on(signal, () => process.exit(code));
}

/** Keys of this run, which every process finds in its surroundings and none on its command line. */
const keys = { secret: randomBytes(32).toString("hex"), api: randomBytes(32).toString("hex") };
const surroundings = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("VIGIE_"))),
  AUTH_SECRET: keys.secret,
  API_KEY: keys.api,
  VIGIE_AUTH__SECRET: keys.secret,
  VIGIE_INTERNAL__API_KEY: keys.api,
};

let started = 0;

/** Starts a program that the kernel ends with this one; `output()` is what it has said. */
function start([program, ...words], env = {}) {
  const log = join(scratch, `${(started += 1)}.log`);
  const out = openSync(log, "w");
  // setpriv replaces itself by the program, so the child's id is the program's.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", program, ...words], {
    cwd: scratch,
    env: { ...surroundings, ...env },
    stdio: ["ignore", out, out],
  });
  closeSync(out);
  running.add(child);
  child.ended = new Promise((resolve) => child.once("close", resolve)).then((code) => {
    running.delete(child);
    return code;
  });
  child.output = () => readFileSync(log, "utf8");
  return child;
}

async function end(child) {
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), END_WITHIN_MS);
  await child.ended;
  clearTimeout(late);
}

async function until(what, child, condition) {
  const deadline = Date.now() + START_WITHIN_MS;
  while (!(await condition())) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
      throw new Error(`${what} does not start:\n${child.output()}`);
    }
    await sleep(20);
  }
}

/** Ports that are free now, each another one. */
async function freePorts(count) {
  const servers = Array.from({ length: count }, () => net.createServer());
  await Promise.all(servers.map((server) => new Promise((done) => server.listen(0, "127.0.0.1", done))));
  const ports = servers.map((server) => String(server.address().port));
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

const listens = (port) =>
  new Promise((resolve) => {
    const socket = net.connect(Number(port), "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("close", () => socket.destroy()).once("connect", () => socket.end());
  });

async function startRedis() {
  const [port] = await freePorts(1);
  const child = start(
    ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", scratch],
  );
  await until("redis-server", child, () => listens(port));
  return { child, url: `redis://127.0.0.1:${port}` };
}

async function startNode(peer, setting) {
  const { command, env, ready } = peer.start(setting);
  const child = start(command, env);
  await until(peer.title, child, () => child.output().includes(" listening "));
  const answers = () => fetch(ready).then((answer) => answer.ok, () => false);
  if (ready) await until(peer.title, child, answers);
  return child;
}

/** Starts the nodes of a peer, hands them to `work`, and ends them whatever comes of it. */
export async function withNodes(name, count, work) {
  const peer = peers[name];
  const children = [];
  try {
    const redis = peer.redis ? await startRedis() : null;
    if (redis) children.push(redis.child);
    const ports = await freePorts(2 * count);
    const nodes = Array.from({ length: count }, (_, place) => ({
      public: ports[2 * place],
      internal: ports[2 * place + 1],
    }));
    for (const place of nodes.keys()) {
      const child = await startNode(peer, { place, nodes, redis: redis?.url });
      nodes[place].pid = child.pid;
      children.push(child);
    }
    return await work({ nodes, redisPid: redis?.child.pid });
  } finally {
    // Redis came first and goes last, so that nodes can say goodbye to it.
    for (const child of children.reverse()) await end(child);
  }
}

/** Runs `vigie-bench` with these words against the nodes; returns its figures. */
export async function measure({ nodes, redisPid }, words) {
  const options = nodes.flatMap((node) => [
    ...["--node", `http://127.0.0.1:${node.public}`],
    ...["--internal", `http://127.0.0.1:${node.internal}`],
    ...["--pid", String(node.pid)],
  ]);
  if (redisPid) options.push("--redis-pid", String(redisPid));
  const child = start([load, ...words.map(String), ...options, "--json"]);
  const late = setTimeout(() => child.kill("SIGKILL"), LOAD_WITHIN_MS);
  const code = await child.ended;
  clearTimeout(late);
  const lines = child.output().trim().split("\n");
  if (code !== 0) throw new Error(`vigie-bench ${words.join(" ")} failed: ${lines.at(-1)}`);
  return JSON.parse(lines.at(-1));
}
