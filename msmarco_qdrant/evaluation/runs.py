"""TREC runs: rankings of a system for a set of queries, read and written as files.

Most measures need an order of passages with equal scores. It is the order of trec_eval: by score as
a float32, then by pid, both descending. So a run has the same figures here, by trec_eval, and after
it was written and read again.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, overload

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation.records import Ranking, Run
from msmarco_qdrant.evaluation.text_lines import read_text_lines, shorten, split_columns
from msmarco_qdrant.runtime.atomic_file import atomic_write

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.search_types import Hit

RUN_TAG = "msmarco-qdrant"
_FORM = "qid Q0 pid rank score tag"


class PackedRanking(Sequence[tuple[str, float]]):
    """Pids with scores, best first, in 83 bytes per passage; a list of tuples takes 144.

    A run of 6,980 queries has 7 million passages. Rankings share each pid (`sys.intern`): a pid
    that another ranking has too takes 16 bytes.
    """

    __slots__ = ("_pids", "_scores")
    __hash__ = None  # type: ignore[assignment]  # it equals lists, which are not hashable

    def __init__(self, pids: Iterable[str], scores: Iterable[float]) -> None:
        self._pids = tuple(map(sys.intern, pids))
        self._scores = array("d", scores)

    def __len__(self) -> int:
        return len(self._pids)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self._pids, self._scores, strict=True)

    @overload
    def __getitem__(self, place: int) -> tuple[str, float]: ...

    @overload
    def __getitem__(self, place: slice) -> list[tuple[str, float]]: ...

    def __getitem__(self, place: int | slice) -> tuple[str, float] | list[tuple[str, float]]:
        if isinstance(place, slice):
            return list(zip(self._pids[place], self._scores[place], strict=True))
        return self._pids[place], self._scores[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))


def rank_scores(scores: Mapping[str, float]) -> Ranking:
    """Rank the passages of one query in the order of measures.

    The order is by score rounded to float32, then by pid, both descending (trec_eval 9,
    `form_res_rels.c`).
    """
    keys = zip(array("f", scores.values()), scores, strict=True)
    pids = [pid for _, pid in sorted(keys, reverse=True)]
    return PackedRanking(pids, map(scores.__getitem__, pids))


def collect_run(
    name: str, answers: Iterable[tuple[Query, Sequence[Hit]]], model: str | None = None
) -> Run:
    """Collect answers, as from `run_queries`, as a run.

    Raises:
        UsageError: For a repeated qid.
    """
    rankings: dict[str, Ranking] = {}
    for query, hits in answers:
        if query.qid in rankings:
            raise UsageError(f"each query needs its own qid, got {query.qid!r} twice")
        rankings[query.qid] = rank_scores({hit.pid: hit.score for hit in hits})
    return Run(name, rankings, model)


def read_run(source: str | PathLike[str], name: str | None = None, model: str | None = None) -> Run:
    """Read a TREC run, plain or gzip, with a line per hit: ``qid Q0 pid rank score tag``.

    Scores decide the order, as in TREC's tools. Ranks may be equal, but not contradict the scores.

    Args:
        source: The file.
        name: Its name in tables; the file's name without its extension if None.
        model: See `Run`.

    Raises:
        SourceError: For an unreadable or empty file, a line of another format, a score that is not
            a finite number, a rank that is not an integer, a repeated pid of a query, or ranks
            that contradict the scores.
    """
    scores: dict[str, dict[str, float]] = {}
    order = _RankOrder()
    for place, line in read_text_lines(source):
        fields = split_columns(line)
        if len(fields) != 6:
            guess = ", as in judgments" if len(fields) == 4 else ""
            raise SourceError(
                f"{place}: expected 6 columns, {_FORM}, got {len(fields)}{guess}: {shorten(line)!r}"
            )
        qid, _, pid, rank, score, _ = fields
        of_query = scores.setdefault(qid, {})
        if pid in of_query:
            raise SourceError(f"{place}: query {qid!r} has pid {pid!r} twice")
        of_query[pid] = _parse_score(score, place)
        order.check(place, qid, _parse_rank(rank, place), of_query[pid])
    if not scores:
        raise SourceError(f"{source} has no hits; expected a line per hit: {_FORM}")
    order.check_scores(source)
    return Run(name or _stem(source), {q: rank_scores(of) for q, of in scores.items()}, model)


class _RankOrder:
    """Refuses ranks that contradict the scores, line by line."""

    def __init__(self) -> None:
        self._last = ("", 0, 0.0)
        self._scores: set[float] = set()
        self._is_ranked = False

    def check(self, place: str, qid: str, rank: int, score: float) -> None:
        """Compare a line with the line before, if both are of the same query."""
        before, last_rank, last_score = self._last
        self._last = qid, rank, score
        if len(self._scores) < 2:
            self._scores.add(score)
        if before != qid or rank == last_rank:
            return
        self._is_ranked = True
        if (rank > last_rank) == (score > last_score) and _differ(score, last_score):
            raise SourceError(
                f"{place}: a higher rank must not have a higher score, got rank {last_rank} with "
                f"score {last_score:g} and rank {rank} with {score:g} for query {qid!r}: write "
                "scores that decrease, such as 1/rank or the negative distance"
            )

    def check_scores(self, source: str | PathLike[str]) -> None:
        """Refuse a run whose order is in the ranks alone."""
        if self._is_ranked and len(self._scores) == 1:
            raise SourceError(
                f"{source} has the score {self._scores.pop():g} in every line, but measures take "
                "the order of the scores: write scores that decrease, such as 1/rank"
            )


def _differ(one: float, other: float) -> bool:
    """True if two scores differ as float32, as trec_eval compares them."""
    first, second = array("f", (one, other))
    return first != second


def _parse_rank(text: str, place: str) -> int:
    with suppress(ValueError):
        return int(text)
    raise SourceError(f"{place}: the rank must be an integer, got {text!r}; expected {_FORM}")


def _parse_score(text: str, place: str) -> float:
    with suppress(ValueError):
        if math.isfinite(score := float(text)):
            return score
    raise SourceError(f"{place}: the score must be a finite number, got {text!r}")


def _stem(source: str | PathLike[str]) -> str:
    """Return a file's name without extension; bytes that are not UTF-8 become U+FFFD."""
    return Path(os.fsencode(source).decode("utf-8", "replace").removesuffix(".gz")).stem


