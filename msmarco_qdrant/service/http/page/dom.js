/** Elements made by code; data becomes text, never markup. */

/** Return the element of an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} name
 * @param {Record<string, string>} attributes Constants of the page, never data.
 * @param {(Node | string | null)[]} children Strings become text.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Make text for screen readers alone. */
export const unseen = (words) => element("span", { class: "unseen" }, words);

/** Make a sign that screen readers skip. */
export const sign = (words) => element("span", { "aria-hidden": "true" }, words);

/** Set a text, unless it is the same: screen readers would read a live region again. */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
