"""Queries asked of a collection, to be measured or written as a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_types import Fusion, Hit, SearchMode
from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.evaluation.records import Run
from msmarco_qdrant.evaluation.runs import collect_run
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.options import CONVEX, SearchOptions

OnAnswer: TypeAlias = Callable[[Query, Sequence[Hit]], None]

_QUERIES_PER_BATCH = 32


@dataclass(frozen=True, slots=True)
class System:
    """A way of searching that is evaluated.

    Attributes:
        mode: What passages are scored by.
        fusion: How "hybrid" makes one ranking of two.
        rerank_depth: How many of the best the client's cross-encoder scores again; None for none.
        exact: Compare with every vector, instead of following the graph.
        label: What tables call it; None for a name that tells what differs from the default.
    """

    mode: SearchMode = "dense"
    fusion: Fusion = CONVEX
    rerank_depth: int | None = None
    exact: bool = False
    label: str | None = None

    @property
    def name(self) -> str:
        """What tables call it: "dense exact", "hybrid rrf", "hybrid 0.5 reranked", or its label."""
        if self.label is not None:
            return self.label
        words = [self.mode, *(_differing(self.fusion) if self.mode == "hybrid" else ())]
        words += ["exact"] if self.exact else []
        words += ["reranked"] if self.rerank_depth is not None else []
        return " ".join(words)

    def options(self, depth: int) -> SearchOptions:
        """The options of a search for so many hits; a reranked one has no more than it reranks."""
        return {
            "limit": min(depth, self.rerank_depth or depth),
            "mode": self.mode,
            "fusion": self.fusion,
            "rerank_depth": self.rerank_depth,
            "exact": self.exact,
        }


def _differing(fusion: Fusion) -> Iterator[str]:
    """What of a fusion is not the default, in words."""
    if fusion.method != CONVEX.method:
        yield fusion.method
    if fusion.dense_weight is not None:
        yield f"{fusion.dense_weight:g}"
    if fusion.depth != CONVEX.depth:
        yield f"depth={fusion.depth}"
    if fusion.k != CONVEX.k:
        yield f"k={fusion.k}"


def search_run(
    client: SearchClient,
    queries: Iterable[Query],
    system: System,
    depth: int,
    *,
    on_answer: OnAnswer | None = None,
) -> Run:
    """What a system finds for each query, `depth` hits at most.

    Args:
        client: Where to search.
        queries: What to ask.
        system: How.
        depth: Hits a query.
        on_answer: Called with each query and its hits as they come.

    Raises:
        UsageError: For an option that cannot be served, an empty query, or one that comes twice.
        StoreError: If the engine fails.
    """
    answers = run_queries(client, queries, system.options(depth))
    return collect_run(system.name, _told(answers, on_answer), _model(client, system))


def rank_run(
    client: SearchClient,
    queries: Iterable[Query],
    system: System,
    candidates: Run,
    *,
    on_answer: OnAnswer | None = None,
) -> Run:
    """How a system ranks the given candidates of each query, and nothing else.

    That is the reranking protocol of TREC DL. A cross-encoder scores all of them.

    Args:
        client: Where the passages are; those that it does not hold are left out.
        queries: Those without candidates are left out.
        system: How to score them.
        candidates: The passages of each query.
        on_answer: Called with each query and its hits as they come.

    Raises:
        UsageError: For an empty query or one that comes twice, or too many candidates.
        StoreError: If the engine fails.
    """
    asked = (query for query in queries if candidates.rankings.get(query.qid))

    def answers() -> Iterator[tuple[Query, list[Hit]]]:
        for batch in in_batches(asked, _QUERIES_PER_BATCH):
            ranked = client.rank_many(
                [query.text for query in batch],
                [[pid for pid, _ in candidates.rankings[query.qid]] for query in batch],
                mode=system.mode,
                fusion=system.fusion,
                rerank=system.rerank_depth is not None,
            )
            yield from zip(batch, ranked, strict=True)

    return collect_run(system.name, _told(answers(), on_answer), _model(client, system))


def _told(
    answers: Iterable[tuple[Query, list[Hit]]], on_answer: OnAnswer | None
) -> Iterator[tuple[Query, list[Hit]]]:
    for query, hits in answers:
        if on_answer is not None:
            on_answer(query, hits)
        yield query, hits


def run_queries(
    client: SearchClient, queries: Iterable[Query], options: SearchOptions
) -> Iterator[tuple[Query, list[Hit]]]:
    """Search for each query, in batches, and yield it with its hits.

    Args:
        client: Where to search.
        queries: Any number of queries.
        options: How, and how many hits each gets; see `SearchClient.search`.

    Raises:
        UsageError: For an option that cannot be served, or an empty query.
        StoreError: If the engine fails.
    """
    for batch in in_batches(queries, _QUERIES_PER_BATCH):
        answers = client.search_many([query.text for query in batch], **options)
        yield from zip(batch, answers, strict=True)


def missing_candidates(run: Run, candidates: Run) -> tuple[int, int]:
    """How many candidates of a run's queries it lacks, as the collection does not hold them.

    Args:
        run: What `rank_run` gave.
        candidates: What was given to it.

    Returns:
        Those that are missing, and all that were asked for.
    """
    given = sum(len(candidates.rankings[qid]) for qid in run.rankings)
    return given - sum(map(len, run.rankings.values())), given


def _model(client: SearchClient, system: System) -> str | None:
    """The name in the catalog of what decides a system's ranking, if one model does."""
    if system.rerank_depth is not None:
        name = client.reranker.model
    elif system.mode == "bm25":
        name = "BM25"
    else:
        name = client.metadata.encoder.model if system.mode == "dense" else ""
    return name if find_published(name) is not None else None
