/** The search page: a query, two rankings side by side, and the moves between them. */

import { Problem, Sidecar } from "./api.js";
import { byId, element, setText } from "./dom.js";
import { Facets } from "./facets.js";
import { Filter } from "./filter.js";
import { stemsOf } from "./highlight.js";
import { Keys } from "./keys.js";
import { leftOut, movesBetween } from "./moves.js";
import { Rankings } from "./rankings.js";
import { Ranking } from "./results.js";
import { State } from "./state.js";
import { Tenant } from "./tenant.js";
import { Timeline } from "./timeline.js";
import { pause, visible } from "./timing.js";
import { askToken } from "./token.js";
import { brief, count } from "./wording.js";

/** The page's parts and their events. */
class Page {
  #sidecar = new Sidecar(askToken);
  #filter = new Filter(byId("filter"));
  #tenant = new Tenant(byId("tenant-row"), byId("tenant"), () => this.#refilter());
  #facets = new Facets(byId("facets"), this.#sidecar, this.#filter, this.#tenant, () =>
    this.#refilter(),
  );
  #timeline = new Timeline(byId("timeline"), byId("batches"), this.#sidecar);
  #left = new Ranking(byId("left-hits"), (pid) => this.#openLike(pid));
  #right = new Ranking(byId("right-hits"), (pid) => this.#openLike(pid));
  #keys = new Keys(byId("query"), [this.#left, this.#right]);
  #rankings = new Rankings(byId("left"), byId("right"), () => this.#searchAgain());
  #state = new State(
    this.#sidecar,
    (status) => this.#offer(status),
    () => this.#timeline.refresh(),
  );
  #running = new AbortController();
  #query = "";
  #like = "";
  #twins = [];

  async start() {
    byId("search").addEventListener("submit", (event) => this.#submit(event));
    byId("filter").addEventListener("change", () => this.#facets.refresh());
    byId("like-back").addEventListener("click", () => this.#closeLike());
    byId("token-button").addEventListener("click", () => this.#changeToken());
    addEventListener("popstate", () => this.#searchAddress());
    for (const type of ["mouseover", "focusin"]) {
      byId("results").addEventListener(type, (event) => this.#showTwins(event.target));
    }
    const { query, like } = addressed();
    byId("query").value = query;
    await this.#state.refresh();
    this.#showToken();
    const searched = this.#query || this.#like; // the user may have searched already
    if ((query || like) && !searched) this.#search(query, like);
    await this.#state.watch();
  }

  // ---- searches -----------------------------------------------------------------------------

  #submit(event) {
    event.preventDefault();
    const query = byId("query").value.trim();
    address(query);
    this.#search(query);
    this.#facets.refresh();
  }

  /** Search for the query of the address, so that a search can be shared and returned to. */
  #searchAddress() {
    const { query, like } = addressed();
    byId("query").value = query;
    this.#search(query, like);
  }

  #offer({ modes, rerank, fields, tenant_field: tenantField }) {
    this.#tenant.offer(tenantField);
    this.#rankings.offer(modes, rerank);
    this.#facets.offer(fields);
    this.#searchAgain();
  }

  #searchAgain() {
    if (this.#query || this.#like) this.#search(this.#query, this.#like);
  }

  /** Search by a filter or a tenant that has changed. */
  #refilter() {
    this.#facets.refresh();
    this.#searchAgain();
  }

  // ---- more like a passage ------------------------------------------------------------------

  #openLike(pid) {
    address(this.#query, pid);
    this.#search(this.#query, pid);
    scrollTo({ top: 0 });
    byId("like-back").focus();
  }

  #closeLike() {
    address(this.#query);
    this.#search(this.#query);
    byId("query").focus();
  }

  async #showLike(pid, options, signal) {
    byId("results").setAttribute("aria-busy", "true");
    const [found, passage] = await Promise.all([
      this.#sidecar.similar({ pid, ...options }, signal),
      this.#sidecar.passage(pid, this.#tenant.part, signal),
    ]);
    signal.throwIfAborted();
    byId("problem").replaceChildren();
    setText(byId("like-text"), brief(passage?.text ?? pid, 160));
    this.#fill([found], new Set());
  }

  /** Search, and retry where that may help; cancel an earlier search. */
  async #search(query, like = "") {
    this.#running.abort();
    const { signal } = (this.#running = new AbortController());
    [this.#query, this.#like] = [query, like];
    byId("like").hidden = !like;
    byId("results").classList.toggle("likes", Boolean(like));
    const options = query || like ? this.#options() : null;
    if (options === null) return this.#clear();
    document.title = `${like ? `Like ${brief(like, 40)}` : query} · msmarco-qdrant`;
    for (;;) {
      try {
        if (like) await this.#showLike(like, options, signal);
        else await this.#show(query, options, signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        await this.#showFailure(error, signal);
        if (signal.aborted || !error.retryAfter) return;
      }
    }
  }

  /**
   * Return limit, filter and tenant; null, with a message at the field, if the filter is not JSON
   * or the tenant is missing.
   */
  #options() {
    if (this.#tenant.missing) {
      this.#tenant.ask();
      return null;
    }
    const limit = Number(byId("limit").value);
    try {
      const filter = this.#filter.value;
      return { limit, ...(filter !== undefined && { filter }), ...this.#tenant.part };
    } catch (error) {
      byId("options").open = true;
      this.#filter.refuse(error);
      return null;
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
    if (!this.#query && !this.#like) document.title = "msmarco-qdrant";
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
      this.#query = this.#like = "";
      byId("like").hidden = true;
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

/** Return the query and the pid that the address has, "" for none. */
function addressed() {
  const { searchParams } = new URL(location.href);
  return { query: searchParams.get("q") ?? "", like: searchParams.get("like") ?? "" };
}

/** Write a search to the address, if it is another one. */
function address(query, like = "") {
  const now = addressed();
  if (now.query === query && now.like === like) return;
  const next = new URL(location.href);
  next.search = new URLSearchParams({ ...(query && { q: query }), ...(like && { like }) });
  history.pushState(null, "", next);
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
