/** What is searched and what waits in the spool, asked again and again while somebody looks. */

import { byId, setText } from "./dom.js";
import { pause, visible } from "./timing.js";
import { age, count } from "./wording.js";

const CALM_S = 5;
const BUSY_S = 2;

/** The head of the page. */
export class State {
  #sidecar;
  #onChange;
  #known = null;

  /**
   * @param {import("./api.js").Sidecar} sidecar
   * @param {(status: object) => void} onChange Called when other rankings can be had.
   */
  constructor(sidecar, onChange) {
    this.#sidecar = sidecar;
    this.#onChange = onChange;
  }

  /** Ask for ever. */
  async watch() {
    for (;;) {
      await visible();
      await pause(await this.refresh());
    }
  }

  /** Ask once; the seconds after which to ask again. */
  async refresh() {
    try {
      return this.#show(await this.#sidecar.status());
    } catch (problem) {
      this.#tell("unknown", problem.title ?? "The page has a fault");
      return CALM_S;
    }
  }

  #show(status) {
    const { batches, oldest_s: oldest } = status.spool;
    setText(byId("version"), status.version);
    showAbout(status);
    if (status.model === null) this.#tell("busy", "The model is being loaded…");
    else if (batches === 0) this.#tell("calm", "Nothing waits: all is searchable");
    else this.#tell("busy", `${count(batches, "batch waits", "batches wait")}, ${agedOf(oldest)}`);
    this.#offer(status);
    return status.model === null || batches > 0 ? BUSY_S : CALM_S;
  }

  #tell(state, words) {
    byId("spool").dataset.state = state;
    setText(byId("spool-text"), words);
  }

  #offer(status) {
    if (status.model === null) return;
    const known = JSON.stringify([status.modes, status.rerank]);
    if (known === this.#known) return;
    this.#known = known;
    this.#onChange(status);
  }
}

const agedOf = (seconds) => `the oldest for ${age(seconds)}`;

function showAbout({ collection, model, passages }) {
  setText(byId("collection"), collection ?? "passages");
  const told = model ? [model.name, count(model.dimension, "dimension", "dimensions")] : [];
  if (passages !== null) told.push(count(passages, "passage", "passages"));
  setText(byId("about"), told.join(" · "));
}
