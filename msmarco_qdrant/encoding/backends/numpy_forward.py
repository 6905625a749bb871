"""The forward pass of one query by NumPy, for a process that has not imported torch.

Importing torch takes seconds, which a single search from the command line would wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# At the top: this module is imported when a model is loaded.
import numpy as np

from msmarco_qdrant.encoding.compact import CompactLayer, CompactModel, Linear, Norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: erf within 1.5e-7.
_P = 0.3275911
_A = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_SMALLEST_NORM = 1e-12  # as torch.nn.functional.normalize


class NumpyForward:
    """A bi-encoder on the CPU, in float32, one text at a time. Thread-safe.

    Args:
        model: Its weights.
    """

    def __init__(self, model: CompactModel) -> None:
        self._model = model

    def __call__(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Encode a text.

        Args:
            ids: int32 `(tokens,)`, at least one.

        Returns:
            float32 `(hidden,)`.
        """
        model = self._model
        places = np.arange(len(ids))
        if model.pad_id is not None:
            counted = ids != model.pad_id
            places = np.where(counted, counted.cumsum() - 1, -1)
        values = model.words[ids] + model.positions[places]
        values = _normalize(values, model.norm, model.eps)
        biases = model.score_biases(len(ids))
        for layer in model.layers:
            values = self._layer(values, layer, biases)
        pooled: NDArray[np.float32] = values[0] if model.pooling == "cls" else values.mean(0)
        if model.normalizes:
            pooled = pooled / np.float32(max(float(np.linalg.norm(pooled)), _SMALLEST_NORM))
        return pooled

    def _layer(
        self,
        values: NDArray[np.float32],
        layer: CompactLayer,
        biases: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        eps = self._model.eps
        attended = _linear(self._attend(_linear(values, layer.qkv), biases), layer.out)
        values = _normalize(attended + values, layer.attention_norm, eps)
        wide = _gelu(_linear(values, layer.inner))
        return _normalize(_linear(wide, layer.outer) + values, layer.norm, eps)

    def _attend(
        self, joined: NDArray[np.float32], biases: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Attention over queries, keys and values, `(tokens, 3 * hidden)`."""
        tokens, heads = len(joined), self._model.heads
        size = joined.shape[1] // (3 * heads)
        split = joined.reshape(tokens, 3, heads, size).transpose(1, 2, 0, 3)
        queries, keys, values = split[0], split[1], split[2]
        scores: NDArray[np.float32] = queries @ keys.transpose(0, 2, 1)
        scores *= np.float32(size**-0.5)
        if biases is not None:
            scores += biases
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        mixed: NDArray[np.float32] = (scores @ values).transpose(1, 0, 2).reshape(tokens, -1)
        return mixed


def _linear(values: NDArray[np.float32], layer: Linear) -> NDArray[np.float32]:
    product = values @ layer.weight.T
    product += layer.bias
    return product


def _normalize(values: NDArray[np.float32], norm: Norm, eps: float) -> NDArray[np.float32]:
    values = values - values.mean(-1, keepdims=True)
    values /= np.sqrt(np.square(values).mean(-1, keepdims=True) + np.float32(eps))
    values *= norm.weight
    values += norm.bias
    return values


def _gelu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`x * (1 + erf(x / sqrt(2))) / 2`."""
    scaled = np.abs(values) * np.float32(0.5**0.5)
    step = 1 / (1 + np.float32(_P) * scaled)
    series = np.full_like(step, _A[0])
    for factor in _A[1:]:
        series *= step
        series += np.float32(factor)
    series *= step
    series *= np.exp(-np.square(scaled))  # 1 - erf of the absolute value
    series *= np.float32(0.5)
    share = np.where(values < 0, series, 1 - series)
    share *= values
    return share
