"""The steps between matrix products, by Triton: one read and one write of the GPU's memory each.

Texts lie end to end, without padding. Sums are computed in float32. `plain_kernels` has the same
functions by torch, and describes their arguments and results.
"""

from __future__ import annotations

# At the top: this module is imported when a model runs on a GPU.
import torch
import triton
import triton.language as tl

_LOG2_E = 1.4426950408889634
# Of the shapes and numbers of warps tried on an H200 with texts of 60, 89 and 151 tokens, the ones
# that were fastest over all.
_QUERIES, _KEYS, _ATTENTION_WARPS = 64, 32, 4
_GELU_VALUES, _GELU_WARPS = 4096, 8
_POOL_COLUMNS, _POOL_TOKENS = 128, 64
_ROW_WARPS = 2


def embed(
    ids: torch.Tensor,
    places: torch.Tensor,
    words: torch.Tensor,
    positions: torch.Tensor,
    norm: tuple[torch.Tensor, torch.Tensor],
    eps: float,
) -> torch.Tensor:
    """Return normalized embeddings; see `plain_kernels.embed`."""
    hidden = words.shape[1]
    output = torch.empty(len(ids), hidden, dtype=words.dtype, device=words.device)
    _embed[(len(ids),)](
        *(ids, places, words, positions, *norm, output),
        eps,
        HIDDEN=hidden,
        BLOCK=triton.next_power_of_2(hidden),
        num_warps=_ROW_WARPS,
    )
    return output


