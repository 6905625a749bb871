"""Search a collection with several systems, measure their runs and compare them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.coverage import (
    SearchedPassages,
    check_run_pids,
    count_missing_relevant,
)
from msmarco_qdrant.evaluation.measures import DEFAULT_MEASURES, depth_of
from msmarco_qdrant.evaluation.plan import EvaluationPlan, plan_evaluation
from msmarco_qdrant.evaluation.progress import EvaluationDisplay
from msmarco_qdrant.evaluation.records import Evaluation, Qrels, Run, WorstQuery
from msmarco_qdrant.evaluation.scoring import (
    check_names,
    score_runs,
    select_judged,
    worst_queries,
)
from msmarco_qdrant.evaluation.systems import (
    OnAnswer,
    System,
    count_missing_candidates,
    rank_run,
    search_run,
    system_in,
)
from msmarco_qdrant.runtime.progress import add_display

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.core.search_types import SearchMode
    from msmarco_qdrant.search.client import SearchClient

OnQuery: TypeAlias = "Callable[[System, int, int], None]"
OnRun: TypeAlias = "Callable[[Run], None]"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchEvaluation:
    """An evaluation with its runs: the given ones, then the run of each system."""

    evaluation: Evaluation
    runs: tuple[Run, ...]


@suggest_keywords
def evaluate_search(  # noqa: PLR0913  # all but four have defaults
    client: SearchClient,
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
    against: Mapping[str, SearchClient] | None = None,
    on_query: OnQuery | None = None,
    on_answer: OnAnswer | None = None,
    on_run: OnRun | None = None,
    progress: bool = False,
) -> SearchEvaluation:
    """Search for every query with every system, and measure the runs.

    Invalid input is refused before the first search. A warning counts the candidates that the
    collection lacks, another names the measures that look deeper than `depth`. Means are over the
    queries with judgments. The evaluation counts the relevant passages that the collection lacks.

    Args:
        client: A client of the collection.
        queries: The queries.
        qrels: The judgments, by qid and pid.
        systems: Ways of searching; "dense", "bm25" or "hybrid" for the usual way of a mode.
        measures: Names as in `ir_measures`, separated by spaces or commas.
        depth: Hits per query, 1 to 10,000. None for the largest cutoff of the measures, or 1,000
            if one has no cutoff.
        candidates: Rank only these passages of each query, and measure this run first.
        others: More runs to measure. The very first run is the baseline of all comparisons.
        unjudged: Also search for queries without judgments. They are in the runs, but do not
            count.
        exclude_self: Leave out of each answer, run and judgment the passage whose pid is the
            query's qid, as for data sets whose queries are passages too (ArguAna, Quora).
        tenant: Search only this tenant's passages, which a collection with a tenant field requires.
        against: See `run_evaluation`.
        on_query: See `run_evaluation`.
        on_answer: See `run_evaluation`.
        on_run: See `run_evaluation`.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.

    Raises:
        UsageError: For invalid input, or if the collection has none of the relevant passages, none
            of the candidates, or none of the passages of a run; for a collection with a tenant
            field and no tenant, or the other way round.
        MissingExtraError: Without the extra `eval`.
        StoreError: If the engine fails.
    """
    plan = plan_evaluation(
        queries,
        qrels,
        systems,
        measures=measures,
        depth=depth,
        candidates=candidates,
        others=others,
        unjudged=unjudged,
        exclude_self=exclude_self,
        tenant=tenant,
    )
    return run_evaluation(
        client,
        plan,
        against=against,
        on_query=on_query,
        on_answer=on_answer,
        on_run=on_run,
        progress=progress,
    )


@suggest_keywords
def run_evaluation(
    client: SearchClient,
    plan: EvaluationPlan,
    *,
    against: Mapping[str, SearchClient] | None = None,
    on_query: OnQuery | None = None,
    on_answer: OnAnswer | None = None,
    on_run: OnRun | None = None,
    progress: bool = False,
) -> SearchEvaluation:
    """Search and measure as planned; see `evaluate_search`.

    `against` has clients on other collections or stores, by the names that tables show: each
    system also searches those, as "dense in NAME". `on_query` is called before each query with the
    system, the number of queries done and their total; `on_answer` with each query and its hits;
    `on_run` with each complete run, before the next system starts. A run that it saves survives
    any later failure. `progress` shows the queries done on standard error: a bar in a terminal or
    a notebook, else lines.
    """
    searches = [(client, system) for system in plan.systems]
    for name, other in (against or {}).items():
        searches += [(other, system_in(system, name)) for system in plan.systems]
        _check_place(name, other, plan)
    check_names([run.name for run in plan.runs] + [system.name for _, system in searches])
    if plan.candidates is None and plan.systems:
        _warn_shallow(plan.depth, plan.measures)
    missing = _check_coverage(client, plan)
    runs = list(plan.runs)
    with ExitStack() as stack:
        on_query = add_display(stack, EvaluationDisplay() if progress else None, on_query)
        for number, (place, system) in enumerate(searches):
            queries = _report_progress(plan.searched, system, on_query)
            run = _search(place, plan, queries, system, on_answer)
            if plan.candidates is not None and number % len(plan.systems) == 0:
                _check_missing(place.collection, run, plan.candidates)  # alike for each system
            runs.append(run)
            if on_run is not None:
                on_run(run)
    evaluation = score_runs(plan.queries, plan.qrels, runs, plan.measures, runs[0].name)
    return SearchEvaluation(replace(evaluation, missing=missing), tuple(runs))


def _search(
    client: SearchClient,
    plan: EvaluationPlan,
    queries: Iterable[Query],
    system: System,
    on_answer: OnAnswer | None,
) -> Run:
    if plan.candidates is not None:
        return rank_run(
            client,
            queries,
            system,
            plan.candidates,
            exclude_self=plan.exclude_self,
            tenant=plan.tenant,
            on_answer=on_answer,
        )
    return search_run(
        client,
        queries,
        system,
        plan.depth,
        exclude_self=plan.exclude_self,
        tenant=plan.tenant,
        on_answer=on_answer,
    )


def _check_place(name: str, client: SearchClient, plan: EvaluationPlan) -> None:
    """Check another collection to search, and warn of the relevant passages that it lacks."""
    if not plan.systems:
        raise UsageError(f"'{name}' needs one system or more to search it with, got none")
    judged = select_judged({query.qid for query in plan.queries}, plan.qrels)
    if missing := count_missing_relevant(SearchedPassages(client, plan.tenant), judged):
        _log.warning("'%s' lacks %s of the relevant passages", name, f"{missing:,}")


def _check_coverage(client: SearchClient, plan: EvaluationPlan) -> int:
    """Count the relevant passages that the collection lacks; refuse runs of another collection."""
    passages = SearchedPassages(client, plan.tenant)
    judged = select_judged({query.qid for query in plan.queries}, plan.qrels)
    missing = count_missing_relevant(passages, judged)
    for run in plan.runs:
        if run is not plan.candidates:  # a system ranks these, which counts the missing ones
            check_run_pids(passages, run, judged)
    return missing


def _report_progress(
    queries: Sequence[Query], system: System, on_query: OnQuery | None
) -> Iterator[Query]:
    for count, query in enumerate(queries):
        if on_query is not None:
            on_query(system, count, len(queries))
        yield query


def _warn_shallow(depth: int, measures: Sequence[str]) -> None:
    """Warn of measures whose cutoff, such as 100 of "R@100", is deeper than the run."""
    deeper = [name for name in measures if (depth_of([name]) or 0) > depth]
    if deeper:
        _log.warning(
            "depth %s is less than the cutoff of %s: passages below it count as not found",
            f"{depth:,}",
            " and ".join(deeper),
        )


def _check_missing(collection: str, ranked: Run, candidates: Run) -> None:
    """Warn of candidates that the collection lacks; refuse if it lacks all."""
    missing, given = count_missing_candidates(ranked, candidates)
    if missing and missing == given:
        raise UsageError(
            f"none of the {given:,} candidates is in the collection {collection!r}: were they "
            "taken from another one?"
        )
    if missing:
        _log.warning(
            "%s of %s candidates are not in the collection '%s' and are left out",
            f"{missing:,}",
            f"{given:,}",
            collection,
        )


def find_worst_queries(
    client: SearchClient,
    result: SearchEvaluation,
    queries: Collection[Query],
    qrels: Qrels,
    *,
    tenant: str | None = None,
) -> dict[str, tuple[WorstQuery, ...]]:
    """Return the ten worst queries of each run, with the texts of passages (of a tenant)."""

    def worst(texts: dict[str, str]) -> dict[str, tuple[WorstQuery, ...]]:
        return {
            run.name: worst_queries(result.evaluation, run, queries, qrels, texts)
            for run in result.runs
        }

    shown = [query for found in worst({}).values() for query in found]
    pids = {one.pid for query in shown for one in query.top}
    pids |= {one.pid for query in shown for one in query.missed}
    passages = get_passages(client.store, sorted(pids), tenant=tenant, collection=client.collection)
    return worst({pid: passage.text for pid, passage in passages.items()})
