// The table as Markdown: medians of the rounds, and ratios to the floor of the same round.

import { peers } from "./peers.mjs";
import { rows } from "./rows.mjs";

/** The middle one; of an even number the mean of the two in the middle. */
export function median(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return NaN;
  const middle = sorted.length / 2;
  return (sorted[Math.floor(middle)] + sorted[Math.ceil(middle) - 1]) / 2;
}

/** Three digits that mean something, and no more than two behind the point. */
function shown(value, unit) {
  if (!Number.isFinite(value)) return "–";
  const digits = value >= 100 || unit === "" ? 0 : value >= 10 ? 1 : 2;
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return unit ? `${text} ${unit}` : text;
}

/** The figures of a row in each round: `rounds` holds, by run and peer, what `vigie-bench` printed. */
function values(rounds, { run }, peer, figure) {
  return rounds.map((round) => round[run]?.[peer]?.[figure] ?? NaN);
}

function ratio(rounds, row, peer, [figure]) {
  const floor = values(rounds, row, "floor", figure);
  return median(values(rounds, row, peer, figure).map((value, round) => value / floor[round]));
}

function cell(rounds, row, peer) {
  const texts = row.figures.map(([figure, unit]) => shown(median(values(rounds, row, peer, figure)), unit));
  const known = texts.some((text) => text !== "–");
  const text = known ? texts.join(" / ") : "–";
  const times = row.wantedRatio && peer !== "floor" ? ratio(rounds, row, peer, row.figures[0]) : NaN;
  return Number.isFinite(times) ? `${text} (f×${times.toFixed(2)})` : text;
}

/** The goal of a row, and whether it is met. */
function wanted(rounds, row) {
  const { wanted: most, wantedRatio: mostRatio } = row;
  if (!most && !mostRatio) return "";
  const [figure, unit] = row.figures[0];
  const is = mostRatio ? ratio(rounds, row, "vigie", row.figures[0]) : median(values(rounds, row, "vigie", figure));
  const limit = mostRatio ? `f×${mostRatio}` : `${most} ${unit}`;
  if (!Number.isFinite(is)) return `≤ ${limit}`;
  return `≤ ${limit} ${is <= (mostRatio ?? most) ? "✓" : "✗"}`;
}

/** The table of these peers. */
export function table(rounds, names, runs) {
  const head = ["work", ...names.map((name) => peers[name].title), "wanted of Vigie"];
  const lines = rows
    .filter(({ run }) => rounds.some((round) => round[run]))
    .map((row) => [row.work(runs), ...names.map((name) => cell(rounds, row, name)), wanted(rounds, row)]);
  return [head, head.map(() => "---"), ...lines].map((line) => `| ${line.join(" | ")} |`).join("\n");
}
