"""Shape of a table as text, TSV or CSV: delimiter, header, quotes, and the columns of id and text.

`find_table` decides by the first rows. MS MARCO's own TSV, `pid<TAB>text` without a header and
quotes, has no `Table`: `rows.parse_tsv` reads its lines, to the byte. `delimited` reads the rows of
the others.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.fields import Fields
from msmarco_qdrant.sources.table_refusals import QRELS_STEP, describe_unknown, show_cells

_DELIMITERS = {"\t": "TSV", ",": "CSV", ";": "CSV", "|": "CSV"}
_NAME = re.compile(r"[^\W\d][\w .:#/()-]{0,59}")
_URL = re.compile(r"https?://\S+")
_DOCUMENTS = ("docid", "url", "title", "body")  # MS MARCO's msmarco-docs.tsv
_BEIR_QRELS = ["corpus-id", "query-id", "score"]


@dataclass(frozen=True, slots=True)
class Table:
    """The shape of a table.

    Attributes:
        delimiter: The character between two columns.
        quoted: True if cells may be quoted, as in CSV.
        columns: The names of the columns; a column named "" is left out.
        has_header: True if the first row names them.
        fields: The columns of id, text and title.
    """

    delimiter: str
    quoted: bool
    columns: tuple[str, ...]
    has_header: bool
    fields: Fields

    @property
    def description(self) -> str:
        """The shape in a few words: "TSV with a header: id, text, title; 3 columns"."""
        header = "with" if self.has_header else "without"
        quotes = " and quotes" if self.quoted and self.delimiter == "\t" else ""
        if not self.has_header and quotes:
            quotes = ", with quotes"
        names = ", ".join(
            name or f"(column {n} left out)" for n, name in enumerate(self.columns, start=1)
        )
        kind = _DELIMITERS[self.delimiter]
        return f"{kind} {header} a header{quotes}: {names}; {len(self.columns)} columns"


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows of a text.

    Attributes:
        source: Name of the source, for messages.
        text: The text, a whole number of lines unless it has only one.
        is_whole: True if the source has no more.
    """

    source: str
    text: str
    is_whole: bool

    @classmethod
    def of(cls, source: str, head: bytes, *, is_whole: bool) -> Sample:
        """Decode the first bytes of a source; a last line that is cut is left out."""
        text = head.decode("utf-8", "replace")
        if not is_whole and "\n" in text:
            text = text[: text.rindex("\n") + 1]
        return cls(source, text.replace("\r\n", "\n"), is_whole)

    @property
    def lines(self) -> list[str]:
        """Its lines that are not empty."""
        return [line for line in self.text.split("\n") if line.strip("\r")]

    @property
    def has_carriage_returns(self) -> bool:
        """True if lines end with a carriage return alone, as of old Macs."""
        *before, last = self.text.strip("\r").split("\r")
        return "\n" not in self.text and bool(before) and ("\t" in last or len(before) > 1)


def find_table(sample: Sample, fields: Fields, *, quoted: bool | None = None) -> Table | None:
    """Return the shape of a table, None for `id<TAB>text` without a header and quotes.

    Args:
        sample: The first rows.
        fields: The names of id and text to look for.
        quoted: True for CSV, False without quotes, None to detect it.

    Raises:
        SourceError: If the rows have another shape: which columns are id and text is unknown.
    """
    lines = sample.lines
    if not lines:
        return None
    delimiter = _delimiter(lines[0], fields, quoted=quoted)
    header = _split(lines[0], delimiter)
    if not fields.numbers and _is_header(header, lines[1:], delimiter, fields):
        return _with_header(sample, header, delimiter, fields, quoted)
    if fields.is_given and not fields.numbers:
        given = " and ".join((*fields.ids, *fields.texts)[:2])
        raise SourceError(
            f"{sample.source} must begin with a header that has {given}, got "
            f"{show_cells(header)}: columns without names are given by their numbers"
        )
    if quoted is None:
        quoted = delimiter != "\t" or _is_quoted(sample, delimiter, has_header=False)
    rows = _cells(sample, delimiter, quoted=quoted)
    if fields.numbers:
        return _with_numbers(sample, rows, delimiter, fields, quoted=quoted)
    if fields.kind == "pid" and sorted(header) == _BEIR_QRELS:
        raise SourceError(f"{sample.source} holds judgments, not passages: {QRELS_STEP}")
    _refuse_unknown_header(sample, header, rows, fields)
    widths = {len(row) for row in rows if len(row) > 1}
    if widths == {2}:
        pair = (fields.kind, "text")
        return Table(delimiter, quoted, pair, has_header=False, fields=fields) if quoted else None
    if widths == {4} and all(_URL.fullmatch(row[1]) for row in rows if len(row) == 4):
        return Table(delimiter, quoted, _DOCUMENTS, has_header=False, fields=fields)
    is_queries, kind = fields.kind == "qid", _DELIMITERS[delimiter]
    raise SourceError(describe_unknown(sample.source, rows, kind=kind, is_queries=is_queries))


