/** The newest batches of HTTP and of the inbox: what waits, and what the last ones did. */

import { element, sign, unseen } from "./dom.js";
import { age, brief, whole } from "./wording.js";

const LIMIT = 20;
const SIGNS = { queued: "○", working: "◐", done: "●", failed: "✕" };
const EFFECTS = [
  ["written", "written"],
  ["unchanged", "unchanged"],
  ["deleted", "deleted"],
  ["superseded", "superseded"],
  ["rejected", "rejected"],
];
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** The list, requested while it is open. */
export class Timeline {
  #details;
  #list;
  #sidecar;
  #shown = null;

  /**
   * @param {HTMLDetailsElement} details
   * @param {HTMLElement} list
   * @param {import("./api.js").Sidecar} sidecar
   */
  constructor(details, list, sidecar) {
    this.#details = details;
    this.#list = list;
    this.#sidecar = sidecar;
    details.addEventListener("toggle", () => this.refresh());
  }

  /** Request the batches, if the list is open. */
  async refresh() {
    if (!this.#details.open) return;
    try {
      this.#show(await this.#sidecar.batches(LIMIT));
    } catch (problem) {
      this.#shown = null;
      this.#list.replaceChildren(element("li", { class: "note" }, problem.title ?? String(problem)));
    }
  }

  #show(batches) {
    const known = JSON.stringify(batches);
    if (known === this.#shown && batches.every(({ ended_at: ended }) => ended)) return;
    this.#shown = known;
    const items = batches.map(itemOf);
    if (!items.length) items.push(element("li", { class: "note" }, "No batch yet."));
    this.#list.replaceChildren(...items);
  }
}

function itemOf(batch) {
  const accepted = new Date(batch.accepted_at);
  const { state, source, reason } = batch;
  const time = element("time", {}, clockOf(accepted));
  time.dateTime = batch.accepted_at;
  time.title = DAY.format(accepted);
  return element(
    "li",
    { class: `batch ${state}` },
    time,
    element("span", { class: "sign" }, sign(SIGNS[state] ?? "?"), unseen(`${state}: `)),
    element("span", { class: "source", dir: "auto" }, source === "http" ? "HTTP" : brief(source, 60)),
    element("span", { class: "effect" }, effectOf(batch)),
    reason && element("span", { class: "reason", dir: "auto" }, brief(reason, 200)),
  );
}

function effectOf(batch) {
  const since = (moment) => (Date.now() - new Date(moment)) / 1000;
  if (batch.state === "queued") return `waits for ${age(Math.max(0, since(batch.accepted_at)))}`;
  if (batch.state === "working") return "is being applied";
  const parts = EFFECTS.filter(([name]) => batch[name]).map(
    ([name, word]) => `${whole(batch[name])} ${word}`,
  );
  const took = (new Date(batch.ended_at) - new Date(batch.accepted_at)) / 1000;
  const after = took < 1 ? "within a second" : `after ${age(took)}`;
  return `${parts.join(", ") || "no change"}, ${after}`;
}

/** Return the time of day; with the date if it was another day. */
function clockOf(moment) {
  const today = moment.toDateString() === new Date().toDateString();
  return (today ? CLOCK : DAY).format(moment);
}
