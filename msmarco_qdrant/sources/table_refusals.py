"""Refusals of tables whose columns are unknown: judgments, runs and other files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from msmarco_qdrant.sources.content import STDIN

QRELS_STEP = "the command evaluate takes it with --qrels (qrels in Python)"
"""What to do with judgments."""

_RUN_STEP = "the command evaluate takes it with --compare (others in Python)"
_SHOWN = 40  # characters of a cell
_CELLS = 5


def describe_unknown(
    source: str, rows: Sequence[Sequence[str]], *, kind: str, is_queries: bool
) -> str:
    """Return the refusal of rows of an unknown shape, with what to do with such a file.

    Args:
        source: Name of the source.
        rows: The cells of its first rows.
        kind: "TSV" or "CSV".
        is_queries: True if queries are expected, False for passages.
    """
    first = next((row for row in rows if len(row) > 2), rows[0])
    shown = show_cells(first)
    if is_queries:
        return (
            f"{source} is not a file of queries ({shown}): expected qid<TAB>text, CSV with "
            f"a header qid,text, or JSON lines; {_query_step(source, first)}"
        )
    lines = [" ".join(row).split() for row in rows]
    if all(map(_is_judgment, lines)):
        return f"{source} holds judgments, not passages ({shown}): {QRELS_STEP}"
    if all(map(_is_answer, lines)):
        return f"{source} holds the answers of a run, not passages ({shown}): {_RUN_STEP}"
    if len(first) == 1 and not any(mark in shown for mark in ",;|"):
        return (
            f"{source} has no tab in its first rows ({shown}): expected id<TAB>text, CSV, "
            f"or JSON lines; if each line is a passage, {_numbering(source)}"
        )
    if len(first) == 1:
        return (
            f"{source} has no tab in its first rows ({shown}): expected id<TAB>text, CSV "
            "with a header, or JSON lines; read CSV without a header with --format csv --pid-field "
            "1 --text-field 2 (the same arguments in Python)"
        )
    return (
        f"{source} is {kind} with {len(first)} columns and no header that names them "
        f"({shown}): number them, such as --pid-field 1 --text-field 2 (pid_field and text_field "
        "in Python), or pass the format 'tsv' if everything after the first tab is the text"
    )


def _query_step(source: str, row: Sequence[str]) -> str:
    """Return what to do with a file of this row, which is not one of queries."""
    words = " ".join(row).split()
    if _is_judgment(words):
        return "these look like judgments, which --qrels takes (qrels in Python)"
    if _is_answer(words):
        return "these look like the answers of a run, which --compare takes"
    if len(row) == 1:
        return f"if each line is a query, {_numbering(source)}"
    return "name the columns qid and text in a first line"


def _is_judgment(words: Sequence[str]) -> bool:
    """Return True for a line of TREC's qrels: qid, 0, pid, grade."""
    if len(words) != 4:
        return False
    return words[1].removeprefix("Q").isdecimal() and words[3].removeprefix("-").isdecimal()


def _is_answer(words: Sequence[str]) -> bool:
    """Return True for a line of a TREC run: qid, Q0, pid, rank, score, tag."""
    return len(words) == 6 and words[3].isdecimal()


def _numbering(source: str) -> str:
    file = "FILE" if source == STDIN else shlex.quote(source)
    return f"number them with `nl -ba -w1 {file}`"


def show_cells(row: Sequence[str]) -> str:
    """Return the first cells of a row for a message, each cut to a length."""
    return " | ".join(
        cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}..." for cell in row[:_CELLS]
    )
