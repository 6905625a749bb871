"""Plan of an evaluation: its input, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msmarco_qdrant.collection.tenants import check_tenant
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.measures import (
    DEFAULT_MEASURES,
    check_relevance_levels,
    depth_of,
    measure_run,
    parse_measures,
)
from msmarco_qdrant.evaluation.records import Qrels, Run
from msmarco_qdrant.evaluation.scoring import check_answers, check_names, check_qids, select_judged
from msmarco_qdrant.evaluation.systems import System, to_system
from msmarco_qdrant.search.options import check_queries, to_request
from msmarco_qdrant.search.request import MAX_LIMIT

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.search_types import SearchMode

_DEFAULT_DEPTH = 1000


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """The checked input of an evaluation; made by `plan_evaluation`.

    `searched` are the queries to search for, `depth` is the number of hits per query, and `runs`
    are the given runs, candidates first. With `exclude_self`, runs and judgments lack each query's
    own passage.
    """

    queries: Collection[Query]
    searched: Sequence[Query]
    qrels: Qrels
    systems: Sequence[System]
    measures: tuple[str, ...]
    depth: int
    candidates: Run | None
    runs: tuple[Run, ...]
    exclude_self: bool = False
    tenant: str | None = None


@suggest_keywords
def plan_evaluation(  # noqa: PLR0913  # all but three have defaults
    queries: Collection[Query],
    qrels: Qrels,
    systems: Sequence[System | SearchMode],
    *,
    measures: str = DEFAULT_MEASURES,
    depth: int | None = None,
    candidates: Run | None = None,
    others: Sequence[Run] = (),
    unjudged: bool = False,
    exclude_self: bool = False,
    tenant: str | None = None,
) -> EvaluationPlan:
    """Check the input of an evaluation, without a client: before a model is loaded.

    See `evaluate_search`.

    Raises:
        UsageError: For an unknown measure or option, queries without text, judgments or
            candidates, judgments without a relevant passage, a repeated qid, a run without an
            answer to a judged query, or two runs of one name.
        MissingExtraError: Without the extra `eval`.
    """
    check_tenant(tenant)
    names = parse_measures(measures)
    if exclude_self:
        qrels = qrels_without_self(qrels)
        candidates = None if candidates is None else _run_without_self(candidates)
        others = [_run_without_self(run) for run in others]
    searched_by = [to_system(one) for one in systems]
    runs = (*([] if candidates is None else [candidates]), *others)
    check_names([*(run.name for run in runs), *(system.name for system in searched_by)])
    check_qids(queries)
    judged = select_judged({query.qid for query in queries}, qrels)
    measure_run(names, judged, Run("", {}))  # some measures do not accept every grade
    check_relevance_levels(names, judged)
    for run in others:
        check_answers(run, judged)
    searched = [query for query in queries if unjudged or query.qid in qrels]
    check_texts(searched)
    if candidates is not None:
        _check_candidates(candidates, searched, judged)
        depth = 1  # ranking candidates needs no depth
    limit = _check_depth(depth, names) if searched_by else 1
    for system in searched_by:
        to_request(system.options(limit, more=1 if exclude_self and candidates is None else 0))
    return EvaluationPlan(
        queries,
        searched,
        qrels,
        searched_by,
        names,
        limit,
        candidates,
        runs,
        exclude_self=exclude_self,
        tenant=tenant,
    )


def qrels_without_self(qrels: Qrels) -> Qrels:
    """Return judgments without those of a query's own passage."""
    return {
        qid: {pid: grade for pid, grade in grades.items() if pid != qid}
        for qid, grades in qrels.items()
    }


def _run_without_self(run: Run) -> Run:
    """Return a run without each query's own passage."""
    rankings = {
        qid: [one for one in ranking if one[0] != qid] for qid, ranking in run.rankings.items()
    }
    return replace(run, rankings=rankings)


def check_texts(queries: Iterable[Query]) -> None:
    """Refuse queries that cannot be searched for.

    Raises:
        UsageError: With the qid of the first.
    """
    for query in queries:
        try:
            check_queries([query.text])
        except UsageError as exc:
            raise UsageError(f"cannot search for query {query.qid!r}: {exc}") from exc


def _check_candidates(candidates: Run, searched: Iterable[Query], judged: Qrels) -> None:
    if not any(candidates.rankings.get(qid) for qid in judged):
        raise UsageError(
            f"{candidates.name!r} has candidates for none of the {len(judged)} judged queries: "
            "is it a run for these queries?"
        )
    for query in searched:
        count = len(candidates.rankings.get(query.qid, ()))
        if count > MAX_LIMIT:
            raise UsageError(
                f"a query has at most {MAX_LIMIT:,} candidates, got {count:,} for query "
                f"{query.qid!r} in {candidates.name!r}"
            )


def _check_depth(depth: int | None, measures: Sequence[str]) -> int:
    """Return the hits per query."""
    if depth is not None:
        if not 1 <= depth <= MAX_LIMIT:
            raise UsageError(f"depth must be 1 to {MAX_LIMIT:,}, got {depth}")
        return depth
    limit = depth_of(measures) or _DEFAULT_DEPTH
    if limit > MAX_LIMIT:
        deepest = max(measures, key=lambda measure: depth_of([measure]) or 0)
        raise UsageError(
            f"measure {deepest!r} needs {limit:,} hits per query, a search returns at most "
            f"{MAX_LIMIT:,}: pass depth={MAX_LIMIT}, or another measure"
        )
    return limit
