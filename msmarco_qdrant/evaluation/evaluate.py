"""Systems of one collection asked, measured and compared."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.collection.passages import get_passages
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.measures import (
    DEFAULT_MEASURES,
    depth_of,
    measure_run,
    parse_measures,
)
from msmarco_qdrant.evaluation.records import Evaluation, PoorQuery, Qrels, Run
from msmarco_qdrant.evaluation.scoring import check_names, evaluate_runs, judged_part, worst_queries
from msmarco_qdrant.evaluation.systems import (
    OnAnswer,
    System,
    missing_candidates,
    rank_run,
    search_run,
)
from msmarco_qdrant.search.options import MAX_LIMIT, SearchRequest, check_queries

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.search.client import SearchClient

_DEPTH = 1000
_POOREST = 10

OnQuery: TypeAlias = "Callable[[System, int, int], None]"
OnRun: TypeAlias = "Callable[[Run], None]"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation and the runs that were measured.

    Attributes:
        evaluation: The measures.
        runs: Those given, then what each system answered.
    """

    evaluation: Evaluation
    runs: tuple[Run, ...]


def evaluate_search(  # noqa: PLR0913  # eight have defaults
    client: SearchClient,
    queries: Collection[Query],
    qrels: Qrels,
    systems: Sequence[System],
    *,
    measures: str = DEFAULT_MEASURES,
    depth: int | None = None,
    candidates: Run | None = None,
    others: Sequence[Run] = (),
    unjudged: bool = False,
    on_query: OnQuery | None = None,
    on_answer: OnAnswer | None = None,
    on_run: OnRun | None = None,
) -> Evaluated:
    """Ask every query of every system, and measure what comes.

    What cannot be meant is refused before the first query is asked. Where the collection lacks
    candidates, a warning says how many; where measures look deeper than `depth`, one says so.

    Args:
        client: Where to search.
        queries: What to ask.
        qrels: The judgments; means are over the queries that have some.
        systems: Ways of searching.
        measures: Their names, as `ir_measures` has them, with spaces between.
        depth: Hits a query; None for as deep as the measures look, or 1,000 where one has no end.
        candidates: Rank only these passages of each query, and measure this run itself first.
        others: Runs to measure beside. The first run of all is what the others are compared with.
        unjudged: Ask the queries without judgments, too: they count nothing, but stand in the
            runs.
        on_query: Called with the system, the queries asked of it until now and all of them, before
            each.
        on_answer: Called with each query and its hits as they come.
        on_run: Called with each system's run as soon as it is complete, before the next one is
            asked and anything is measured: what it keeps no later failure takes away.

    Raises:
        UsageError: For a measure or an option that means nothing or cannot be served, queries
            without words, judgments or candidates, runs of one name, or if the collection holds
            no candidate at all.
        MissingExtraError: Without the extra `eval`.
        StoreError: If the engine fails.
    """
    given = [*([candidates] if candidates is not None else []), *others]
    compared: list[Run | System] = [*given, *systems]
    check_evaluation(queries, qrels, compared, measures, candidates, depth=depth, unjudged=unjudged)
    wanted = _wanted(depth, parse_measures(measures))
    asked = _asked(queries, qrels, unjudged=unjudged)
    if candidates is None and systems:
        _tell_shallow(wanted, parse_measures(measures))
    answered: list[Run] = []
    for system in systems:
        watched = _watched(asked, system, on_query)
        if candidates is None:
            run = search_run(client, watched, system, wanted, on_answer=on_answer)
        else:
            run = rank_run(client, watched, system, candidates, on_answer=on_answer)
            if not answered:
                _tell_missing(client.collection, run, candidates)
        answered.append(run)
        if on_run is not None:
            on_run(run)
    runs = (*given, *answered)
    return Evaluated(evaluate_runs(queries, qrels, runs, measures), runs)


def check_evaluation(
    queries: Collection[Query],
    qrels: Qrels,
    runs: Sequence[Run | System],
    measures: str,
    candidates: Run | None = None,
    *,
    depth: int | None = None,
    unjudged: bool = False,
) -> None:
    """Refuse what `evaluate_search` would, without a client: before a model is loaded.

    Args:
        queries: See `evaluate_search`.
        qrels: See `evaluate_search`.
        runs: All that will be measured.
        measures: See `evaluate_search`.
        candidates: See `evaluate_search`.
        depth: See `evaluate_search`.
        unjudged: See `evaluate_search`.

    Raises:
        UsageError: See `evaluate_search`.
        MissingExtraError: Without the extra `eval`.
    """
    names = parse_measures(measures)
    check_names([run.name for run in runs])
    for qid, count in Counter(query.qid for query in queries).items():
        if count > 1:
            raise UsageError(f"query {qid!r} comes {count} times: give each query a qid of its own")
    judged = judged_part({query.qid for query in queries}, qrels)
    measure_run(names, judged, Run("", {}))  # some are not of all grades
    asked = _asked(queries, qrels, unjudged=unjudged)
    _check_queries(asked)
    if candidates is not None:
        _check_candidates(candidates, asked, judged)
        depth = 1  # it says nothing
    systems = [run for run in runs if isinstance(run, System)]
    if systems:
        _check_served(systems, depth, names)


