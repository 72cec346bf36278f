// The page: takes the question, asks the server in batches, and shows the answers.

import { hooks, pause, post, ready, Refused, request } from "./api.js";
import { readAddress, writeAddress } from "./address.js";
import { Choices } from "./choices.js";
import { materialColumn, readCsv } from "./csv.js";
import { Detail } from "./detail.js";
import { byId, h, percent, save } from "./dom.js";
import { guessKind } from "./guess.js";
import { askKey } from "./key.js";
import { Answers } from "./table.js";

/** Answers that are asked for at a time, so that progress can be seen and a stop comes soon. */
const BATCH = 64;
/** More answers than this are sent as they are: the server says whether it takes so many. */
const MANY = 1000;

const first = readAddress();
let choices = null;
let running = null;
let file = null;
let table = null;

const status = (text) => {
  byId("status").textContent = text;
};

function alarm(error) {
  const text = typeof error === "string" ? error : error?.message;
  byId("error").replaceChildren(...(text ? [h("p", { class: "alert" }, text)] : []));
}

const answers = new Answers(byId("table"), {
  open: (row) => openDetail(row),
  changed: ({ rows, shownRows }) => {
    byId("count").textContent = shownRows.length === rows.length
      ? `${rows.length.toLocaleString("en-GB")}` : `${shownRows.length} of ${rows.length} shown`;
  },
});
let opened = null;
const detail = new Detail(byId("detail"), {
  closed: () => {
    byId("results").classList.remove("two");
    answers.mark(null);
    if (opened) answers.focus(opened);
    opened = null;
  },
});

function openDetail(row) {
  opened = row;
  byId("results").classList.add("two");
  answers.mark(row);
  detail.open(row, { material: row.prediction.input, task: row.prediction.task, ...row.asked }, row.task);
}

const lines = () => byId("materials").value.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
const coverage = () => Number(byId("coverage").value);

function setCoverage(value) {
  const select = byId("coverage");
  if (![...select.options].some((option) => Number(option.value) === value)) {
    select.append(h("option", { value }, `${percent(value, 3)} of true values inside`));
  }
  select.value = [...select.options].find((option) => Number(option.value) === value).value;
}

function remember() {
  if (!choices) return;
  writeAddress({
    lines: lines(), tasks: choices.own || lines().length || table ? choices.chosen.map((task) => task.id) : null,
    coverage: coverage(), conditions: choices.conditions(choices.chosen), table,
  });
}

let later = null;
function rememberSoon() {
  // Browsers refuse an address that changes with every key.
  clearTimeout(later);
  later = setTimeout(remember, 250);
}

// -- asking ----------------------------------------------------------------------------------------------------

/** Lines with the same tasks together, in batches: `{tasks, items: [{text, line}]}`. */
function batches(texts) {
  const groups = new Map();
  texts.forEach((text, line) => {
    const tasks = choices.suited(guessKind(text));
    const key = tasks.map((task) => task.id).join();
    if (!groups.has(key)) groups.set(key, { tasks, items: [] });
    groups.get(key).items.push({ text, line });
  });
  const total = [...groups.values()].reduce((sum, { tasks, items }) => sum + tasks.length * items.length, 0);
  const found = [];
  for (const { tasks, items } of groups.values()) {
    const size = total > MANY ? items.length : Math.max(1, Math.floor(BATCH / tasks.length));
    for (let i = 0; i < items.length; i += size) found.push({ tasks, items: items.slice(i, i + size) });
  }
  return { found, total };
}

