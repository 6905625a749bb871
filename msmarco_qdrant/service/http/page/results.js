/** One ranking of the page. */

import { element, sign, unseen } from "./dom.js";
import { excerpt } from "./highlight.js";
import { wordsOf } from "./moves.js";
import { brief, score } from "./wording.js";

const FIELDS = 8;

/** A list of hits. */
export class Ranking {
  #list;
  #onLike;
  #items = new Map();
  #pids = new WeakMap();

  /**
   * @param {HTMLElement} list
   * @param {(pid: string) => void} onLike Called to find more passages like one.
   */
  constructor(list, onLike) {
    this.#list = list;
    this.#onLike = onLike;
  }

  get items() {
    return [...this.#list.children];
  }

  /** Return the item of the same passage as another ranking's item, or null. */
  twinOf(other, item) {
    return this.#items.get(other.#pids.get(item)) ?? null;
  }

  holds(item) {
    return this.#pids.has(item) && this.#list.contains(item);
  }

  /**
   * Show hits.
   * @param {object[]} hits
   * @param {Set<string>} stems Words to mark.
   * @param {Map<string, import("./moves.js").Move>} moves By the pid.
   */
  show(hits, stems, moves) {
    const made = hits.map((hit) => [hit.pid, itemOf(hit, stems, moves.get(hit.pid) ?? null, this.#onLike)]);
    this.#items = new Map(made);
    for (const [pid, item] of made) this.#pids.set(item, pid);
    this.#list.replaceChildren(...made.map(([, item]) => item));
  }

  clear() {
    this.#items = new Map();
    this.#list.replaceChildren();
  }
}

function itemOf(hit, stems, move, onLike) {
  const place = element(
    "p",
    { class: "place" },
    element("span", { class: "rank" }, unseen("Rank "), String(hit.rank)),
    move && badge(move),
  );
  return element(
    "li",
    { class: "hit", tabindex: "-1" },
    place,
    element("div", { class: "passage" }, ...textOf(hit, stems), factsOf(hit, onLike)),
  );
}

function badge(move) {
  const { shown, words } = wordsOf(move);
  return element("span", { class: `move ${move.kind}` }, sign(shown), unseen(`, ${words}`));
}

/** Return the passage's text; a long one is cut, with a button for the rest. */
function textOf(hit, stems) {
  const { pieces, cut } = excerpt(hit.text, stems);
  const text = element("p", { class: "text", dir: "auto" }, ...pieces.map(marked));
  if (!cut) return [text];
  const more = element("button", { class: "plain more", type: "button" }, "Show all");
  more.addEventListener("click", () => {
    text.replaceChildren(...excerpt(hit.text, stems, true).pieces.map(marked));
    more.closest(".hit").focus();
    more.remove();
  });
  return [text, more];
}

const marked = ({ text, marked }) => (marked ? element("mark", {}, text) : text);

function factsOf(hit, onLike) {
  const fields = Object.entries(hit.meta);
  const list = element(
    "dl",
    { class: "facts" },
    fact("score", score(hit.score), "score"),
    fact("pid", brief(hit.pid), "pid"),
    ...fields.slice(0, FIELDS).map(([name, value]) => fact(brief(name, 40), brief(value))),
  );
  if (fields.length > FIELDS) list.append(fact("…", `${fields.length - FIELDS} more`));
  const like = element("button", { class: "plain more alike", type: "button" }, "More like this");
  like.tabIndex = -1; // of the result that the keyboard has reached, `Keys` makes it 0
  like.addEventListener("click", () => onLike(hit.pid));
  return element("div", { class: "below" }, list, like);
}

function fact(name, value, kind = "") {
  const parts = [element("dt", { dir: "auto" }, name), element("dd", { dir: "auto" }, value)];
  return element("div", { class: `fact ${kind}`.trim() }, ...parts);
}
