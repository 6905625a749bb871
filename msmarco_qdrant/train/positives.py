"""Positives of training queries: from judgments, from pairs, or from a log of clicks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation.qrels import read_qrels
from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.evaluation.text_lines import read_text_lines, shorten
from msmarco_qdrant.train.records import Positives

_PAIR = "qid<TAB>pid"
_CLICK = "query<TAB>pid<TAB>count"
_HEADERS = ({"qid", "pid"}, {"query-id", "corpus-id"}, {"query_id", "passage_id"})
_COUNT = re.compile(r"[0-9]{1,15}", re.ASCII)
_MAX_GRADE = 100
_QID_BYTES = 8


@suggest_keywords
def read_positives(source: str | PathLike[str], *, min_grade: int = 1) -> Positives:
    """Read the passages that answer each query.

    The first line decides between judgments, in TREC's or BEIR's format, and pairs, with a line
    ``qid<TAB>pid`` for each. A header of pairs, such as ``qid<TAB>pid``, is skipped.

    Args:
        source: The file, plain or compressed.
        min_grade: The least grade of a positive, 1 to 100; for judgments only.

    Returns:
        The pids of each query that has one, in the file's order; repeated pids once.

    Raises:
        UsageError: For an invalid `min_grade`, or one of 2 or more with pairs.
        SourceError: For an unreadable or empty file, a line of another format, or no judgment of
            `min_grade` or more.
    """
    _check_count("min_grade", min_grade, _MAX_GRADE)
    if has_pairs(source):
        if min_grade > 1:
            raise UsageError(f"{source} has pairs, without grades: omit min_grade={min_grade}")
        return _read_pairs(source)
    positives: dict[str, tuple[str, ...]] = {}
    for qid, grades in read_qrels(source).items():
        pids = tuple(pid for pid, grade in grades.items() if grade >= min_grade)
        if pids:
            positives[qid] = pids
    if not positives:
        raise SourceError(
            f"{source} has no grade of {min_grade} or more: pass a lower min_grade=..."
        )
    return positives


def has_pairs(source: str | PathLike[str]) -> bool:
    """True if the first line of a file has the two columns of pairs.

    Raises:
        SourceError: For an unreadable file.
    """
    first = next(islice(read_text_lines(source), 1), None)
    return first is not None and len(first[1].rstrip("\r\n").split("\t")) == 2


def to_qrels(given: Qrels | Positives) -> Qrels:
    """Return judgments: as they are, or grade 1 for each positive.

    Raises:
        UsageError: For positives that are not a list of pids for each query.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"qrels must be judgments or positives by qid, got {given!r}")
    for qid, found in given.items():
        if isinstance(found, str) or not isinstance(found, Mapping | Sequence):
            raise UsageError(
                f"qrels must have grades by pid, or a list of pids, for each query, got {found!r} "
                f"for {qid!r}"
            )
    return {
        qid: found if isinstance(found, Mapping) else dict.fromkeys(found, 1)
        for qid, found in given.items()
    }


@suggest_keywords
def read_clicks(
    source: str | PathLike[str], *, min_count: int = 1
) -> tuple[list[Query], Positives]:
    """Read queries and their positives from a log of clicks, ``query<TAB>pid<TAB>count``.

    Runs of white space in a query count as one space. The counts of equal queries and pids are
    added. A query's qid is a digest of its text, so it is the same in every log. A first line with
    a name instead of a count is skipped.

    Args:
        source: The file, plain or compressed.
        min_count: The fewest clicks of a positive, 1 or more.

    Returns:
        The queries with one positive or more, in the file's order, and their positives, the most
        clicked first.

    Raises:
        UsageError: For an invalid `min_count`.
        SourceError: For an unreadable or empty file, a line of another format, or no pair with
            `min_count` clicks.
    """
    _check_count("min_count", min_count)
    counts: dict[str, dict[str, int]] = {}
    for query, pid, count in _clicks(source):
        of_query = counts.setdefault(query, {})
        of_query[pid] = of_query.get(pid, 0) + count
    if not counts:
        raise SourceError(f"{source} has no clicks; expected lines {_CLICK}")
    queries: list[Query] = []
    positives: dict[str, tuple[str, ...]] = {}
    for text, of_query in counts.items():
        pids = [pid for pid, count in of_query.items() if count >= min_count]
        if pids:
            queries.append(Query(query_digest(text), text))
            most_first = sorted(pids, key=of_query.__getitem__, reverse=True)
            positives[queries[-1].qid] = tuple(most_first)
    if not queries:
        most = max(count for of_query in counts.values() for count in of_query.values())
        raise SourceError(
            f"{source} has no query and pid with {min_count:,} clicks or more, the most are "
            f"{most:,}: pass a lower min_count=..."
        )
    return queries, positives


def query_digest(text: str) -> str:
    """Return the qid of a query that has none: 16 hexadecimal digits of a hash of its text."""
    return hashlib.blake2b(text.encode(), digest_size=_QID_BYTES).hexdigest()


def _read_pairs(source: str | PathLike[str]) -> Positives:
    pids: dict[str, dict[str, None]] = {}
    for number, (place, line) in enumerate(read_text_lines(source)):
        fields = line.rstrip("\r\n").split("\t")
        if number == 0 and set(fields) in _HEADERS:
            continue
        if len(fields) != 2 or not all(fields):
            raise SourceError(f"{place}: expected {_PAIR}, got {shorten(line)!r}")
        qid, pid = fields
        if len(pid.split()) > 1:
            raise SourceError(
                f"{place}: a pid of {_PAIR} must be without white space, got {shorten(pid)!r}: is "
                "this a file of queries? For such pids use BEIR's format"
            )
        pids.setdefault(qid, {})[pid] = None
    if not pids:
        raise SourceError(f"{source} has no pairs; expected lines {_PAIR}")
    return {qid: tuple(of_query) for qid, of_query in pids.items()}


def _clicks(source: str | PathLike[str]) -> Iterator[tuple[str, str, int]]:
    """Yield the query, pid and count of each line."""
    for number, (place, line) in enumerate(read_text_lines(source)):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 3 or not all(fields):
            raise SourceError(f"{place}: expected {_CLICK}, got {shorten(line)!r}")
        query, pid, count = fields
        if _COUNT.fullmatch(count):
            yield " ".join(query.split()), pid, int(count)
        elif number or any(map(str.isdecimal, count)):
            raise SourceError(
                f"{place}: the count must be an integer of 0 or more, got {count!r}; expected "
                f"{_CLICK}"
            )


def _check_count(name: str, value: object, most: int | None = None) -> None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not is_count or (most is not None and value > most):  # type: ignore[operator]
        bounds = "1 or more" if most is None else f"1 to {most}"
        raise UsageError(f"{name} must be {bounds}, got {value!r}")
