"""The steps between matrix products, by torch: what `triton_kernels` computes, on any device.

Texts lie end to end, without padding. Values are `(tokens, hidden)`; `edges` is int32
`(texts + 1,)`: the first token of each text, and the number of tokens. Normalizations are two
float32 `(hidden,)`, weight and bias.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

# At the top: this module is imported when a model runs on a GPU.
import torch
from torch.nn import functional


def embed(
    ids: torch.Tensor,
    places: torch.Tensor,
    words: torch.Tensor,
    positions: torch.Tensor,
    norm: tuple[torch.Tensor, torch.Tensor],
    eps: float,
) -> torch.Tensor:
    """Return the normalized embeddings of tokens at positions, in the type of `words`.

    Args:
        ids: int32 `(tokens,)`.
        places: int32 `(tokens,)`, rows of `positions`.
        words: `(vocabulary, hidden)`.
        positions: `(positions, hidden)`.
        norm: The normalization.
        eps: Its epsilon.
    """
    return add_norm(words[ids], positions[places], norm, eps)


def add_norm(
    values: torch.Tensor,
    residual: torch.Tensor,
    norm: tuple[torch.Tensor, torch.Tensor],
    eps: float,
    copy: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the normalized sum of two arrays, in the type of `residual`.

    Args:
        values: The output of a product.
        residual: The input of its block.
        norm: The normalization.
        eps: Its epsilon.
        copy: Receives the result, too, in its own type.
    """
    sums = values.float() + residual.float()
    output = functional.layer_norm(sums, sums.shape[-1:], *norm, eps)
    if copy is not None:
        _write(output, copy)
    return output.to(residual.dtype)


def gelu(values: torch.Tensor, output: torch.Tensor) -> None:
    """Write GELU of values, by the error function, to an array of the same shape."""
    _write(functional.gelu(values.float()), output)


def attend(
    qkv: torch.Tensor,
    edges: torch.Tensor,
    longest: int,
    heads: int,
    output: torch.Tensor,
    factor: float = 1.0,
) -> None:
    """Attend within each text.

    Args:
        qkv: Queries, keys and values of all heads, `(tokens, 3 * hidden)`.
        edges: As above.
        longest: Tokens of the longest text.
        heads: Number of heads.
        output: Receives the result, `(tokens, hidden)`.
        factor: Multiplies the result.
    """
    q, k, v = qkv.view(len(qkv), 3, heads, -1).unbind(1)
    if qkv.device.type == "cuda":
        from torch.nn.attention.varlen import varlen_attn

        mixed = cast("torch.Tensor", varlen_attn(q, k, v, edges, edges, longest, longest))
    else:
        mixed = torch.cat([_attend(q[a:b], k[a:b], v[a:b]) for a, b in pairwise(edges.tolist())])
    _write(mixed.reshape(len(qkv), -1).float() * factor, output)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend within one text, whose states are `(tokens, heads, size)`."""
    q, k, v = (states.transpose(0, 1) for states in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(0, 1)


def pool(values: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Return the mean of each text, float32 `(texts, hidden)`."""
    lengths = edges.diff()
    texts = torch.repeat_interleave(lengths, output_size=len(values))
    sums = torch.zeros(len(lengths), values.shape[1], device=values.device)
    return sums.index_add_(0, texts, values.float()) / lengths[:, None]


def _write(values: torch.Tensor, output: torch.Tensor) -> None:
    """Cast values to the type of `output`; too large ones to its largest, as GPUs do for fp8."""
    if output.dtype.itemsize == 1:
        values = values.clamp(*_limits(output.dtype))
    output.copy_(values)


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    found = torch.finfo(dtype)
    return found.min, found.max
