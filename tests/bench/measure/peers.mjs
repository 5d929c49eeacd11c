// The peers, and how each is started.

import { join } from "node:path";

export const root = new URL("../../..", import.meta.url).pathname;
const release = join(root, "target", "release");

const socketio = (adapter) => ({ place, nodes, redis }) => ({
  command: [
    "node",
    join(root, "tests/peers/socketio/server.mjs"),
    ...["--adapter", adapter, "--redis", redis],
    ...["--public", nodes[place].public, "--internal", nodes[place].internal],
  ],
});

const vigie = (title, program) => ({
  title,
  redis: true,
  start: ({ place, nodes, redis }) => ({
    command: [program],
    env: {
      VIGIE_ENGINE: "redis",
      VIGIE_REDIS__URL: redis,
      VIGIE_NODE__ID: `n${place}`,
      VIGIE_HTTP__LISTEN: `127.0.0.1:${nodes[place].public}`,
      VIGIE_INTERNAL__LISTEN: `127.0.0.1:${nodes[place].internal}`,
    },
    ready: `http://127.0.0.1:${nodes[place].public}/readyz`,
  }),
});

/** By name: how a table calls it, whether it needs Redis, and how one of several nodes is started. */
export const peers = {
  floor: {
    title: "physical floor",
    start: ({ place, nodes }) => {
      const others = nodes.filter((_, other) => other !== place);
      const addresses = [nodes[place].public, ...[nodes[place], ...others].map((node) => node.internal)];
      return { command: [join(release, "examples/floor"), ...addresses.map((port) => `127.0.0.1:${port}`)] };
    },
  },
  classic: { title: "socket.io, classic adapter", redis: true, start: socketio("classic") },
  sharded: { title: "socket.io, sharded adapter", redis: true, start: socketio("sharded") },
  socketioxide: {
    title: "plain socketioxide, its Redis adapter",
    redis: true,
    start: ({ place, nodes, redis }) => {
      const addresses = [nodes[place].public, nodes[place].internal].map((port) => `127.0.0.1:${port}`);
      return { command: [join(release, "examples/socketioxide"), ...addresses, redis] };
    },
  },
  vigie: vigie("Vigie", join(release, "vigie")),
};

/** Adds another build of Vigie, to be measured beside this one. */
export function addBuild(program) {
  peers.before = vigie("Vigie, another build", program);
}

export const load = join(release, "vigie-bench");