@triton.jit
def _embed(
    ids,
    places,
    words,
    positions,
    weight,
    bias,
    output,
    eps,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < HIDDEN
    word = tl.load(ids + token).to(tl.int64) * HIDDEN + columns
    place = tl.load(places + token).to(tl.int64) * HIDDEN + columns
    values = tl.load(words + word, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(positions + place, mask=inside, other=0.0).to(tl.float32)
    values = _normalized(values, weight, bias, columns, inside, eps, HIDDEN)
    tl.store(output + token * HIDDEN + columns, values.to(output.dtype.element_ty), mask=inside)


@triton.jit
def _normalized(values, weight, bias, columns, inside, eps, HIDDEN: tl.constexpr):
    mean = tl.sum(values, 0) / HIDDEN
    centered = tl.where(inside, values - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centered * centered, 0) / HIDDEN + eps)
    weights = tl.load(weight + columns, mask=inside, other=0.0)
    return centered * scale * weights + tl.load(bias + columns, mask=inside, other=0.0)


def add_norm(
    values: torch.Tensor,
    residual: torch.Tensor,
    norm: tuple[torch.Tensor, torch.Tensor],
    eps: float,
    copy: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the normalized sum; see `plain_kernels.add_norm`."""
    hidden = values.shape[1]
    output = torch.empty_like(residual)
    _add_norm[(len(values),)](
        *(values, residual, *norm, output, output if copy is None else copy),
        eps,
        HIDDEN=hidden,
        BLOCK=triton.next_power_of_2(hidden),
        COPIES=copy is not None,
        num_warps=_ROW_WARPS,
    )
    return output


@triton.jit
def _add_norm(
    values,
    residual,
    weight,
    bias,
    output,
    copy,
    eps,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
    COPIES: tl.constexpr,
):
    columns = tl.arange(0, BLOCK)
    inside = columns < HIDDEN
    places = tl.program_id(0).to(tl.int64) * HIDDEN + columns
    sums = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
    sums += tl.load(residual + places, mask=inside, other=0.0).to(tl.float32)
    sums = _normalized(sums, weight, bias, columns, inside, eps, HIDDEN)
    tl.store(output + places, sums.to(output.dtype.element_ty), mask=inside)
    if COPIES:
        tl.store(copy + places, sums.to(copy.dtype.element_ty), mask=inside)


def gelu(values: torch.Tensor, output: torch.Tensor) -> None:
    """Write GELU of values; see `plain_kernels.gelu`."""
    count = values.numel()
    _gelu[(triton.cdiv(count, _GELU_VALUES),)](
        values, output, count, BLOCK=_GELU_VALUES, num_warps=_GELU_WARPS
    )


@triton.jit
def _gelu(values, output, count, BLOCK: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    found = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
    result = 0.5 * found * (1.0 + tl.erf(found * 0.7071067811865476))
    tl.store(output + places, result.to(output.dtype.element_ty), mask=inside)


def attend(
    qkv: torch.Tensor,
    edges: torch.Tensor,
    longest: int,
    heads: int,
    output: torch.Tensor,
    factor: float = 1.0,
) -> None:
    """Write the output of attention; see `plain_kernels.attend`."""
    size = qkv.shape[1] // (3 * heads)
    # Texts are on the first axis of the grid, as the others end at 65,535.
    _attend[(heads * (len(edges) - 1), triton.cdiv(longest, _QUERIES))](
        *(qkv, edges, output),
        size**-0.5 * _LOG2_E,
        factor,
        HEADS=heads,
        SIZE=size,
        QUERIES=_QUERIES,
        KEYS=_KEYS,
        num_warps=_ATTENTION_WARPS,
    )


@triton.jit
def _attend(
    qkv,
    edges,
    output,
    scale,
    factor,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Attend from a block of one text's queries in one head, to blocks of the text's keys."""
    head, text = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    start = tl.load(edges + text).to(tl.int64)
    length = (tl.load(edges + text + 1) - start).to(tl.int32)
    first = tl.program_id(1) * QUERIES
    if first >= length:
        return
    columns = tl.arange(0, SIZE)
    rows = first + tl.arange(0, QUERIES)
    stride: tl.constexpr = 3 * HEADS * SIZE
    base = qkv + start * stride + head * SIZE
    known = (rows < length)[:, None]
    queries = tl.load(base + rows[:, None] * stride + columns[None, :], mask=known, other=0.0)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, SIZE), tl.float32)
    for begin in range(0, length, KEYS):
        others = begin + tl.arange(0, KEYS)
        is_key = others < length
        place = base + HEADS * SIZE + others[:, None] * stride + columns[None, :]
        keys = tl.load(place, mask=is_key[:, None], other=0.0)
        values = tl.load(place + HEADS * SIZE, mask=is_key[:, None], other=0.0)
        scores = tl.dot(queries, tl.trans(keys)) * scale
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        shares = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(highest - higher)
        total = total * fade + tl.sum(shares, 1)
        mixed = mixed * fade[:, None] + tl.dot(shares.to(values.dtype), values)
        highest = higher
    mixed *= (factor / total)[:, None]
    place = output + (start + rows[:, None]) * (HEADS * SIZE) + head * SIZE + columns[None, :]
    tl.store(place, mixed.to(output.dtype.element_ty), mask=known)


def pool(values: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Return the mean of each text; see `plain_kernels.pool`."""
    texts, hidden = len(edges) - 1, values.shape[1]
    output = torch.empty(texts, hidden, dtype=torch.float32, device=values.device)
    _pool[(texts, triton.cdiv(hidden, _POOL_COLUMNS))](
        *(values, edges, output), HIDDEN=hidden, COLUMNS=_POOL_COLUMNS, TOKENS=_POOL_TOKENS
    )
    return output


@triton.jit
def _pool(values, edges, output, HIDDEN: tl.constexpr, COLUMNS: tl.constexpr, TOKENS: tl.constexpr):
    text = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.load(edges + text).to(tl.int64)
    length = (tl.load(edges + text + 1) - start).to(tl.int32)
    inside = columns < HIDDEN
    sums = tl.zeros((COLUMNS,), tl.float32)
    for begin in range(0, length, TOKENS):
        rows = begin + tl.arange(0, TOKENS)
        mask = (rows < length)[:, None] & inside[None, :]
        place = values + (start + rows[:, None]) * HIDDEN + columns[None, :]
        sums += tl.sum(tl.load(place, mask=mask, other=0.0).to(tl.float32), 0)
    tl.store(output + text * HIDDEN + columns, sums / length, mask=inside)
