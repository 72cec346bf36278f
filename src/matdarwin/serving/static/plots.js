// The predictive distribution as a picture.

import { interval, percent, s, shown, withUnit } from "./dom.js";

const BARS = 56;
const HEIGHT = 190;
const MARGIN = { left: 12, right: 12, top: 24, bottom: 40 };

function quantile(values, weights, share) {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) {
    sum += weights[i];
    if (sum >= share) return values[i];
  }
  return values[values.length - 1];
}

/** Round numbers from low to high, about `count` of them. */
export function ticks(low, high, count = 5) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((one) => one >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(10)));
  return found;
}

/** The window to draw: the middle 99 %, the interval and the value, with a little air. */
function range(values, weights, prediction, grid) {
  const ends = [quantile(values, weights, 0.005), quantile(values, weights, 0.995)];
  for (const end of [prediction.lower, prediction.upper, prediction.value]) if (typeof end === "number") ends.push(end);
  const low = Math.min(...ends);
  const high = Math.max(...ends);
  const air = high > low ? 0.03 * (high - low) : 5 * grid;
  return [low - air, high + air];
}

/** Masses of equal bins, each a whole number of the task's grid steps and around its values, or a comb would be drawn. */
function binned(values, weights, low, high, grid) {
  const step = grid * Math.max(1, Math.ceil((high - low) / BARS / grid));
  const from = Math.floor(low / step) * step - grid / 2;
  const masses = new Array(Math.ceil((high - from) / step) + 1).fill(0);
  values.forEach((value, i) => {
    const at = Math.floor((value - from) / step);
    if (at >= 0 && at < masses.length) masses[at] += weights[i];
  });
  return { masses, from, step };
}

function numbers(distribution, prediction, task, width) {
  const { values } = distribution;
  const total = distribution.probabilities.reduce((a, b) => a + b, 0) || 1;
  const weights = distribution.probabilities.map((p) => p / total);
  const grid = 10 ** -(task?.decimals ?? 2);
  const window = range(values, weights, prediction, grid);
  const { masses, from: low, step } = binned(values, weights, ...window, grid);
  const high = low + step * masses.length;
  const top = Math.max(...masses) || 1;
  const floor = HEIGHT - MARGIN.bottom;
  const x = (value) => MARGIN.left + (value - low) / (high - low) * (width - MARGIN.left - MARGIN.right);
  const y = (mass) => floor - mass / top * (floor - MARGIN.top);
  // One path: a step function that is closed along the axis.
  let path = `M${x(low).toFixed(1)},${floor}`;
  masses.forEach((mass, i) => {
    path += `V${y(mass).toFixed(1)}H${x(low + (i + 1) * step).toFixed(1)}`;
  });
  path += `V${floor}Z`;
  const has = typeof prediction.lower === "number";
  const middle = x(prediction.value);
  return s("svg", { class: "plot", viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img",
    "aria-label": `Distribution of the answer. Value ${withUnit(shown(prediction.value, task), prediction.unit)}`
      + (has ? `, interval ${interval(prediction, task)}.` : ".") },
    has ? s("rect", { class: "band", x: x(prediction.lower).toFixed(1), y: MARGIN.top - 8,
      width: Math.max(1, x(prediction.upper) - x(prediction.lower)).toFixed(1), height: floor - MARGIN.top + 8 }) : null,
    s("path", { class: "mass", d: path }),
    s("line", { class: "value", x1: middle, x2: middle, y1: MARGIN.top - 8, y2: floor }),
    s("text", { class: "value-label", x: Math.min(Math.max(middle, 34), width - 34), y: 11, "text-anchor": "middle" },
      withUnit(shown(prediction.value, task), prediction.unit)),
    s("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: floor, y2: floor }),
    ticks(low, high).map((at) => [
      s("line", { class: "axis", x1: x(at), x2: x(at), y1: floor, y2: floor + 4 }),
      s("text", { x: x(at), y: floor + 17, "text-anchor": "middle" }, String(at)),
    ]).flat(),
    s("text", { x: width / 2, y: HEIGHT - 5, "text-anchor": "middle" },
      withUnit(task?.property ?? "", prediction.unit ? `(${prediction.unit})` : null)));
}

function classes(distribution, prediction, width) {
  const line = 30;
  const total = distribution.labels.length * line;
  const names = Math.min(0.42 * width, 12 + 7.2 * Math.max(...distribution.labels.map((label) => label.length)));
  const room = width - names - 60;
  return s("svg", { class: "plot", viewBox: `0 0 ${width} ${total}`, width, height: total, role: "img",
    "aria-label": `Probabilities. ${distribution.labels.map((l, i) => `${l}: ${percent(distribution.probabilities[i])}`).join("; ")}.` },
    distribution.labels.map((label, i) => {
      const share = distribution.probabilities[i];
      const bar = Math.max(1, room * share);
      const y = i * line;
      return [
        s("text", { class: label === prediction.value ? "chosen" : null, x: names - 8, y: y + 19, "text-anchor": "end" }, label),
        s("path", { class: label === prediction.value ? "mass chosen" : "mass",
          d: `M${names.toFixed(1)},${y + 6}h${bar.toFixed(1)}v18h${(-bar).toFixed(1)}Z` }),
        s("text", { x: names + bar + 8, y: y + 19 }, percent(share)),
      ];
    }).flat());
}

/** The plot of an explanation's distribution, `width` pixels wide. */
export function plot(distribution, prediction, task, width) {
  return distribution.labels ? classes(distribution, prediction, width) : numbers(distribution, prediction, task, width);
}
