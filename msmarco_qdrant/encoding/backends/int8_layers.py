"""Layers of a transformer in int8, weights and activations, by oneDNN's linear layers.

Each input of a linear layer gets fixed scales from its ranges in float32 (`Ranges`).
Channels with a wide range lend some of it to the weights, as in SmoothQuant (Xiao et al., 2023,
https://arxiv.org/abs/2211.10438, with a strength of one half), so that they do not decide the scale
of the others. The output of GELU is rounded within its product, with one scale. Attention and
normalizations compute in floats.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import BadZipFile

# At the top: this module is imported when a model is loaded.
import numpy as np
import torch

from msmarco_qdrant.encoding.backends.fused_layers import (
    Attend,
    Buffers,
    LayerNorm,
    PlainLayer,
    as_tensor,
)
from msmarco_qdrant.encoding.backends.measured import save_measurement
from msmarco_qdrant.encoding.compact import CompactLayer, Linear

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Activations are 0 to 255.
_LEVELS = 255
_SMALL = 1e-5


@dataclass(slots=True)
class Range:
    """Least and greatest value of each channel: float32 `(channels,)`."""

    least: torch.Tensor
    greatest: torch.Tensor

    def merged(self, values: torch.Tensor) -> Range:
        """Return the range with `(tokens, channels)` more values."""
        least, greatest = torch.aminmax(values, dim=0)
        return Range(torch.minimum(self.least, least), torch.maximum(self.greatest, greatest))


class Ranges:
    """Ranges of the inputs of a layer's four products: qkv, out, inner and outer. Thread-safe."""

    def __init__(self, layer: CompactLayer) -> None:
        self._lock = threading.Lock()
        products = (layer.qkv, layer.out, layer.inner, layer.outer)
        empty = [torch.full((one.weight.shape[1],), float("inf")) for one in products]
        self.inputs = [Range(one, -one) for one in empty]

    def add(self, product: int, values: torch.Tensor) -> None:
        """Record the input of a product: `(tokens, channels)`."""
        with self._lock:
            self.inputs[product] = self.inputs[product].merged(values)


def save_ranges(path: Path, ranges: Mapping[CompactLayer, Ranges]) -> None:
    """Write the ranges of a model's layers, in their order, for `load_ranges`."""
    content = BytesIO()
    arrays = [
        torch.stack([one.least, one.greatest]).numpy()
        for layer in ranges.values()
        for one in layer.inputs
    ]
    np.savez(content, *arrays)
    save_measurement(path, content.getvalue())


