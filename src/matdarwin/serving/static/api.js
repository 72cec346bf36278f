// Talks to the server: the key, the retries that it asks for, and its errors in its own words.

const RETRIES = 2;
const LONGEST_WAIT = 30;

/** A refusal of the server. `problem` is its application/problem+json. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the server answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

// In memory alone: what is stored could be read by whatever else this origin ever serves.
let key = null;
let asking = null;

/** What the page does when the server asks for a key, or a wait. */
export const hooks = {
  /** Gives the key, or null where the user gave none. */
  askKey: async () => null,
  waiting: () => {},
};

async function problemOf(response) {
  try {
    const found = await response.json();
    if (found && typeof found === "object") return found;
  } catch {
    // No problem+json, such as a proxy's own page; the status is all that is known.
  }
  return { detail: `the server answered ${response.status} ${response.statusText}`.trim() };
}

export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

/** Seconds after which the server wants to be asked again. */
export function retryAfter(response, otherwise = 1) {
  const seconds = Number(response.headers.get("retry-after"));
  return Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, LONGEST_WAIT) : otherwise;
}

/**
 * A response of status 200.
 * @throws {Refused} Anything else, after the key was asked for and retries were made.
 */
export async function request(path, { method = "GET", body, type, signal } = {}) {
  let retries = 0;
  for (;;) {
    const headers = {};
    if (type) headers["content-type"] = type;
    if (key) headers.authorization = `Bearer ${key}`;
    const used = key;
    let response;
    try {
      response = await fetch(path, { method, headers, body, signal, credentials: "omit", cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused(0, { detail: "the server cannot be reached; is it still running?" });
    }
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status === 401) {
      // Several requests may be refused at once; the user is asked once.
      if (used === key) {
        asking ??= hooks.askKey(used ? `That key was refused: ${problem.detail}` : problem.detail);
        const given = await asking;
        asking = null;
        if (!given) throw new Refused(401, problem);
        key = given;
      }
      continue;
    }
    if ((response.status === 503 || response.status === 429) && retries < RETRIES) {
      retries += 1;
      const seconds = retryAfter(response);
      hooks.waiting(`${problem.detail} (asked again in ${seconds} s, try ${retries} of ${RETRIES})`);
      await pause(seconds, signal);
      continue;
    }
    throw new Refused(response.status, problem);
  }
}

/** A JSON answer to a JSON question. */
export async function post(path, question, signal) {
  const body = JSON.stringify(question);
  return (await request(path, { method: "POST", body, type: "application/json", signal })).json();
}

/** Wait until the model can be asked; `told` gets the server's words as often as it says that it cannot. */
export async function ready(told) {
  for (;;) {
    const response = await fetch("/readyz", { cache: "no-store" }).catch(() => null);
    if (response?.ok) return (await response.json()).model;
    told(response ? (await problemOf(response)).detail : "the server cannot be reached");
    await pause(response ? Math.min(retryAfter(response), 5) : 2);
  }
}
