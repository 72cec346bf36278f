// The properties to ask for, and their conditions: what can be chosen, and what is suggested.

import { byId, h } from "./dom.js";
import { kindsOf } from "./guess.js";

const KINDS = { composition: "formulas", molecule: "SMILES", name: "names" };
const HEADS = { composition: "Of a composition", molecule: "Of a molecule", name: "Of a named material" };
const MOST = 6;
const CONDITIONS_KEPT = new Map();

/** The checkboxes of the tasks, and the fields of their conditions. */
export class Choices {
  constructor(tasks, { changed }) {
    this.tasks = tasks;
    this.byId = new Map(tasks.map((task) => [task.id, task]));
    this.changed = changed;
    /** Whether the user, or the address, chose; nothing is chosen for them then. */
    this.own = false;
    this.boxes = new Map();
    const groups = Object.keys(HEADS).map((kind) => this.group(kind)).filter(Boolean);
    byId("tasks").replaceChildren(...groups);
    byId("take-suggested").addEventListener("click", () => {
      this.own = false;
      this.suggest(this.lines ?? []);
      this.changed();
    });
    byId("take-none").addEventListener("click", () => this.choose([]));
  }

  group(kind) {
    const found = this.tasks.filter((task) => task.representation === kind);
    if (!found.length) return null;
    return h("div", { class: "group", role: "group", "aria-label": HEADS[kind] }, h("h3", {}, HEADS[kind]),
      found.map((task) => {
        const box = h("input", { type: "checkbox", value: task.id, onchange: () => this.choose(null) });
        const badge = h("span", { class: "badge", hidden: true }, "suggested");
        this.boxes.set(task.id, { box, badge });
        return h("label", { class: "choice" }, box,
          h("span", {}, task.title, " ", h("span", { class: "quiet" }, this.measure(task)), " ", badge));
      }));
  }

  measure(task) {
    const needed = task.conditions.filter((one) => one.required).map((one) => one.name);
    return [task.unit ?? (task.labels.length ? task.labels.join(" or ") : "no unit"), ...needed.map((name) => `at a ${name}`)]
      .join(", ");
  }

  get chosen() {
    return this.tasks.filter((task) => this.boxes.get(task.id).box.checked);
  }

  /** Choose these tasks for good; null: as the boxes stand. */
  choose(ids) {
    this.own = true;
    if (ids) for (const [id, { box }] of this.boxes) box.checked = ids.includes(id);
    this.drawConditions();
    this.changed();
  }

  /** Suggest what suits the lines, and choose it unless the user has chosen. */
  suggest(lines) {
    this.lines = lines;
    const kinds = [...kindsOf(lines)].sort((a, b) => b[1] - a[1]).map(([kind]) => kind);
    const suits = (task) => kinds.includes(task.representation);
    const fitting = this.tasks.filter(suits);
    for (const task of this.tasks) this.boxes.get(task.id).badge.hidden = !fitting.includes(task);
    byId("suggestion").textContent = this.words(lines, kinds, fitting);
    if (this.own) return;
    // What needs a condition cannot be asked before it is given, so it is chosen where there is nothing else.
    const rest = fitting.length ? fitting : this.tasks.filter((task) => task.representation === this.tasks[0]?.representation);
    const simple = rest.filter((task) => !task.conditions.some((one) => one.required));
    const taken = (simple.length ? simple : rest).slice(0, MOST);
    for (const [id, { box }] of this.boxes) box.checked = taken.some((task) => task.id === id);
    this.drawConditions();
  }

  words(lines, kinds, fitting) {
    if (!lines.length) return "Those that suit your materials are suggested as you type.";
    const names = kinds.map((kind) => KINDS[kind]).join(" and ");
    if (!fitting.length) return `These look like ${names}; this model has no property for those.`;
    return `These look like ${names}; ${fitting.length} ${fitting.length === 1 ? "property suits" : "properties suit"} them.`;
  }

  /** Tasks that a line is asked: of the chosen ones those of its kind; all, where none is. */
  suited(kind) {
    const { chosen } = this;
    const own = chosen.filter((task) => task.representation === kind);
    return own.length ? own : chosen;
  }

  // -- conditions --------------------------------------------------------------------------------------------

  drawConditions() {
    const wanted = new Map();
    for (const task of this.chosen) {
      for (const condition of task.conditions) {
        const had = wanted.get(condition.name);
        wanted.set(condition.name, { ...condition, required: condition.required || had?.required });
      }
    }
    const box = byId("conditions");
    const names = [...wanted.keys()].join("\n");
    if (box.dataset.names === names) return;
    box.dataset.names = names;
    box.replaceChildren(...[...wanted.values()].map((one) => {
      const id = `condition-${one.name.replace(/\W/g, "-")}`;
      const field = h("input", { id, autocomplete: "off", inputmode: one.unit ? "decimal" : null,
        value: CONDITIONS_KEPT.get(one.name) ?? "", required: Boolean(one.required),
        oninput: () => {
          CONDITIONS_KEPT.set(one.name, field.value.trim());
          this.changed();
        } });
      const name = one.name[0].toUpperCase() + one.name.slice(1);
      return h("div", { class: "condition" },
        h("label", { for: id }, `${name}${one.unit ? ` (${one.unit})` : ""}${one.required ? "" : ", may be left out"}`), field);
    }));
  }

  setConditions(given) {
    for (const [name, value] of Object.entries(given)) CONDITIONS_KEPT.set(name, value);
  }

  /** The given conditions that these tasks have; numbers as numbers. */
  conditions(tasks) {
    const found = {};
    for (const condition of tasks.flatMap((task) => task.conditions)) {
      const text = CONDITIONS_KEPT.get(condition.name);
      if (text) found[condition.name] = condition.unit && Number.isFinite(Number(text)) ? Number(text) : text;
    }
    return found;
  }
}
