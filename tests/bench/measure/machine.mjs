// On what it was measured: said below every table and graph.

import { execFileSync } from "node:child_process";
import os from "node:os";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./peers.mjs";

const said = (program, ...words) => execFileSync(program, words, { encoding: "utf8", cwd: root }).trim();

function versionOf(name) {
  const file = join(root, "tests/peers/socketio/node_modules", name, "package.json");
  return `${name} ${JSON.parse(readFileSync(file)).version}`;
}

/** The version of a crate, as Cargo.lock says. */
function crate(name) {
  const lock = readFileSync(join(root, "Cargo.lock"), "utf8");
  const [, version] = lock.match(new RegExp(`name = "${name}"\nversion = "([^"]+)"`)) ?? [];
  return `${name} ${version}`;
}

/** Machine, versions and date, by name. */
export function surroundings() {
  const cores = os.cpus();
  return {
    command: ["tests/bench/run", ...process.argv.slice(2)].join(" "),
    date: new Date().toISOString().slice(0, 10),
    machine: `${cores.length} cores (${cores[0].model.trim()}), ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}`,
    versions: [
      said("rustc", "--version").split(" ").slice(0, 2).join(" "),
      `Node ${process.version.slice(1)}`,
      versionOf("socket.io"),
      versionOf("@socket.io/redis-adapter"),
      crate("socketioxide"),
      crate("socketioxide-redis"),
      said("redis-server", "--version").replace(/^Redis server v=(\S+).*$/, "Redis $1"),
    ].join(", "),
  };
}

/** One line about it. */
export function caption({ command, date, machine, versions }) {
  return `\`${command}\`, ${date}; ${machine}; ${versions}`;
}
