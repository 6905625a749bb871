"""Judgments (qrels): the relevance grades of passages for queries.

The first line decides between two formats: TREC's ``qid 0 pid grade``, with spaces or tabs, and
BEIR's tab-separated table with the header ``query-id corpus-id score``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import NamedTuple

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.evaluation.text_lines import read_text_lines, split_columns

_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_TREC_FORM = "qid 0 pid grade"
_GRADE = re.compile(r"[+-]?[0-9]{1,9}")


class Judgment(NamedTuple):
    """One judgment, with its place in the source."""

    place: str
    qid: str
    pid: str
    grade: int


def read_qrels(source: str | PathLike[str]) -> Qrels:
    """Read judgments in TREC's or BEIR's format, plain or gzip.

    Raises:
        SourceError: For an unreadable or empty file, a line of another format, a grade that is not
            an integer, or two grades of one passage for one query.
    """
    qrels = collect_qrels(_judgments(source))
    if not qrels:
        raise SourceError(
            f"{source} has no judgments; expected lines {_TREC_FORM!r}, or BEIR's table"
        )
    return qrels


def collect_qrels(judgments: Iterable[Judgment]) -> Qrels:
    """Group judgments by query; a repeated judgment counts once.

    Raises:
        SourceError: For two grades of one passage for one query.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, qid, pid, grade in judgments:
        first = qrels.setdefault(qid, {}).setdefault(pid, grade)
        if first != grade:
            raise SourceError(
                f"{place}: passage {pid!r} has the grades {first} and {grade} for query {qid!r}"
            )
    return qrels


def _judgments(source: str | PathLike[str]) -> Iterator[Judgment]:
    parse = _parse_trec
    for number, (place, line) in enumerate(read_text_lines(source)):
        if number == 0 and line.rstrip().split("\t") == _BEIR_HEADER:
            parse = _parse_beir
        else:
            yield parse(place, line)


def _parse_trec(place: str, line: str) -> Judgment:
    fields = split_columns(line)
    if len(fields) != 4:
        raise SourceError(
            f"{place}: expected 4 columns, {_TREC_FORM}, got {len(fields)}; BEIR's format begins "
            f"with the header {'<TAB>'.join(_BEIR_HEADER)}"
        )
    qid, _, pid, grade = fields
    return Judgment(place, qid, pid, _parse_grade(grade, place))


def _parse_beir(place: str, line: str) -> Judgment:
    fields = line.split("\t")
    if len(fields) != 3 or not all(fields):
        raise SourceError(f"{place}: expected 3 columns, {'<TAB>'.join(_BEIR_HEADER)}")
    qid, pid, grade = fields
    return Judgment(place, qid, pid, _parse_grade(grade, place))


def _parse_grade(text: str, place: str) -> int:
    if not _GRADE.fullmatch(text.strip()):
        raise SourceError(f"{place}: the grade must be an integer, got {text!r}")
    return int(text)