async function askLines(texts, signal) {
  const { found, total } = batches(texts);
  const share = coverage();
  let done = 0;
  for (const { tasks, items } of found) {
    const conditions = choices.conditions(tasks);
    const question = { materials: items.map(({ text }) => text), tasks: tasks.map(({ id }) => id), coverage: share };
    if (Object.keys(conditions).length) question.conditions = conditions;
    let answered;
    try {
      answered = await post("/v1/predict", question, signal);
    } catch (error) {
      const row = error.problem?.row;
      if (Number.isInteger(row) && items[row]) error.message += ` (line ${items[row].line + 1} of the list)`;
      throw error;
    }
    answers.add(answered.predictions.map((prediction, i) => {
      const task = tasks[i % tasks.length];
      const asked = { coverage: share };
      const own = choices.conditions([task]);
      if (Object.keys(own).length) asked.conditions = own;
      return { prediction, task, asked, order: items[Math.floor(i / tasks.length)].line * 1000 + (i % tasks.length) };
    }));
    byId("results").hidden = false;
    done += answered.predictions.length;
    byId("progress").value = done / total;
    status(`${done.toLocaleString("en-GB")} of ${total.toLocaleString("en-GB")} answers.`);
  }
  return done;
}

async function askFile(signal) {
  const tasks = choices.chosen;
  const query = new URLSearchParams(tasks.map(({ id }) => ["task", id]));
  const column = byId("column").value.trim();
  if (column) query.set("column", column);
  query.set("coverage", String(coverage()));
  const conditions = choices.conditions(tasks);
  for (const [name, value] of Object.entries(conditions)) query.append("condition", `${name}=${value}`);
  byId("progress").removeAttribute("value");
  const response = await request(`/v1/predict/csv?${query}`, { method: "POST", body: file, type: "text/csv", signal });
  let bytes;
  try {
    bytes = await response.arrayBuffer();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refused(0, { detail: "the answer broke off before its end; the server's log says why" });
  }
  table = {
    name: file.name, text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes), tasks: tasks.map(({ id }) => id),
    column, coverage: coverage(), conditions,
  };
  return showTable();
}

/** Show the answered CSV; returns its number of answers. */
function showTable() {
  const tasks = table.tasks.map((id) => choices.byId.get(id)).filter(Boolean);
  const [header, ...rows] = readCsv(table.text);
  const width = header.length - 6 * tasks.length;
  const at = materialColumn(header.slice(0, width), table.column, [tasks[0].representation]);
  const number = (text) => (text === "" ? null : Number(text));
  const found = rows.slice(0, MANY).flatMap((cells, line) => tasks.map((task, i) => {
    const [value, unit, lower, upper, state, reason] = cells.slice(width + 6 * i, width + 6 * i + 6);
    const prediction = {
      input: cells[at] ?? "", material: null, task: task.id, unit: unit || null, lower: number(lower), upper: number(upper),
      value: value === "" ? null : task.kind === "regression" ? Number(value) : value,
      coverage: lower === "" ? null : table.coverage, status: state, reason: reason || null, notes: [],
    };
    const asked = { coverage: table.coverage };
    const own = Object.entries(table.conditions).filter(([name]) => task.conditions.some((one) => one.name === name));
    if (own.length) asked.conditions = Object.fromEntries(own);
    return { prediction, task, asked, order: line * 1000 + i };
  }));
  answers.add(found);
  byId("results").hidden = false;
  byId("download-file").hidden = false;
  if (rows.length > MANY) alarm(`The table shows the first ${MANY} of ${rows.length} rows; the download has them all.`);
  return rows.length * tasks.length;
}

function busy(on) {
  byId("predict").disabled = on;
  byId("cancel").hidden = !on;
  byId("progress").hidden = !on;
  byId("progress").value = 0;
  byId("ask").setAttribute("aria-busy", String(on));
}

/** Clear what was answered before. */
function reset() {
  alarm("");
  opened = null;
  if (detail.isOpen) detail.close();
  answers.clear();
  byId("results").hidden = true;
  byId("download-file").hidden = true;
  byId("filter").value = "";
  answers.setFilter("");
  table = null;
}

