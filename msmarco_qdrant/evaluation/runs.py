"""Runs: what a system answered to a set of queries, in the form that TREC's tools read.

Passages of equal score have no order of their own, yet most measures need one. It is here what
trec_eval makes of it, whatever the file or the engine says: by score as a float32, then by pid,
both descending. So the same run has the same figures here, by trec_eval, and after it was
written and read again.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, overload

from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation.records import Ranking, Run
from msmarco_qdrant.evaluation.text_lines import columns, text_lines
from msmarco_qdrant.runtime.atomic_file import atomic_write

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.search_types import Hit

RUN_TAG = "msmarco-qdrant"
_FORM = "qid Q0 pid rank score tag"


class PackedRanking(Sequence[tuple[str, float]]):
    """Pids with their scores, the best first: 83 bytes a passage, and in a list of tuples 144.

    A run of 6,980 queries has 7 million of them. A pid is held once (`sys.intern`): where another
    ranking has it, too, or another system's, it costs 16 bytes.

    Args:
        pids: The best first.
        scores: One for each.
    """

    __slots__ = ("_pids", "_scores")
    __hash__ = None  # type: ignore[assignment]  # it equals lists, which have none

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


def ordered(scores: Mapping[str, float]) -> Ranking:
    """The passages of one query in the order that measures see.

    Args:
        scores: Of each pid, its score.

    Returns:
        By score rounded to float32, then by pid, both descending (trec_eval 9, `form_res_rels.c`).
    """
    keys = zip(array("f", scores.values()), scores, strict=True)
    pids = [pid for _, pid in sorted(keys, reverse=True)]
    return PackedRanking(pids, map(scores.__getitem__, pids))


def collect_run(
    name: str, answers: Iterable[tuple[Query, Sequence[Hit]]], model: str | None = None
) -> Run:
    """Make a run of answers.

    Args:
        name: What tables call it.
        answers: Queries with their hits, as `run_queries` yields them.
        model: See `Run`.

    Raises:
        UsageError: For a query that comes twice: its first answer would be lost.
    """
    rankings: dict[str, Ranking] = {}
    for query, hits in answers:
        if query.qid in rankings:
            raise UsageError(f"query {query.qid!r} comes twice: give each query a qid of its own")
        rankings[query.qid] = ordered({hit.pid: hit.score for hit in hits})
    return Run(name, rankings, model)


def read_run(source: str | PathLike[str], name: str | None = None, model: str | None = None) -> Run:
    """Read a TREC run, a line a hit: ``qid Q0 pid rank score tag``, gzip or not.

    Ranks are not looked at, as by TREC's tools: the scores decide.

    Args:
        source: The file.
        name: What tables call it; the file's name without its ending if None.
        model: See `Run`.

    Raises:
        SourceError: For a file that cannot be read or is empty, for a line of another form, a
            score that is no finite number, or a pid that comes twice for a query.
    """
    scores: dict[str, dict[str, float]] = {}
    for place, line in text_lines(source):
        fields = columns(line)
        if len(fields) != 6:
            raise SourceError(f"{place}: {len(fields)} columns, expected 6: {_FORM}")
        qid, _, pid, _, score, _ = fields
        of_query = scores.setdefault(qid, {})
        if pid in of_query:
            raise SourceError(f"{place}: pid {pid!r} comes twice for query {qid!r}")
        of_query[pid] = _finite(score, place)
    if not scores:
        raise SourceError(f"{source} holds no answer; expected a line a hit: {_FORM}")
    return Run(name or _stem(source), {qid: ordered(of) for qid, of in scores.items()}, model)


def _finite(text: str, place: str) -> float:
    try:
        score = float(text)
    except ValueError as exc:
        raise SourceError(f"{place}: the score {text!r} is no number") from exc
    if not math.isfinite(score):
        raise SourceError(f"{place}: the score {text!r} is not finite")
    return score


def _stem(source: str | PathLike[str]) -> str:
    return Path(shown(source).removesuffix(".gz")).stem


def shown(path: str | PathLike[str]) -> str:
    """A path as text that any file can hold: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def write_run(rankings: Iterable[tuple[str, Ranking]], file: TextIO, tag: str = RUN_TAG) -> int:
    """Write rankings as a TREC run: ``qid Q0 pid rank score tag``, a line a hit.

    Args:
        rankings: Queries' qids, each with its passages, the best first.
        file: Where to.
        tag: The last column.

    Returns:
        The number of queries written.

    Raises:
        UsageError: For a qid or pid with white space in it, which the form cannot hold.
    """
    count = 0
    for qid, ranking in rankings:
        for rank, (pid, score) in enumerate(ranking, start=1):
            check_id(qid)
            check_id(pid)
            # nine significant digits tell any two float32 apart
            file.write(f"{qid} Q0 {pid} {rank} {score:.9g} {tag}\n")
        count += 1
    return count


def save_run(path: Path, rankings: Iterable[tuple[str, Ranking]], tag: str = RUN_TAG) -> int:
    """Write rankings to a file that appears when it is complete; gzip if its name ends in .gz.

    Args:
        path: The file, which is replaced. The same rankings give the same bytes.
        rankings: See `write_run`.
        tag: See `write_run`.

    Returns:
        The number of queries written.

    Raises:
        UsageError: See `write_run`.
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
    """Refuse a qid or pid that a TREC run cannot hold.

    Raises:
        UsageError: If it is empty or holds white space.
    """
    if len(name.split()) != 1:
        raise UsageError(f"{name!r} holds white space: a TREC run cannot hold it")
