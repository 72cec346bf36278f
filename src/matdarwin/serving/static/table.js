// The table of answers: it sorts, filters, and is walked by arrow keys.

import { h, interval, shown, withUnit } from "./dom.js";
import { writeCsv } from "./csv.js";

const MARKS = { ok: "✓", uncalibrated: "~", unread: "?", invalid: "✕" };

const width = (p) => (typeof p.lower === "number" ? p.upper - p.lower : null);

const COLUMNS = [
  { name: "Material", of: (row) => row.prediction.input },
  { name: "Property", of: (row) => row.task?.title ?? row.prediction.task },
  { name: "Value", of: (row) => row.prediction.value, number: true },
  { name: "Interval", of: (row) => width(row.prediction), number: true, hint: "sorts by its width" },
  { name: "Status", of: (row) => row.prediction.status },
  { name: "Remarks", of: (row) => remarks(row.prediction) },
];

const remarks = (prediction) => [prediction.reason, ...(prediction.notes ?? [])].filter(Boolean).join("; ");

/** Numbers by size, before texts; texts as people sort them; what is missing last in either direction. */
function compare(a, b, direction) {
  const missing = (x) => x === null || x === undefined || x === "";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if (typeof a === "number" && typeof b === "number") return direction * (a - b);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return direction * a.localeCompare(b, "en", { numeric: true });
}

/** The table in `element`; `open(row)` is called for the row that the user chooses. */
export class Answers {
  constructor(element, { open, changed }) {
    this.rows = [];
    this.sorted = null;
    this.filter = "";
    this.open = open;
    this.changed = changed;
    this.heads = COLUMNS.map((column, at) => h("th", { scope: "col", class: column.number ? "number" : null },
      h("button", { type: "button", title: column.hint ?? null, onclick: () => this.sort(at) }, column.name)));
    this.body = h("tbody", { onclick: (event) => this.clicked(event), onkeydown: (event) => this.pressed(event) });
    element.replaceChildren(h("thead", {}, h("tr", {}, this.heads)), this.body);
  }

  clear() {
    this.rows = [];
    this.body.replaceChildren();
    this.sort(null);
  }

  /** Add rows of `{order, prediction, task}`. */
  add(rows) {
    for (const row of rows) {
      row.element = this.draw(row);
      row.text = [...row.element.cells].map((cell) => cell.textContent).join("\n").toLowerCase();
      row.element.hidden = !row.text.includes(this.filter);
    }
    const last = this.rows.at(-1);
    this.rows.push(...rows);
    if (this.sorted || (last && rows[0] && last.order > rows[0].order)) this.arrange();
    else {
      this.body.append(...rows.map((row) => row.element));
      this.rove();
      this.changed(this);
    }
  }

  draw(row) {
    const { prediction, task } = row;
    const name = h("button", { type: "button", class: "open", tabindex: "-1", title: "Details" }, prediction.input || "(empty)");
    const value = withUnit(shown(prediction.value, task), prediction.value === null ? null : prediction.unit);
    const element = h("tr", { class: prediction.status },
      h("th", { scope: "row" }, name),
      h("td", {}, row.task?.title ?? prediction.task),
      h("td", { class: "number" }, value || "none"),
      h("td", { class: "number interval" }, interval(prediction, task) ?? ""),
      h("td", {}, h("span", { class: `status ${prediction.status}` },
        h("span", { "aria-hidden": "true" }, MARKS[prediction.status] ?? ""), ` ${prediction.status}`)),
      h("td", { class: "remarks" }, remarks(prediction)));
    element.row = row;
    return element;
  }

  /** Sort by a column: rising, then falling, then in the order of the question. */
  sort(at) {
    const again = this.sorted && at !== null && this.sorted.at === at;
    if (at === null || (again && this.sorted.direction < 0)) this.sorted = null;
    else this.sorted = { at, direction: again ? -1 : 1 };
    this.heads.forEach((head, i) => {
      const here = this.sorted?.at === i;
      head.setAttribute("aria-sort", !here ? "none" : this.sorted.direction > 0 ? "ascending" : "descending");
    });
    this.arrange();
  }

  arrange() {
    const ordered = this.rows;
    if (this.sorted) {
      const { at, direction } = this.sorted;
      const { of } = COLUMNS[at];
      ordered.sort((a, b) => compare(of(a), of(b), direction) || a.order - b.order);
    } else ordered.sort((a, b) => a.order - b.order);
    this.body.append(...ordered.map((row) => row.element));
    this.rove();
    this.changed(this);
  }

  setFilter(text) {
    this.filter = text.trim().toLowerCase();
    for (const row of this.rows) row.element.hidden = !row.text.includes(this.filter);
    this.rove();
    this.changed(this);
  }

  get shownRows() {
    return this.rows.filter((row) => !row.element.hidden);
  }

  /** One row alone is reached by Tab; the arrows go on from there. */
  rove(wanted = null) {
    const rows = this.shownRows;
    const kept = wanted ?? this.current;
    this.current?.element.querySelector("button").setAttribute("tabindex", "-1");
    this.current = rows.includes(kept) ? kept : rows[0] ?? null;
    this.current?.element.querySelector("button").setAttribute("tabindex", "0");
  }

  focus(row) {
    if (!row) return;
    this.rove(row);
    row.element.querySelector("button").focus();
  }

  mark(row) {
    this.body.querySelector("[aria-current]")?.removeAttribute("aria-current");
    row?.element.setAttribute("aria-current", "true");
  }

  clicked(event) {
    const row = event.target.closest("tr")?.row;
    // A text that is being marked for copying is no wish for details.
    if (!row || (!event.target.closest("button") && String(window.getSelection()))) return;
    this.focus(row);
    this.open(row);
  }

  pressed(event) {
    const rows = this.shownRows;
    const at = rows.indexOf(event.target.closest("tr")?.row);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.focus(rows[Math.max(0, Math.min(rows.length - 1, to))]);
  }

  /** The shown rows as CSV, in the order shown. */
  csv() {
    const names = ["input", "material", "task", "value", "unit", "lower", "upper", "coverage", "status", "reason", "notes", "model"];
    const rows = this.shownRows.map(({ prediction, task }) => names.map((name) => {
      const value = prediction[name];
      return name === "notes" ? (value ?? []).join("; ") : shown(value, ["value", "lower", "upper"].includes(name) ? task : null);
    }));
    return writeCsv([names, ...rows]);
  }
}
