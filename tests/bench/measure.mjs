// Measures all peers in turn and writes the table, or how Vigie scales and draws the graphs. `tests/bench/run` builds what
// it needs and starts it.

import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { caption, surroundings } from "./measure/machine.mjs";
import { addBuild, peers, root } from "./measure/peers.mjs";
import { floorRuns, quickRuns, runs as fullRuns } from "./measure/rows.mjs";
import { drawScaling, measureScaling } from "./measure/scaling.mjs";
import { measure, withNodes } from "./measure/servers.mjs";
import { table } from "./measure/table.mjs";

const NODES = 2;

const HELP = `tests/bench/run [OPTIONS]

  --rounds N      rounds in which all take turns; medians of them are shown [3, with --quick 1]
  --quick         small loads: whether it works, not how fast it is
  --peers LIST    who is measured, separated by commas [${Object.keys(peers)}]
  --before FILE   another build of vigie, measured beside this one as the peer \`before\`
  --runs LIST     what is done, separated by commas [${Object.keys(fullRuns)}]
  --scaling       measures 1 to 8 nodes and 1,000 to 30,000 connections instead
  --graphs FILE   where the graphs of --scaling go [tests/bench/scaling.svg, with --quick target/bench/…]
`;

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string" },
    quick: { type: "boolean", default: false },
    peers: { type: "string" },
    before: { type: "string" },
    runs: { type: "string", default: Object.keys(fullRuns).join(",") },
    scaling: { type: "boolean", default: false },
    graphs: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

if (options.before) addBuild(resolve(options.before));
options.peers ??= Object.keys(peers).join(",");

const tell = (text) => process.stderr.write(`${text}\n`);

/** A list of known names. */
function names(option, known) {
  const list = options[option].split(",");
  const unknown = list.filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new Error(`--${option}: there is no ${unknown}; there are ${known}`);
  return known.filter((name) => list.includes(name));
}

function roundCount() {
  const rounds = Number(options.rounds ?? (options.quick ? 1 : 3));
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 20) throw new Error("--rounds takes 1 to 20");
  return rounds;
}

/** Where raw results go. */
function folder() {
  const path = join(root, "target/bench", new Date().toISOString().replace(/[:.]/g, "-"));
  mkdirSync(path, { recursive: true });
  return path;
}

/** One run against one peer on nodes of its own. What fails is told, and leaves a gap. */
async function attempt(peer, nodes, words) {
  try {
    return await withNodes(peer, nodes, (servers) => measure(servers, words));
  } catch (error) {
    tell(`  ${peer}: ${error.message}`);
    return { failed: error.message };
  }
}

/** The list, beginning elsewhere, so that nobody is always the first. */
const turned = (list, by) => list.map((_, place) => list[(place + by) % list.length]);

async function measureRound(round, runs, who) {
  const results = {};
  for (const [run, words] of Object.entries(runs)) {
    results[run] = {};
    const able = who.filter((peer) => peer !== "floor" || floorRuns.includes(run));
    for (const peer of turned(able, round)) {
      tell(`round ${round + 1}: ${run}, ${peers[peer].title}`);
      results[run][peer] = await attempt(peer, NODES, words);
    }
  }
  return results;
}

async function compare() {
  const chosen = options.quick ? quickRuns : fullRuns;
  const runs = Object.fromEntries(names("runs", Object.keys(chosen)).map((run) => [run, chosen[run]]));
  const who = names("peers", Object.keys(peers));
  const [rounds, path, about] = [[], folder(), surroundings()];
  for (let round = 0; round < roundCount(); round += 1) {
    rounds.push(await measureRound(round, runs, who));
    writeFileSync(join(path, "results.json"), JSON.stringify({ about, runs, rounds }, null, 2));
  }
  const text = `${table(rounds, who, runs)}\n\n${caption(about)}\n`;
  writeFileSync(join(path, "table.md"), text);
  process.stdout.write(text);
  tell(`table and raw results are in ${path}`);
}

async function scale() {
  const [path, about] = [folder(), surroundings()];
  const results = await measureScaling({ attempt, quick: options.quick, rounds: roundCount(), tell });
  writeFileSync(join(path, "scaling.json"), JSON.stringify({ about, results }, null, 2));
  const usual = options.quick ? join(path, "scaling.svg") : join(root, "tests/bench/scaling.svg");
  const file = options.graphs ?? usual;
  writeFileSync(file, drawScaling(results, about));
  tell(`graphs are in ${file}, raw results in ${path}`);
}

if (options.help) {
  process.stdout.write(HELP);
} else {
  try {
    await (options.scaling ? scale() : compare());
  } catch (error) {
    tell(`tests/bench/run: ${error.message}`);
    process.exit(1);
  }
}
