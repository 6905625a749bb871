/**
 * Requests to the sidecar. The token is kept here, in memory, and nowhere else; what is refused is
 * thrown as a Problem.
 */

const UNREACHABLE_S = 5;
const NEEDED = "The sidecar answers only those who bring it.";

/** A request was refused (RFC 9457), or had no answer at all. */
export class Problem extends Error {
  /**
   * @param {string} title
   * @param {string} detail What to do about it.
   * @param {{status?: number, retryAfter?: number,
   *   errors?: {where: string, reason: string}[]}} more
   *   `retryAfter` in seconds, 0 if trying again is of no use.
   */
  constructor(title, detail, { status = 0, retryAfter = 0, errors = [] } = {}) {
    super(title);
    Object.assign(this, { title, detail, status, retryAfter, errors });
  }
}

/** The sidecar that the page came from. */
export class Sidecar {
  #token = "";
  #asking = null;
  #declined = false;
  #askToken;

  /** @param {(why: string) => Promise<string | null>} askToken Asks a person; null if declined. */
  constructor(askToken) {
    this.#askToken = askToken;
  }

  get hasToken() {
    return this.#token !== "";
  }

  /** Whether a token is needed that nobody wanted to give. */
  get declined() {
    return this.#declined;
  }

  forgetToken() {
    this.#token = "";
    this.#declined = true;
  }

  /** What is searched, and what waits in the spool. Asks for no token that was declined. */
  status(signal) {
    return this.#send("status", { signal });
  }

  /** The hits of a search. */
  async search(search, signal) {
    this.#declined = false;
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify(search);
    return (await this.#send("search", { method: "POST", headers, body, signal })).hits;
  }

  /** Let a person give a token without waiting for a refusal. */
  async enterToken() {
    this.#declined = false;
    await this.#renew(NEEDED);
  }

  async #send(path, options) {
    for (;;) {
      const token = this.#token;
      const response = await this.#fetched(path, options, token);
      if (response.ok) return response.json();
      const problem = await problemOf(response);
      if (problem.status !== 401 && problem.status !== 403) throw problem;
      const why = token ? `That one was not accepted. ${problem.detail}` : NEEDED;
      if (token === this.#token && !(await this.#renew(why))) throw problem;
      options.signal?.throwIfAborted();
    }
  }

  async #fetched(path, { headers = {}, ...options }, token) {
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
      throw new Problem("The sidecar does not answer", "It may be starting again.", {
        retryAfter: UNREACHABLE_S,
      });
    }
  }

  /** Ask for a token, once for all requests that need one; whether there is a new one. */
  async #renew(why) {
    if (this.#declined) return false;
    this.#asking ??= this.#askToken(why).finally(() => (this.#asking = null));
    const given = await this.#asking;
    this.#declined = given === null;
    if (given !== null) this.#token = given;
    return given !== null;
  }
}

async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  return new Problem(told.title ?? `Status ${response.status}`, told.detail ?? "", {
    status: response.status,
    retryAfter: response.status === 503 ? secondsOf(response.headers.get("Retry-After")) : 0,
    errors: Array.isArray(told.errors) ? told.errors : [],
  });
}

/** Of a Retry-After, which is a number of seconds or a date; 0 for none. */
function secondsOf(header) {
  if (header === null) return 0;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? 0 : Math.max(1, Math.ceil(seconds));
}
