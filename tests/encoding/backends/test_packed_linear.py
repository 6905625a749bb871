"""Linear layers laid out once: the same results, whatever the shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msmarco_qdrant.encoding.backends.packed_linear import PackedLinear, has_operators, pack_linears

needs_onednn = pytest.mark.skipif(
    not has_operators(), reason="this processor or torch cannot lay out bfloat16 weights"
)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (3, 5, 24), (300, 24)])
@torch.inference_mode()
def test_packed_is_plain(shape: tuple[int, ...], *, bias: bool) -> None:
    """One layer, any number of rows: what the plain layer gives, to bfloat16's last bits."""
    torch.manual_seed(1)
    plain = nn.Linear(24, 40, bias=bias, dtype=torch.bfloat16)
    values = torch.randn(shape, dtype=torch.bfloat16)
    packed = PackedLinear(plain)(values)
    assert packed.dtype == torch.bfloat16
    assert packed.shape == (*shape[:-1], 40)
    torch.testing.assert_close(packed, plain(values), rtol=1e-2, atol=1e-2)


@needs_onednn
def test_only_plain_linear_layers_are_replaced() -> None:
    """At any depth; a subclass may mean something else and stays."""

    class Special(nn.Linear):
        """A linear layer with a meaning of its own."""

    inner = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    model = nn.Sequential(inner, Special(4, 4), nn.LayerNorm(4)).to(torch.bfloat16)
    pack_linears(model)
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds == ["Sequential", "Sequential", "PackedLinear", "GELU", "Special", "LayerNorm"]
