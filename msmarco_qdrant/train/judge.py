"""Judging: a stronger model's score of each positive and each candidate of mined queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

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
from msmarco_qdrant.train.judge_scorer import Judge, JudgeInfo, Scorer, to_scorer
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
    inputs = JudgeInputs.of(
        collection=client.collection,
        queries=queries,
        negatives=negatives,
        dev_queries=dev_queries,
        dev_qrels=dev_qrels,
        mode=mode,
        depth=depth,
        tenant=tenant,
    )
    steps = _LocalSteps(to_scorer(judge), client, inputs)
    return run_judging(out, steps, inputs, allow_weak=allow_weak, progress=progress)


@dataclass(frozen=True, slots=True)
class JudgeInputs:
    """Mined queries to judge, and the dev queries that judge the judge.

    Attributes:
        collection: Name of the collection.
        queries: The mined queries.
        negatives: A file or folder of mined negatives, or the queries.
        dev_queries: The dev queries.
        dev_qrels: Their judgments.
        mode: Mode of the search that the judge must improve on.
        depth: Candidates per dev query.
        tenant: Only this tenant's passages.
    """

    collection: str
    queries: Sequence[Query]
    negatives: Negatives
    dev_queries: Sequence[Query]
    dev_qrels: Qrels
    mode: SearchMode
    depth: int
    tenant: str | None

    @classmethod
    def of(
        cls,
        *,
        queries: Iterable[Query],
        negatives: Negatives,
        dev_queries: Sequence[Query],
        dev_qrels: Qrels,
        mode: SearchMode | None,
        depth: int,
        **others: Any,
    ) -> JudgeInputs:
        """Return the inputs of a call, with the mode of the mined folder if none is given.

        Raises:
            UsageError: For a depth out of range, or dev queries without judgments.
        """
        check_count("depth", depth)
        check_dev(dev_queries, dev_qrels)
        mode = mode or mined_mode(negatives)
        if not isinstance(negatives, str | PathLike):
            negatives = [*negatives]
        return cls(
            queries=[*queries],
            negatives=negatives,
            dev_queries=dev_queries,
            dev_qrels=dev_qrels,
            mode=mode,
            depth=depth,
            **others,
        )

    def settings(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return what decides about the scores, for the settings of a folder.

        Args:
            identity: What decides about those of the judge.
        """
        return {
            **identity,
            "collection": self.collection,
            "negatives": digest_negatives(self.negatives),
            "queries": digest_queries(self.queries),
            "dev queries": digest_queries(self.dev_queries),
            "dev qrels": digest_grades(self.dev_qrels),
            "mode": self.mode,
            "depth": self.depth,
            "tenant": self.tenant,
        }

    def texts(self) -> dict[str, str]:
        """Return the text of each mined query, by qid."""
        return {query.qid: query.text for query in self.queries}

    def parts(self) -> Iterator[Part]:
        """Read the mined queries, and yield their parts."""
        if isinstance(self.negatives, str | PathLike):
            return split_parts(read_negatives(self.negatives))
        return split_parts(self.negatives)


class JudgeSteps(Protocol):
    """The steps of a judging that need the judge: in this process or on other machines."""

    @property
    def judge(self) -> JudgeInfo:
        """The judge's properties."""
        ...

    def check(self, on_queries: Callable[[int, int], None]) -> JudgeCheck:
        """Compare the judge with the search; see `check_judge`."""
        ...

    def judge_parts(self, files: PartFiles, on_pairs: Callable[[int], None]) -> None:
        """Write the parts that are missing; see `judge_parts`."""
        ...


class _LocalSteps:
    """The judge in this process."""

    def __init__(self, scorer: Scorer, client: SearchClient, inputs: JudgeInputs) -> None:
        self._scorer = scorer
        self._client = client
        self._inputs = inputs
        self.judge = JudgeInfo.of(scorer)

    def check(self, on_queries: Callable[[int, int], None]) -> JudgeCheck:
        inputs = self._inputs
        return check_judge(
            self._scorer,
            self._client,
            inputs.dev_queries,
            inputs.dev_qrels,
            mode=inputs.mode,
            depth=inputs.depth,
            tenant=inputs.tenant,
            on_queries=on_queries,
        )

    def judge_parts(self, files: PartFiles, on_pairs: Callable[[int], None]) -> None:
        inputs = self._inputs
        texts = PassageTexts(self._client, tenant=inputs.tenant)
        judge_parts(inputs.parts(), files, self._scorer, inputs.texts(), texts, on_pairs)


def run_judging(
    out: str | PathLike[str],
    steps: JudgeSteps,
    inputs: JudgeInputs,
    *,
    allow_weak: bool,
    progress: bool,
) -> JudgeReport:
    """Check the judge and score what is missing, unless that is done; return the report.

    Args:
        out: The output folder.
        steps: The judge.
        inputs: What it judges.
        allow_weak: True to use a judge that is not better than the search.
        progress: Show it on standard error.

    Raises:
        WeakJudgeError: If the judge is not better than the search.
        UsageError: For a mined query without text, or a folder of another call.
        OutputError: If the folder cannot be written, or another process judges into it.
    """
    with OutFolder(out, "judge", inputs.settings(steps.judge.identity)) as folder:
        check = _stored_check(folder)
        if check is None:
            with counted_progress(None, progress=progress, unit="dev queries") as count:
                check = steps.check(count)
            folder.write_json(_CHECK, to_json_value(check))
        if not check.is_better and not allow_weak:
            raise WeakJudgeError(_weak(steps.judge.model, check), check.judge, check.search)
        files = PartFiles(folder.path)
        if (stored := folder.read_json(_REPORT)) is None:
            report = _judge(folder, files, steps, inputs, check, progress=progress)
            folder.write_json(_REPORT, to_json_value(report))
        else:
            report = from_json_value(JudgeReport, stored)
        files.remove()  # after the report: a kill in between loses no score
        return report


def _judge(
    folder: OutFolder,
    files: PartFiles,
    steps: JudgeSteps,
    inputs: JudgeInputs,
    check: JudgeCheck,
    *,
    progress: bool,
) -> JudgeReport:
    """Judge the parts that are missing, write the scores, and return the report."""
    started = time.perf_counter()
    total = sum(part.pairs for part in require_texts(inputs.parts(), inputs.texts()))
    with counted_progress(None, progress=progress, unit="pairs") as show:
        done = 0

        def count(pairs: int) -> None:
            nonlocal done
            done += pairs
            show(done, total)

        steps.judge_parts(files, count)
    counted = _Counted(files.read(inputs.parts()))
    queries = write_scores(folder.path / SCORES_FILE, counted)
    return JudgeReport(
        steps.judge.model,
        steps.judge.scale,
        check,
        queries,
        counted.scores,
        total - counted.scores,
        round(time.perf_counter() - started, 3),
    )


class _Counted:
    """Scores by query; counts the scores as they are read."""

    def __init__(self, scores: Iterable[tuple[str, dict[str, float]]]) -> None:
        self._scores = scores
        self.scores = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, float]]]:
        for qid, found in self._scores:
            self.scores += len(found)
            yield qid, found


def _stored_check(folder: OutFolder) -> JudgeCheck | None:
    stored = folder.read_json(_CHECK)
    return None if stored is None else from_json_value(JudgeCheck, stored)


def _weak(model: str, check: JudgeCheck) -> str:
    return (
        f"the judge {model} must rank the candidates better than the search that found them, got "
        f"{check}: use a stronger model or more dev queries, or judge anyway with "
        "--allow-weak-judge (allow_weak=True)"
    )