async function predict() {
  if (running || !choices) return;
  reset();
  const texts = lines();
  if (!file && !texts.length) return alarm("Type a material, or choose a CSV.");
  if (!choices.chosen.length) return alarm("Choose a property.");
  running = new AbortController();
  busy(true);
  status("Asking.");
  const began = performance.now();
  try {
    const count = file ? await askFile(running.signal) : await askLines(texts, running.signal);
    const seconds = (performance.now() - began) / 1000;
    status(`${count.toLocaleString("en-GB")} ${count === 1 ? "answer" : "answers"} in ${seconds.toFixed(1)} s.`);
    remember();
  } catch (error) {
    if (running.signal.aborted) status(`Cancelled; ${answers.rows.length} answers had come.`);
    else {
      status("");
      alarm(error);
      if (!(error instanceof Refused)) throw error;
    }
  } finally {
    running = null;
    busy(false);
  }
}

// -- files -----------------------------------------------------------------------------------------------------

async function takeFile(chosen) {
  file = chosen ?? null;
  byId("file-chosen").hidden = !file;
  byId("column-field").hidden = !file;
  byId("materials").disabled = Boolean(file);
  byId("file-name").textContent = file ? file.name : "";
  byId("file").value = "";
  alarm("");
  await suggest();
}

/** Suggest from the lines, or from the first rows of the file. */
async function suggest() {
  if (!choices) return;
  let texts = lines();
  if (file) {
    const [header = [], ...rows] = readCsv(await file.slice(0, 65536).text(), 50);
    const at = materialColumn(header, byId("column").value.trim());
    texts = at < 0 ? [] : rows.map((cells) => cells[at] ?? "").filter(Boolean);
  }
  choices.suggest(texts);
}

function wire() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  byId("cancel").addEventListener("click", () => running?.abort());
  byId("materials").addEventListener("input", async () => {
    await suggest();
    rememberSoon();
  });
  byId("coverage").addEventListener("change", rememberSoon);
  byId("column").addEventListener("input", suggest);
  byId("filter").addEventListener("input", () => answers.setFilter(byId("filter").value));
  byId("download").addEventListener("click", () => save([answers.csv()], "predictions.csv"));
  byId("download-file").addEventListener("click", () => {
    save([table.text], table.name.replace(/(\.csv)?$/i, ".predicted.csv"));
  });
  byId("file").addEventListener("change", () => byId("file").files[0] && takeFile(byId("file").files[0]));
  byId("file-remove").addEventListener("click", () => takeFile(null));
  const drop = byId("drop");
  for (const kind of ["dragover", "drop"]) {
    // Beside the field too, or the browser would leave the page for the file.
    window.addEventListener(kind, (event) => event.preventDefault());
  }
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      predict();
    } else if (event.key === "Escape" && detail.isOpen && !byId("key")?.open) detail.close();
  });
}

async function start() {
  hooks.askKey = askKey;
  hooks.waiting = status;
  byId("materials").value = first.lines.join("\n");
  if (first.coverage) setCoverage(first.coverage);
  wire();
  const model = await ready((words) => status(`Not ready yet: ${words}`));
  status("");
  let listed = null;
  while (!listed) {
    try {
      listed = await (await request("/v1/tasks")).json();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      alarm(error);
      // A key that was not given is asked for by the next thing that the user does.
      if (error.status === 401) return;
      await pause(5);
    }
  }
  byId("model").textContent = `Properties of materials, each with an interval. Model ${model}.`;
  alarm("");
  choices = new Choices(listed.tasks, { changed: rememberSoon });
  choices.setConditions(first.conditions);
  if (first.tasks) {
    const unknown = first.tasks.filter((id) => !choices.byId.has(id));
    choices.choose(first.tasks);
    if (unknown.length) alarm(`This model does not know ${unknown.join(", ")}; choose among its properties.`);
  }
  choices.suggest(lines());
  if (first.lost) alarm("The list of this address was kept in the tab that asked it, and is not here; paste it again.");
  if (first.table && first.table.tasks?.every((id) => choices.byId.has(id))) {
    table = first.table;
    status(`${showTable().toLocaleString("en-GB")} answers of ${table.name}, kept from before.`);
    remember();
  } else if (first.lines.length && choices.chosen.length) await predict();
}

start();
