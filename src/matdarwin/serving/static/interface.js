// The server's OpenAPI document for people: each operation with what it takes and answers.

import { hooks, Refused, request } from "./api.js";
import { byId, h } from "./dom.js";
import { askKey } from "./key.js";

/** What a schema allows, in words. */
function kind(schema, known) {
  if (!schema) return "";
  if (schema.$ref) return kind(known[schema.$ref.split("/").pop()], known);
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return [...new Set(options.map((one) => kind(one, known)))].join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items, known) || "values"}`;
  return schema.title && schema.properties ? schema.title : schema.type ?? "any";
}

/** The first description of a schema or of what it is put together from. */
const told = (schema) => schema?.description ?? (schema?.anyOf ?? []).map(told).find(Boolean) ?? "";

function fields(rows) {
  if (!rows.length) return null;
  const heads = ["Field", "What it may be", "Meaning"];
  return h("div", { class: "scroll" }, h("table", { class: "small" },
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map(([name, must, schema, text, known]) => h("tr", {},
      h("td", {}, h("code", {}, name), must ? " (needed)" : ""),
      h("td", {}, kind(schema, known) + (schema?.default === undefined || schema.default === null ? "" : `, ${JSON.stringify(schema.default)} by default`)),
      h("td", {}, text || told(schema)))))));
}

function body(operation, known) {
  return Object.entries(operation.requestBody?.content ?? {}).map(([type, { schema }]) => {
    const whole = schema.$ref ? known[schema.$ref.split("/").pop()] : schema;
    const rows = Object.entries(whole.properties ?? {})
      .map(([name, one]) => [name, whole.required?.includes(name), one, null, known]);
    return h("section", {}, h("h3", {}, "Body, ", h("code", {}, type)), fields(rows));
  });
}

function operation(method, path, found, known) {
  const parameters = (found.parameters ?? []).map((one) => [one.name, one.required, one.schema, one.description, known]);
  return h("article", { class: "field operation" },
    h("h2", {}, h("code", {}, `${method.toUpperCase()} ${path}`)),
    h("p", {}, [found.summary, found.description].filter(Boolean).join(". ").replace(/([^.])$/, "$1.")),
    parameters.length ? h("section", {}, h("h3", {}, "In the address"), fields(parameters)) : null,
    body(found, known),
    h("p", { class: "hint" }, "Answers: ", Object.entries(found.responses).map(([code, { description }]) => `${code} ${description}`).join(", "), "."));
}

async function start() {
  hooks.askKey = askKey;
  const box = byId("operations");
  try {
    const described = await (await request("/openapi.json")).json();
    const known = described.components?.schemas ?? {};
    box.replaceChildren(...Object.entries(described.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, found]) => operation(method, path, found, known))));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    box.replaceChildren(h("p", { class: "alert", role: "alert" }, error.message));
  }
}

start();
