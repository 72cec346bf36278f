// The panel of one answer: its distribution, elements, neighbours, what would change it, and the question.

import { post, Refused } from "./api.js";
import { h, interval, percent, shown, withUnit } from "./dom.js";
import { periodicTable } from "./elements.js";
import { plot } from "./plots.js";

const WHAT_IF = {
  without: { label: "Leave one element out", key: "without_element", none: "No element can be left out of it." },
  swaps: { label: "Swap one element", key: "swapped_element", none: "No element of it has a neighbour to swap for." },
  wordings: { label: "Ask in other words", key: "wordings", none: "It was not asked." },
};

const table = (heads, rows) => h("div", { class: "scroll" }, h("table", { class: "small" },
  h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
  h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));

const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

function signed(delta, task) {
  if (delta === null || delta === undefined) return "";
  if (task?.labels?.length) return `${delta > 0 ? "+" : ""}${(100 * delta).toFixed(1)} points`;
  const text = shown(Number(delta.toPrecision(6)), task);
  return delta > 0 ? `+${text}` : text;
}

function headline(prediction, task) {
  if (prediction.value === null) return h("p", { class: "headline" }, `No answer (${prediction.status})`);
  return h("p", { class: "headline" }, withUnit(shown(prediction.value, task), prediction.unit));
}

/** The interval in words. */
function sentence(prediction, task) {
  const words = interval(prediction, task);
  if (words) {
    return `The true value is expected between ${words.replace(" to ", " and ")}: such intervals hold it in `
      + `${percent(prediction.coverage)} of cases.`;
  }
  if (prediction.probabilities && typeof prediction.value === "string") {
    return `${prediction.value} has a probability of ${percent(prediction.probabilities[prediction.value])}.`;
  }
  return null;
}

function averages(prediction, task) {
  if (typeof prediction.outside !== "number") return null;
  const parts = [];
  if (typeof prediction.mean === "number") {
    parts.push(`Mean ${Number(prediction.mean.toPrecision(4))}, most likely ${shown(prediction.mode, task)}.`);
  }
  // Where it is much, the server's own note says so.
  const noted = prediction.notes.some((note) => note.includes("outside the answer format"));
  if (prediction.outside >= 0.001 && !noted) parts.push(`${percent(prediction.outside)} of the probability lies on texts that are no answer.`);
  return parts.length ? h("p", { class: "hint" }, parts.join(" ")) : null;
}

function neighbours(explained, task) {
  if (explained.neighbours_missing) return h("p", {}, `None are shown: ${explained.neighbours_missing}.`);
  if (!explained.neighbours.length) return h("p", {}, "None are near.");
  const trained = { true: "taught", false: "held out", null: "not known" };
  const asked = explained.neighbours.some((one) => Object.keys(one.conditions ?? {}).length);
  return table(["Material", "Measured", ...(asked ? ["Conditions"] : []), "Distance", "In training", "Source"],
    explained.neighbours.map((one) => [
      one.material,
      withUnit(shown(one.target, task), one.unit),
      ...(asked ? [Object.entries(one.conditions ?? {}).map(([name, value]) => `${name} ${value}`).join(", ")] : []),
      one.distance.toFixed(3),
      trained[String(one.training)],
      one.source,
    ]));
}

function changes(part, explained, task) {
  const found = explained[WHAT_IF[part].key];
  if (!found.length) return h("p", {}, WHAT_IF[part].none);
  const { unit } = explained.prediction;
  const value = (one) => (one.value === null ? "none" : withUnit(shown(one.value, task), unit));
  if (part === "wordings") {
    const known = { true: "taught", false: "not taught", null: "not known" };
    return table(["Wording", "Value", "In training"], found.map((one) => [
      one.wording + (one.asked ? " (the one asked)" : ""), value(one), known[String(one.taught)]]));
  }
  const change = explained.prediction.probabilities ? `Change of P(${explained.prediction.value})` : "Change";
  if (part === "without") {
    return table(["Without", "Leaves", "Value", change],
      found.map((one) => [one.element, one.material, value(one), signed(one.delta, task)]));
  }
  return table(["Swap", "Gives", "Value", change, "New element in training"], found.map((one) => [
    `${one.element} → ${one.by}`, one.material, value(one), signed(one.delta, task),
    one.seen ? one.seen.toLocaleString("en-GB") : "never"]));
}

