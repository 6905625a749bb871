"""Judgments (qrels): which passages people found relevant to a query, and how much.

Two forms are read, told apart by the first line: TREC's ``qid 0 pid grade``, with spaces or tabs,
and BEIR's tab-separated table with the header ``query-id corpus-id score``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from typing import NamedTuple, TypeAlias

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.evaluation.text_lines import columns, text_lines

_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_TREC_FORM = "qid 0 pid grade"
_GRADE = re.compile(r"[+-]?[0-9]{1,9}")


class Judgment(NamedTuple):
    """One judgment and where it was found."""

    place: str
    qid: str
    pid: str
    grade: int


_Parser: TypeAlias = Callable[[str, str], Judgment]


def read_qrels(source: str | PathLike[str]) -> Qrels:
    """Read judgments in TREC's or BEIR's form, gzip or not.

    Raises:
        SourceError: For a file that cannot be read or is empty, for a line of another form, a
            grade that is no integer, or a passage that has two grades for one query.
    """
    qrels = collect_qrels(_judgments(source))
    if not qrels:
        raise SourceError(
            f"{source} holds no judgment; expected lines {_TREC_FORM!r}, or BEIR's table"
        )
    return qrels


def collect_qrels(judgments: Iterable[Judgment]) -> Qrels:
    """Put judgments together by query; the same one twice counts once.

    Raises:
        SourceError: For a passage that has two grades for one query.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, qid, pid, grade in judgments:
        known = qrels.setdefault(qid, {}).setdefault(pid, grade)
        if known != grade:
            raise SourceError(
                f"{place}: passage {pid!r} has grade {grade} for query {qid!r}, and {known} before"
            )
    return qrels


def _judgments(source: str | PathLike[str]) -> Iterator[Judgment]:
    parse: _Parser | None = None
    for place, line in text_lines(source):
        if parse is None:
            is_beir = line.rstrip().split("\t") == _BEIR_HEADER
            parse = _parse_beir if is_beir else _parse_trec
            if is_beir:
                continue
        yield parse(place, line)


def _parse_trec(place: str, line: str) -> Judgment:
    fields = columns(line)
    if len(fields) != 4:
        raise SourceError(
            f"{place}: {len(fields)} columns, expected 4: {_TREC_FORM}; BEIR's form begins with "
            f"the header {'<TAB>'.join(_BEIR_HEADER)}"
        )
    qid, _, pid, grade = fields
    return Judgment(place, qid, pid, _integer(grade, place))


def _parse_beir(place: str, line: str) -> Judgment:
    fields = line.split("\t")
    if len(fields) != 3 or not all(fields):
        raise SourceError(f"{place}: expected 3 columns: {'<TAB>'.join(_BEIR_HEADER)}")
    qid, pid, grade = fields
    return Judgment(place, qid, pid, _integer(grade, place))


def _integer(text: str, place: str) -> int:
    if not _GRADE.fullmatch(text.strip()):
        raise SourceError(f"{place}: the grade {text!r} is no integer")
    return int(text)
