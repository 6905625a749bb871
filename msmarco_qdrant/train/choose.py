"""Choose hard negatives among mined candidates, and compare what strategies would keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard, cast

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.json_value import from_json_value, to_json_value
from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation.tables import format_table
from msmarco_qdrant.runtime.progress import counted_progress
from msmarco_qdrant.train.choose_candidates import (
    SYSTEM,
    Candidates,
    ChoiceCount,
    ChoiceReport,
)
from msmarco_qdrant.train.choose_strategy import RANKED, SCORED, Strategy, to_strategy
from msmarco_qdrant.train.digests import digest_negatives
from msmarco_qdrant.train.negatives_file import NEGATIVES_FILE, read_negatives, write_negatives
from msmarco_qdrant.train.out_folder import OutFolder, digest_files, digest_of, read_json
from msmarco_qdrant.train.records import MinedQuery
from msmarco_qdrant.train.score_files import score_paths
from msmarco_qdrant.train.score_lookup import open_scores

Source: TypeAlias = str | PathLike[str]
Scores: TypeAlias = Source | Mapping[str, Mapping[str, float]]
"""A file or folder of scores, or scores by qid and pid."""

_REPORT = "report.json"


@suggest_keywords
def choose_negatives(
    negatives: Source | Iterable[MinedQuery],
    out: Source,
    strategy: Strategy | str = "random",
    *,
    scores: Scores | None = None,
    number: int | None = 4,
    seed: int = 0,
    promote_above: float | None = None,
    progress: bool = False,
) -> ChoiceReport:
    """Choose hard negatives among mined candidates, and write them to a folder.

    `OUT/negatives.jsonl.gz` has the form of the input, with the one system "chosen". The choice
    for a query depends on its candidates, its qid and the seed only. Call it again to get the
    report of a complete folder.

    Args:
        negatives: A file or folder of mined negatives, or the queries.
        out: The folder; new, empty, or of the same call.
        strategy: The rules; see `Strategy`.
        scores: A judge's scores of positives and candidates. With them, "top" is by score.
        number: Negatives per query at most; None for all that the strategy allows.
        seed: Seed of "random".
        promote_above: Make candidates that score this or more positives of their query, as
            RocketQA does from 0.9 on (arXiv:2010.08191).
        progress: Show progress.

    Raises:
        UsageError: For an invalid argument, rules of scores without scores, or a strategy that
            leaves no negative.
        SourceError: For an unreadable file, or scores of no candidate.
        OutputError: If the folder cannot be written, or another process fills it.
    """
    task = _Task(negatives, scores, number, seed, promote_above)
    chosen = to_strategy(strategy)
    task.check([chosen])
    if read_json(Path(out) / _REPORT) is not None:
        with OutFolder(out, "choose", task.settings(chosen)) as folder:
            return from_json_value(ChoiceReport, folder.read_json(_REPORT))
    (report,) = task.count([chosen], progress=progress)
    if not report.chosen:
        raise UsageError(
            f"strategy {report.strategy} must leave a negative or more, got none of "
            f"{report.candidates:,} candidates: compare strategies first, to see what each keeps"
        )
    with OutFolder(out, "choose", task.settings(chosen)) as folder:
        write_negatives(folder.path / NEGATIVES_FILE, task.choices(chosen))
        folder.write_json(_REPORT, to_json_value(report))
    return report


@suggest_keywords
def compare_strategies(
    negatives: Source | Iterable[MinedQuery],
    strategies: Sequence[Strategy | str] | None = None,
    *,
    scores: Scores | None = None,
    number: int | None = 4,
    seed: int = 0,
    promote_above: float | None = None,
    progress: bool = False,
) -> list[ChoiceReport]:
    """Return what each strategy would keep, without writing it.

    See `choose_negatives`; `strategies_table` shows the result.

    Args:
        negatives: A file or folder of mined negatives, or the queries.
        strategies: The strategies; None for common ones, with and without scores.
        scores: A judge's scores of positives and candidates.
        number: Negatives per query at most; None for all.
        seed: Seed of "random".
        promote_above: Make candidates that score this or more positives.
        progress: Show progress.

    Raises:
        UsageError: For an invalid argument, or rules of scores without scores.
        SourceError: For an unreadable file, or scores of no candidate.
    """
    task = _Task(negatives, scores, number, seed, promote_above)
    usual = RANKED if scores is None else SCORED
    if isinstance(strategies, str):
        raise UsageError(f"strategies must be a list of them, got the string {strategies!r}")
    compared = [to_strategy(one) for one in (usual if strategies is None else strategies)]
    task.check(compared)
    return task.count(compared, progress=progress)


def strategies_table(reports: Sequence[ChoiceReport]) -> str:
    """Return a table of what strategies keep, then where each rule comes from."""
    head = ("strategy", "allowed", "negatives", "per query", "full", "empty", "rank", "score")
    rows = [head, *map(_row, reports)]
    rules = {rule: None for one in reports for rule in Strategy.parse(one.strategy).sources()}
    first = reports[0]
    facts = f"queries: {first.queries:,}; candidates: {first.candidates:,}"
    if first.promoted:
        facts += f", of which become positives: {first.promoted:,}"
    if first.unjudged:
        facts += f", without a score: {first.unjudged:,}"
    wanted = "a negative" if first.number is None else f"{first.number:,} negatives"
    legend = f"full: queries with {wanted}; rank, score: means of the negatives"
    return "\n\n".join([facts, format_table(rows), legend, "\n".join(rules)])


def _row(report: ChoiceReport) -> tuple[str, ...]:
    share = report.allowed / report.candidates if report.candidates else 0.0
    return (
        report.strategy,
        f"{share:.1%}",
        f"{report.chosen:,}",
        f"{report.chosen / report.queries:.2f}",
        f"{report.full / report.queries:.1%}",
        f"{report.empty / report.queries:.1%}",
        "-" if report.mean_rank is None else f"{report.mean_rank:.1f}",
        "-" if report.mean_score is None else f"{report.mean_score:.3f}",
    )


class _Task:
    """The checked arguments of a choice or a comparison."""

    def __init__(
        self,
        negatives: Source | Iterable[MinedQuery],
        scores: Scores | None,
        number: int | None,
        seed: int,
        promote_above: float | None,
    ) -> None:
        if number is not None:
            _check_integer("number", number, 1, "1 or more, or None for all")
        _check_integer("seed", seed, 0, "0 or more")
        if promote_above is not None:
            _check_score("promote_above", promote_above)
        self._negatives: Source | list[MinedQuery]
        self._negatives = negatives if _is_path(negatives) else _checked_queries(negatives)
        self._scores = scores
        self._number = number
        self._seed = seed
        self._promote_above = promote_above

    def check(self, strategies: Sequence[Strategy]) -> None:
        """Refuse strategies that these arguments do not allow."""
        if not strategies:
            raise UsageError("strategies must have one or more, got none")
        if self._scores is not None:
            _check_scores(self._scores)
            return
        scored = next((one for one in strategies if one.needs_scores), None)
        if scored is not None:
            raise UsageError(f"strategy {scored} compares scores: pass scores=FILE of a judge")
        if self._promote_above is not None:
            raise UsageError("promote_above must have scores to compare with: pass scores=FILE")

    def settings(self, strategy: Strategy) -> dict[str, Any]:
        """Return what decides about the result, for a folder."""
        return {
            "strategy": str(strategy),
            "number": self._number,
            "seed": self._seed,
            "promote_above": self._promote_above,
            "negatives": digest_negatives(self._negatives),
            "scores": _scores_digest(self._scores),
        }

    def count(self, strategies: Sequence[Strategy], *, progress: bool) -> list[ChoiceReport]:
        """Return the reports of strategies."""
        counts = [ChoiceCount(one, self._number) for one in strategies]
        with counted_progress(None, progress=progress, unit="queries") as show:
            for done, candidates in enumerate(self._candidates(), start=1):
                for one in counts:
                    one.add(candidates, candidates.choose(one.strategy, self._number, self._seed))
                show(done, 0)
        reports = [one.report() for one in counts]
        self._check_found(reports[0])
        return reports

    def choices(self, strategy: Strategy) -> Iterator[MinedQuery]:
        """Yield the queries with their negatives."""
        for candidates in self._candidates():
            choice = candidates.choose(strategy, self._number, self._seed)
            yield MinedQuery(candidates.qid, candidates.positives, {SYSTEM: choice.chosen})

    def _candidates(self) -> Iterator[Candidates]:
        if self._scores is None:
            yield from map(Candidates, self._mined())
            return
        with open_scores(self._scores) as scores:
            for mined in self._mined():
                yield Candidates(mined, scores.get(mined.qid), self._promote_above)

    def _mined(self) -> Iterator[MinedQuery]:
        if isinstance(self._negatives, list):
            return iter(self._negatives)
        return read_negatives(self._negatives)

    def _check_found(self, report: ChoiceReport) -> None:
        """Refuse an input without candidates, and scores of other passages."""
        if not report.candidates:
            raise SourceError(
                f"the negatives must have one candidate or more, got {report.queries:,} queries "
                "without any: mine them with a larger depth"
            )
        if self._scores is not None and report.unjudged == report.candidates:
            raise SourceError(
                f"the scores must be of the negatives' queries and passages, got none of "
                f"{report.candidates:,} candidates: are they of another file or collection?"
            )


# ---- arguments -------------------------------------------------------------------------------


def _scores_digest(scores: Scores | None) -> str | None:
    """Return a digest of the scores, or of the bytes of their files."""
    if scores is None:
        return None
    if not _is_path(scores):
        return digest_of(_score_parts(scores))
    return digest_of(map(digest_files, score_paths(scores)))


def _score_parts(scores: object) -> Iterator[str]:
    """Yield everything in scores by qid, as texts."""
    for qid, found in sorted(cast("Mapping[str, Mapping[str, float]]", scores).items()):
        yield repr((qid, sorted(found.items())))


def _is_path(value: object) -> TypeGuard[Source]:
    return isinstance(value, str | PathLike)


def _checked_queries(mined: object) -> list[MinedQuery]:
    """Return the queries of a list or iterator."""
    queries = [*mined] if isinstance(mined, Iterable) and not isinstance(mined, Mapping) else None
    if queries is None or not all(isinstance(one, MinedQuery) for one in queries):
        raise UsageError(
            "negatives must be a file, a folder with one, or a list of MinedQuery, got "
            f"{type(mined).__name__}"
        )
    if not queries:
        raise UsageError("negatives must have one query or more, got none")
    return queries


def _check_scores(scores: object) -> None:
    if not _is_path(scores) and not isinstance(scores, Mapping):
        raise UsageError(
            "scores must be a file or folder of scores, or a mapping from qid to scores by pid, "
            f"got {type(scores).__name__}"
        )


def _check_integer(name: str, value: object, least: int, rule: str) -> None:
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or cast("int", value) < least:
        raise UsageError(f"{name} must be {rule}, got {value!r}")


def _check_score(name: str, value: object) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(cast("float", value)):
        raise UsageError(f"{name} must be a finite number, got {value!r}")
