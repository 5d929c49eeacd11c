// How the cost grows with nodes and with connections.

import { caption } from "./machine.mjs";
import { panels } from "./svg.mjs";
import { median } from "./table.mjs";

const NODES = [1, 2, 4, 8];
const WATCHERS = 2_000;
const CONNECTIONS = [1_000, 10_000, 30_000];
/** So many deliveries make a figure that can be trusted. */
const DELIVERIES = 600_000;

/** The measurements, by name: against whom, on how many nodes, with what load. */
function plan(quick) {
  const watchers = quick ? 80 : WATCHERS;
  const nodes = quick ? [1, 2] : NODES;
  const connections = quick ? [50, 100] : CONNECTIONS;
  const fanout = (count, ...more) => {
    const updates = Math.max(20, Math.round((quick ? 2_000 : DELIVERIES) / count));
    return ["fanout", "--connections", count, "--updates", updates, ...more];
  };
  return {
    nodes: {
      vigie: nodes.map((x) => ({ x, peer: "vigie", nodes: x, words: fanout(watchers) })),
      floor: nodes.map((x) => ({ x, peer: "floor", nodes: x, words: fanout(watchers) })),
      // Few watchers and many updates: it is Redis that is looked at.
      allInterested: nodes.map((x) => ({ x, peer: "vigie", nodes: x, words: ["fanout", "--connections", 8, "--updates", quick ? 50 : 3_000] })),
      oneInterested: nodes.map((x) => ({ x, peer: "vigie", nodes: x, words: ["fanout", "--connections", 8, "--updates", quick ? 50 : 3_000, "--interested", 1] })),
    },
    connections: {
      vigie: connections.map((x) => ({ x, peer: "vigie", nodes: 2, words: fanout(x) })),
      floor: connections.map((x) => ({ x, peer: "floor", nodes: 2, words: fanout(x) })),
      memory: connections.map((x) => ({ x, peer: "vigie", nodes: 2, words: ["connect", "--connections", x] })),
    },
  };
}

/** Measures everything `rounds` times; returns the points with the figures of each round. */
export async function measureScaling({ attempt, quick, rounds, tell }) {
  const results = plan(quick);
  const points = Object.entries(results).flatMap(([axis, series]) =>
    Object.entries(series).flatMap(([name, points]) => points.map((point) => ({ axis, name, point }))),
  );
  for (let round = 0; round < rounds; round += 1) {
    for (const { axis, name, point } of points) {
      tell(`round ${round + 1}: ${axis} ${point.x}, ${name}`);
      (point.rounds ??= []).push(await attempt(point.peer, point.nodes, point.words));
    }
  }
  return results;
}

const line = (name, points, figure) => ({
  name,
  points: points.map(({ x, rounds }) => [x, median(rounds.map((round) => round[figure] ?? NaN))]),
});

/** The graphs as one picture. */
export function drawScaling({ nodes, connections }, about) {
  const cpu = "cpu_per_delivery_us";
  return panels(
    [
      {
        title: "CPU per delivery by nodes, µs",
        x: "nodes",
        lines: [line("Vigie", nodes.vigie, cpu), line("floor", nodes.floor, cpu)],
      },
      {
        title: "CPU of Redis per update by nodes, µs",
        x: "nodes",
        lines: [
          line("all nodes interested", nodes.allInterested, "redis_cpu_per_update_us"),
          line("one node interested", nodes.oneInterested, "redis_cpu_per_update_us"),
        ],
      },
      {
        title: "CPU per delivery by connections, µs",
        x: "connections",
        lines: [line("Vigie", connections.vigie, cpu), line("floor", connections.floor, cpu)],
      },
      {
        title: "Memory per connection by connections, KiB",
        x: "connections",
        lines: [line("Vigie", connections.memory, "memory_per_connection_kib")],
      },
    ],
    caption(about).replaceAll("`", ""),
  );
}
