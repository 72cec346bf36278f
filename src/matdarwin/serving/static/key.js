// Asks for the API key, which the page keeps in its memory alone.

import { byId, h } from "./dom.js";

function dialog() {
  const made = h("dialog", { id: "key", "aria-labelledby": "key-title" },
    h("form", { id: "key-form", novalidate: true },
      h("h2", { id: "key-title" }, "This server asks for an API key"),
      h("p", { id: "key-why", role: "alert" }),
      h("label", { for: "key-text" }, "API key"),
      h("input", { id: "key-text", type: "password", autocomplete: "off" }),
      h("p", { class: "hint" }, "It is kept in this page's memory alone and is asked for again after a reload."),
      h("div", { class: "actions" },
        h("button", { class: "main" }, "Use this key"),
        h("button", { type: "button", id: "key-cancel" }, "Cancel"))));
  document.body.append(made);
  return made;
}

/** The key that the user gives, null for none; `why` says why it is asked for. */
export function askKey(why) {
  const asked = byId("key") ?? dialog();
  const field = byId("key-text");
  byId("key-why").textContent = why;
  field.value = "";
  return new Promise((resolve) => {
    let given = null;
    const end = new AbortController();
    const { signal } = end;
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      given = field.value.trim() || null;
      asked.close();
    }, { signal });
    byId("key-cancel").addEventListener("click", () => asked.close(), { signal });
    asked.addEventListener("close", () => {
      end.abort();
      field.value = "";
      resolve(given);
    }, { signal });
    asked.showModal();
    field.focus();
  });
}
