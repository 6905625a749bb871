/** Numbers and times as words. */

const WHOLE = new Intl.NumberFormat("en");
const UNITS = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
];

/** Return 47283 as "47,283". */
export const whole = (number) => WHOLE.format(number);

/** Return "1 batch", or "2 batches". */
export const count = (number, one, several) => `${whole(number)} ${number === 1 ? one : several}`;

/** Return seconds in the largest unit that fits: "12 s", "3 min", "2 h". */
export function age(seconds) {
  const [size, unit] = UNITS.find(([its]) => seconds >= its) ?? [1, "s"];
  return `${whole(Math.floor(seconds / size))} ${unit}`;
}

/** Return a score with enough digits to distinguish hits. */
export const score = (number) => number.toFixed(Math.abs(number) < 100 ? 3 : 1);

/** Return a value of meta on one line. */
export function brief(value, most = 80) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const characters = Array.from(text.slice(0, 2 * most + 1));
  return characters.length > most ? `${characters.slice(0, most).join("")}…` : text;
}
