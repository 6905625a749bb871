/** The dialog for the bearer token. */

import { byId } from "./dom.js";

/**
 * Show the dialog.
 * @param {string} why
 * @returns {Promise<string | null>} The token; null if it was not entered.
 */
export function askToken(why) {
  const dialog = byId("token-dialog");
  const input = byId("token");
  let given = null;
  byId("token-why").textContent = why;
  byId("token-form").onsubmit = () => {
    given = input.value.trim();
  };
  byId("token-cancel").onclick = () => dialog.close();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      input.value = "";
      resolve(given);
    };
    dialog.showModal();
  });
}
