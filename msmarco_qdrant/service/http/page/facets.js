/** The fields that can be filtered: their most frequent values, to choose from. */

import { element } from "./dom.js";
import { brief, whole } from "./wording.js";

const KINDS = new Set(["keyword", "tenant", "integer", "bool"]);
const FIELDS = 6;
const VALUES = 8;

/** The values of some fields, each with its number of passages. */
export class Facets {
  #place;
  #sidecar;
  #filter;
  #tenant;
  #onChange;
  #fields = [];
  #running = new AbortController();

  /**
   * @param {HTMLElement} place
   * @param {import("./api.js").Sidecar} sidecar
   * @param {import("./filter.js").Filter} filter
   * @param {import("./tenant.js").Tenant} tenant
   * @param {() => void} onChange Called when the user has chosen a value.
   */
  constructor(place, sidecar, filter, tenant, onChange) {
    this.#place = place;
    this.#sidecar = sidecar;
    this.#filter = filter;
    this.#tenant = tenant;
    this.#onChange = onChange;
  }

  /** Offer the fields that have a payload index, by their kind. */
  offer(fields) {
    const names = Object.keys(fields).filter((name) => KINDS.has(fields[name]));
    this.#fields = names.slice(0, FIELDS);
    return this.refresh();
  }

  /** Count again. The values of a field are those of all passages that the rest of the filter matches. */
  async refresh() {
    this.#running.abort();
    const { signal } = (this.#running = new AbortController());
    const fields = this.#tenant.missing ? [] : this.#fields;
    const found = await Promise.all(fields.map((field) => this.#count(field, signal)));
    if (signal.aborted) return;
    const focused = document.activeElement?.dataset.value;
    this.#place.replaceChildren(...found.filter((group) => group !== null));
    this.#place.hidden = !this.#place.children.length;
    if (focused) this.#place.querySelector(`[data-value="${CSS.escape(focused)}"]`)?.focus();
  }

  /** Return the group of a field; null without a value, or if it cannot be counted now. */
  async #count(field, signal) {
    const filter = this.#filter.without(field);
    const body = { field, limit: VALUES, ...this.#tenant.part, ...(filter && { filter }) };
    try {
      const facets = await this.#sidecar.facets(body, signal);
      return facets.length ? this.#group(field, facets) : null;
    } catch (problem) {
      if (signal.aborted) return null;
      return element("p", { class: "note" }, `${brief(field, 40)}: ${problem.title}`);
    }
  }

  #group(field, facets) {
    const chosen = this.#filter.values(field);
    const known = new Set(facets.map(({ value }) => value));
    const missing = chosen.filter((value) => !known.has(value)).map((value) => ({ value, count: 0 }));
    const all = [...facets, ...missing].map((facet) => this.#button(field, facet, chosen));
    return element("fieldset", {}, element("legend", { dir: "auto" }, brief(field, 40)), ...all);
  }

  #button(field, { value, count }, chosen) {
    const pressed = chosen.includes(value);
    const button = element(
      "button",
      { class: "facet", type: "button", "aria-pressed": String(pressed) },
      element("span", { dir: "auto" }, brief(value, 40)),
      " ",
      element("span", { class: "number" }, whole(count)),
    );
    button.dataset.value = JSON.stringify([field, value]);
    button.addEventListener("click", () => {
      const others = chosen.filter((one) => one !== value);
      this.#filter.set(field, pressed ? others : [...others, value]);
      this.#onChange();
    });
    return button;
  }
}
