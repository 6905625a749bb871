"""Judging: a stronger model's score of each positive and each candidate of mined queries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.json_value import from_json_value, to_json_value
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import WeakJudgeError
from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.runtime.progress import counted_progress
from msmarco_qdrant.search.request import check_count
from msmarco_qdrant.train.digests import digest_grades, digest_negatives, digest_queries
from msmarco_qdrant.train.judge_check import JudgeCheck, check_dev, check_judge
from msmarco_qdrant.train.judge_parts import (
    Part,
    PartFiles,
    judge_parts,
    require_texts,
    split_parts,
)
from msmarco_qdrant.train.judge_scorer import Judge, Scorer, to_scorer
from msmarco_qdrant.train.mined_mode import mined_mode
from msmarco_qdrant.train.negatives_file import read_negatives
from msmarco_qdrant.train.out_folder import OutFolder
from msmarco_qdrant.train.records import MinedQuery
from msmarco_qdrant.train.score_files import SCORES_FILE, check_extra, write_scores
from msmarco_qdrant.train.texts import PassageTexts

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.search.client import SearchClient

Negatives: TypeAlias = str | PathLike[str] | Sequence[MinedQuery]

_REPORT, _CHECK = "report.json", "check.json"


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """Counts of a judging.

    Attributes:
        judge: The judge's model.
        scale: The kind of its scores: "logit", "probability", "cosine" or "dot".
        check: How well it ranks the candidates of dev queries.
        queries: Number of queries with scores.
        pairs: Number of scores, of positives and of candidates.
        missing: Pairs without a score, because the collection lacks the passage.
        seconds: Wall time of the call that completed the file; earlier ones are not counted.
    """

    judge: str
    scale: str
    check: JudgeCheck
    queries: int
    pairs: int
    missing: int
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"{self.judge} is the judge: {self.check}",
            f"scores: {self.pairs:,} ({self.scale}) of {self.queries:,} queries",
            f"seconds: {self.seconds:,.1f}",
        ]
        if not self.check.is_better:
            lines.append("the judge is not better than the search: its scores are allowed anyway")
        if self.missing:
            lines.append(f"{self.missing:,} passages are not in the collection: without a score")
        return "\n".join(lines)


@suggest_keywords
def judge_negatives(  # noqa: PLR0913  # eight have defaults
    judge: Judge,
    client: SearchClient,
    queries: Iterable[Query],
    negatives: Negatives,
    out: str | PathLike[str],
    *,
    dev_queries: Sequence[Query],
    dev_qrels: Qrels,
    allow_weak: bool = False,
    mode: SearchMode | None = None,
    depth: int = 100,
    tenant: str | None = None,
    progress: bool = False,
) -> JudgeReport:
    """Score positives and mined candidates with a stronger model.

    First the judge is judged: it must rank the client's candidates of the dev queries better than
    the search itself, by nDCG@10 and a paired test. Then it writes `scores.parquet` and
    `report.json` into the folder. Interrupted or killed, the same call resumes; once complete, it
    returns the report.

    Args:
        judge: A cross-encoder, or a bi-encoder that is stronger than the collection's; or the
            location of one: a directory, a name of the catalog, or a hub id. Its scores are stored
            as it returns them.
        client: A client on the collection that holds the passages.
        queries: The texts of the mined queries.
        negatives: A file or folder of mined negatives, or the queries.
        out: A new folder, or one that the same call has begun.
        dev_queries: Queries that decide whether the judge is good enough.
        dev_qrels: Their judgments.
        allow_weak: True to use a judge that is not better than the search.
        mode: Mode of the search that the judge must improve on. By default that of the folder of
            `mine_negatives`; of several modes "hybrid", without such a folder "dense".
        depth: Candidates per dev query, 1 to 10,000.
        tenant: Only this tenant's passages, which a collection with a tenant field requires.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Raises:
        WeakJudgeError: If the judge is not better than the search.
        UsageError: For an invalid argument, a mined query without text, dev queries without
            judgments, passages of another collection, or a folder of another call.
        SourceError: If the negatives cannot be read.
        EncodingError: If the judge fails.
        OutputError: If the folder cannot be written, or another process judges into it.
        MissingExtraError: Without the extra `train`.
    """
    check_extra("judging")
    check_count("depth", depth)
    check_dev(dev_queries, dev_qrels)
    scorer = to_scorer(judge)
    queries, mode = [*queries], mode or mined_mode(negatives)
    if not isinstance(negatives, str | PathLike):
        negatives = [*negatives]
    settings = {
        **scorer.identity(),
        "collection": client.collection,
        "negatives": digest_negatives(negatives),
        "queries": digest_queries(queries),
        "dev queries": digest_queries(dev_queries),
        "dev qrels": digest_grades(dev_qrels),
        "mode": mode,
        "depth": depth,
        "tenant": tenant,
    }
    texts = {query.qid: query.text for query in queries}
    run = _JudgeRun(scorer, client, texts, negatives, tenant)
    with OutFolder(out, "judge", settings) as folder:
        check = _stored_check(folder)
        if check is None:
            with counted_progress(None, progress=progress, unit="dev queries") as count:
                check = check_judge(
                    scorer,
                    client,
                    dev_queries,
                    dev_qrels,
                    mode=mode,
                    depth=depth,
                    tenant=tenant,
                    on_queries=count,
                )
            folder.write_json(_CHECK, to_json_value(check))
        if not check.is_better and not allow_weak:
            raise WeakJudgeError(_weak(scorer.model, check), check.judge, check.search)
        files = PartFiles(folder.path)
        if (stored := folder.read_json(_REPORT)) is None:
            report = run.judge(folder, files, check, progress=progress)
            folder.write_json(_REPORT, to_json_value(report))
        else:
            report = from_json_value(JudgeReport, stored)
        files.remove()  # after the report: a kill in between loses no score
        return report


class _JudgeRun:
    """One call: judges the parts that are missing, and then joins them."""

    def __init__(
        self,
        scorer: Scorer,
        client: SearchClient,
        queries: dict[str, str],
        negatives: Negatives,
        tenant: str | None,
    ) -> None:
        self._scorer = scorer
        self._texts = PassageTexts(client, tenant=tenant)
        self._queries = queries
        self._negatives = negatives
        self._done = 0

    def judge(
        self, folder: OutFolder, files: PartFiles, check: JudgeCheck, *, progress: bool
    ) -> JudgeReport:
        """Judge the parts that are missing, write the scores, and return the report."""
        started = time.perf_counter()
        total = sum(part.pairs for part in require_texts(self._parts(), self._queries))
        with counted_progress(None, progress=progress, unit="pairs") as show:

            def count(pairs: int) -> None:
                self._done += pairs
                show(self._done, total)

            judge_parts(self._parts(), files, self._scorer, self._queries, self._texts, count)
        counted = _Counted(files.read(self._parts()))
        queries = write_scores(folder.path / SCORES_FILE, counted)
        return JudgeReport(
            self._scorer.model,
            self._scorer.scale,
            check,
            queries,
            counted.scores,
            total - counted.scores,
            round(time.perf_counter() - started, 3),
        )

    def _parts(self) -> Iterator[Part]:
        return split_parts(_read(self._negatives))


class _Counted:
    """Scores by query; counts the scores as they are read."""

    def __init__(self, scores: Iterable[tuple[str, dict[str, float]]]) -> None:
        self._scores = scores
        self.scores = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, float]]]:
        for qid, found in self._scores:
            self.scores += len(found)
            yield qid, found


def _read(negatives: Negatives) -> Iterable[MinedQuery]:
    if isinstance(negatives, str | PathLike):
        return read_negatives(negatives)
    return negatives


def _stored_check(folder: OutFolder) -> JudgeCheck | None:
    stored = folder.read_json(_CHECK)
    return None if stored is None else from_json_value(JudgeCheck, stored)


def _weak(model: str, check: JudgeCheck) -> str:
    return (
        f"the judge {model} must rank the candidates better than the search that found them, got "
        f"{check}: use a stronger model or more dev queries, or judge anyway with "
        "--allow-weak-judge (allow_weak=True)"
    )
