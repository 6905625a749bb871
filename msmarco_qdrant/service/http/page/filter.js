/** The filter: the JSON in its field, which choices among the facets change. */

/** The filter of the page. */
export class Filter {
  #field;

  /** @param {HTMLTextAreaElement} field */
  constructor(field) {
    this.#field = field;
    field.addEventListener("input", () => field.setCustomValidity(""));
  }

  /**
   * Return the filter, undefined for none.
   * @throws {SyntaxError} If it is not JSON.
   */
  get value() {
    const text = this.#field.value.trim();
    return text ? JSON.parse(text) : undefined;
  }

  /** Show that the filter is not JSON. */
  refuse(error) {
    this.#field.setCustomValidity(`The filter must be JSON: ${error.message}`);
    this.#field.reportValidity();
  }

  /** Return the chosen values of a field: one, or one of several; none for another condition. */
  values(field) {
    const condition = this.#conditions[field];
    const values = Array.isArray(condition) ? condition : [condition];
    return values.filter((value) => ["string", "number", "boolean"].includes(typeof value));
  }

  /** Return the filter without the condition of a field; null if nothing is left. */
  without(field) {
    const { [field]: _, ...others } = this.#conditions;
    return Object.keys(others).length ? others : null;
  }

  /** Choose values of a field, which replace its condition; none removes it. */
  set(field, values) {
    const filter = this.without(field) ?? {};
    if (values.length) filter[field] = values.length > 1 ? values : values[0];
    this.#field.value = Object.keys(filter).length ? JSON.stringify(filter) : "";
    this.#field.setCustomValidity("");
  }

  /** The conditions by field; none if the filter is not a JSON object. */
  get #conditions() {
    try {
      const { value } = this;
      return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
    } catch {
      return {};
    }
  }
}
