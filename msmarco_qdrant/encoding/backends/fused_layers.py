"""Layers of a transformer by torch on a CPU, with as few passes over memory as torch has.

oneDNN's linear layers take weights that are laid out once, and apply GELU or add the residual
before they write; normalizations keep float32 weights, which is faster in bfloat16, too. Where
oneDNN or its layout is missing, plain products in float32 write into buffers that a worker reuses,
since memory from the system is cleared page by page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

# At the top: this module is imported when a model is loaded.
import torch
from torch.nn.functional import layer_norm

from msmarco_qdrant.encoding.compact import CompactLayer, Linear, Norm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Rows of the wide layer computed at once, so that they stay in the core's cache.
_WIDE_ROWS = 256

Attend: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Attention of queries, keys and values, `(tokens, 3 * hidden)`: `(tokens, hidden)`."""


class FusedLayer(Protocol):
    """A layer with its weights."""

    def __call__(self, values: torch.Tensor, attend: Attend, buffers: Buffers) -> torch.Tensor:
        """`(tokens, hidden)` to the same shape."""
        ...


@dataclass(frozen=True, slots=True)
class Buffers:
    """Outputs of one thread's layers in float32: `(tokens, size)`."""

    qkv: torch.Tensor
    out: torch.Tensor
    inner: torch.Tensor

    @classmethod
    def of(cls, layer: CompactLayer, tokens: int) -> Buffers:
        """Allocate buffers for at most so many tokens."""
        return cls(
            torch.empty(tokens, len(layer.qkv.bias)),
            torch.empty(tokens, len(layer.out.bias)),
            torch.empty(_WIDE_ROWS, len(layer.inner.bias)),
        )


class LayerNorm(NamedTuple):
    """A layer normalization: its weights, float32, and epsilon."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    @classmethod
    def of(cls, norm: Norm, eps: float) -> LayerNorm:
        """Share the weights of a normalization."""
        return cls(as_tensor(norm.weight), as_tensor(norm.bias), eps)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """`(tokens, hidden)` to the same shape."""
        return layer_norm(values, self.weight.shape, self.weight, self.bias, self.eps)


class _Product(NamedTuple):
    """A linear layer, as `torch.addmm` takes it: `(outputs,)` and `(inputs, outputs)`."""

    bias: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, layer: Linear) -> _Product:
        return cls(as_tensor(layer.bias), as_tensor(layer.weight).t())

    def __call__(self, values: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, values, self.weight, out=out)


class PlainLayer:
    """A layer in float32 by plain products.

    Args:
        layer: Its weights, which it shares.
        eps: Epsilon of the normalizations.
    """

    def __init__(self, layer: CompactLayer, eps: float) -> None:
        self._qkv, self._out = _Product.of(layer.qkv), _Product.of(layer.out)
        self._inner, self._outer = _Product.of(layer.inner), _Product.of(layer.outer)
        self._attention_norm = LayerNorm.of(layer.attention_norm, eps)
        self._norm = LayerNorm.of(layer.norm, eps)

    def __call__(self, values: torch.Tensor, attend: Attend, buffers: Buffers) -> torch.Tensor:
        """`(tokens, hidden)` to the same shape."""
        count = len(values)
        self._record(0, values)
        attended = attend(self._qkv(values, buffers.qkv[:count]))
        self._record(1, attended)
        output = self._out(attended, buffers.out[:count])
        values = self._attention_norm(output.add_(values))
        self._record(2, values)
        for start in range(0, count, _WIDE_ROWS):
            part = values[start : start + _WIDE_ROWS]
            wide = self._inner(part, buffers.inner[: len(part)])
            torch.ops.aten.gelu.out(wide, out=wide)
            self._record(3, wide)
            self._outer(wide, output[start : start + _WIDE_ROWS])
        return self._norm(output.add_(values))

    def _record(self, product: int, values: torch.Tensor) -> None:
        """Do nothing with the input of a product, for classes that calibrate."""


class PackedLayer:
    """A layer by oneDNN's linear layers with packed weights, as `packed_linear` has them.

    Args:
        layer: Its weights, which it copies.
        eps: Epsilon of the normalizations.
        dtype: A type that this processor packs.
    """

    def __init__(self, layer: CompactLayer, eps: float, dtype: torch.dtype) -> None:
        self._qkv, self._out = _Packed(layer.qkv, dtype), _Packed(layer.out, dtype)
        self._inner, self._outer = _Packed(layer.inner, dtype), _Packed(layer.outer, dtype)
        self._attention_norm = LayerNorm.of(layer.attention_norm, eps)
        self._norm = LayerNorm.of(layer.norm, eps)

    def __call__(self, values: torch.Tensor, attend: Attend, buffers: Buffers) -> torch.Tensor:
        """`(tokens, hidden)` to the same shape."""
        del buffers  # the operators allocate their outputs
        attended = attend(self._qkv.plain(values))
        values = self._attention_norm(self._out.add(attended, values))
        wide = self._inner.gelu(values)
        return self._norm(self._outer.add(wide, values))


class _Packed:
    """A linear layer whose weights oneDNN lays out once."""

    def __init__(self, layer: Linear, dtype: torch.dtype) -> None:
        weight = as_tensor(layer.weight).to(dtype)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001
        self._bias = as_tensor(layer.bias).to(dtype)

    def plain(self, values: torch.Tensor) -> torch.Tensor:
        return self._apply(values, "none", "")

    def gelu(self, values: torch.Tensor) -> torch.Tensor:
        return self._apply(values, "gelu", "none")  # "none" is the exact one

    def _apply(self, values: torch.Tensor, function: str, algorithm: str) -> torch.Tensor:
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            values, self._weight, self._bias, function, [], algorithm
        )
        return output

    def add(self, values: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(  # noqa: SLF001
            values, residual, self._weight, self._bias, "add"
        )
        return output


def as_tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """Return a tensor that shares the array's memory."""
    return torch.from_numpy(array)
