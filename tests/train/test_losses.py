"""The losses: the library's values and gradients, over a batch's distinct passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe, texts_of_lengths

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

QUERIES = texts_of_lengths([3, 5, 4])
PASSAGES = texts_of_lengths([9, 20, 6, 31, 12, 7, 15, 25, 10])


def load(tiny: Tiny) -> SentenceTransformer:
    """Load a tiny model without dropout, whose passes are equal."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(tiny(Recipe())), device="cpu").eval()


def gradients(loss: Any, model: SentenceTransformer, *given: Any) -> tuple[float, Tensor]:
    """Return the value of a loss and all gradients of the model."""
    import torch

    model.zero_grad()
    value = loss(*given)
    value.backward()
    found = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
    return value.item(), torch.cat(found)


def features(model: SentenceTransformer, texts: list[str]) -> dict[str, Any]:
    """Tokenize texts; `input_ids` and so on."""
    return dict(model.preprocess(texts))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_contrastive_loss_is_the_library_s(tiny: Tiny, similarity: Any) -> None:
    """With each passage once, in any order and in small mini-batches."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.util import cos_sim, dot_score

    from msmarco_qdrant.train.losses import build_loss

    model = load(tiny)
    function = cos_sim if similarity == "cosine" else dot_score
    library = MultipleNegativesRankingLoss(model, scale=3.0, similarity_fct=function)
    columns = [QUERIES, PASSAGES[:3], PASSAGES[3:6], PASSAGES[6:]]
    expected = gradients(library, model, [features(model, one) for one in columns], None)

    ours = build_loss(model, "contrastive", similarity, 3.0, 40)
    order = [4, 0, 8, 2, 6, 1, 7, 3, 5]
    labels = torch.tensor([[int(one == row) for one in order] for row in range(3)])
    passages = features(model, [PASSAGES[one] for one in order])
    found = gradients(ours, model, [features(model, QUERIES), passages], labels)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert (found[1] - expected[1]).norm() < 1e-4 * expected[1].norm()


def test_known_positive_is_no_negative(tiny: Tiny) -> None:
    """A passage with the label -1 does not change the loss of its query."""
    import torch

    from msmarco_qdrant.train.losses import build_loss

    model = load(tiny)
    loss = build_loss(model, "contrastive", "cosine", 20.0, 1000)
    queries = features(model, QUERIES[:1])
    labels = torch.tensor([[1, 0, -1]])
    masked = loss([queries, features(model, PASSAGES[:3])], labels)
    absent = loss([queries, features(model, PASSAGES[:2])], labels[:, :2])
    assert masked.item() == pytest.approx(absent.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["margin-mse", "kl"])
def test_losses_of_a_judge_are_the_library_s(tiny: Tiny, name: Any) -> None:
    """A passage that several queries share is encoded once."""
    import torch
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss

    from msmarco_qdrant.train.losses import build_loss

    model = load(tiny)
    kind = MarginMSELoss if name == "margin-mse" else DistillKLDivLoss
    chosen = torch.tensor([[0, 3, 4], [1, 3, 2], [2, 0, 1]])  # places in PASSAGES
    scores = torch.tensor([[4.0, 1.0, -2.0], [3.0, 0.5, 2.0], [1.0, 1.5, 0.0]])
    columns = [[PASSAGES[one] for one in column] for column in chosen.T.tolist()]
    given = [features(model, one) for one in (QUERIES, *columns)]
    expected = gradients(kind(model), model, given, scores)

    ours = build_loss(model, name, "dot", 1.0, 30)
    labels = torch.stack([chosen.float(), scores], dim=2)
    found = gradients(
        ours, model, [features(model, QUERIES), features(model, PASSAGES[:5])], labels
    )
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert (found[1] - expected[1]).norm() < 1e-4 * expected[1].norm()
