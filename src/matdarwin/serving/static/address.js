// Keeps the question in the page's address, so that a reload or a link asks it again.

const LONGEST = 1500;
const LINES = "matdarwin.lines";
const TABLE = "matdarwin.table";

function stored(key, value) {
  try {
    if (value === undefined) return sessionStorage.getItem(key);
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
    return true;
  } catch {
    // Full, or forbidden by the user: the page works on, and forgets at a reload.
    return value === undefined ? null : false;
  }
}

/** The question of the address: lines, tasks (null: none named), coverage, conditions, an answered table; `lost`: its list is not here. */
export function readAddress() {
  const query = new URLSearchParams(location.search);
  let lines = query.getAll("m").flatMap((text) => text.split(/\r?\n/));
  let table = null;
  if (query.get("list") === "kept") lines = (stored(LINES) ?? "").split("\n");
  if (query.get("list") === "table") {
    try {
      table = JSON.parse(stored(TABLE));
    } catch {
      table = null;
    }
  }
  const conditions = {};
  for (const pair of query.getAll("condition")) {
    const at = pair.indexOf("=");
    if (at > 0) conditions[pair.slice(0, at)] = pair.slice(at + 1);
  }
  const coverage = Number(query.get("coverage"));
  lines = lines.filter((line) => line.trim());
  return {
    lines,
    lost: query.has("list") && !lines.length && !table,
    tasks: query.has("task") ? query.getAll("task") : null,
    coverage: coverage > 0 && coverage < 1 ? coverage : null,
    conditions,
    table,
  };
}

/** Write the question into the address. `table` is the answered CSV that is shown, as {name, text, tasks, column}. */
export function writeAddress({ lines, tasks, coverage, conditions, table }) {
  const query = new URLSearchParams();
  if (table) {
    if (stored(TABLE, JSON.stringify(table))) query.set("list", "table");
    stored(LINES, null);
  } else {
    stored(TABLE, null);
    const part = new URLSearchParams(lines.map((line) => ["m", line]));
    if (String(part).length <= LONGEST) {
      for (const line of lines) query.append("m", line);
      stored(LINES, null);
    } else if (stored(LINES, lines.join("\n"))) query.set("list", "kept");
  }
  for (const task of tasks ?? []) query.append("task", task);
  if (coverage !== 0.9) query.set("coverage", String(coverage));
  for (const [name, value] of Object.entries(conditions)) query.append("condition", `${name}=${value}`);
  const text = String(query);
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}