# ---- delimiter and header ------------------------------------------------------------------------


def _delimiter(line: str, fields: Fields, *, quoted: bool | None) -> str:
    """Return the delimiter of the first line; without a tab, that of a header that is known."""
    if "\t" in line:
        return "\t"
    for delimiter in _DELIMITERS:
        names = _split(line, delimiter)
        if len(names) > 1 and (quoted or not fields.known.isdisjoint(map(_canonical, names))):
            return delimiter
    return "\t"


def _split(line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.rstrip("\r").split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)


def _canonical(name: str) -> str:
    return name.strip().lower()


def _is_header(names: Sequence[str], rows: Sequence[str], delimiter: str, fields: Fields) -> bool:
    """Return True if the first row names columns of which at least one is known."""
    cells = [name.strip() for name in names]
    if len(cells) < 2 or not all(_NAME.fullmatch(cell) for cell in cells[1:]):
        return False
    has_index = not cells[0] or _canonical(cells[0]).startswith("unnamed:")  # as pandas writes it
    if not has_index and not _NAME.fullmatch(cells[0]):
        return False
    if fields.is_given and not {*fields.ids, *fields.texts}.isdisjoint(cells):
        return True
    found = [*map(_canonical, cells)]
    has_id = not set(fields.ids).isdisjoint(found)
    has_text = not set(fields.texts).isdisjoint(found)
    if has_id and (has_text or len(cells) > 2 or bool(rows)):
        return True
    # "a<TAB>text" may be a passage, a row of more names is not.
    return has_text and (has_index or len(cells) > 2 or delimiter != "\t")


def _with_header(
    sample: Sample, header: Sequence[str], delimiter: str, fields: Fields, quoted: bool | None
) -> Table:
    names = [name.strip() for name in header]
    if _canonical(names[0]).startswith("unnamed:"):
        names[0] = ""
    for number, name in enumerate(names[1:], start=2):
        if not name:
            raise SourceError(f"{sample.source}: column {number} of the header has no name")
    for name, count in Counter(filter(None, names)).items():
        if count > 1:
            raise SourceError(f"{sample.source}: {count} columns are named {name!r}: rename one")
    lower = {_canonical(name): name for name in names}
    id_ = _column(sample, names, lower, fields.ids, fields.kind)
    text = _column(sample, names, lower, fields.texts, "text")
    titles = tuple(lower.get(name, name) for name in fields.titles)
    if quoted is None:
        is_plain = delimiter == "\t" and '"' not in sample.lines[0]
        quoted = not is_plain or _is_quoted(sample, delimiter, has_header=True)
    columns = tuple("" if name in fields.skip else name for name in names)
    named = replace(fields, ids=(id_,), texts=(text,), titles=titles)
    return Table(delimiter, quoted, columns, has_header=True, fields=named)


def _column(
    sample: Sample, names: Sequence[str], lower: dict[str, str], known: Sequence[str], what: str
) -> str:
    """Return the column of the id or the text."""
    for name in known:
        if name in names:
            return name
        if name in lower:
            return lower[name]
    shown = ", ".join(filter(None, names))
    option = "text-field" if what == "text" else "pid-field"
    if what == "qid":
        raise SourceError(
            f"{sample.source} has the columns {shown}: name the id of a query qid or query_id"
        )
    raise SourceError(
        f"{sample.source} has the columns {shown}, none of them named {' or '.join(known[:3])}: "
        f"name the column of the {what} with --{option} ({option.replace('-', '_')} in Python)"
    )


