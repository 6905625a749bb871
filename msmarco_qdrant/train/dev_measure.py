"""Quality of a model during its training: nDCG@10 of dev queries by exact search.

The passages are those of the whole collection, or of a large one a part: the judged passages and
the best hits of the dev queries, and others up to a limit. So the figures of one training compare
with each other; those of a part are higher than those of the whole collection.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.evaluation.measures import measure_run, parse_measures
from msmarco_qdrant.evaluation.records import Qrels, Run
from msmarco_qdrant.evaluation.scoring import check_qids, select_judged
from msmarco_qdrant.train.train_report import DevMeasures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from msmarco_qdrant.search.client import SearchClient

MEASURE = "nDCG@10"
"""The measure that decides which checkpoint is kept."""

MOST_PASSAGES = 50_000
"""Passages that are encoded for each measure, at most, unless more are judged or found."""

_HITS = 10  # of a dev query, by BM25
_RANKED = 10
_QUERIES_AT_ONCE = 256
_TEXTS_AT_ONCE = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class DevSet:
    """Dev queries with the passages to rank for them.

    Attributes:
        queries: The judged queries.
        qrels: Their judgments.
        passages: The passages to rank.
        total: Number of passages in the collection.
        info: Prompts and similarity of the model.
    """

    queries: Sequence[Query]
    qrels: Qrels
    passages: Sequence[Passage]
    total: int
    info: EncoderInfo

    def measure(self, model: SentenceTransformer) -> float:
        """Return the mean nDCG@10 of a model, as `evaluate` computes it."""
        was_training = model.training
        model.eval()
        try:
            passages = _encode(model, self.info, [one.text for one in self.passages], "passage")
            queries = _encode(model, self.info, [one.text for one in self.queries], "query")
        finally:
            model.train(was_training)
        run = Run("dev", dict(self._rank(queries, passages)))
        values = measure_run(parse_measures(MEASURE), self.qrels, run)[MEASURE]
        return fmean(values.values())

    def report(self, by_step: Mapping[int, float]) -> DevMeasures:
        """Return the report of the measures by step."""
        return DevMeasures(
            MEASURE, len(self.queries), len(self.passages), self.total, dict(by_step)
        )

    def _rank(
        self, queries: NDArray[np.float32], passages: NDArray[np.float32]
    ) -> Iterator[tuple[str, list[tuple[str, float]]]]:
        import numpy as np

        depth = min(_RANKED, len(passages))
        for begin in range(0, len(queries), _QUERIES_AT_ONCE):
            scores = queries[begin : begin + _QUERIES_AT_ONCE] @ passages.T
            best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            for row, places in enumerate(best):
                ranked = sorted(
                    ((float(scores[row, place]), self.passages[place].pid) for place in places),
                    key=lambda one: (-one[0], one[1]),
                )
                yield self.queries[begin + row].qid, [(pid, score) for score, pid in ranked]


def build_dev_set(
    client: SearchClient,
    info: EncoderInfo,
    queries: Collection[Query],
    qrels: Qrels,
    *,
    tenant: str | None = None,
    most_passages: int = MOST_PASSAGES,
) -> DevSet:
    """Read the passages to rank.

    Args:
        client: Of the collection.
        info: Prompts and similarity of the model to measure.
        queries: The dev queries.
        qrels: Their judgments.
        tenant: Only this tenant's passages.
        most_passages: See `MOST_PASSAGES`.

    Raises:
        UsageError: If no query has judgments, or a qid is repeated.
    """
    check_qids(queries)
    judged = select_judged({query.qid for query in queries}, qrels)
    asked = [query for query in queries if query.qid in judged]
    total = client.count(tenant=tenant)
    if total <= most_passages:
        return DevSet(asked, judged, [*client.scroll(tenant=tenant)], total, info)
    passages = _part(client, tenant, asked, judged, most_passages)
    _log.info("the dev queries are ranked over %s of %s passages", f"{len(passages):,}", total)
    return DevSet(asked, judged, passages, total, info)


def _part(
    client: SearchClient, tenant: str | None, queries: Sequence[Query], qrels: Qrels, most: int
) -> list[Passage]:
    """Return judged and found passages, and others up to a limit."""
    pids = dict.fromkeys(pid for grades in qrels.values() for pid in grades)
    for batch in in_batches(queries, _QUERIES_AT_ONCE):
        texts = [query.text for query in batch]
        for hits in client.search_many(
            texts, limit=_HITS, mode="bm25", tenant=tenant, with_text=False
        ):
            pids.update(dict.fromkeys(hit.pid for hit in hits))
    found = client.get(pids, tenant=tenant)
    for passage in islice(client.scroll(tenant=tenant), most):
        if len(found) >= most:
            break
        found.setdefault(passage.pid, passage)
    return [*found.values()]


def _encode(
    model: SentenceTransformer, info: EncoderInfo, texts: list[str], task: str
) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = model.encode(
        texts,
        prompt=getattr(info.prompts, task),
        batch_size=_TEXTS_AT_ONCE,
        show_progress_bar=False,
        normalize_embeddings=info.similarity == "cosine",
    )
    return vectors
