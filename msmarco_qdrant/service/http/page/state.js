/** The collection and the spool, requested repeatedly while the page is visible. */

import { byId, setText } from "./dom.js";
import { pause, visible } from "./timing.js";
import { age, count } from "./wording.js";

const CALM_S = 5;
const BUSY_S = 2;

/** The head of the page. */
export class State {
  #sidecar;
  #onChange;
  #onStatus;
  #known = null;

  /**
   * @param {import("./api.js").Sidecar} sidecar
   * @param {(status: object) => void} onChange Called when the search modes or the fields change.
   * @param {() => void} onStatus Called after each status.
   */
  constructor(sidecar, onChange, onStatus) {
    this.#sidecar = sidecar;
    this.#onChange = onChange;
    this.#onStatus = onStatus;
  }

  /** Refresh until the page closes. */
  async watch() {
    for (;;) {
      await visible();
      await pause(await this.refresh());
    }
  }

  /** Request the status once; return the seconds until the next request. */
  async refresh() {
    try {
      return this.#show(await this.#sidecar.status());
    } catch (problem) {
      this.#showSpool("unknown", problem.title ?? "The page has an error");
      return CALM_S;
    }
  }

  #show(status) {
    const { batches, oldest_s: oldest } = status.spool;
    setText(byId("version"), status.version);
    showAbout(status);
    if (status.model === null) this.#showSpool("busy", "The model is loading…");
    else if (batches === 0) this.#showSpool("calm", "Nothing waits: all passages are searchable");
    else this.#showSpool("busy", `${count(batches, "batch waits", "batches wait")}, ${agedOf(oldest)}`);
    this.#offer(status);
    this.#onStatus();
    return status.model === null || batches > 0 ? BUSY_S : CALM_S;
  }

  #showSpool(state, words) {
    byId("spool").dataset.state = state;
    setText(byId("spool-text"), words);
  }

  #offer(status) {
    if (status.model === null) return;
    const known = JSON.stringify([
      status.modes,
      status.rerank,
      status.fields,
      status.tenant_field,
    ]);
    if (known === this.#known) return;
    this.#known = known;
    this.#onChange(status);
  }
}

const agedOf = (seconds) => `the oldest for ${age(seconds)}`;

function showAbout({ collection, model, passages }) {
  setText(byId("collection"), collection ?? "passages");
  const parts = model ? [model.name, count(model.dimension, "dimension", "dimensions")] : [];
  if (passages !== null) parts.push(count(passages, "passage", "passages"));
  setText(byId("about"), parts.join(" · "));
}