@suggest_keywords
def write_run(rankings: Iterable[tuple[str, Ranking]], file: TextIO, tag: str = RUN_TAG) -> int:
    """Write rankings as a TREC run, with a line per hit: ``qid Q0 pid rank score tag``.

    It returns the number of queries.

    Raises:
        UsageError: For an empty qid or pid, or one with white space; a repeated qid, or a repeated
            pid of a query; a score that is not a finite number.
    """
    qids: set[str] = set()
    for qid, ranking in rankings:
        check_id(qid)
        if qid in qids:
            raise UsageError(f"each query needs its own qid, got {qid!r} twice")
        qids.add(qid)
        pids: set[str] = set()
        for rank, (pid, score) in enumerate(ranking, start=1):
            check_id(pid)
            if pid in pids or not math.isfinite(score):
                found = f"got {pid!r} twice" if pid in pids else f"got the score {score} of {pid!r}"
                raise UsageError(
                    "a ranking must have different pids and finite scores, "
                    f"{found} for query {qid!r}"
                )
            pids.add(pid)
            # Nine significant digits represent each float32 uniquely.
            file.write(f"{qid} Q0 {pid} {rank} {score:.9g} {tag}\n")
    return len(qids)


@suggest_keywords
def save_run(path: Path, rankings: Iterable[tuple[str, Ranking]], tag: str = RUN_TAG) -> int:
    """Replace a file by a TREC run, atomically; as gzip if its name ends in .gz.

    The same rankings give the same bytes. See `write_run`.

    Raises:
        OutputError: If the file cannot be written.
    """
    with atomic_write(path) as file:
        packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else None
        text = io.TextIOWrapper(packed or file, "utf-8", newline="\n")
        count = write_run(rankings, text, tag)
        text.detach()
        if packed is not None:
            packed.close()
        return count


def check_id(name: str) -> None:
    """Refuse a qid or pid that a TREC run cannot contain.

    Raises:
        UsageError: If it is empty or has white space.
    """
    if len(name.split()) != 1:
        raise UsageError(
            f"ids in a TREC run must be non-empty and without white space, got {name!r}"
        )
