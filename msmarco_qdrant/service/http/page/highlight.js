/** Which words of a passage are words of the query, in whatever form they stand there. */

const WORDS = new Intl.Segmenter(undefined, { granularity: "word" });
const SCANNED = 20_000;
const SHOWN = 700;
const BEFORE = 120;
// They are in every passage: marked, they would hide what matters.
const COMMON = new Set(
  (
    "a an and are as at be by can did do does for from had has have how i in is it its of on or " +
    "s that the their there these this to was were what when where which who why will with you"
  ).split(" "),
);

/** The words of a query that are worth marking; all of them if there are no others. */
export function stemsOf(query) {
  const words = [...WORDS.segment(query)].filter((one) => one.isWordLike);
  const found = words.map((one) => plain(one.segment));
  const telling = found.filter((word) => !COMMON.has(word));
  return new Set((telling.length ? telling : found).map(stem));
}

/**
 * A text in pieces, cut to what is best shown of it.
 * @param {string} text
 * @param {Set<string>} stems
 * @param {boolean} all Whether to show all of it.
 * @returns {{pieces: {text: string, marked: boolean}[], cut: boolean}}
 */
export function excerpt(text, stems, all = false) {
  if (all || text.length <= SHOWN) return { pieces: joined(piecesOf(text, stems)), cut: false };
  const pieces = piecesOf(text.slice(0, SCANNED), stems);
  let first = pieces.findIndex((piece) => piece.marked);
  for (let room = BEFORE; first > 0 && room > 0; room -= pieces[first].text.length) first -= 1;
  let end = (first = Math.max(0, first));
  for (let room = SHOWN; end < pieces.length && room > 0; end += 1) room -= pieces[end].text.length;
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

/** Neighbors of a kind as one piece: a passage has few nodes then. */
function joined(pieces) {
  const found = [];
  for (const { text, marked } of pieces) {
    const last = found.at(-1);
    if (last && last.marked === marked && !marked) last.text += text;
    else found.push({ text, marked });
  }
  return found;
}

/** In lower case, without accents and the genitive's end. */
function plain(word) {
  const bare = word.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  return bare.replace(/['’]s$/, "");
}

/** Without the commonest endings of English: about what BM25 does. */
function stem(word) {
  if (word.length < 4) return word;
  return word
    .replace(/(?<!s)s$/, "")
    .replace(/(?<=[aeiouy].+)(?:ing|ed)$/, "")
    .replace(/(?<=.{3})e$/, "")
    .replace(/(.)\1$/, "$1")
    .replace(/y$/, "i");
}
