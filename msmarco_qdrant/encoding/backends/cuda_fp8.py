"""The forward pass on an NVIDIA GPU with matrix products in fp8 (E4M3), the rest in float16.

A number of fp8 has 3 bits after its first one and 4 of exponent, 2**-9 to 448. So activations need
no scales of their own: outputs of normalization and GELU fit as they are, and those of attention,
which are small, after a constant factor. Each kernel writes its output in fp8 as well, or only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

# At the top: this module is imported when a model is loaded.
import torch

from msmarco_qdrant.encoding.backends.cuda import VarlenForward, to_tensor

if TYPE_CHECKING:
    from msmarco_qdrant.encoding.compact import CompactModel, Linear

FP8 = torch.float8_e4m3fn
_MIXED_FACTOR = 16.0


class Fp8Forward(VarlenForward):
    """The forward pass of a batch whose texts lie end to end, with products in fp8.

    Args:
        model: The weights.
        device: The device to compute on.
    """

    def __init__(self, model: CompactModel, device: torch.device) -> None:
        super().__init__(model, device, torch.float16)
        self.precision = "fp8"
        self._products = [
            _Products(
                _Fp8Product.of(layer.qkv, device),
                _Fp8Product.of(layer.out, device, _MIXED_FACTOR),
                _Fp8Product.of(layer.inner, device),
                _Fp8Product.of(layer.outer, device),
            )
            for layer in model.layers
        ]
        norms = [(layer.attention_norm, layer.norm) for layer in self._layers]
        self._norms, self._layers = norms, []  # the weights in 16 bits are not used

    def _run_layers(self, values: torch.Tensor, edges: torch.Tensor, longest: int) -> torch.Tensor:
        kernels, heads, eps = self._kernels, self._model.heads, self._model.eps
        mixed = torch.empty_like(values, dtype=FP8)
        small = values.to(FP8)
        for products, (attention_norm, norm) in zip(self._products, self._norms, strict=True):
            kernels.attend(products.qkv(small), edges, longest, heads, mixed, _MIXED_FACTOR)
            values = kernels.add_norm(products.out(mixed), values, attention_norm, eps, small)
            wide = products.inner(small)
            kernels.gelu(wide, small_wide := torch.empty_like(wide, dtype=FP8))
            values = kernels.add_norm(products.outer(small_wide), values, norm, eps, small)
        return values


class _Fp8Product(NamedTuple):
    """A linear layer: float16 `(outputs,)`, fp8 `(inputs, outputs)`, and the scales of both."""

    bias: torch.Tensor
    weight: torch.Tensor
    input_scale: torch.Tensor
    weight_scale: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Fp8 `(tokens, inputs)` to float16 `(tokens, outputs)`."""
        output: torch.Tensor = torch._scaled_mm(  # noqa: SLF001  # the products of torchao, too
            values,
            self.weight,
            scale_a=self.input_scale,
            scale_b=self.weight_scale,
            bias=self.bias,
            out_dtype=torch.float16,
            use_fast_accum=values.device.type == "cuda",
        )
        return output

    @classmethod
    def of(cls, layer: Linear, device: torch.device, factor: float = 1.0) -> _Fp8Product:
        """Quantize a layer whose input is multiplied by `factor`."""
        weight = to_tensor(layer.weight, device)
        scale = (weight.abs().max() / torch.finfo(FP8).max).clamp(min=1e-12)
        return cls(
            bias=to_tensor(layer.bias, device, torch.float16),
            weight=(weight / scale).to(FP8).t(),
            input_scale=torch.tensor(1.0 / factor, device=device),
            weight_scale=scale,
        )


class _Products(NamedTuple):
    """The products of a layer; see `CompactLayer`."""

    qkv: _Fp8Product
    out: _Fp8Product
    inner: _Fp8Product
    outer: _Fp8Product
