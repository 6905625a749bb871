"""Linear layers laid out once: the same results, whatever the shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from msmarco_qdrant.encoding.backends.packed_linear import (
    PackedLinear,
    call_unpacking,
    has_operators,
    pack_linears,
)

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
@torch.inference_mode()
def test_weights_in_any_layout_of_memory(dtype: torch.dtype) -> None:
    """Parts of a larger tensor, such as the queries of a joined layer, transposed, or repeated."""
    torch.manual_seed(1)
    large, values = torch.randn(48, 48, dtype=dtype), torch.randn(3, 24, dtype=dtype)
    near = TOLERANCES[dtype]
    for weight in (large[3:43, 4:28], large[3:27, 4:44].t(), large[:40, ::2], large[:1, :24]):
        rows = len(weight)
        for bias in (large[0, :rows], large[:rows, 0], large[0, :1].expand(rows)):
            plain = nn.Linear(24, rows, dtype=dtype)
            plain.weight, plain.bias = nn.Parameter(weight), nn.Parameter(bias)
            found, expected = PackedLinear(plain)(values), plain(values)
            torch.testing.assert_close(found, expected, rtol=near, atol=10 * near)


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


@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
def test_layers_with_hooks_stay(register: str) -> None:
    """One may compute the weights anew at each call, as `weight_norm` does after a load."""
    model = nn.Sequential(nn.Linear(4, 4))
    getattr(model[0], register)(lambda *_: None)
    pack_linears(model)
    assert type(model[0]) is nn.Linear


class ReadsWeights(nn.Module):
    """A module that computes with the weights of its linear layers by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`(n, 8)` to the same shape."""
        return torch.relu(self.first(values)) @ self.second.weight.t()


def transformer() -> nn.Module:
    """A layer of torch, whose inference in one operator takes the weights."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [ReadsWeights, transformer])
@torch.inference_mode()
def test_code_that_reads_weights_gets_plain_layers(
    make: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    """It computes what it did before the layers were packed."""
    torch.manual_seed(1)
    model, values = make().eval().to(dtype), torch.randn(1, 5, 8, dtype=dtype)
    expected = model(values)
    pack_linears(model)
    assert any(isinstance(one, PackedLinear) for one in model.modules())
    for _ in range(2):
        torch.testing.assert_close(call_unpacking(model, lambda: model(values)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_another_error_leaves_the_layers_packed(dtype: torch.dtype) -> None:
    """Want of memory, for example: it is raised, after one call."""
    model = nn.Sequential(nn.Linear(8, 8, dtype=dtype))
    pack_linears(model)
    calls = []

    def fail() -> None:
        calls.append(model(torch.zeros(1, 8, dtype=dtype)))
        raise RuntimeError("not enough memory")

    with pytest.raises(RuntimeError, match="not enough memory"):
        call_unpacking(model, fail)
    assert isinstance(model[0], PackedLinear)
    assert len(calls) == 1
