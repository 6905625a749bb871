"""Choice of search options by judgments: the fusion of "hybrid", `ef`, and the depth of reranking.

Each query is encoded and its candidates are retrieved once; fusions are compared on those. A choice
by the same queries that it is measured with looks better than it is. So its gain is measured by
cross-validation, and a fusion replaces the current one only if that gain is certain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from random import Random
from statistics import fmean

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.core.search_defaults import SearchDefaults
from msmarco_qdrant.core.search_types import Fusion, Nearest, PointQuery, ScoredPoint, SearchEffort
from msmarco_qdrant.encoding.bm25 import Bm25Encoder
from msmarco_qdrant.encoding.checks import encode_queries, score_pairs
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.coverage import SearchedPassages, count_missing_relevant
from msmarco_qdrant.evaluation.measures import (
    check_relevance_levels,
    depth_of,
    measure_run,
    parse_measures,
)
from msmarco_qdrant.evaluation.plan import check_texts, qrels_without_self
from msmarco_qdrant.evaluation.progress import count_queries
from msmarco_qdrant.evaluation.records import (
    DepthTrial,
    DepthTuning,
    EfTrial,
    EfTuning,
    FusionTuning,
    Qrels,
    Ranking,
    Run,
    Tuning,
)
from msmarco_qdrant.evaluation.runs import rank_scores
from msmarco_qdrant.evaluation.scoring import check_qids, select_judged
from msmarco_qdrant.evaluation.statistics import mean_interval
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.runtime.progress import ProgressDisplay, with_display
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.search.driver import run_steps
from msmarco_qdrant.search.point_parts import QueryVectors
from msmarco_qdrant.search.ranking import fuse
from msmarco_qdrant.search.request import CONVEX, SearchRequest
from msmarco_qdrant.search.retrieval import Retriever
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.stores.foreign import ForeignPoints
from msmarco_qdrant.stores.payload import SPARSE_VECTOR, point_id

FUSIONS = (
    *(Fusion(dense_weight=step / 20) for step in range(21)),
    Fusion("rrf"),
    Fusion("dbsf"),
)
EFS = (16, 32, 64, 128, 256, 512)
RERANK_DEPTHS = (10, 20, 50, 100)

_BATCH_QUERIES = 64
_DEEPEST = 100  # candidates of each ranking, as of a search for up to 100 hits
_K = 10
_FOLDS = 5
_SEED = 2007
_RERANKED_QUERIES = 200  # 20,000 pairs take minutes on a processor
_LEAST_RECALL = 0.99
_LEAST_WORST = 0.5
_MARGIN = 0.01  # a depth this close to the deepest is as good

_Answers = tuple[Sequence[ScoredPoint], Sequence[ScoredPoint]]
_log = logging.getLogger(__name__)


@suggest_keywords
def tune_search(  # noqa: PLR0913  # all but three have defaults
    client: SearchClient,
    queries: Collection[Query],
    qrels: Qrels,
    *,
    measure: str = "nDCG@10",
    rerank: bool = False,
    exclude_self: bool = False,
    tenant: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    progress: bool = False,
) -> Tuning:
    """Choose the fusion of "hybrid", `ef`, and the depth of reranking for a collection.

    * Fusion: the "convex" weights 0, 0.05, ... 1, "rrf" and "dbsf", by the measure. The best one
      is chosen if its gain in a cross-validation of five folds is above 0 with 95 % confidence.
    * `ef`: the smallest whose recall@10 against exact search is 0.99 or more with 95 %
      confidence, and 0.5 or more for each query; else the largest.
    * Depth of reranking: the smallest that is at most 0.01 worse than 100, with 95 % confidence,
      over 200 of the queries.

    Args:
        client: A client on the collection, with its encoder.
        queries: The queries; those without judgments are left out.
        qrels: The judgments.
        measure: One name as in `ir_measures`, with a cutoff of at most 100.
        rerank: True to choose a depth for the client's cross-encoder, too.
        exclude_self: True to leave out of each answer the passage whose pid is the query's qid.
        tenant: Search only this tenant's passages, which a collection with a tenant field requires.
        on_progress: Called with the number of queries done and their total.
        progress: True to show it on standard error.

    Returns:
        The trials and the chosen options. Nothing is saved: see `save_search_defaults`.

    Raises:
        UsageError: For invalid input, if the collection has none of the relevant passages, for a
            collection with a tenant field and no tenant, or the other way round, or without the
            client's encoder or cross-encoder.
        MissingExtraError: Without the extra `eval`.
        StoreError: If the engine fails.
    """
    passages = SearchedPassages(client, tenant)
    if exclude_self:
        qrels = qrels_without_self(qrels)
    names, cutoff = check_tuning(queries, qrels, measure)
    judged = select_judged({query.qid for query in queries}, qrels)
    count_missing_relevant(passages, judged)
    if rerank:
        _ = client.reranker  # raises without one
    searched = [query for query in queries if query.qid in judged]
    trial = _Trial(
        client, searched, judged, names[0], exclude_self=exclude_self, scope=passages.scope
    )
    with ExitStack() as stack:
        if progress:
            display = ProgressDisplay(unit="queries")
            display.announce(f"searching: {count_queries(len(judged))}")
            on_progress = with_display(stack, display, display.show_of, on_progress)
        trial.search(cutoff, on_progress)
        fusion = trial.tune_fusion()
        ef = trial.tune_ef()
        depth = trial.tune_depth(fusion.chosen, cutoff) if rerank else None
    kept = client.metadata.search_defaults
    of_tenant = "" if tenant is None else " of one tenant"
    return Tuning(
        measure=names[0],
        queries=len(judged),
        fusion=fusion,
        ef=ef,
        rerank=depth,
        defaults=SearchDefaults(
            fusion=kept.fusion if fusion.chosen == fusion.current else fusion.chosen,
            ef=kept.ef if ef is None else ef.chosen,
            rerank_depth=kept.rerank_depth if depth is None else depth.chosen,
            source=f"tuned by {names[0]} of {len(judged):,} queries{of_tenant}",
        ),
    )


def check_tuning(
    queries: Collection[Query], qrels: Qrels, measure: str
) -> tuple[tuple[str, ...], int]:
    """Check the input of `tune_search`; return the measure's name and its cutoff."""
    names = parse_measures(measure)
    cutoff = depth_of(names)
    if len(names) != 1 or cutoff is None or cutoff > _DEEPEST:
        raise UsageError(
            f"tuning needs one measure with a cutoff of at most {_DEEPEST}, such as nDCG@10, got "
            f"{measure!r}"
        )
    check_qids(queries)
    judged = select_judged({query.qid for query in queries}, qrels)
    check_relevance_levels(names, judged)
    check_texts(query for query in queries if query.qid in judged)
    return names, cutoff


