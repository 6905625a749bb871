"""Linear layers whose weights oneDNN lays out once, instead of at every call.

A plain `torch.nn.Linear` hands over weights in rows, which MKL in float32 and oneDNN in bfloat16
lay out again in every forward pass. That is most of the time of a query, which has few rows. Laid
out once, results are equal except for the last bits. torch's own compiler emits the same two
operators for a frozen linear layer (`torch/_inductor/fx_passes/mkldnn_fusion.py`), in torch 2.11
and 2.13.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

# At the top, because a class derives from it; this module is imported when a model is loaded.
import torch
from torch import nn

from msmarco_qdrant.encoding.backends import processor

_T = TypeVar("_T")


class PackedLinear(nn.Module):
    """A linear layer in float32 or bfloat16 on a CPU, for inference only.

    Args:
        linear: The layer whose weights and bias to use.

    Attributes:
        is_read: True after a model's code has read the weights.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.is_read = False
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # Without a batch size the layout serves any.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)  # noqa: SLF001
        # oneDNN ignores the strides of a bias that is a part of another tensor.
        self._bias = None if linear.bias is None else linear.bias.detach().contiguous()

    @property
    def weight(self) -> torch.Tensor:
        """The packed weights: T5 reads their dtype. An error follows if their numbers are used."""
        weight: torch.Tensor = self._weight
        self.is_read = True
        return weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias."""
        return self._bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            values, self._weight, self._bias, "none", [], ""
        )
        return output

    def unpacked(self) -> nn.Linear:
        """Return the plain layer, with the same numbers."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(self._weight.to_dense(), requires_grad=False)
        if self._bias is not None:
            linear.bias = nn.Parameter(self._bias, requires_grad=False)
        return linear


def pack_linears_if_faster(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Pack the linear layers below `module`, in place, if `device` computes faster with them.

    Otherwise plain layers stay; they compute in any type on any processor.
    """
    if device.type == "cpu" and packs(dtype):
        pack_linears(module)


def packs(dtype: torch.dtype) -> bool:
    """True if layers of a type are packed on this machine's processor."""
    found = processor.detect()
    has_layout = {torch.float32: found.packs_float32, torch.bfloat16: found.packs_bfloat16}
    return has_layout.get(dtype, False) and has_operators(dtype)


@cache
def has_operators(dtype: torch.dtype) -> bool:
    """True if a tiny layer of a type can be packed and called.

    It fails with a build of torch without oneDNN or without the two operators. It also fails on
    a processor that has less than `processor.detect` reports.
    """
    try:
        with torch.random.fork_rng([]):  # the layer's random weights must not disturb the caller's
            layer = PackedLinear(nn.Linear(16, 16, dtype=dtype))
        layer(torch.zeros(1, 16, dtype=dtype))
    except (AttributeError, RuntimeError):
        return False
    return True


@torch.inference_mode()
def pack_linears(module: nn.Module) -> None:
    """Replace every plain linear layer below `module`, in place."""
    for name, child in module.named_children():
        if type(child) is nn.Linear and not _has_hooks(child):
            setattr(module, name, PackedLinear(child))
        else:
            pack_linears(child)


def _has_hooks(linear: nn.Linear) -> bool:
    """True if calls do more than the product, such as `torch.nn.utils.weight_norm`."""
    return bool(linear._forward_pre_hooks or linear._forward_hooks)  # noqa: SLF001


def call_unpacking(module: nn.Module, call: Callable[[], _T]) -> _T:
    """Call; if the code of `module` fails, and has read packed weights, call it with plain layers.

    Mamba and `nn.TransformerEncoderLayer` compute with the weights of linear layers by themselves.
    """
    try:
        return call()
    except Exception:
        packed = [one for one in module.modules() if isinstance(one, PackedLinear)]
        if not any(one.is_read for one in packed):
            raise
        _unpack_linears(module)
        return call()


def _unpack_linears(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, PackedLinear):
            setattr(module, name, child.unpacked())
        else:
            _unpack_linears(child)
