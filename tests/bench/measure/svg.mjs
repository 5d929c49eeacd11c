// Draws line graphs, four to a picture, that can be read on light and on dark pages.

const PANEL = { width: 440, height: 270 };
const FRAME = { left: 48, right: 16, top: 44, bottom: 46 };
const CAPTION_CHARACTERS = 130;

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #374151; }
  .title { font-size: 14px; font-weight: 600; fill: #111827; }
  .small { font-size: 11px; fill: #6b7280; }
  .grid { stroke: #e5e7eb; }
  .line { fill: none; stroke-width: 2; }
  .l0 { stroke: #2563eb; } .p0 { fill: #2563eb; }
  .l1 { stroke: #c2410c; stroke-dasharray: 5 3; } .p1 { fill: #c2410c; }
  @media (prefers-color-scheme: dark) {
    text { fill: #d1d5db; }
    .title { fill: #f9fafb; }
    .small { fill: #9ca3af; }
    .grid { stroke: #374151; }
    .l0 { stroke: #60a5fa; } .p0 { fill: #60a5fa; }
    .l1 { stroke: #fb923c; } .p1 { fill: #fb923c; }
  }`;

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const text = (x, y, content, { css = "", anchor = "start" } = {}) =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${css}" text-anchor="${anchor}">${escaped(content)}</text>`;

/** The next of 1, 2, 5, 10, 20, 50, … */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((factor) => factor * power >= value * 0.999) * power;
}

/** Ticks from 0 to above the largest value, about four of them. */
function ticks(largest) {
  const step = roundUp((largest || 1) / 4);
  const count = Math.ceil((largest || 1) / step);
  return Array.from({ length: count + 1 }, (_, place) => place * step);
}

const shown = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

/** One graph: values over places that are as far from each other whatever they stand for. */
function panel({ title, x, lines }) {
  const places = [...new Set(lines.flatMap(({ points }) => points.map(([place]) => place)))].sort((a, b) => a - b);
  const known = lines.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  const scale = ticks(Math.max(0, ...known) * 1.1);
  const width = PANEL.width - FRAME.left - FRAME.right;
  const height = PANEL.height - FRAME.top - FRAME.bottom;
  const across = (place) => FRAME.left + (width * (places.indexOf(place) + 0.5)) / places.length;
  const up = (value) => FRAME.top + height * (1 - value / scale.at(-1));

  const parts = [text(FRAME.left, 20, title, { css: "title" })];
  for (const tick of scale) {
    const y = up(tick);
    parts.push(`<line x1="${FRAME.left}" x2="${FRAME.left + width}" y1="${y.toFixed(1)}" y2="${y.toFixed(1)}" class="grid"/>`);
    parts.push(text(FRAME.left - 6, y + 4, shown(tick), { css: "small", anchor: "end" }));
  }
  for (const place of places) {
    parts.push(text(across(place), FRAME.top + height + 18, place.toLocaleString("en"), { css: "small", anchor: "middle" }));
  }
  parts.push(text(FRAME.left + width / 2, FRAME.top + height + 36, x, { css: "small", anchor: "middle" }));
  lines.forEach((line, place) => parts.push(...drawn(line, place, lines.length, across, up)));
  return parts.join("\n");
}

/** A line with its points, their values, and its name above the graph. */
function drawn({ name, points }, place, of, across, up) {
  const known = points.filter(([, value]) => Number.isFinite(value));
  const at = known.map(([x, value]) => `${across(x).toFixed(1)},${up(value).toFixed(1)}`);
  const legend = FRAME.left + (place * (PANEL.width - FRAME.left)) / Math.max(of, 2);
  // The second line's values stand below it, so that they do not cover the first one's.
  const offset = place === 0 ? -8 : 16;
  return [
    `<polyline points="${at.join(" ")}" class="line l${place}"/>`,
    ...known.map(([x, value]) => `<circle cx="${across(x).toFixed(1)}" cy="${up(value).toFixed(1)}" r="3.5" class="p${place}"/>`),
    ...known.map(([x, value]) => text(across(x), up(value) + offset, shown(value), { css: `p${place}`, anchor: "middle" })),
    `<line x1="${legend}" x2="${legend + 18}" y1="34" y2="34" class="line l${place}"/>`,
    text(legend + 24, 38, name),
  ];
}

/** The words in lines of a bearable length. */
function wrapped(words) {
  const lines = [""];
  for (const word of words.split(" ")) {
    if ((lines.at(-1) + word).length > CAPTION_CHARACTERS) lines.push("");
    lines[lines.length - 1] += `${word} `;
  }
  return lines.map((line) => line.trim());
}

/** Graphs two by two, and below them on what they were measured. */
export function panels(graphs, caption) {
  const rows = Math.ceil(graphs.length / 2);
  const words = wrapped(caption);
  const [width, height] = [2 * PANEL.width, rows * PANEL.height + 16 * words.length + 8];
  const drawnGraphs = graphs.map((graph, place) => {
    const [x, y] = [(place % 2) * PANEL.width, Math.floor(place / 2) * PANEL.height];
    return `<g transform="translate(${x} ${y})">\n${panel(graph)}\n</g>`;
  });
  const below = words.map((line, place) => text(FRAME.left, rows * PANEL.height + 12 + 16 * place, line, { css: "small" }));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>How the cost of Vigie grows</title>`,
    `<style>${STYLE}\n</style>`,
    ...drawnGraphs,
    ...below,
    "</svg>\n",
  ].join("\n");
}
