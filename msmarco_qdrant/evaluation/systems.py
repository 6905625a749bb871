"""Ways of searching, and the runs that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, get_args

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_defaults import NO_DEFAULTS, SearchDefaults
from msmarco_qdrant.core.search_types import Fusion, FusionMethod, Hit, SearchMode
from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.records import Run
from msmarco_qdrant.evaluation.runs import collect_run
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.options import RERANK_DEPTH, RerankDepth, SearchOptions, to_fusion
from msmarco_qdrant.search.request import CONVEX

OnAnswer: TypeAlias = Callable[[Query, Sequence[Hit]], None]

_QUERIES_PER_BATCH = 32


@dataclass(frozen=True, slots=True)
class System:
    """A way of searching to evaluate.

    Attributes:
        mode: "dense", "bm25" or "hybrid".
        fusion: Fusion of the two rankings of "hybrid", as in `search`; None for the collection's
            default.
        rerank_depth: Number of hits that the client's cross-encoder reranks; "auto" for the
            collection's default, None for none.
        exact: Compare with every vector, without the HNSW graph.
        label: Its name in tables; None for a name made of the options that are not the default.

    Raises:
        UsageError: For an unknown fusion.
    """

    mode: SearchMode = "dense"
    fusion: Fusion | FusionMethod | None = None
    rerank_depth: RerankDepth = None
    exact: bool = False
    label: str | None = None

    def __post_init__(self) -> None:
        if self.fusion is not None:
            object.__setattr__(self, "fusion", to_fusion(self.fusion))

    @property
    def name(self) -> str:
        """The label, or such as "dense exact", "hybrid rrf", "hybrid 0.5 reranked"."""
        if self.label is not None:
            return self.label
        words = [self.mode, *(_fusion_words(self.fusion) if self.mode == "hybrid" else ())]
        words += ["exact"] if self.exact else []
        words += ["reranked"] if self.rerank_depth is not None else []
        return " ".join(words)

    def options(
        self, depth: int, defaults: SearchDefaults = NO_DEFAULTS, *, more: int = 0
    ) -> SearchOptions:
        """Return the options of a search for `depth` hits, at most `rerank_depth` if reranked.

        `more` hits are retrieved, and reranked, than that.
        """
        automatic = defaults.rerank_depth or RERANK_DEPTH
        rerank_depth = automatic if self.rerank_depth == "auto" else self.rerank_depth
        if more:
            depth += more
            rerank_depth = None if rerank_depth is None else rerank_depth + more
        return {
            "limit": min(depth, rerank_depth or depth),
            "mode": self.mode,
            "fusion": self.fusion,
            "rerank_depth": rerank_depth,
            "exact": self.exact,
        }


def to_system(system: System | SearchMode) -> System:
    """Return the system that was given, or the one of a search mode.

    Raises:
        UsageError: If it is neither.
    """
    if isinstance(system, System):
        return system
    if system not in get_args(SearchMode):
        modes = ", ".join(get_args(SearchMode))
        raise UsageError(f"a system must be a System, or one of {modes}, got {system!r}")
    return System(system)


def system_in(system: System, place: str) -> System:
    """Return the same way of searching under a name for another collection."""
    return replace(system, label=f"{system.name} in {place}")


def _fusion_words(given: Fusion | FusionMethod | None) -> Iterator[str]:
    """Yield the options of a fusion that are not the package's default."""
    if given is None:
        return
    fusion = to_fusion(given)
    if fusion.method != CONVEX.method:
        yield fusion.method
    if fusion.dense_weight is not None:
        yield f"{fusion.dense_weight:g}"
    if fusion.depth != CONVEX.depth:
        yield f"depth={fusion.depth}"
    if fusion.k != CONVEX.k:
        yield f"k={fusion.k}"


