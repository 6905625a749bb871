/** The rankings that a search can make, and the two that are shown side by side. */

import { element } from "./dom.js";

const NAMES = { dense: "Dense", bm25: "BM25", hybrid: "Hybrid" };
const RERANKED = "+rerank";
const NONE = "";

/** The two menus. */
export class Rankings {
  #left;
  #right;
  #chosen = false;

  /**
   * @param {HTMLSelectElement} left
   * @param {HTMLSelectElement} right
   * @param {() => void} onChange
   */
  constructor(left, right, onChange) {
    this.#left = left;
    this.#right = right;
    for (const menu of [left, right]) {
      menu.addEventListener("change", () => {
        this.#chosen = true;
        onChange();
      });
    }
    this.offer(["dense", "bm25", "hybrid"], false);
  }

  /** Offer rankings; the user's choice stays if it is among them. */
  offer(modes, rerank) {
    const values = modes.flatMap((mode) => (rerank ? [mode, mode + RERANKED] : [mode]));
    const [left, right] = suggested(values);
    fill(this.#left, values, this.#chosen ? this.#left.value : left, left);
    fill(this.#right, [...values, NONE], this.#chosen ? this.#right.value : right, right);
  }

  /** Return `mode` and `rerank` of one ranking, or of two. */
  get wanted() {
    const values = [this.#left.value, this.#right.value];
    return values.filter((value) => value !== NONE).map(searchOf);
  }
}

/** Return the pair that differs most: with and without reranking, or else words and vectors. */
function suggested(values) {
  const pairs = [
    ["hybrid", "hybrid" + RERANKED],
    ["dense", "bm25"],
  ];
  const found = pairs.find((pair) => pair.every((value) => values.includes(value)));
  return found ?? [values[0] ?? NONE, values[1] ?? NONE];
}

function searchOf(value) {
  return { mode: value.replace(RERANKED, ""), rerank: value.endsWith(RERANKED) };
}

function nameOf(value) {
  if (value === NONE) return "Nothing";
  const { mode, rerank } = searchOf(value);
  return `${NAMES[mode] ?? mode}${rerank ? ", reranked" : ""}`;
}

function fill(menu, values, wanted, otherwise) {
  const made = values.map((value) => {
    const option = element("option", {}, nameOf(value));
    option.value = value;
    return option;
  });
  menu.replaceChildren(...made);
  menu.value = values.includes(wanted) ? wanted : otherwise;
}
