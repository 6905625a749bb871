/** Differences between two rankings of the same query. */

/**
 * @typedef {{kind: "up" | "down" | "same", places: number, from: number}
 *   | {kind: "new" | "out"}} Move
 */

/**
 * Return the move of each passage from one ranking to another.
 * @param {{pid: string, rank: number}[]} before
 * @param {{pid: string, rank: number}[]} after
 * @returns {Map<string, Move>} By the pid, for each of `after`.
 */
export function movesBetween(before, after) {
  const ranks = new Map(before.map((hit) => [hit.pid, hit.rank]));
  return new Map(after.map((hit) => [hit.pid, moveOf(ranks.get(hit.pid), hit.rank)]));
}

/** Return, by the pid, the passages of one ranking that another leaves out. */
export function leftOut(before, after) {
  const kept = new Set(after.map((hit) => hit.pid));
  const lost = before.filter((hit) => !kept.has(hit.pid));
  return new Map(lost.map((hit) => [hit.pid, { kind: "out" }]));
}

function moveOf(from, to) {
  if (from === undefined) return { kind: "new" };
  const kind = to < from ? "up" : to > from ? "down" : "same";
  return { kind, places: Math.abs(to - from), from };
}

/** Return the signs of a move, and its words for screen readers. */
export function wordsOf(move) {
  if (move.kind === "new") return { shown: "new", words: "not in the first ranking" };
  if (move.kind === "out") return { shown: "out", words: "not in the second ranking" };
  if (move.kind === "same") return { shown: "=", words: "same place as in the first ranking" };
  const places = move.places === 1 ? "1 place" : `${move.places} places`;
  const arrow = move.kind === "up" ? "▲" : "▼";
  return { shown: `${arrow}${move.places}`, words: `${move.kind} ${places}, from ${move.from}` };
}
