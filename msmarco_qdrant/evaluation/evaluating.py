"""Systems of one collection asked, measured and compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msmarco_qdrant.evaluation.judging import evaluate_runs, poor_queries
from msmarco_qdrant.evaluation.measures import DEFAULT_MEASURES, depth_of, parse_measures
from msmarco_qdrant.evaluation.records import Evaluation, PoorQuery, Qrels, Run
from msmarco_qdrant.evaluation.searching import System, rank_run, search_run
from msmarco_qdrant.passages import get_passages

if TYPE_CHECKING:
    from msmarco_qdrant.records import Query
    from msmarco_qdrant.search import SearchClient

_DEPTH = 1000
_POOREST = 10


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation and the runs that were measured.

    Attributes:
        evaluation: The measures.
        runs: Those given, then what each system answered.
    """

    evaluation: Evaluation
    runs: tuple[Run, ...]


def evaluate_search(  # noqa: PLR0913  # five have defaults
    client: SearchClient,
    queries: Collection[Query],
    qrels: Qrels,
    systems: Sequence[System],
    *,
    measures: str = DEFAULT_MEASURES,
    depth: int | None = None,
    candidates: Run | None = None,
    others: Sequence[Run] = (),
    on_system: Callable[[System], None] | None = None,
) -> Evaluated:
    """Ask every query of every system, and measure what comes.

    Args:
        client: Where to search.
        queries: What to ask.
        qrels: The judgements; means are over the queries that have some.
        systems: Ways of searching.
        measures: Their names, as `ir_measures` has them, with spaces between.
        depth: Hits a query; None for as deep as the measures look, or 1,000 where one has no end.
        candidates: Rank only these passages of each query, and measure this run itself first.
        others: Runs to measure beside. The first run of all is what the others are compared with.
        on_system: Called before each system is asked.

    Raises:
        UsageError: For a measure or an option that means nothing, or queries without judgements.
        MissingExtraError: Without the extra `eval`.
        StoreError: If the engine fails.
    """
    wanted = depth or depth_of(parse_measures(measures)) or _DEPTH
    runs = [*([candidates] if candidates is not None else []), *others]
    for system in systems:
        if on_system is not None:
            on_system(system)
        if candidates is not None:
            runs.append(rank_run(client, queries, system, candidates))
        else:
            runs.append(search_run(client, queries, system, wanted))
    return Evaluated(evaluate_runs(queries, qrels, runs, measures), tuple(runs))


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