class _Trial:
    """Searches for the queries once, and what the choices need of them."""

    def __init__(
        self,
        client: SearchClient,
        queries: Sequence[Query],
        judged: Qrels,
        measure: str,
        *,
        exclude_self: bool,
        scope: SearchFilter | None,
    ) -> None:
        self._client = client
        self._scope = None if scope is None else to_qdrant(scope)
        self._exclude_self = exclude_self
        self._queries = queries
        self._measure = measure
        self._qrels = {  # candidates have point ids, as their payloads are not read
            qid: {str(point_id(pid)): grade for pid, grade in grades.items()}
            for qid, grades in judged.items()
        }
        self._current = client.metadata.search_defaults.fusion or CONVEX
        tried = [self._current if _is_same(one, self._current) else one for one in FUSIONS]
        self._fusions = tuple(dict.fromkeys((*tried, self._current)))
        self._efs = _usable_efs(client)
        self._runs: dict[Fusion, dict[str, Ranking]] = {fusion: {} for fusion in self._fusions}
        self._recalls: dict[int, list[float]] = {ef: [] for ef in self._efs}
        count = min(_RERANKED_QUERIES, len(queries))
        self._sample = {query.qid for query in _random().sample([*queries], count)}
        self._sampled: dict[str, _Answers] = {}

    def search(self, cutoff: int, on_progress: Callable[[int, int], None] | None) -> None:
        """Encode and search each query, and keep its rankings down to the cutoff."""
        metadata = self._client.metadata
        retriever = Retriever(metadata, ForeignPoints(self._client.collection))
        request = SearchRequest(mode="hybrid", meta_filter=self._scope)
        bm25 = Bm25Encoder(metadata.bm25)
        done = 0
        for batch in in_batches(self._queries, _BATCH_QUERIES):
            texts = [query.text for query in batch]
            dense = [
                Nearest(vector, metadata.encoder.vector_name)
                for vector in encode_queries(self._client.encoder, texts)
            ]
            vectors = [
                QueryVectors(nearest, _sparse(bm25, text))
                for nearest, text in zip(dense, texts, strict=True)
            ]
            steps = retriever.fusion_inputs(vectors, request, _DEEPEST)
            for query, answers in zip(batch, run_steps(self._client.session, steps), strict=True):
                self._keep(query.qid, answers, cutoff)
            self._search_graph(dense)
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(self._queries))

    def _keep(self, qid: str, answers: _Answers, cutoff: int) -> None:
        if self._exclude_self:
            own = point_id(qid)
            dense, bm25 = ([point for point in ranked if point.id != own] for ranked in answers)
            answers = (dense, bm25)
        for fusion, rankings in self._runs.items():
            ranked = self._fuse(answers, fusion)
            rankings[qid] = rank_scores({str(point.id): point.score for point in ranked[:cutoff]})
        if qid in self._sample:
            self._sampled[qid] = answers

    def _fuse(self, answers: _Answers, fusion: Fusion) -> list[ScoredPoint]:
        similarity = self._client.metadata.encoder.similarity
        return fuse(*answers, fusion, depth=max(fusion.depth, _DEEPEST), similarity=similarity)

    def _search_graph(self, dense: Sequence[Nearest]) -> None:
        """Compare the first hits of each `ef` with those of exact search."""
        if not self._efs:
            return
        collection = self._client.store.collection(self._client.collection)

        def first(effort: SearchEffort) -> list[set[PointId]]:
            found = collection.query(
                [PointQuery(one, _K, effort, self._scope, fields=()) for one in dense]
            )
            return [{point.id for point in points} for points in found]

        exact = first(SearchEffort(exact=True))
        for ef in self._efs:
            for ids, expected in zip(first(SearchEffort(ef=ef)), exact, strict=True):
                self._recalls[ef].append(len(ids & expected) / len(expected) if expected else 1.0)

    def tune_fusion(self) -> FusionTuning:
        """Choose the fusion."""
        values = {
            fusion: self._values(rankings, self._qrels) for fusion, rankings in self._runs.items()
        }
        means = {fusion: fmean(of_query.values()) for fusion, of_query in values.items()}
        best = _best_fusion(means, self._current)
        gains = cross_validate(values, self._current)
        interval = mean_interval(gains)
        is_better = interval is not None and interval.low > 0
        return FusionTuning(
            means=means,
            current=self._current,
            best=best,
            gain=fmean(gains),
            interval=interval,
            chosen=best if is_better else self._current,
        )

    def _values(self, rankings: Mapping[str, Ranking], qrels: Qrels) -> Mapping[str, float]:
        return measure_run([self._measure], qrels, Run("", rankings))[self._measure]

    def tune_ef(self) -> EfTuning | None:
        """Choose `ef`."""
        if not self._efs:
            return None
        trials = tuple(
            EfTrial(ef, fmean(recalls), mean_interval(recalls), min(recalls))
            for ef, recalls in self._recalls.items()
        )
        good = [trial.ef for trial in trials if _finds_enough(trial)]
        return EfTuning(_K, trials, good[0] if good else self._efs[-1])

    def tune_depth(self, fusion: Fusion, cutoff: int) -> DepthTuning:
        """Choose the depth of reranking, after the chosen fusion."""
        found = {qid: self._fuse(answers, fusion) for qid, answers in self._sampled.items()}
        scored = self._score({qid: points[:_DEEPEST] for qid, points in found.items()})
        qrels = {qid: self._qrels[qid] for qid in found}
        plain = {qid: [(str(p.id), p.score) for p in points] for qid, points in found.items()}
        depths = [depth for depth in RERANK_DEPTHS if depth >= cutoff]
        values = {
            depth: self._values(
                {qid: _best(ranked[:depth], cutoff) for qid, ranked in scored.items()}, qrels
            )
            for depth in depths
        }
        deepest = values[depths[-1]]
        trials = []
        for depth, of_query in values.items():
            differences = [value - deepest[qid] for qid, value in of_query.items()]
            interval = mean_interval(differences)
            trials.append(DepthTrial(depth, fmean(of_query.values()), fmean(differences), interval))
        good = [t.depth for t in trials if t.interval is not None and t.interval.low > -_MARGIN]
        without = fmean(self._values(plain, qrels).values())
        chosen = good[0] if good else depths[-1]
        return DepthTuning(len(found), without, tuple(trials), chosen)

    def _score(
        self, found: Mapping[str, Sequence[ScoredPoint]]
    ) -> dict[str, list[tuple[str, float]]]:
        """Return the candidates in their order, with the cross-encoder's scores."""
        texts = {query.qid: query.text for query in self._queries}
        collection = self._client.store.collection(self._client.collection)
        scored = {}
        for qid, points in found.items():
            payloads = collection.retrieve([point.id for point in points], ("text",))
            ids = [point.id for point in points if point.id in payloads]
            pairs = [(texts[qid], str(payloads[id_].get("text", ""))) for id_ in ids]
            scores = score_pairs(self._client.reranker, pairs).tolist() if pairs else []
            scored[qid] = [(str(id_), score) for id_, score in zip(ids, scores, strict=True)]
        return scored


