/** Words of a passage that are words of the query, in any form of them. */

const WORDS = new Intl.Segmenter(undefined, { granularity: "word" });
const SCANNED = 20_000;
const SHOWN = 700;
const BEFORE = 120;
// They are in every passage: their marks would hide the others.
const COMMON = new Set(
  (
    "a an and are as at be by can did do does for from had has have how i in is it its of on or " +
    "s that the their there these this to was were what when where which who why will with you"
  ).split(" "),
);

/** Return the stems of a query without common words; of all words if all are common. */
export function stemsOf(query) {
  const words = [...WORDS.segment(query)].filter((word) => word.isWordLike);
  const found = words.map((word) => plain(word.segment));
  const rare = found.filter((word) => !COMMON.has(word));
  return new Set((rare.length ? rare : found).map(stem));
}

/**
 * Return a text in pieces, cut around the first marked word.
 * @param {string} text
 * @param {Set<string>} stems
 * @param {boolean} all True for the whole text.
 * @returns {{pieces: {text: string, marked: boolean}[], cut: boolean}}
 */
export function excerpt(text, stems, all = false) {
  if (all || text.length <= SHOWN) return { pieces: joined(piecesOf(text, stems)), cut: false };
  const pieces = piecesOf(text.slice(0, SCANNED), stems);
  let first = pieces.findIndex((piece) => piece.marked);
  for (let left = BEFORE; first > 0 && left > 0; left -= pieces[first].text.length) first -= 1;
  let end = (first = Math.max(0, first));
  for (let left = SHOWN; end < pieces.length && left > 0; end += 1) left -= pieces[end].text.length;
  const shown = pieces.slice(first, end);
  if (first > 0) shown.unshift({ text: "… ", marked: false });
  shown.push({ text: " …", marked: false });
  return { pieces: joined(shown), cut: true };
}

function piecesOf(text, stems) {
  return Array.from(WORDS.segment(text), ({ segment, isWordLike }) => ({
    text: segment,
    marked: Boolean(isWordLike) && stems.has(stem(plain(segment))),
  }));
}

/** Join unmarked neighbors, so that a passage has few nodes. */
function joined(pieces) {
  const found = [];
  for (const { text, marked } of pieces) {
    const last = found.at(-1);
    if (last && last.marked === marked && !marked) last.text += text;
    else found.push({ text, marked });
  }
  return found;
}

/** Return a word in lower case, without accents and the genitive's end. */
function plain(word) {
  const bare = word.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  return bare.replace(/['’]s$/, "");
}

/** Return a word without the commonest endings of English, about as BM25 does. */
function stem(word) {
  if (word.length < 4) return word;
  return word
    .replace(/(?<!s)s$/, "")
    .replace(/(?<=[aeiouy].+)(?:ing|ed)$/, "")
    .replace(/(?<=.{3})e$/, "")
    .replace(/(.)\1$/, "$1")
    .replace(/y$/, "i");
}
