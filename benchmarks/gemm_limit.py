"""The limit that encoding is held against: plain matrix products of the model's linear layers.

A passage of `T` tokens costs, in floating-point operations (a multiplication and an addition are
two),

    2 * T * sum(inputs * outputs of each linear layer) + 4 * layers * T**2 * hidden

The first term is the linear layers, the second the two products of attention (queries by keys,
probabilities by values). Embeddings, normalization, softmax and pooling are left out: they are
under one in a hundred. Padding is not counted, so what is spent on it counts as time lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

ROWS = (512, 2048, 8192)
"""Tokens in a product: the limit is the best of these, independent of the encoder's choice."""
_SECONDS = 2.0


class Work(NamedTuple):
    """The work of a model for some texts.

    Attributes:
        shapes: Inputs and outputs of each linear layer that every token goes through.
        layers: Attention layers.
        hidden: The width of attention: heads by their size.
        lengths: Tokens of each text, special ones included, cut to the model's length.
    """

    shapes: Sequence[tuple[int, int]]
    layers: int
    hidden: int
    lengths: Sequence[int]

    @property
    def flops_per_passage(self) -> float:
        """Floating-point operations of a passage, on average."""
        weights = sum(inputs * outputs for inputs, outputs in self.shapes)
        tokens = sum(self.lengths)
        squares = sum(length**2 for length in self.lengths)
        total = 2 * weights * tokens + 4 * self.layers * self.hidden * squares
        return total / len(self.lengths)


def work_of(location: str, texts: Sequence[str]) -> Work:
    """Return the work of a model in a directory for these texts."""
    from sentence_transformers import SentenceTransformer
    from torch import nn

    model = SentenceTransformer(location, device="cpu")
    transformer: Any = model[0].auto_model
    shapes = [
        (layer.in_features, layer.out_features)
        for name, layer in transformer.named_modules()
        if isinstance(layer, nn.Linear) and "pooler" not in name  # that sees one token, unused
    ]
    tokens = model.tokenizer(list(texts), truncation=True, max_length=model.max_seq_length)
    config = transformer.config
    return Work(
        shapes=shapes,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        lengths=[len(ids) for ids in tokens["input_ids"]],
    )


def gemm_rate(work: Work, precision: str) -> float:
    """Floating-point operations a second of those products alone, with the best number of rows."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: torch.dtype = getattr(torch, precision)
    return max(_rate(work.shapes, rows, dtype, device) for rows in ROWS)


def _rate(shapes: Sequence[tuple[int, int]], rows: int, dtype: torch.dtype, device: str) -> float:
    import torch

    products = [
        (torch.randn(rows, inputs), torch.randn(outputs, inputs)) for inputs, outputs in shapes
    ]
    products = [(left.to(device, dtype), right.to(device, dtype)) for left, right in products]

    def once() -> None:
        for left, right in products:
            torch.nn.functional.linear(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode():
        once()
        passes, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < _SECONDS:
            once()
            passes += 1
    return passes * 2 * rows * sum(i * o for i, o in shapes) / seconds
