"""A judge is judged first: it must rank candidates better than the search that found them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.plan import check_texts
from msmarco_qdrant.evaluation.records import Qrels, Ranking, Run
from msmarco_qdrant.evaluation.runs import rank_scores
from msmarco_qdrant.evaluation.scoring import check_qids, evaluate_runs, select_judged

if TYPE_CHECKING:
    from msmarco_qdrant.core.hits import Hits
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.train.judge_scorer import Scorer

MEASURE = "nDCG@10"
_SIGNIFICANCE = 0.05
_QUERIES_PER_BATCH = 32


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """A judge's ranking of candidates, compared with that of the search.

    Attributes:
        queries: Number of judged dev queries.
        search: Mean nDCG@10 of the search that finds the candidates.
        judge: Mean nDCG@10 of the same candidates in the judge's order.
        p_value: Of the paired permutation test; None for a single query.
    """

    queries: int
    search: float
    judge: float
    p_value: float | None

    @property
    def is_better(self) -> bool:
        """True if the judge is better, and by the test not by chance (p < 0.05)."""
        is_sure = self.p_value is not None and self.p_value < _SIGNIFICANCE
        return self.judge > self.search and is_sure

    def __str__(self) -> str:
        p_value = "no test" if self.p_value is None else f"p = {self.p_value:.4f}"
        return (
            f"{MEASURE} {self.judge:.4f} of the judge, {self.search:.4f} of the search "
            f"({self.queries:,} dev queries, {p_value})"
        )


def check_judge(
    scorer: Scorer,
    client: SearchClient,
    queries: Collection[Query],
    qrels: Qrels,
    *,
    mode: SearchMode,
    depth: int,
    tenant: str | None,
    on_queries: Callable[[int, int], None] = lambda _done, _total: None,
) -> JudgeCheck:
    """Compare the judge's order of the search's candidates with the search's own.

    Args:
        scorer: The judge.
        client: The client that mined.
        queries: Dev queries; those without judgments are left out.
        qrels: Their judgments.
        mode: Mode of the search.
        depth: Candidates per query.
        tenant: Only this tenant's passages.
        on_queries: Called with the number of queries done, and of all.

    Raises:
        UsageError: If no query has judgments, or no judgment is 1 or more.
        MissingExtraError: Without the extra `train`.
    """
    check_dev(queries, qrels)
    batches = dev_batches(queries, qrels)
    total, done, rankings = sum(map(len, batches)), 0, list[DevRankings]()
    for batch in batches:
        rankings.append(rank_batch(scorer, client, batch, mode=mode, depth=depth, tenant=tenant))
        done += len(batch)
        on_queries(done, total)
    return compare_rankings(queries, qrels, rankings)


@dataclass(frozen=True, slots=True)
class DevRankings:
    """Rankings of the candidates of some dev queries, by qid.

    Attributes:
        search: Those of the search.
        judge: Those of the judge.
    """

    search: Mapping[str, Ranking]
    judge: Mapping[str, Ranking]


def dev_batches(queries: Iterable[Query], qrels: Qrels) -> list[list[Query]]:
    """Return the dev queries that have judgments, in batches."""
    return [*in_batches((query for query in queries if query.qid in qrels), _QUERIES_PER_BATCH)]


def rank_batch(
    scorer: Scorer,
    client: SearchClient,
    batch: Sequence[Query],
    *,
    mode: SearchMode,
    depth: int,
    tenant: str | None,
) -> DevRankings:
    """Search for some dev queries, and have the judge rank what was found.

    Raises:
        StoreError: If the engine fails.
    """
    found: dict[str, Ranking] = {}
    ordered: dict[str, Ranking] = {}
    hits = client.search_many(
        [query.text for query in batch], limit=depth, mode=mode, tenant=tenant
    )
    for query, own, scores in _scored(scorer, batch, hits):
        found[query.qid] = rank_scores({hit.pid: hit.score for hit in own})
        pids = (hit.pid for hit in own)
        ordered[query.qid] = rank_scores(dict(zip(pids, scores, strict=True)))
    return DevRankings(found, ordered)


def compare_rankings(
    queries: Iterable[Query], qrels: Qrels, rankings: Iterable[DevRankings]
) -> JudgeCheck:
    """Compare the rankings of all batches.

    Raises:
        UsageError: If the search found no candidates.
        MissingExtraError: Without the extra `train`.
    """
    judged = [query for query in queries if query.qid in qrels]
    found: dict[str, Ranking] = {}
    ordered: dict[str, Ranking] = {}
    for one in rankings:
        found |= one.search
        ordered |= one.judge
    if not any(found.values()):
        raise UsageError("the search must find candidates of the dev queries, got none")
    runs = [Run("search", found), Run("judge", ordered)]
    evaluation = evaluate_runs(judged, qrels, runs, MEASURE)
    search, judge = (run.values[MEASURE].mean for run in evaluation.runs)
    (comparison,) = evaluation.comparisons
    return JudgeCheck(evaluation.judged, search, judge, comparison.test.permutation)


def check_dev(queries: Collection[Query], qrels: Qrels) -> None:
    """Refuse dev queries without judgments, before a model is loaded.

    Raises:
        UsageError: See `check_judge`.
    """
    check_qids(queries)
    select_judged({query.qid for query in queries}, qrels)
    check_texts(query for query in queries if query.qid in qrels)


def _scored(
    scorer: Scorer, queries: Sequence[Query], hits: Sequence[Hits]
) -> Iterator[tuple[Query, Hits, list[float]]]:
    """Yield each query with its hits, and the judge's score of each hit."""
    pairs = [
        (query.text, hit.text) for query, own in zip(queries, hits, strict=True) for hit in own
    ]
    (scores,) = scorer.score_batches([pairs])
    start = 0
    for query, own in zip(queries, hits, strict=True):
        yield query, own, scores[start : start + len(own)].tolist()
        start += len(own)