/** The panel in `element`. `closed()` is called once it has closed. */
export class Detail {
  constructor(element, { closed }) {
    this.element = element;
    this.closed = closed;
    this.abort = null;
  }

  get isOpen() {
    return !this.element.hidden;
  }

  close() {
    this.abort?.abort();
    this.element.hidden = true;
    this.element.replaceChildren();
    this.closed();
  }

  /** Show the answer to `question` ({material, task, coverage, conditions}), whose task is `task`. */
  async open(row, question, task) {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    const body = h("div", {}, h("p", { class: "quiet", role: "status" }, "Looking closer."));
    const title = h("h2", { id: "detail-title", tabindex: "-1" }, row.prediction.material || row.prediction.input);
    this.element.replaceChildren(
      h("div", { class: "bar" }, title,
        h("button", { type: "button", class: "plain", id: "detail-close", onclick: () => this.close() }, "Close")),
      h("p", { class: "quiet" }, task?.title ?? question.task), body);
    this.element.hidden = false;
    title.focus({ preventScroll: true });
    if (title.getBoundingClientRect().top < 0 || title.getBoundingClientRect().top > window.innerHeight - 120) {
      this.element.scrollIntoView({ block: "start" });
    }
    try {
      const explained = await post("/v1/explain", { ...question, parts: ["neighbours"] }, abort.signal);
      body.replaceChildren(...this.parts(explained, question, task, abort.signal));
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof Refused)) throw error;
      body.replaceChildren(h("p", { role: "alert", class: "alert" }, error.message));
    }
  }

  parts(explained, question, task, signal) {
    const { prediction } = explained;
    const words = sentence(prediction, task);
    const remarks = [prediction.reason, ...prediction.notes].filter(Boolean);
    const width = Math.round(Math.max(260, Math.min(560, this.element.clientWidth - 40)));
    const found = [
      headline(prediction, task),
      words ? h("p", { id: "interval" }, words) : null,
      remarks.length ? h("ul", { class: "remarks" }, remarks.map((text) => h("li", {}, text))) : null,
      explained.distribution && prediction.value !== null
        ? h("figure", {}, plot(explained.distribution, prediction, task, width),
          h("figcaption", {}, prediction.lower === null ? "How probable the model thinks each answer."
            : "How probable the model thinks each value. The interval is shaded; the line is the value."))
        : null,
      averages(prediction, task),
    ];
    if (prediction.material !== null) {
      const outlined = Object.keys(explained.elements);
      found.push(
        outlined.length ? section("Elements in training", periodicTable(task?.elements ?? {}, outlined)) : null,
        section("Nearest in the data", neighbours(explained, task)),
        section("What if", this.whatIf(question, task, signal)),
        section("The question as the model reads it", h("pre", { id: "prompt" }, explained.prompt)));
    }
    return found.filter(Boolean);
  }

  whatIf(question, task, signal) {
    const shownPart = h("div", { id: "what-if", "aria-live": "polite" });
    const buttons = Object.entries(WHAT_IF).map(([part, { label }]) => h("button", { type: "button", "data-part": part,
      "aria-pressed": "false",
      onclick: async (event) => {
        for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
        const pressed = event.currentTarget;
        shownPart.replaceChildren(h("p", { class: "quiet" }, "Asking."));
        let answer;
        try {
          const explained = await post("/v1/explain", { ...question, parts: [part] }, signal);
          answer = changes(part, explained, task);
        } catch (error) {
          if (signal.aborted) return;
          if (!(error instanceof Refused)) throw error;
          answer = h("p", { role: "alert", class: "alert" }, error.message);
        }
        // Another may have been chosen meanwhile.
        if (pressed.getAttribute("aria-pressed") === "true") shownPart.replaceChildren(answer);
      } }, label));
    return h("div", {}, h("div", { class: "line" }, buttons), shownPart);
  }
}
