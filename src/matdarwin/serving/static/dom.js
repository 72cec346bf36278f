// Makes elements. Texts become text nodes, never markup, so that what users send cannot be more than text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An HTML element: `h("p", {class: "quiet"}, "text", child)`; keys that begin with `on` are listeners. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** The same for SVG. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Offer text or bytes as a file. */
export function save(parts, name) {
  const url = URL.createObjectURL(new Blob(parts, { type: "text/csv;charset=utf-8" }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  // Not at once: the browser reads it after the click has been handled.
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** A number of a task, with as many decimals as its grid has, as long as that changes nothing. */
export function shown(value, task) {
  if (typeof value !== "number") return value ?? "";
  const fixed = task?.decimals === null || task?.decimals === undefined ? null : value.toFixed(task.decimals);
  return fixed !== null && Number(fixed) === value ? fixed : String(value);
}

export const withUnit = (text, unit) => (unit ? `${text} ${unit}` : text);

/** The interval of a prediction in words; null where it has none. */
export function interval(prediction, task) {
  if (typeof prediction.lower !== "number") return null;
  return withUnit(`${shown(prediction.lower, task)} to ${shown(prediction.upper, task)}`, prediction.unit);
}

/** 0.9 as "90 %". */
export const percent = (share, digits = 1) => `${Number((100 * share).toFixed(digits))} %`;
