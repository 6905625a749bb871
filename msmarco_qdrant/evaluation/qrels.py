"""Judgments (qrels): the relevance grades of passages for queries.

The first line decides between two formats: TREC's ``qid 0 pid grade``, with spaces or tabs, and
BEIR's tab-separated table with the header ``query-id corpus-id score``, in any order of columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from os import PathLike
from typing import NamedTuple

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.evaluation.text_lines import read_text_lines, shorten, split_columns

_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_TREC_FORM = "qid 0 pid grade"
_ITERATIONS = ("0", "Q0")
_HIGHEST_GRADE = 100
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
            an integer of -100 to 100, two grades of one passage for one query, columns in another
            order, or no grade of 1 or more.
    """
    qrels = collect_qrels(_judgments(source))
    if not qrels:
        raise SourceError(
            f"{source} has no judgments; expected lines {_TREC_FORM!r}, or BEIR's table"
        )
    pids = {pid for grades in qrels.values() for pid in grades}
    grades = {grade for of_query in qrels.values() for grade in of_query.values()}
    if len(grades) > max(2, len(pids)) and all(map(_GRADE.fullmatch, pids)):
        raise SourceError(
            f"{source} has {len(grades)} grades but only {len(pids)} pids, such as "
            f"{min(pids)!r}: are the columns of pid and grade swapped? Expected {_TREC_FORM}"
        )
    if max(grades) < 1:
        raise SourceError(
            f"{source} must have a grade of 1 or more, got {max(grades)} as the highest: no "
            "passage is relevant, and every measure would be 0"
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
        header = line.rstrip().split("\t")
        if number == 0 and sorted(header) == sorted(_BEIR_HEADER):
            parse = partial(_parse_beir, [header.index(name) for name in _BEIR_HEADER])
        else:
            yield parse(place, line)


def _parse_trec(place: str, line: str) -> Judgment:
    fields = split_columns(line)
    if len(fields) != 4:
        raise SourceError(
            f"{place}: expected 4 columns, {_TREC_FORM}, got {len(fields)}{_guess(fields)}: "
            f"{shorten(line)!r}; BEIR's format begins with the header {'<TAB>'.join(_BEIR_HEADER)}"
        )
    qid, iteration, pid, grade = fields
    if pid in _ITERATIONS and iteration not in _ITERATIONS:
        raise SourceError(
            f"{place}: expected {_TREC_FORM}, got {shorten(line)!r}: are columns 2 and 3 swapped?"
        )
    return Judgment(place, qid, pid, _parse_grade(grade, place))


def _guess(fields: list[str]) -> str:
    """Return a guess at another format of a line."""
    if len(fields) == 6 and fields[1] in _ITERATIONS:
        return ", as in a TREC run"
    if len(fields) == 1 and "," in fields[0]:
        return ", with commas instead of spaces or tabs"
    return ""


def _parse_beir(order: list[int], place: str, line: str) -> Judgment:
    fields = line.split("\t")
    if len(fields) != 3 or not all(fields):
        raise SourceError(f"{place}: expected 3 columns, {'<TAB>'.join(_BEIR_HEADER)}")
    qid, pid, grade = (fields[column] for column in order)
    return Judgment(place, qid, pid, _parse_grade(grade, place))


def _parse_grade(text: str, place: str) -> int:
    if not _GRADE.fullmatch(text.strip()):
        raise SourceError(f"{place}: the grade must be an integer, got {text!r}")
    grade = int(text)
    if abs(grade) > _HIGHEST_GRADE:
        raise SourceError(
            f"{place}: the grade must be -{_HIGHEST_GRADE} to {_HIGHEST_GRADE}, got {grade}: is "
            "the grade the last column?"
        )
    return grade
