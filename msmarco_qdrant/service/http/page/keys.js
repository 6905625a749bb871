/** Keyboard navigation; single letters work only within the results. */

const STEPS = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 };

/** The keys of the page. */
export class Keys {
  #query;
  #rankings;

  /**
   * @param {HTMLInputElement} query
   * @param {import("./results.js").Ranking[]} rankings The left one and the right one.
   */
  constructor(query, rankings) {
    this.#query = query;
    this.#rankings = rankings;
    document.addEventListener("keydown", (event) => this.#pressed(event));
    document.addEventListener("focusin", (event) => this.#rove(event.target.closest(".hit")));
  }

  /** Make the first result the one that Tab reaches, with its button. */
  reset() {
    this.#rove(this.#rankings[0].items[0] ?? this.#rankings[1].items[0] ?? null);
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    if (this.#act(event.key, event.target)) event.preventDefault();
  }

  /** Act on a key; return true if it has a meaning where it was pressed. */
  #act(key, target) {
    const item = target.closest?.(".hit");
    if (item) return this.#within(key, item);
    if (key === "/" && !target.closest?.("input, textarea, select")) return this.#toQuery();
    if (key === "ArrowDown" && target === this.#query) return focus(this.#rankings[0].items[0]);
    return false;
  }

  #within(key, item) {
    const [own, other] = this.#sides(item);
    const items = own.items;
    if (key in STEPS) return focus(items[items.indexOf(item) + STEPS[key]]);
    if (key === "Home") return focus(items[0]);
    if (key === "End") return focus(items.at(-1));
    if (key === "Escape" || key === "/") return this.#toQuery();
    const across = own === this.#rankings[0] ? "ArrowRight" : "ArrowLeft";
    if (key !== across) return false;
    return focus(other.twinOf(own, item) ?? other.items[items.indexOf(item)] ?? other.items.at(-1));
  }

  #sides(item) {
    const [left, right] = this.#rankings;
    return left.holds(item) ? [left, right] : [right, left];
  }

  #toQuery() {
    this.#query.select();
    return focus(this.#query);
  }

  #rove(item) {
    if (!item) return;
    for (const one of this.#rankings.flatMap((ranking) => ranking.items)) {
      const reached = one === item ? 0 : -1;
      one.tabIndex = reached;
      for (const button of one.querySelectorAll(".alike")) button.tabIndex = reached;
    }
  }
}

function focus(place) {
  place?.focus();
  return Boolean(place);
}
