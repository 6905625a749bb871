"""Linear layers laid out once: the same results, whatever the shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msmarco_qdrant.encoding.backends.packed_linear import PackedLinear, has_operators, pack_linears

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
DTYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(
            not has_operators(dtype), reason="this processor or torch cannot lay out such weights"
        ),
    )
    for dtype in TOLERANCES
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (3, 5, 24), (300, 24)])
@torch.inference_mode()
def test_packed_is_plain(shape: tuple[int, ...], dtype: torch.dtype, *, bias: bool) -> None:
    """One layer, any number of rows: what the plain layer gives, to the last bits."""
    torch.manual_seed(1)
    plain = nn.Linear(24, 40, bias=bias, dtype=dtype)
    values = torch.randn(shape, dtype=dtype)
    packed = PackedLinear(plain)(values)
    assert packed.dtype == dtype
    assert packed.shape == (*shape[:-1], 40)
    near = TOLERANCES[dtype]
    torch.testing.assert_close(packed, plain(values), rtol=near, atol=near)


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_plain_linear_layers_are_replaced(dtype: torch.dtype) -> None:
    """At any depth; a subclass may mean something else and stays."""

    class Special(nn.Linear):
        """A linear layer with a meaning of its own."""

    inner = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    model = nn.Sequential(inner, Special(4, 4), nn.LayerNorm(4)).to(dtype)
    pack_linears(model)
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds == ["Sequential", "Sequential", "PackedLinear", "GELU", "Special", "LayerNorm"]
