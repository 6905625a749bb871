/** The tenant whose passages are searched, in a collection that has a tenant field. */

/** The field for the name of the tenant, hidden in a collection without a tenant field. */
export class Tenant {
  #row;
  #input;

  /**
   * @param {HTMLElement} row
   * @param {HTMLInputElement} input
   * @param {() => void} onChange Called when the user has entered another tenant.
   */
  constructor(row, input, onChange) {
    this.#row = row;
    this.#input = input;
    input.addEventListener("change", onChange);
  }

  /** Show the input if the collection has a tenant field. */
  offer(field) {
    this.#row.hidden = field === null;
    this.#input.required = field !== null; // a hidden input that is required would block the form
    this.#input.title = field === null ? "" : `A value of the field ${field}`;
  }

  /** True if a tenant is needed and none is entered. */
  get missing() {
    return this.#input.required && !this.#input.value.trim();
  }

  /** Return the part of a request that names the tenant; empty without a tenant field. */
  get part() {
    return this.#input.required ? { tenant: this.#input.value.trim() } : {};
  }

  /** Show that a tenant is needed. */
  ask() {
    this.#input.reportValidity();
  }
}
