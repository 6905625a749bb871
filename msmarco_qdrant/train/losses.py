"""Losses of a bi-encoder over the distinct passages of a batch.

Each passage of a batch is encoded once, however many examples name it. The library's losses expect
one passage for each example and column, so these ones only rearrange: the mathematics and the
gradient cache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup") are the library's.

`labels` has one row for each query. For the contrastive loss it has one column for each passage: 1
for the positive of the example, 0 for a negative, -1 for another positive of the query, which is
neither. For the others it is `(queries, 1 + negatives, 2)`: the column of a passage, and the
judge's score, the positive first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    DistillKLDivLoss,
    MarginMSELoss,
)
from sentence_transformers.util import cos_sim, dot_score, pairwise_cos_sim, pairwise_dot_score
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentence_transformers import SentenceTransformer

    from msmarco_qdrant.core.encoder_types import Similarity
    from msmarco_qdrant.train.settings import Loss

_MASKED = -1
_TARGET = 1


class _TrimmedMiniBatches(CachedLossMixin):
    """Cuts the padding that all texts of a mini-batch share."""

    def embed_minibatch(
        self, sentence_feature: dict[str, Any], begin: int, end: int, *args: Any, **kwargs: Any
    ) -> Any:
        mask = sentence_feature.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2 and "cu_seq_lens_q" not in sentence_feature:
            columns = mask[begin:end].any(dim=0).nonzero()
            width = int(columns[-1]) + 1 if len(columns) else 1
            sentence_feature = {
                name: value[:, :width] if _is_like(value, mask) else value
                for name, value in sentence_feature.items()
            }
        return super().embed_minibatch(sentence_feature, begin, end, *args, **kwargs)


def _is_like(value: Any, mask: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape[:2] == mask.shape


class ContrastiveLoss(_TrimmedMiniBatches, CachedMultipleNegativesRankingLoss):
    """Cross-entropy of the positive among all passages of the batch but known positives."""

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Return the loss of all queries; see `CachedLossMixin`."""
        if labels is None:
            raise ValueError("labels must be given")
        queries, passages = (torch.cat(column) for column in reps)
        scores = self.similarity_fct(queries, passages) * self.scale
        scores = scores.masked_fill(labels == _MASKED, -torch.inf)
        loss = nn.functional.cross_entropy(scores, (labels == _TARGET).long().argmax(dim=1))
        return _after_backward(loss, with_backward=with_backward)


class JudgeLoss(_TrimmedMiniBatches, nn.Module):
    """A loss of the library against the scores of a judge, with cached gradients."""

    def __init__(
        self,
        model: SentenceTransformer,
        loss: MarginMSELoss | DistillKLDivLoss,
        mini_batch_num_tokens: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.mini_batch_size = 1  # the library's other unit, not used
        self.mini_batch_num_tokens = mini_batch_num_tokens

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Return the loss of all queries; see `CachedLossMixin`."""
        if labels is None:
            raise ValueError("labels must be given")
        queries, passages = (torch.cat(column) for column in reps)
        columns, scores = labels[..., 0].long(), labels[..., 1]
        vectors = [queries, *(passages[column] for column in columns.T)]
        loss = self.loss.compute_loss_from_embeddings(vectors, scores)
        return _after_backward(loss, with_backward=with_backward)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Return the loss of the features of queries and of passages."""
        return self.forward_cached(sentence_features, labels)


def _after_backward(loss: Tensor, *, with_backward: bool) -> Tensor:
    if not with_backward:
        return loss
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def build_loss(
    model: SentenceTransformer,
    name: Loss,
    similarity: Similarity,
    scale: float,
    mini_batch_tokens: int,
) -> nn.Module:
    """Build a loss.

    Args:
        model: The model to train.
        name: "contrastive", "margin-mse" or "kl".
        similarity: The model's; scores are its similarity times `scale`.
        scale: See above.
        mini_batch_tokens: Tokens that run through the model at once.
    """
    is_cosine = similarity == "cosine"
    if name == "contrastive":
        function = cos_sim if is_cosine else dot_score
        return ContrastiveLoss(
            model, scale=scale, similarity_fct=function, mini_batch_num_tokens=mini_batch_tokens
        )
    pairwise = pairwise_cos_sim if is_cosine else pairwise_dot_score

    def score(queries: Tensor, passages: Tensor) -> Tensor:
        return scale * pairwise(queries, passages)

    kind = MarginMSELoss if name == "margin-mse" else DistillKLDivLoss
    return JudgeLoss(model, kind(model, similarity_fct=score), mini_batch_tokens)
