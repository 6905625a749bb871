"""Systems of one collection asked, measured and compared."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.judging import (
    check_names,
    evaluate_runs,
    judged_part,
    poor_queries,
)
from msmarco_qdrant.evaluation.measures import DEFAULT_MEASURES, depth_of, parse_measures
from msmarco_qdrant.evaluation.records import Evaluation, PoorQuery, Qrels, Run
from msmarco_qdrant.evaluation.searching import (
    System,
    missing_candidates,
    rank_run,
    search_run,
)
from msmarco_qdrant.passages import get_passages

if TYPE_CHECKING:
    from msmarco_qdrant.records import Query
    from msmarco_qdrant.search import SearchClient

_DEPTH = 1000
_POOREST = 10

OnQuery: TypeAlias = "Callable[[System, int, int], None]"

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


def evaluate_search(  # noqa: PLR0913  # six have defaults
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
) -> Evaluated:
    """Ask every query of every system, and measure what comes.

    What cannot be meant is refused before the first query is asked. Where the collection lacks
    candidates, a warning says how many.

    Args:
        client: Where to search.
        queries: What to ask.
        qrels: The judgements; means are over the queries that have some.
        systems: Ways of searching.
        measures: Their names, as `ir_measures` has them, with spaces between.
        depth: Hits a query; None for as deep as the measures look, or 1,000 where one has no end.
        candidates: Rank only these passages of each query, and measure this run itself first.
        others: Runs to measure beside. The first run of all is what the others are compared with.
        unjudged: Ask the queries without judgements, too: they count nothing, but stand in the
            runs.
        on_query: Called with the system, the queries asked of it until now and all of them, before
            each.

    Raises:
        UsageError: For a measure or an option that means nothing, queries without judgements or
            candidates, runs of one name, or if the collection holds no candidate at all.
        MissingExtraError: Without the extra `eval`.
        StoreError: If the engine fails.
    """
    given = [*([candidates] if candidates is not None else []), *others]
    check_evaluation(queries, qrels, [*given, *systems], measures, candidates)
    wanted = depth or depth_of(parse_measures(measures)) or _DEPTH
    told = [query for query in queries if unjudged or query.qid in qrels]
    answered = []
    for system in systems:
        watched = _watched(told, system, on_query)
        if candidates is not None:
            answered.append(rank_run(client, watched, system, candidates))
        else:
            answered.append(search_run(client, watched, system, wanted))
    if candidates is not None:
        _tell_missing(client.collection, answered, candidates)
    runs = (*given, *answered)
    return Evaluated(evaluate_runs(queries, qrels, runs, measures), runs)


def check_evaluation(
    queries: Collection[Query],
    qrels: Qrels,
    runs: Sequence[Run | System],
    measures: str,
    candidates: Run | None = None,
) -> None:
    """Refuse what `evaluate_search` would, without a client: before a model is loaded.

    Args:
        queries: See `evaluate_search`.
        qrels: See `evaluate_search`.
        runs: All that will be measured.
        measures: See `evaluate_search`.
        candidates: See `evaluate_search`.

    Raises:
        UsageError: See `evaluate_search`.
        MissingExtraError: Without the extra `eval`.
    """
    parse_measures(measures)
    check_names([run.name for run in runs])
    for qid, count in Counter(query.qid for query in queries).items():
        if count > 1:
            raise UsageError(f"query {qid!r} comes {count} times: give each query a qid of its own")
    judged = judged_part({query.qid for query in queries}, qrels)
    if candidates is not None and not any(candidates.rankings.get(qid) for qid in judged):
        raise UsageError(
            f"{candidates.name!r} holds candidates of none of the {len(judged)} judged queries: "
            "was it made for these queries?"
        )


def _watched(queries: Sequence[Query], system: System, on_query: OnQuery | None) -> Iterator[Query]:
    for count, query in enumerate(queries):
        if on_query is not None:
            on_query(system, count, len(queries))
        yield query


def _tell_missing(collection: str, ranked: Sequence[Run], candidates: Run) -> None:
    """Say how many candidates could not be ranked; each system lacks the same."""
    missing, given = missing_candidates(ranked[0], candidates) if ranked else (0, 0)
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
            run.name: poor_queries(evaluated.evaluation, run, queries, qrels, texts, count=_POOREST)
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