def load_ranges(path: Path, ranges: Mapping[CompactLayer, Ranges]) -> bool:
    """Fill the ranges of a model's layers from a file; False without a whole one."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = [torch.from_numpy(found[name]) for name in found.files]
    except (OSError, ValueError, EOFError, BadZipFile):
        return False
    inputs = [one for layer in ranges.values() for one in layer.inputs]
    if [array.shape for array in arrays] != [(2, len(one.least)) for one in inputs]:
        return False
    for one, (least, greatest) in zip(inputs, arrays, strict=True):
        one.least, one.greatest = least, greatest
    return True


class RecordingLayer(PlainLayer):
    """A layer in float32 that records the ranges of its products' inputs.

    Args:
        layer: Its weights.
        eps: Epsilon of the normalizations.
        ranges: Filled by each call.
    """

    def __init__(self, layer: CompactLayer, eps: float, ranges: Mapping[CompactLayer, Ranges]):
        super().__init__(layer, eps)
        self._ranges = ranges[layer]

    def _record(self, product: int, values: torch.Tensor) -> None:
        self._ranges.add(product, values)


class Int8Layer:
    """A layer in int8.

    Args:
        layer: Its weights.
        eps: Epsilon of the normalizations.
        ranges: Of this layer's inputs.
        dtype: Of its input and output, and of attention.
        greatest: Greatest weight, at most 127.
    """

    def __init__(
        self,
        layer: CompactLayer,
        eps: float,
        ranges: Mapping[CompactLayer, Ranges],
        dtype: torch.dtype,
        greatest: int,
    ) -> None:
        qkv, out, inner, outer = ranges[layer].inputs
        self._dtype = dtype
        self._qkv = _Int8Product(layer.qkv, qkv, greatest)
        self._out = _Int8Product(layer.out, out, greatest)
        self._inner = _Int8Product(layer.inner, inner, greatest)
        self._outer = _Int8Product(layer.outer, outer, greatest, smooth=False)
        self._attention_norm = LayerNorm.of(layer.attention_norm, eps)
        self._norm = LayerNorm.of(layer.norm, eps)

    def __call__(self, values: torch.Tensor, attend: Attend, buffers: Buffers) -> torch.Tensor:
        """`(tokens, hidden)` to the same shape."""
        scratch = buffers.out[: len(values)]
        attended = attend(self._qkv.plain(self._qkv.round(values, scratch), self._dtype))
        rounded = self._out.round(attended, scratch)
        values = self._attention_norm(self._out.add(rounded, values))
        wide = self._inner.gelu(self._inner.round(values, scratch), self._outer)
        return self._norm(self._outer.add(wide, values))


class _Int8Product:
    """A linear layer of uint8 activations and int8 weights, with a scale for each output."""

    def __init__(self, layer: Linear, inputs: Range, greatest: int, *, smooth: bool = True) -> None:
        weight = as_tensor(layer.weight)
        lent = _lend(weight, inputs) if smooth else torch.ones(weight.shape[1])
        least = min(float((inputs.least / lent).min()), 0.0)
        most = max(float((inputs.greatest / lent).max()), least + _SMALL)
        self.scale = (most - least) / _LEVELS
        self.zero = round(-least / self.scale)
        self._factors = 1 / (lent * self.scale)
        self._shift = torch.tensor(self.zero + 0.5)  # the conversion to integers cuts off
        weight = weight * lent
        scales = weight.abs().amax(1).clamp_(min=_SMALL) / greatest
        rounded = (weight / scales[:, None]).round_().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._scales, self._zeros = scales, torch.zeros(len(scales), dtype=torch.int32)
        self._bias = as_tensor(layer.bias)

    def round(self, values: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
        """Return uint8 activations; `scratch` is float32 of the values' shape."""
        torch.addcmul(self._shift, values, self._factors, out=scratch)
        return scratch.clamp_(0, _LEVELS).to(torch.uint8)

    def plain(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self._apply(values, 1.0, 0, dtype, "none", "")

    def gelu(self, values: torch.Tensor, following: _Int8Product) -> torch.Tensor:
        """Return uint8 activations of the product that follows; the GELU is the exact one."""
        return self._apply(values, following.scale, following.zero, torch.uint8, "gelu", "none")

    def _apply(
        self,
        values: torch.Tensor,
        scale: float,
        zero: int,
        dtype: torch.dtype,
        function: str,
        algorithm: str,
    ) -> torch.Tensor:
        product = (values, self.scale, self.zero, self._weight, self._scales, self._zeros)
        output: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            *product, self._bias, scale, zero, dtype, function, [], algorithm
        )
        return output

    def add(self, values: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        product = (values, self.scale, self.zero, self._weight, self._scales, self._zeros)
        output: torch.Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            *(*product, residual, self._bias, 1.0, 0, residual.dtype),
            *(1.0, 0, "add", 1.0, "none", [], ""),
        )
        return output


def _lend(weight: torch.Tensor, inputs: Range) -> torch.Tensor:
    """Return the factor of each channel that moves from the activations to the weights."""
    span = torch.maximum(inputs.greatest.abs(), inputs.least.abs()).clamp_(min=_SMALL)
    greatest = weight.abs().amax(0).clamp_(min=_SMALL)
    return (span / greatest).sqrt_()
