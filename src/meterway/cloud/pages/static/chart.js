// The curve of today: import above the line, export below it.

import { hourMinute, number, power, quantity, unitName } from "./format.js";

const box = document.getElementById("chart");
const readout = document.getElementById("curve-readout");
const legend = document.getElementById("curve-legend");
const summary = document.getElementById("curve-summary");
let plot = null;
let curve = null;
let data = null;
let running = { at: 0, sum: 0, count: 0 };

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function show(next) {
  curve = next;
  running = { at: 0, sum: 0, count: 0 };
  const line = (direction) => curve.lines.find((each) => each.direction === direction)?.values ?? [];
  const taken = line("import");
  const given = line("export");
  data = [
    [...curve.times],
    curve.times.map((_, index) => (given[index] && !taken[index] ? null : (taken[index] ?? null))),
    curve.times.map((_, index) => (given[index] ? -given[index] : null)),
  ];
  draw();
}

export function clear(text) {
  curve = null;
  plot?.destroy();
  plot = null;
  say(text);
}

/** Add a net power in kW; within a step the mean counts. */
export function append(at, net) {
  if (!curve || curve.source === "register" || !(at >= Date.parse(curve.start) && at < Date.parse(curve.end))) return;
  const first = data[0].length === 0;
  const step = Math.floor(at / 1000 / curve.stepS) * curve.stepS;
  if (step < data[0].at(-1)) return;
  running = running.at === step ? running : { at: step, sum: 0, count: 0 };
  running.sum += net;
  running.count += 1;
  const mean = running.sum / running.count;
  if (step !== data[0].at(-1)) data.forEach((column) => column.push(null));
  const last = data[0].length - 1;
  data[0][last] = step;
  data[1][last] = mean < 0 ? null : mean;
  data[2][last] = mean < 0 ? mean : null;
  if (first) {
    curve.unit = "kW";
    draw();
  } else if (plot) {
    plot.setData(data);
    tell();
  }
}

function say(text) {
  const note = document.createElement("p");
  note.className = "none";
  note.textContent = text;
  box.replaceChildren(note);
  readout.textContent = "";
  legend.hidden = true;
  summary.textContent = "";
}

function draw() {
  plot?.destroy();
  plot = null;
  if (!curve) return;
  if (data[0].length === 0) {
    say(curve.meterId === null ? "No power has been reported today." : "This meter has sent nothing to draw today.");
    return;
  }
  box.replaceChildren();
  plot = new uPlot(options(), data, box);
  tell();
}

function options() {
  const axis = { stroke: colour("muted"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: colour("line"), width: 1 };
  const series = (name, fill) => ({
    stroke: colour(name), fill: colour(fill), width: 1.5, points: { show: false },
    paths: uPlot.paths.stepped({ align: 1 }),
  });
  return {
    width: box.clientWidth,
    height: box.clientHeight,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: {
      x: { range: () => [Date.parse(curve.start) / 1000, Date.parse(curve.end) / 1000] },
      y: { range: (_, low, high) => [low < 0 ? low * 1.1 : 0, high > 0 ? high * 1.1 : low < 0 ? 0 : 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 28, space: 56, incrs: [3600, 7200, 10800, 14400, 21600],
        values: (_, splits) => splits.map((at) => hourMinute(at * 1000)) },
      { ...axis, grid, size: 44, space: 36, values: (_, splits) => splits.map((value) => number(Math.abs(value), 2)) },
    ],
    series: [{}, series("import", "import-fill"), series("export", "export-fill")],
    hooks: { setCursor: [point] },
  };
}

const isPower = () => curve.unit === "kW";

function inWords(value) {
  return isPower() ? power(value).join(" ") : quantity(value, curve.unit);
}

function withDirection(value) {
  return isPower() ? `${value < 0 ? "out" : "in"} ${inWords(value)}` : inWords(value);
}

function point(self) {
  const index = self.cursor.idx;
  const values = index == null ? [] : [data[1][index], data[2][index]].filter((value) => value);
  legend.hidden = values.length > 0 || curve.lines.length < 2;
  readout.textContent = values.length
    ? `${hourMinute(data[0][index] * 1000)} · ${values.map(withDirection).join(" · ")}`
    : "";
}

function tell() {
  legend.hidden = curve.lines.length < 2;
  const parts = [];
  const peak = (column, pick) => data[column].reduce(
    (best, value, index) => (value !== null && (best < 0 || pick(value, data[column][best])) ? index : best), -1);
  const top = peak(1, (a, b) => a > b);
  const low = peak(2, (a, b) => a < b);
  const at = (index) => hourMinute(data[0][index] * 1000);
  if (top >= 0 && data[1][top] > 0) parts.push(`${isPower() ? "Most in" : "Most"} ${inWords(data[1][top])} at ${at(top)}`);
  if (low >= 0) parts.push(`most out ${inWords(data[2][low])} at ${at(low)}`);
  const from = curve.source === "register" ? "from the register" : curve.stepS === 60 ? "mean of each minute" : "every 5 minutes";
  const words = `${parts.join(", ")}. In ${unitName(curve.unit)}, ${from}.`;
  summary.textContent = words.replace(/^\. /, "").replace(/^./, (mark) => mark.toUpperCase());
}

new ResizeObserver(() => plot?.setSize({ width: box.clientWidth, height: box.clientHeight })).observe(box);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
