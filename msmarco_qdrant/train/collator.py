"""A batch of examples as the model's input: token ids of queries and of distinct passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from msmarco_qdrant.encoding.tokenizers import build_tokenizer, count_prompt_tokens
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.train.batches import TrainingPlan, draw_negatives
from msmarco_qdrant.train.examples import ExampleSet
from msmarco_qdrant.train.trainer import EXAMPLE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from msmarco_qdrant.core.encoder_types import Prompts
    from msmarco_qdrant.train.judged import JudgedScores


_MOST_KEPT = 200_000  # passages whose token ids stay in memory: about a kilobyte each


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
        self._pad_id = int(model.tokenizer.pad_token_id or 0)
        self._tokenize = {
            "query": build_tokenizer(model, "query", prompts.query),
            "passage": build_tokenizer(model, "document", prompts.passage),
        }
        lengths = count_prompt_tokens(model, prompts)
        self._prompt_lengths = {"query": lengths["query"], "passage": lengths["document"]}
        self._known: dict[int, NDArray[np.int32]] = {}
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
            self._mark(queries, self._plan.targets[numbers], passages)
            if self._scores is None
            else self._scores.labels(queries, chosen, passages)
        )
        texts = [self._examples.queries[query] for query in queries]
        return {
            **self._features("query", self._tokenize["query"](texts)),
            **self._features("passage", self._passage_ids(passages.tolist())),
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

    def _mark(
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

    def _passage_ids(self, passages: list[int]) -> Tokenized:
        """Return token ids of passages; those of the first ones are kept for later batches."""
        rows = {one: self._known[one] for one in passages if one in self._known}
        if new := [one for one in passages if one not in rows]:
            tokens = self._tokenize["passage"]([self._examples.passages[one] for one in new])
            split = dict(zip(new, np.split(tokens.ids, tokens.offsets[1:-1]), strict=True))
            rows |= split
            if len(self._known) < _MOST_KEPT:
                self._known |= split
        ids = [rows[one] for one in passages]
        return Tokenized.from_lengths(np.concatenate(ids), [*map(len, ids)])

    def _features(self, column: str, tokens: Tokenized) -> dict[str, Any]:
        """Return the input of the model, as `preprocess` of the library makes it."""
        ids, mask = tokens.padded(self._pad_id)
        features: dict[str, Any] = {
            f"{column}_input_ids": torch.from_numpy(ids),
            f"{column}_attention_mask": torch.from_numpy(mask),
        }
        if (length := self._prompt_lengths[column]) is not None:
            features[f"{column}_prompt_length"] = length
        return features
