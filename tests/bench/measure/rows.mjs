// The runs, and the rows of the table that come of them.

/** By name: what `vigie-bench` does. */
export const runs = {
  idle: ["idle", "--connections", 4000, "--seconds", 25],
  fanout: ["fanout", "--connections", 2000, "--updates", 300],
  paced: ["fanout", "--connections", 2000, "--rate", 10, "--seconds", 10],
  churn: ["churn", "--connections", 500, "--users", 500],
  online: ["online", "--connections", 5000, "--calls", 1000],
  selective: ["selective", "--connections", 1, "--updates", 5000],
  burst: ["burst", "--connections", 2, "--updates", 5000],
  lone: ["fanout", "--connections", 2, "--rate", 20, "--seconds", 10],
};

/** The same with small loads, to see whether everything works. */
export const quickRuns = {
  idle: ["idle", "--connections", 200, "--seconds", 3],
  fanout: ["fanout", "--connections", 200, "--updates", 50],
  paced: ["fanout", "--connections", 200, "--rate", 10, "--seconds", 2],
  churn: ["churn", "--connections", 50, "--users", 50],
  online: ["online", "--connections", 100, "--calls", 100],
  selective: ["selective", "--connections", 1, "--updates", 300],
  burst: ["burst", "--connections", 2, "--updates", 500],
  lone: ["fanout", "--connections", 2, "--rate", 20, "--seconds", 2],
};

/** The runs that the floor supports: it has neither users nor Redis. */
export const floorRuns = ["idle", "fanout", "paced", "lone"];

/**
 * The rows, in their order. A cell shows `figures`; `wanted` is what Vigie's first one may be at most, `wantedRatio` the
 * same as a multiple of the floor of the same round.
 */
export const rows = [
  {
    work: ({ fanout }) => `update to ${number(fanout, "--connections")} watchers, back to back: CPU per delivery`,
    run: "fanout",
    figures: [["cpu_per_delivery_us", "µs"]],
    wantedRatio: 1.15,
  },
  {
    work: ({ paced }) => `the same at ${number(paced, "--rate")} updates/s`,
    run: "paced",
    figures: [["cpu_per_delivery_us", "µs"]],
    wantedRatio: 1.2,
  },
  {
    work: () => "opening a connection: CPU",
    run: "idle",
    figures: [["cpu_per_connection_us", "µs"]],
    wanted: 150,
  },
  {
    work: () => "resident memory per open connection",
    run: "idle",
    figures: [["memory_per_connection_kib", "KiB"]],
    wanted: 10,
  },
  {
    work: ({ idle }) => `${number(idle, "--connections")} idle connections: CPU of one core`,
    run: "idle",
    figures: [["idle_cpu_percent", "%"]],
    wanted: 0.5,
  },
  {
    work: ({ churn }) =>
      `${number(churn, "--users")} users come and go before ${number(churn, "--connections")} observers: CPU per event delivered`,
    run: "churn",
    figures: [["cpu_per_event_us", "µs"]],
    wanted: 1.5,
  },
  {
    work: ({ online }) =>
      `${number(online, "--connections")} users sign in at once before each other: CPU per event`,
    run: "online",
    figures: [["cpu_per_event_us", "µs"]],
    wanted: 0.5,
  },
  {
    work: ({ online }) =>
      `\`get-online-users\`, ${number(online, "--connections")} online: node CPU / Redis CPU per call`,
    run: "online",
    figures: [["cpu_per_call_us", "µs"], ["redis_cpu_per_call_us", "µs"]],
    wanted: 200,
  },
  {
    work: () => "a node without interest in an update: CPU per update",
    run: "selective",
    figures: [["elsewhere_cpu_per_update_us", "µs"]],
    wanted: 1,
  },
  {
    work: ({ burst }) =>
      `${number(burst, "--updates")} updates at full speed: both nodes' CPU per update; lost on the other node`,
    run: "burst",
    figures: [["cpu_per_update_us", "µs"], ["lost_elsewhere", ""]],
    wanted: 45,
  },
  {
    work: () => "a lone update: median from the request to the receipt on the other node",
    run: "lone",
    figures: [["latency_elsewhere_p50_ms", "ms"]],
  },
];

function number(words, option) {
  return words[words.indexOf(option) + 1].toLocaleString("en");
}
