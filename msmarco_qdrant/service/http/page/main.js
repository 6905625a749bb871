/** The search page: a query, two rankings side by side, and how the one became the other. */

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

/** The page's parts, and what happens between them. */
class Page {
  #sidecar = new Sidecar(askToken);
  #left = new Ranking(byId("left-hits"));
  #right = new Ranking(byId("right-hits"));
  #keys = new Keys(byId("query"), [this.#left, this.#right]);
  #rankings = new Rankings(byId("left"), byId("right"), () => this.#again());
  #state = new State(this.#sidecar, (status) => this.#offered(status));
  #running = new AbortController();
  #asked = "";
  #twins = [];

  async start() {
    byId("search").addEventListener("submit", (event) => this.#submitted(event));
    byId("filter").addEventListener("input", () => byId("filter").setCustomValidity(""));
    byId("token-button").addEventListener("click", () => this.#changeToken());
    addEventListener("popstate", () => this.#fromAddress());
    for (const type of ["mouseover", "focusin"]) {
      byId("results").addEventListener(type, (event) => this.#showTwins(event.target));
    }
    await this.#state.refresh();
    this.#showToken();
    this.#fromAddress();
    await this.#state.watch();
  }

  // ---- what is asked ------------------------------------------------------------------------

  #submitted(event) {
    event.preventDefault();
    const query = byId("query").value.trim();
    const address = new URL(location.href);
    if (query !== (address.searchParams.get("q") ?? "")) {
      address.search = query ? new URLSearchParams({ q: query }) : "";
      history.pushState(null, "", address);
    }
    this.#search(query);
  }

  /** Search for what the address asks for: a search can be shared, and gone back to. */
  #fromAddress() {
    const query = new URL(location.href).searchParams.get("q") ?? "";
    byId("query").value = query;
    this.#search(query);
  }

  #offered({ modes, rerank }) {
    this.#rankings.offer(modes, rerank);
    this.#again();
  }

  #again() {
    if (this.#asked) this.#search(this.#asked);
  }

  /** Search, and go on trying where that may help; an earlier search is given up. */
  async #search(query) {
    this.#running.abort();
    const { signal } = (this.#running = new AbortController());
    this.#asked = query;
    const options = query ? optionsOf() : null;
    if (options === null) return this.#clear();
    document.title = `${query} · msmarco-qdrant`;
    for (;;) {
      try {
        await this.#show(query, options, signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        await this.#failed(error, signal);
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

  /** Tell of a problem; ends when it is time to try again, if it ever is. */
  async #failed(error, signal) {
    this.#clearResults();
    showProblem(error);
    this.#showToken();
    if (!error.retryAfter) return;
    await pause(error.retryAfter, signal).catch(() => null);
    await visible();
  }

  // ---- what is shown ------------------------------------------------------------------------

  #fill([left, right], stems) {
    const moves = right ? movesBetween(left, right) : new Map();
    this.#left.show(left, stems, right ? leftOut(left, right) : new Map());
    this.#right.show(right ?? [], stems, moves);
    byId("results").classList.toggle("alone", !right);
    byId("results").removeAttribute("aria-busy");
    setText(byId("told"), toldOf(left, right, moves));
    this.#keys.reset();
    this.#showToken();
  }

  #clear() {
    byId("problem").replaceChildren();
    this.#clearResults();
    if (!this.#asked) document.title = "msmarco-qdrant";
  }

  #clearResults() {
    byId("results").removeAttribute("aria-busy");
    setText(byId("told"), "");
    this.#left.clear();
    this.#right.clear();
  }

  /** Let the same passage stand out on the other side. */
  #showTwins(target) {
    const item = target.closest(".hit");
    const twins = [this.#left, this.#right].flatMap((side) => {
      const other = side === this.#left ? this.#right : this.#left;
      return item && side.holds(item) ? [item, other.twinOf(side, item)] : [];
    });
    for (const one of this.#twins) one.classList.remove("twin");
    this.#twins = twins.includes(null) ? [] : twins;
    for (const one of this.#twins) one.classList.add("twin");
  }

  // ---- the token ----------------------------------------------------------------------------

  async #changeToken() {
    if (this.#sidecar.hasToken) {
      this.#sidecar.forgetToken();
      this.#running.abort();
      this.#asked = "";
      this.#clear();
    } else {
      await this.#sidecar.enterToken();
      this.#again();
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

/** Limit and filter as they are given; null, and the field says why, if the filter is no JSON. */
function optionsOf() {
  const filter = byId("filter");
  const limit = Number(byId("limit").value);
  if (!filter.value.trim()) return { limit };
  try {
    return { limit, filter: JSON.parse(filter.value) };
  } catch (error) {
    byId("options").open = true;
    filter.setCustomValidity(`This is no JSON: ${error.message}`);
    filter.reportValidity();
    return null;
  }
}

function showProblem(error) {
  if (!(error instanceof Problem)) console.error(error);
  const { title, detail, retryAfter, errors } =
    error instanceof Problem ? error : new Problem("The page has a fault", String(error));
  const wrong = errors.map(({ where, reason }) => element("li", {}, `${where}: ${reason}`));
  const again = `Trying again every ${count(retryAfter, "second", "seconds")}.`;
  const told = element(
    "div",
    {},
    element("p", { class: "title" }, title),
    element("p", {}, detail),
    wrong.length ? element("ul", {}, ...wrong) : null,
    retryAfter ? element("p", { class: "note" }, again) : null,
  );
  // the same once more is not read out again
  if (told.textContent !== byId("problem").textContent) byId("problem").replaceChildren(told);
}

function toldOf(left, right, moves) {
  if (!left.length && !right?.length) return "No passage answers this.";
  if (!right) return `${count(left.length, "passage", "passages")}.`;
  const fresh = [...moves.values()].filter((move) => move.kind === "new").length;
  const both = right.length - fresh;
  const sizes = [left, right].map((hits) => count(hits.length, "passage", "passages"));
  const size = sizes[0] === sizes[1] ? `${sizes[0]} in each ranking` : sizes.join(" against ");
  return `${size}: ${both} in both, ${fresh} new in the second.`;
}

await new Page().start();
