/** The search page: a query, two rankings side by side, and the moves between them. */

import { Problem, Sidecar } from "./api.js";
import { byId, element, setText } from "./dom.js";
import { stemsOf } from "./highlight.js";
import { Keys } from "./keys.js";
import { leftOut, movesBetween } from "./moves.js";
import { Rankings } from "./rankings.js";
import { Ranking } from "./results.js";
import { State } from "./state.js";
import { pause, visible } from "./timing.js";
import { askToken } from "./token.js";
import { count } from "./wording.js";

/** The page's parts and their events. */
class Page {
  #sidecar = new Sidecar(askToken);
  #left = new Ranking(byId("left-hits"));
  #right = new Ranking(byId("right-hits"));
  #keys = new Keys(byId("query"), [this.#left, this.#right]);
  #rankings = new Rankings(byId("left"), byId("right"), () => this.#searchAgain());
  #state = new State(this.#sidecar, (status) => this.#offer(status));
  #running = new AbortController();
  #query = "";
  #twins = [];

  async start() {
    byId("search").addEventListener("submit", (event) => this.#submit(event));
    byId("filter").addEventListener("input", () => byId("filter").setCustomValidity(""));
    byId("token-button").addEventListener("click", () => this.#changeToken());
    addEventListener("popstate", () => this.#searchAddress());
    for (const type of ["mouseover", "focusin"]) {
      byId("results").addEventListener(type, (event) => this.#showTwins(event.target));
    }
    const query = addressQuery();
    byId("query").value = query;
    await this.#state.refresh();
    this.#showToken();
    if (query && !this.#query) this.#search(query); // the user may have searched already
    await this.#state.watch();
  }

  // ---- searches -----------------------------------------------------------------------------

  #submit(event) {
    event.preventDefault();
    const query = byId("query").value.trim();
    const address = new URL(location.href);
    if (query !== addressQuery()) {
      address.search = query ? new URLSearchParams({ q: query }) : "";
      history.pushState(null, "", address);
    }
    this.#search(query);
  }

  /** Search for the query of the address, so that a search can be shared and returned to. */
  #searchAddress() {
    const query = addressQuery();
    byId("query").value = query;
    this.#search(query);
  }

  #offer({ modes, rerank }) {
    this.#rankings.offer(modes, rerank);
    this.#searchAgain();
  }

  #searchAgain() {
    if (this.#query) this.#search(this.#query);
  }

  /** Search, and retry where that may help; cancel an earlier search. */
  async #search(query) {
    this.#running.abort();
    const { signal } = (this.#running = new AbortController());
    this.#query = query;
    const options = query ? optionsOf() : null;
    if (options === null) return this.#clear();
    document.title = `${query} · msmarco-qdrant`;
    for (;;) {
      try {
        await this.#show(query, options, signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        await this.#showFailure(error, signal);
        if (signal.aborted || !error.retryAfter) return;
      }
    }
  }

  async #show(query, options, signal) {
    byId("results").setAttribute("aria-busy", "true");
    const wanted = this.#rankings.wanted;
    const found = await Promise.all(
      wanted.map((ranking) => this.#sidecar.search({ query, ...options, ...ranking }, signal)),
    );
    signal.throwIfAborted();
    byId("problem").replaceChildren();
    this.#fill(found, stemsOf(query));
  }

  /** Show a problem; return when it is time to try again, or at once if it never is. */
  async #showFailure(error, signal) {
    this.#clearResults();
    showProblem(error);
    this.#showToken();
    if (!error.retryAfter) return;
    await pause(error.retryAfter, signal).catch(() => null);
    await visible();
  }

  // ---- results ------------------------------------------------------------------------------

  #fill([left, right], stems) {
    const moves = right ? movesBetween(left, right) : new Map();
    this.#left.show(left, stems, right ? leftOut(left, right) : new Map());
    this.#right.show(right ?? [], stems, moves);
    byId("results").classList.toggle("alone", !right);
    byId("results").removeAttribute("aria-busy");
    setText(byId("summary"), summaryOf(left, right, moves));
    this.#keys.reset();
    this.#showToken();
  }

  #clear() {
    byId("problem").replaceChildren();
    this.#clearResults();
    if (!this.#query) document.title = "msmarco-qdrant";
  }

  #clearResults() {
    byId("results").removeAttribute("aria-busy");
    setText(byId("summary"), "");
    this.#left.clear();
    this.#right.clear();
  }

  /** Highlight the same passage on the other side. */
  #showTwins(target) {
    const item = target.closest(".hit");
    const twins = [this.#left, this.#right].flatMap((side) => {
      const other = side === this.#left ? this.#right : this.#left;
      return item && side.holds(item) ? [item, other.twinOf(side, item)] : [];
    });
    for (const twin of this.#twins) twin.classList.remove("twin");
    this.#twins = twins.includes(null) ? [] : twins;
    for (const twin of this.#twins) twin.classList.add("twin");
  }

  // ---- the token ----------------------------------------------------------------------------

  async #changeToken() {
    if (this.#sidecar.hasToken) {
      this.#sidecar.forgetToken();
      this.#running.abort();
      this.#query = "";
      this.#clear();
    } else {
      await this.#sidecar.enterToken();
      this.#searchAgain();
    }
    this.#showToken();
    await this.#state.refresh();
  }

  #showToken() {
    const { hasToken, declined } = this.#sidecar;
    byId("token-button").hidden = !hasToken && !declined;
    setText(byId("token-button"), hasToken ? "Forget the token" : "Enter the token");
  }
}

const addressQuery = () => new URL(location.href).searchParams.get("q") ?? "";

/** Return limit and filter; null, with a message at the field, if the filter is not JSON. */
function optionsOf() {
  const filter = byId("filter");
  const limit = Number(byId("limit").value);
  if (!filter.value.trim()) return { limit };
  try {
    return { limit, filter: JSON.parse(filter.value) };
  } catch (error) {
    byId("options").open = true;
    filter.setCustomValidity(`The filter must be JSON: ${error.message}`);
    filter.reportValidity();
    return null;
  }
}

function showProblem(error) {
  if (!(error instanceof Problem)) console.error(error);
  const { title, detail, retryAfter, errors } =
    error instanceof Problem ? error : new Problem("The page has an error", String(error));
  const wrong = errors.map(({ where, reason }) => element("li", {}, `${where}: ${reason}`));
  const again = `Trying again every ${count(retryAfter, "second", "seconds")}.`;
  const shown = element(
    "div",
    {},
    element("p", { class: "title" }, title),
    element("p", {}, detail),
    wrong.length ? element("ul", {}, ...wrong) : null,
    retryAfter ? element("p", { class: "note" }, again) : null,
  );
  // screen readers would read the same problem again
  if (shown.textContent !== byId("problem").textContent) byId("problem").replaceChildren(shown);
}

function summaryOf(left, right, moves) {
  if (!left.length && !right?.length) return "No passage found.";
  if (!right) return `${count(left.length, "passage", "passages")}.`;
  const fresh = [...moves.values()].filter((move) => move.kind === "new").length;
  const both = right.length - fresh;
  const sizes = [left, right].map((hits) => count(hits.length, "passage", "passages"));
  const size = sizes[0] === sizes[1] ? `${sizes[0]} in each ranking` : sizes.join(" against ");
  return `${size}: ${both} in both, ${fresh} new in the second.`;
}

await new Page().start();