def cross_validate(values: Mapping[Fusion, Mapping[str, float]], current: Fusion) -> list[float]:
    """Return for each query what choosing by the other folds gains over the current fusion.

    Args:
        values: The measure of each query, by fusion and qid.
        current: One of the fusions.
    """
    qids = [*values[current]]
    _random().shuffle(qids)
    folds = [fold for start in range(_FOLDS) if (fold := qids[start::_FOLDS])]
    gains = []
    for fold in folds:
        held_out = set(fold)
        seen = [qid for qid in qids if qid not in held_out] or fold
        means = {
            fusion: fmean(of_query[qid] for qid in seen) for fusion, of_query in values.items()
        }
        best = _best_fusion(means, current)
        gains += [values[best][qid] - values[current][qid] for qid in fold]
    return gains


def _is_same(one: Fusion, other: Fusion) -> bool:
    return replace(one, dense_weight=one.weight) == replace(other, dense_weight=other.weight)


def _random() -> Random:
    return Random(_SEED)  # noqa: S311  # the same sample and folds in every call


def _best(ranked: Sequence[tuple[str, float]], cutoff: int) -> list[tuple[str, float]]:
    return sorted(ranked, key=lambda one: -one[1])[:cutoff]


def _best_fusion(means: Mapping[Fusion, float], current: Fusion) -> Fusion:
    """Return the fusion with the highest mean; of several, that with the most usual weight."""
    return max(means, key=lambda fusion: (means[fusion], -abs(fusion.weight - current.weight)))


def _finds_enough(trial: EfTrial) -> bool:
    low = trial.recall if trial.interval is None else trial.interval.low
    return low >= _LEAST_RECALL and trial.worst >= _LEAST_WORST


def _sparse(bm25: Bm25Encoder, text: str) -> Nearest | None:
    weights = bm25.encode_query(text)
    return Nearest(weights, SPARSE_VECTOR) if weights.indices else None


def _usable_efs(client: SearchClient) -> Sequence[int]:
    """Return the values to try; none without a graph, or without exact search."""
    name = client.collection
    if not client.store.capabilities.ann:
        return ()
    info = client.store.collection(name).info(all_replicas=False)
    limits = client.store.request_limits(name)
    if not info.in_graph:
        _log.warning("ef of '%s' is not tuned: it has no index", name)
        return ()
    if not limits.exact:
        _log.warning("ef of '%s' is not tuned: its strict mode forbids exact search", name)
        return ()
    allowed = [ef for ef in EFS if limits.ef is None or ef <= limits.ef]
    return allowed or [limits.ef or EFS[0]]
