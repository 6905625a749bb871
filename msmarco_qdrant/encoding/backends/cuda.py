"""The forward pass on an NVIDIA GPU in 16 or 8 bits: written for the shape, without padding.

Queries, keys and values are one product. What lies between the products reads and writes the
GPU's memory once (`triton_kernels`, or `plain_kernels` without Triton). In 16 bits GELU is part of
a product, which computes it in the form with the hyperbolic tangent; vectors stay within cosine
0.99999 of those with the error function. A batch's texts lie end to end and are of similar length.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

# At the top: this module is imported when a model is loaded.
import numpy as np
import torch

from msmarco_qdrant.encoding.backends.base import ForwardPass, Task
from msmarco_qdrant.encoding.backends.torch import copy_to_host, forward_error
from msmarco_qdrant.encoding.backends.torch_device import default_tokens_per_batch, to_device
from msmarco_qdrant.encoding.compact import CompactLayer, CompactModel, Linear, Norm
from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CudaBackend:
    """A bi-encoder on an NVIDIA GPU; see `Backend`.

    Args:
        forward: Its forward pass.
    """

    needs_padding = False
    max_in_flight = 3  # the GPU works while the next batches are prepared

    def __init__(self, forward: VarlenForward) -> None:
        self.device = str(forward.device)
        self.precision = forward.precision
        self.tokens_per_batch = default_tokens_per_batch(forward.device)
        self._forward = forward

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:  # noqa: ARG002  # of `Backend`
        """Start a forward pass; see `Backend.launch`."""
        try:
            with torch.cuda.device(self.device):  # Triton launches on the current one
                return copy_to_host(self._forward(batch), batch, self.device)
        except Exception as exc:  # mostly out of memory
            raise forward_error(batch, self.device, exc) from exc


class VarlenForward:
    """The forward pass of a batch whose texts lie end to end, in 16 bits.

    Args:
        model: The weights.
        device: The device to compute on; on a CPU, for tests, in any type.
        dtype: The type of weights and values.
    """

    def __init__(self, model: CompactModel, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.precision = str(dtype).removeprefix("torch.")
        self._last_place = len(model.positions) - 1
        self._kernels = find_kernels(model, device)
        self._words = to_tensor(model.words, device, dtype)
        self._positions = to_tensor(model.positions, device, dtype)
        self._norm = _norm(model.norm, device)
        self._layers = [_Layer.of(layer, device, dtype) for layer in model.layers]
        self._model = replace(model, layers=())  # those in float32 are not used

    @torch.inference_mode()
    def __call__(self, batch: Tokenized) -> torch.Tensor:
        """Encode texts of at least one token each: float32 `(texts, hidden)`, on the device."""
        model, kernels = self._model, self._kernels
        # Each in memory of its own: Triton compiles a kernel again for other alignments.
        ids, places, edges = (
            to_device(torch.from_numpy(values.astype(np.int32)), self.device)
            for values in (batch.ids, self._places(batch), batch.offsets)
        )
        values = kernels.embed(ids, places, self._words, self._positions, self._norm, model.eps)
        values = self._run_layers(values, edges, int(batch.lengths.max()))
        is_cls = model.pooling == "cls"
        pooled = values[edges[:-1]].float() if is_cls else kernels.pool(values, edges)
        return torch.nn.functional.normalize(pooled) if model.normalizes else pooled

    def _run_layers(self, values: torch.Tensor, edges: torch.Tensor, longest: int) -> torch.Tensor:
        kernels, heads, eps = self._kernels, self._model.heads, self._model.eps
        mixed = torch.empty_like(values)
        for layer in self._layers:
            kernels.attend(layer.qkv(values), edges, longest, heads, mixed)
            values = kernels.add_norm(layer.out(mixed), values, layer.attention_norm, eps)
            wide = torch._addmm_activation(  # noqa: SLF001  # torch.compile emits it, too
                layer.inner.bias, values, layer.inner.weight, use_gelu=True
            )
            values = kernels.add_norm(layer.outer(wide), values, layer.norm, eps)
        return values

    def _places(self, batch: Tokenized) -> NDArray[np.int64]:
        """Return the row of each token's position."""
        starts, lengths = batch.offsets[:-1], batch.lengths
        places: NDArray[np.int64] = np.arange(len(batch.ids)) - np.repeat(starts, lengths)
        pad_id = self._model.pad_id
        if pad_id is None or not (is_pad := batch.ids == pad_id).any():
            return places
        before = np.cumsum(is_pad) - is_pad  # such tokens before each one
        before -= np.repeat(before[starts], lengths)  # of its own text
        return np.where(is_pad, self._last_place, places - before)


def find_kernels(model: CompactModel, device: torch.device) -> Any:
    """Return the module of the kernels: Triton's, where it is installed and takes the shape."""
    from msmarco_qdrant.encoding.backends import plain_kernels

    size = model.words.shape[1] // model.heads
    is_power_of_2 = size >= 16 and size & (size - 1) == 0  # of matrix units
    if device.type != "cuda" or not is_power_of_2 or not has_triton():
        return plain_kernels
    from msmarco_qdrant.encoding.backends import triton_kernels

    return triton_kernels


def has_triton() -> bool:
    """True if Triton is installed; torch for Windows comes without it."""
    return importlib.util.find_spec("triton") is not None


class _Product(NamedTuple):
    """A linear layer, as `torch.addmm` takes it: `(outputs,)` and `(inputs, outputs)`."""

    bias: torch.Tensor
    weight: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """`(tokens, inputs)` to `(tokens, outputs)`."""
        return torch.addmm(self.bias, values, self.weight)

    @classmethod
    def of(cls, layer: Linear, device: torch.device, dtype: torch.dtype) -> _Product:
        weight = to_tensor(layer.weight, device, dtype).t()
        return cls(to_tensor(layer.bias, device, dtype), weight)


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of a layer; see `CompactLayer`."""

    qkv: _Product
    out: _Product
    inner: _Product
    outer: _Product
    attention_norm: tuple[torch.Tensor, torch.Tensor]
    norm: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, layer: CompactLayer, device: torch.device, dtype: torch.dtype) -> _Layer:
        return cls(
            qkv=_Product.of(layer.qkv, device, dtype),
            out=_Product.of(layer.out, device, dtype),
            inner=_Product.of(layer.inner, device, dtype),
            outer=_Product.of(layer.outer, device, dtype),
            attention_norm=_norm(layer.attention_norm, device),
            norm=_norm(layer.norm, device),
        )


def to_tensor(
    array: NDArray[np.float32], device: torch.device, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Copy an array to a device, in a type."""
    return torch.from_numpy(array).to(device).to(dtype)


def _norm(norm: Norm, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return to_tensor(norm.weight, device), to_tensor(norm.bias, device)
