"""Quality of a cross-encoder during its training: nDCG@10 of dev queries that it reranks.

The candidates are the best hits of the client, the same ones in each measure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.measures import measure_run, parse_measures
from msmarco_qdrant.evaluation.records import Qrels, Run
from msmarco_qdrant.evaluation.scoring import check_qids, select_judged
from msmarco_qdrant.evaluation.systems import run_queries
from msmarco_qdrant.train.dev_measure import MEASURE
from msmarco_qdrant.train.train_report import DevMeasures

if TYPE_CHECKING:
    from msmarco_qdrant.core.search_types import Hit, SearchMode
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.search.options import SearchOptions


@dataclass(frozen=True, slots=True, eq=False)
class PairDevSet:
    """Judged dev queries with the hits to rerank.

    Attributes:
        queries: The judged queries.
        qrels: Their judgments.
        hits: The candidates by qid, best first.
        depth: Most candidates of a query.
        total: Number of passages in the collection.
    """

    queries: Sequence[Query]
    qrels: Qrels
    hits: Mapping[str, Sequence[Hit]]
    depth: int
    total: int

    def measure(self, model: Any) -> float:
        """Return the mean nDCG@10 after reranking by a cross-encoder, as a client computes it."""
        from msmarco_qdrant.encoding.cross_encoder import CrossEncoderReranker

        with tempfile.TemporaryDirectory(prefix="msmarco-qdrant-") as saved:
            model.save_pretrained(saved, create_model_card=False)
            reranker = CrossEncoderReranker(
                saved, hint="the trained model", device=str(model.device)
            )
            pairs = [(one.text, hit.text) for one in self.queries for hit in self.hits[one.qid]]
            found = iter(reranker.scores(pairs).tolist())
        return self._mean(
            {one.qid: [next(found) for _ in self.hits[one.qid]] for one in self.queries}
        )

    def report(self, by_step: Mapping[int, float]) -> DevMeasures:
        """Return the report of the measures by step, with that of the client's order."""
        candidates = {qid: [hit.score for hit in hits] for qid, hits in self.hits.items()}
        return DevMeasures(
            *(MEASURE, len(self.queries), self.depth, self.total, dict(by_step)),
            candidates=self._mean(candidates),
        )

    def _mean(self, scores: Mapping[str, Sequence[float]]) -> float:
        rankings = {
            qid: sorted(
                zip((hit.pid for hit in self.hits[qid]), found, strict=True),
                key=lambda one: (-one[1], one[0]),
            )
            for qid, found in scores.items()
        }
        values = measure_run(parse_measures(MEASURE), self.qrels, Run("dev", rankings))[MEASURE]
        return fmean(values.values())


def build_pair_dev_set(
    client: SearchClient,
    queries: Collection[Query],
    qrels: Qrels,
    depth: int,
    *,
    tenant: str | None = None,
) -> PairDevSet:
    """Search for the judged dev queries.

    Args:
        client: A client of the collection; without an encoder it searches by words.
        queries: The dev queries; those without judgments are left out.
        qrels: The judgments.
        depth: Number of hits to rerank.
        tenant: Only this tenant's passages.

    Raises:
        UsageError: If no query has judgments, a qid is repeated, or no hit is relevant.
    """
    check_qids(queries)
    judged = select_judged({query.qid for query in queries}, qrels)
    asked = [query for query in queries if query.qid in judged]
    mode = _mode(client)
    options: SearchOptions = {
        "limit": depth,
        "mode": mode,
        "exact": mode == "dense",
        "tenant": tenant,
    }
    hits = {query.qid: found for query, found in run_queries(client, asked, options)}
    if not any(judged[qid].get(hit.pid, 0) > 0 for qid, answer in hits.items() for hit in answer):
        raise UsageError(
            f"the best {depth} hits of the dev queries must have a relevant passage, got none for "
            f"{len(asked):,} queries: are the judgments of another collection?"
        )
    return PairDevSet(asked, judged, hits, depth, client.count(tenant=tenant))


def _mode(client: SearchClient) -> SearchMode:
    """Return "dense", or "bm25" for a client without an encoder."""
    try:
        _ = client.encoder
    except UsageError:
        return "bm25"
    return "dense"
