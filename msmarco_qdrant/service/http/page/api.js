/** Requests to the sidecar. The token stays here, in memory; a refusal is thrown as a Problem. */

const UNREACHABLE_S = 5;
const NEEDED = "The sidecar answers only requests with this token.";

/** A request was refused (RFC 9457), or got no answer. */
export class Problem extends Error {
  /**
   * @param {string} title
   * @param {string} detail The rule, the value, and the next step.
   * @param {{status?: number, retryAfter?: number,
   *   errors?: {where: string, reason: string}[]}} more
   *   `retryAfter` in seconds, 0 if another attempt is useless.
   */
  constructor(title, detail, { status = 0, retryAfter = 0, errors = [] } = {}) {
    super(title);
    Object.assign(this, { title, detail, status, retryAfter, errors });
  }
}

/** The sidecar that served the page. */
export class Sidecar {
  #token = "";
  #asking = null;
  #declined = false;
  #askToken;

  /** @param {(why: string) => Promise<string | null>} askToken Asks the user; null if declined. */
  constructor(askToken) {
    this.#askToken = askToken;
  }

  get hasToken() {
    return this.#token !== "";
  }

  /** True if a token is needed and the user declined to enter it. */
  get declined() {
    return this.#declined;
  }

  forgetToken() {
    this.#token = "";
    this.#declined = true;
  }

  /** Return the status. Asks for no token that was declined. */
  status(signal) {
    return this.#send("status", { signal });
  }

  /** Return the newest batches. Asks for no token that was declined. */
  async batches(limit) {
    return (await this.#send(`batches?limit=${limit}`, {})).batches;
  }

  /** Return the values of a field. Asks for no token that was declined. */
  async facets(request, signal) {
    return (await this.#post("facets", request, signal)).facets;
  }

  /** Return the hits of a search. */
  async search(search, signal) {
    this.#declined = false;
    return (await this.#post("search", search, signal)).hits;
  }

  /** Return the passages similar to one. */
  async similar(request, signal) {
    this.#declined = false;
    return (await this.#post("similar", request, signal)).hits;
  }

  /** Return a passage, null without one; `tenant` is the part of a request that names it. */
  async passage(pid, tenant, signal) {
    const query = new URLSearchParams(tenant);
    try {
      return await this.#send(`passages/${encodeURIComponent(pid)}?${query}`, { signal });
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  /** Ask for a token before a request was refused. */
  async enterToken() {
    this.#declined = false;
    await this.#renewToken(NEEDED);
  }

  #post(path, request, signal) {
    const headers = { "Content-Type": "application/json" };
    return this.#send(path, { method: "POST", headers, body: JSON.stringify(request), signal });
  }

  async #send(path, options) {
    for (;;) {
      const token = this.#token;
      const response = await this.#fetch(path, options, token);
      if (response.ok) return response.json();
      const problem = await problemOf(response);
      if (problem.status !== 401 && problem.status !== 403) throw problem;
      const why = token ? `The token was not accepted. ${problem.detail}` : NEEDED;
      if (token === this.#token && !(await this.#renewToken(why))) throw problem;
      options.signal?.throwIfAborted();
    }
  }

  async #fetch(path, { headers = {}, ...options }, token) {
    const all = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
    try {
      return await fetch(new URL(path, document.baseURI), {
        ...options,
        headers: all,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Problem("The sidecar does not answer", "It may be restarting.", {
        retryAfter: UNREACHABLE_S,
      });
    }
  }

  /** Ask for a token, once for all requests that need one; return true if there is a new one. */
  async #renewToken(why) {
    if (this.#declined) return false;
    this.#asking ??= this.#askToken(why).finally(() => (this.#asking = null));
    const token = await this.#asking;
    this.#declined = token === null;
    if (token !== null) this.#token = token;
    return token !== null;
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(body.title ?? `Status ${response.status}`, body.detail ?? "", {
    status: response.status,
    retryAfter: response.status === 503 ? secondsOf(response.headers.get("Retry-After")) : 0,
    errors: Array.isArray(body.errors) ? body.errors : [],
  });
}

/** Return the seconds of a Retry-After, which is a number or a date; 0 for none. */
function secondsOf(header) {
  if (header === null) return 0;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? 0 : Math.max(1, Math.ceil(seconds));
}
