"""A batch of examples as the model's input: token ids of queries and of distinct passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from msmarco_qdrant.train.batches import TrainingPlan, draw_negatives
from msmarco_qdrant.train.examples import ExampleSet
from msmarco_qdrant.train.trainer import EXAMPLE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from msmarco_qdrant.core.encoder_types import Prompts
    from msmarco_qdrant.train.judged import JudgedScores


class ExampleCollator:
    """Makes the model's input and the labels of `losses` from numbers of examples.

    Args:
        model: The model, for its tokenizer.
        prompts: Texts in front of queries and passages.
        examples: The queries and passages.
        plan: The examples by number.
        negatives: Number of negatives of an example.
        seed: The training's seed.
        scores: The judge's scores, for the losses that need them.
    """

    valid_label_columns: Sequence[str] = ()  # the library's trainer reads it

    def __init__(
        self,
        model: SentenceTransformer,
        prompts: Prompts,
        examples: ExampleSet,
        plan: TrainingPlan,
        *,
        negatives: int,
        seed: int,
        scores: JudgedScores | None = None,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._examples = examples
        self._plan = plan
        self._number = negatives
        self._seed = seed
        self._scores = scores
        self._sizes = examples.passages.sizes

    def __call__(self, rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return the token ids of queries and passages, and the labels, of some examples."""
        numbers = [row[EXAMPLE] for row in rows]
        queries = self._plan.queries[numbers]
        chosen = [
            np.concatenate([self._plan.targets[[number]], self._draw(number, int(query))])
            for number, query in zip(numbers, queries, strict=True)
        ]
        passages = self._by_length(np.unique(np.concatenate(chosen)))
        labels = (
            self._known(queries, self._plan.targets[numbers], passages)
            if self._scores is None
            else self._scores.labels(queries, chosen, passages)
        )
        texts = [self._examples.queries[query] for query in queries]
        return {
            **self._tokenize("query", texts, self._prompts.query),
            **self._tokenize(
                "passage",
                [self._examples.passages[int(one)] for one in passages],
                self._prompts.passage,
            ),
            "label": torch.from_numpy(labels),
        }

    def _draw(self, number: int, query: int) -> NDArray[np.int32]:
        pool = self._examples.negatives[query]
        if self._scores is not None:
            pool = self._scores.judged_negatives(query)
        fill = self._scores is not None
        return draw_negatives(pool, self._number, self._seed, number, fill=fill)

    def _by_length(self, passages: NDArray[np.int32]) -> NDArray[np.int32]:
        """Order passages by length, so that mini-batches have little padding."""
        return passages[np.argsort(self._sizes[passages], kind="stable")]

    def _known(
        self,
        queries: NDArray[np.int32],
        targets: NDArray[np.int32],
        passages: NDArray[np.int32],
    ) -> NDArray[np.int8]:
        labels = np.zeros((len(queries), len(passages)), np.int8)
        for row, (query, target) in enumerate(zip(queries, targets, strict=True)):
            labels[row, np.isin(passages, self._examples.positives[int(query)])] = -1
            labels[row, passages == target] = 1
        return labels

    def _tokenize(self, column: str, texts: list[str], prompt: str) -> dict[str, Any]:
        features = self._model.preprocess(texts, prompt=prompt or None)
        return {f"{column}_{name}": value for name, value in features.items()}
