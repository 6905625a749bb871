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
    const condition = this.#parts.conditions[field];
    const values = Array.isArray(condition) ? condition : [condition];
    return values.filter((value) => ["string", "number", "boolean"].includes(typeof value));
  }

  /** Return the filter without the condition of a field; null if nothing is left. */
  without(field) {
    return this.#with(field, []);
  }

  /** Choose values of a field, which replace its condition; none removes it. */
  set(field, values) {
    const filter = this.#with(field, values);
    this.#field.value = filter ? JSON.stringify(filter) : "";
    this.#field.setCustomValidity("");
  }

  /** Return the filter with other values of a field; null if nothing is left. */
  #with(field, values) {
    const { conditions, others } = this.#parts;
    const { [field]: _, ...kept } = conditions;
    if (values.length) kept[field] = values.length > 1 ? values : values[0];
    const parts = Object.keys(kept).length ? [...others, kept] : others;
    if (!parts.length) return null;
    return parts.length > 1 ? { $all: parts } : parts[0];
  }

  /**
   * The conditions by field, and the combinations that must hold as well: an object has
   * fields or one of `$any`, `$all` and `$not`. None of either if the filter is not a JSON object.
   */
  get #parts() {
    const filter = this.#object;
    if (!isCombination(filter)) return { conditions: filter, others: [] };
    const all = Array.isArray(filter.$all) ? filter.$all : [filter];
    const last = all.at(-1);
    const isPlain = isObject(last) && !isCombination(last);
    return { conditions: isPlain ? last : {}, others: isPlain ? all.slice(0, -1) : all };
  }

  get #object() {
    try {
      const { value } = this;
      return isObject(value) ? value : {};
    } catch {
      return {};
    }
  }
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const isCombination = (filter) => ["$any", "$all", "$not"].some((name) => Object.hasOwn(filter, name));