def _refuse_unknown_header(
    sample: Sample,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    fields: Fields,
) -> None:
    """Refuse a first row like names above rows whose ids all have a digit, which it has not."""
    cells = [cell.strip() for cell in header]
    others = [row[0] for row in rows[1:] if len(row) > 1]
    if (
        len(cells) < 2
        or not others
        or not all(_NAME.fullmatch(cell) and cell.count(" ") < 3 for cell in cells)
        or any(character.isdigit() for character in cells[0])
        or not all(any(map(str.isdigit, pid)) for pid in others)
    ):
        return
    shown = ", ".join(cells)
    raise SourceError(
        f"{sample.source} seems to begin with a header of unknown names: {shown}. "
        + (
            "Name the columns with --pid-field and --text-field (pid_field and text_field in "
            "Python), or pass the format 'tsv' if this row is a passage"
            if fields.kind == "pid"
            else "Name them qid and text, or remove that row"
        )
    )


# ---- columns without names -----------------------------------------------------------------------


def _with_numbers(
    sample: Sample,
    rows: Sequence[Sequence[str]],
    delimiter: str,
    fields: Fields,
    *,
    quoted: bool,
) -> Table:
    """Return a table without a header, whose columns are given by their numbers from 1."""
    width = max(map(len, rows))
    columns = [""] * width
    given = {
        fields.kind: fields.ids[0] if len(fields.ids) == 1 else "1",
        "text": fields.texts[0] if len(fields.texts) == 1 else "2",
    }
    if fields.titles and fields.titles != ("title",):
        given["title"] = fields.titles[0]
    for name, number in given.items():
        if not number.isdecimal() or not 1 <= int(number) <= width:
            raise SourceError(
                f"{sample.source} has {width} columns: the column of the {name} must be a number "
                f"of 1 to {width}, got {number!r}"
            )
        columns[int(number) - 1] = name
    named = replace(fields, ids=(fields.kind,), texts=("text",), titles=("title",))
    return Table(delimiter, quoted, tuple(columns), has_header=False, fields=named)


# ---- quotes --------------------------------------------------------------------------------------


def _is_quoted(sample: Sample, delimiter: str, *, has_header: bool) -> bool:
    """Return True if cells are quoted as in CSV, not only texts that begin with a quote.

    All of the sample must be valid CSV as writers make it, where a cell with a quote in it is
    quoted. And one cell must need its quotes (for `""`, a delimiter or a line's end), or a column
    must have them in every row: the first one, or any if a header names it.
    """
    token = re.compile(rf'(?:"((?:[^"]++|"")*+)"|([^"{delimiter}\n]*))({delimiter}|\n|\Z)')
    text, at, column = sample.text, 0, 0
    if has_header:
        at = text.index("\n") + 1 if "\n" in text else len(text)
    is_needed, cells, in_quotes = False, Counter[int](), Counter[int]()
    while at < len(text):
        match = token.match(text, at)
        if match is None:
            if sample.is_whole or text[at] != '"':
                return False
            break  # the sample ends within a quoted cell
        inner, plain, end = match.groups()
        if inner is not None and "\n" in inner and delimiter in inner:
            return False  # two rows, with a quote in each
        is_needed = is_needed or (
            inner is not None and bool(re.search(rf'""|\n|{delimiter}', inner))
        )
        if inner or plain:
            cells[column] += 1
            in_quotes[column] += inner is not None
        column = column + 1 if end == delimiter else 0
        at = match.end()
    whole = [column for column, count in cells.items() if count == in_quotes[column]]
    return is_needed or (bool(whole) if has_header else 0 in whole)


def _cells(sample: Sample, delimiter: str, *, quoted: bool) -> list[list[str]]:
    """Split the rows of a sample; a last one that is cut counts only if it is the only one."""
    if not quoted:
        return [line.split(delimiter) for line in sample.lines]
    try:
        return [
            row
            for row in csv.reader(sample.text.splitlines(keepends=True), delimiter=delimiter)
            if row
        ]
    except csv.Error:
        return [line.split(delimiter) for line in sample.lines]