@suggest_keywords
def search_run(
    client: SearchClient,
    queries: Iterable[Query],
    system: System,
    depth: int,
    *,
    exclude_self: bool = False,
    tenant: str | None = None,
    on_answer: OnAnswer | None = None,
) -> Run:
    """Search for each query, for `depth` hits at most, and return the run.

    `exclude_self` leaves out the passage whose pid is the query's qid. `tenant` is as in a search.
    `on_answer` is called with each query and its hits.

    Raises:
        UsageError: For an invalid option, an empty query, or a repeated qid.
        StoreError: If the engine fails.
    """
    defaults, more = client.metadata.search_defaults, 1 if exclude_self else 0
    options: SearchOptions = {**system.options(depth, defaults, more=more), "tenant": tenant}
    answers = run_queries(client, queries, options)
    if exclude_self:
        most = system.options(depth, defaults)["limit"]
        answers = ((query, _without_self(query, hits)[:most]) for query, hits in answers)
    return collect_run(system.name, _report_answers(answers, on_answer), _model(client, system))


@suggest_keywords
def rank_run(
    client: SearchClient,
    queries: Iterable[Query],
    system: System,
    candidates: Run,
    *,
    exclude_self: bool = False,
    tenant: str | None = None,
    on_answer: OnAnswer | None = None,
) -> Run:
    """Rank the candidates of each query and return the run.

    This is the reranking protocol of TREC DL. A cross-encoder scores all candidates.

    Queries without candidates and candidates that the collection lacks are left out. See
    `search_run`.

    Raises:
        UsageError: For an empty query, a repeated qid, or too many candidates.
        StoreError: If the engine fails.
    """
    with_candidates = (query for query in queries if candidates.rankings.get(query.qid))

    def answers() -> Iterator[tuple[Query, list[Hit]]]:
        for batch in in_batches(with_candidates, _QUERIES_PER_BATCH):
            ranked = client.rank_many(
                [query.text for query in batch],
                [[pid for pid, _ in candidates.rankings[query.qid]] for query in batch],
                mode=system.mode,
                fusion=system.fusion,
                rerank=system.rerank_depth is not None,
                tenant=tenant,
            )
            for query, hits in zip(batch, ranked, strict=True):
                yield query, _without_self(query, hits) if exclude_self else hits

    return collect_run(system.name, _report_answers(answers(), on_answer), _model(client, system))


def _without_self(query: Query, hits: Sequence[Hit]) -> list[Hit]:
    others = (hit for hit in hits if hit.pid != query.qid)
    return [replace(hit, rank=rank) for rank, hit in enumerate(others, start=1)]


def _report_answers(
    answers: Iterable[tuple[Query, list[Hit]]], on_answer: OnAnswer | None
) -> Iterator[tuple[Query, list[Hit]]]:
    for query, hits in answers:
        if on_answer is not None:
            on_answer(query, hits)
        yield query, hits


def run_queries(
    client: SearchClient, queries: Iterable[Query], options: SearchOptions
) -> Iterator[tuple[Query, list[Hit]]]:
    """Search for any number of queries in batches, and yield each with its hits.

    See `SearchClient.search_many` for the options and errors.
    """
    for batch in in_batches(queries, _QUERIES_PER_BATCH):
        answers = client.search_many([query.text for query in batch], **options)
        yield from zip(batch, answers, strict=True)


def count_missing_candidates(run: Run, candidates: Run) -> tuple[int, int]:
    """Count the candidates that a run of `rank_run` lacks, and all of the run's queries."""
    given = sum(len(candidates.rankings[qid]) for qid in run.rankings)
    return given - sum(map(len, run.rankings.values())), given


def _model(client: SearchClient, system: System) -> str | None:
    """Return the catalog's name of the model that decides the ranking, None if there is none."""
    if system.rerank_depth is not None:
        name = client.reranker.model
    elif system.mode == "bm25":
        name = "BM25"
    else:
        name = client.metadata.encoder.model if system.mode == "dense" else ""
    return name if find_published(name) is not None else None