def _check_queries(queries: Iterable[Query]) -> None:
    for query in queries:
        try:
            check_queries([query.text])
        except UsageError as exc:
            raise UsageError(f"query {query.qid!r} cannot be asked: {exc}") from exc


def _check_candidates(candidates: Run, asked: Iterable[Query], judged: Qrels) -> None:
    if not any(candidates.rankings.get(qid) for qid in judged):
        raise UsageError(
            f"{candidates.name!r} holds candidates of none of the {len(judged)} judged queries: "
            "was it made for these queries?"
        )
    for query in asked:
        count = len(candidates.rankings.get(query.qid, ()))
        if count > MAX_LIMIT:
            raise UsageError(
                f"{candidates.name!r} holds {count:,} candidates of query {query.qid!r}: expected "
                f"at most {MAX_LIMIT:,}"
            )


def _check_served(systems: Iterable[System], depth: int | None, measures: Sequence[str]) -> None:
    """Refuse a depth or an option that no search is served."""
    wanted = _wanted(depth, measures)
    if depth is None and wanted > MAX_LIMIT:
        deepest = max(measures, key=lambda measure: depth_of([measure]) or 0)
        raise UsageError(
            f"measure {deepest!r} looks at {wanted:,} hits a query, and a search has at most "
            f"{MAX_LIMIT:,}: ask for a depth, or for another measure"
        )
    for system in systems:
        SearchRequest(**system.options(wanted))


def _wanted(depth: int | None, measures: Sequence[str]) -> int:
    """Hits a query."""
    return depth if depth is not None else depth_of(measures) or _DEPTH


def _asked(queries: Iterable[Query], qrels: Qrels, *, unjudged: bool) -> list[Query]:
    return [query for query in queries if unjudged or query.qid in qrels]


def _tell_shallow(depth: int, measures: Sequence[str]) -> None:
    """Warn of columns that will be headed "R@100" and be those of a shorter run."""
    deeper = [name for name in measures if (depth_of([name]) or 0) > depth]
    if deeper:
        _log.warning(
            "a depth of %s is less than %s %s at: what stands below counts as not found",
            f"{depth:,}",
            " and ".join(deeper),
            "look" if len(deeper) > 1 else "looks",
        )


def _watched(queries: Sequence[Query], system: System, on_query: OnQuery | None) -> Iterator[Query]:
    for count, query in enumerate(queries):
        if on_query is not None:
            on_query(system, count, len(queries))
        yield query


def _tell_missing(collection: str, ranked: Run, candidates: Run) -> None:
    """Say how many candidates could not be ranked; each system lacks the same."""
    missing, given = missing_candidates(ranked, candidates)
    if missing and missing == given:
        raise UsageError(
            f"none of the {given:,} candidates is in the collection {collection!r}: is it the one "
            "that they were taken from?"
        )
    if missing:
        _log.warning(
            "%s of %s candidates are not in the collection '%s' and are left out",
            f"{missing:,}",
            f"{given:,}",
            collection,
        )


def poorest_queries(
    client: SearchClient, evaluated: Evaluated, queries: Collection[Query], qrels: Qrels
) -> dict[str, tuple[PoorQuery, ...]]:
    """Of each run, the ten queries with the lowest values, with the passages' texts."""

    def poorest(texts: dict[str, str]) -> dict[str, tuple[PoorQuery, ...]]:
        return {
            run.name: worst_queries(
                evaluated.evaluation, run, queries, qrels, texts, count=_POOREST
            )
            for run in evaluated.runs
        }

    shown = _pids(query for found in poorest({}).values() for query in found)
    passages = get_passages(client.store, shown, collection=client.collection)
    return poorest({pid: passage.text for pid, passage in passages.items()})


def _pids(queries: Iterable[PoorQuery]) -> list[str]:
    """The passages that are shown of some queries, each once."""
    pids = [
        [*(one.pid for one in query.top), *(one.pid for one in query.missed)] for query in queries
    ]
    return list(dict.fromkeys(pid for found in pids for pid in found))
