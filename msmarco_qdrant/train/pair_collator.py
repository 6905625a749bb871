"""Input of a cross-encoder's training: pairs of a query and a passage, labeled 1 or 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from msmarco_qdrant.train.batches import TrainingPlan, draw_negatives
from msmarco_qdrant.train.examples import ExampleSet
from msmarco_qdrant.train.trainer import EXAMPLE


class PairCollator:
    """Makes the pairs of examples: each positive with its own negatives, drawn at random.

    Args:
        examples: The queries and passages.
        plan: The examples by number.
        negatives: Negatives of each positive; all of a query that has fewer.
        seed: The training's seed.
    """

    valid_label_columns: Sequence[str] = ()  # the library's trainer reads it

    def __init__(
        self, examples: ExampleSet, plan: TrainingPlan, *, negatives: int, seed: int
    ) -> None:
        self._examples = examples
        self._plan = plan
        self._number = negatives
        self._seed = seed

    def __call__(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return the texts of queries and passages, and float32 labels `(pairs,)`."""
        queries: list[str] = []
        passages: list[str] = []
        labels: list[float] = []
        for number in (row[EXAMPLE] for row in rows):
            query = int(self._plan.queries[number])
            pool = self._examples.negatives[query]
            drawn = draw_negatives(pool, self._number, self._seed, number).tolist()
            chosen = [int(self._plan.targets[number]), *drawn]
            queries += [self._examples.queries[query]] * len(chosen)
            passages += [self._examples.passages[one] for one in chosen]
            labels += [1.0, *[0.0] * len(drawn)]
        return {"query": queries, "passage": passages, "label": torch.tensor(labels)}
