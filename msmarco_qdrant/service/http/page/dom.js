/** Elements out of code; whatever comes from elsewhere becomes text, never markup. */

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} name
 * @param {Record<string, string>} attributes Of the page's own making, never data.
 * @param {(Node | string | null)[]} children Strings become text.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Words for those who do not see the page. */
export const unseen = (words) => element("span", { class: "unseen" }, words);

/** A sign for those who see it. */
export const sign = (words) => element("span", { "aria-hidden": "true" }, words);

/** Set a text, and leave the page alone if it is the same: what is live is read out again. */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
