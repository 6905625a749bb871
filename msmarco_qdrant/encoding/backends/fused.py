"""The forward pass by torch on a CPU in float32: written for the shape, a batch per core.

Queries, keys and values are one product; layers write into buffers that a worker reuses, since
memory from the system is cleared page by page; lengths are multiples of 8, at which attention is
fast. Each worker computes a batch of its own in one thread: threads that share a batch wait for
the slowest of them, which other work on the machine delays.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

# At the top: this module is imported when a model is loaded.
import numpy as np
import torch
from torch.nn.functional import layer_norm, normalize, scaled_dot_product_attention

from msmarco_qdrant.encoding.backends.base import ForwardPass, Task
from msmarco_qdrant.encoding.backends.processor import usable_cores
from msmarco_qdrant.encoding.backends.torch import forward_error
from msmarco_qdrant.encoding.compact import CompactLayer, CompactModel, Linear, Norm
from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MULTIPLE = 8
# In a smaller batch, such as one query, the padding would cost more.
_ROUNDED_TOKENS = 256
# Rows of the wide layer computed at once, so that they stay in the core's cache.
_WIDE_ROWS = 256
# More tokens in a batch of queries are worth the workers; batches of many queries are near 1,024.
_QUERY_TOKENS = 512


class FusedBackend:
    """A bi-encoder on the CPU, in float32; see `Backend`. Passes run in threads of its own.

    Args:
        model: Its weights.
        prompt_lengths: Not used: prompts take part in every pooling that is supported.
        workers: Number of threads; None for one per core that this process may use.
    """

    name = "torch"
    device = "cpu"
    precision = "float32"
    needs_padding = True
    # Of 1,024 to 4,096 in each of two workers with all-MiniLM-L6-v2, 1,024 was fastest.
    tokens_per_batch = 1024

    def __init__(
        self,
        model: CompactModel,
        prompt_lengths: Mapping[Task, int | None] | None = None,
        *,
        workers: int | None = None,
    ) -> None:
        del prompt_lengths
        self._forward = FusedForward(model)
        count = workers or min(usable_cores(), torch.get_num_threads())
        self.max_in_flight = count + 1  # one waits, so that no worker does
        self._pool = _single_threads(count, "passages")
        # A query does not wait for batches of passages.
        self._queries = _single_threads(1, "queries")

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Start a forward pass; see `Backend.launch`."""
        is_short = task == "query" and len(batch.ids) <= _QUERY_TOKENS
        pool = self._queries if is_short else self._pool
        return _Launched(pool.submit(self._forward, batch), batch)


@dataclass(frozen=True, slots=True)
class _Launched:
    """A forward pass in a worker."""

    future: Future[NDArray[np.float32]]
    batch: Tokenized

    def result(self) -> NDArray[np.float32]:
        try:
            return self.future.result()
        except Exception as exc:  # mostly out of memory
            raise forward_error(self.batch, FusedBackend.device, exc) from exc


def _single_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return threads in each of which torch computes in that thread alone."""
    return ThreadPoolExecutor(
        count, thread_name_prefix=f"msmarco-qdrant-{name}", initializer=_compute_alone
    )


_SETTING = threading.Lock()


def _compute_alone() -> None:
    """Let torch compute in the current thread alone.

    torch keeps the number for each thread, and gives a new thread the one that was set last
    anywhere. So another short thread sets it back.
    """
    with _SETTING:
        usual = torch.get_num_threads()
        torch.set_num_threads(1)
        restoring = threading.Thread(target=torch.set_num_threads, args=(usual,))
        restoring.start()
        restoring.join()


class FusedForward:
    """The forward pass of a batch. Thread-safe: each thread has buffers of its own.

    Args:
        model: The weights, which it shares.
    """

    def __init__(self, model: CompactModel) -> None:
        self._model = model
        self._words, self._positions = _tensor(model.words), _tensor(model.positions)
        self._norm = _norm(model.norm)
        self._layers = [_Layer.of(layer) for layer in model.layers]
        self._local = threading.local()

    @torch.inference_mode()
    def __call__(self, batch: Tokenized) -> NDArray[np.float32]:
        """Encode texts of at least one token each.

        Returns:
            float32 `(texts, hidden)`.
        """
        ids, lengths = _pad(batch)
        rows, longest = ids.shape
        known = torch.arange(longest) < lengths[:, None]
        mask = None if bool((lengths == longest).all()) else known[:, None, None, :]
        hidden = self._words.shape[1]
        values = self._words[ids].add_(self._positions[self._places(ids)]).view(-1, hidden)
        values = layer_norm(values, (hidden,), *self._norm, self._model.eps)
        buffers = self._buffers(len(values))
        for layer in self._layers:
            values = self._layer(values, layer, mask, rows, buffers)
        tokens = values.view(rows, longest, hidden)
        if self._model.pooling == "cls":
            pooled = tokens[:, 0]
        else:
            weights = known.to(torch.float32) / lengths[:, None]
            pooled = torch.bmm(weights[:, None, :], tokens).squeeze(1)
        pooled = normalize(pooled) if self._model.normalizes else pooled
        vectors: NDArray[np.float32] = pooled.numpy().copy()
        return vectors

    def _places(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the row of each token's position, `(longest,)` or `(texts, longest)`."""
        # Positions beyond a model's last one are padding; any vector will do there.
        last, pad_id = len(self._positions) - 1, self._model.pad_id
        if pad_id is None or bool((counted := ids != pad_id).all()):
            return torch.arange(ids.shape[1]).clamp_(max=last)
        return torch.where(counted, counted.cumsum(1) - 1, -1).clamp_(max=last)

    def _layer(
        self,
        values: torch.Tensor,
        layer: _Layer,
        mask: torch.Tensor | None,
        rows: int,
        buffers: _Buffers,
    ) -> torch.Tensor:
        count, hidden = values.shape
        eps = self._model.eps
        joined = torch.addmm(layer.qkv.bias, values, layer.qkv.weight, out=buffers.qkv[:count])
        split = joined.view(rows, count // rows, 3, self._model.heads, -1).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=mask)
        flat = attended.transpose(1, 2).reshape(count, hidden)
        output = torch.addmm(layer.out.bias, flat, layer.out.weight, out=buffers.out[:count]).add_(
            values
        )
        values = layer_norm(output, (hidden,), *layer.attention_norm, eps)
        for start in range(0, count, _WIDE_ROWS):
            part = values[start : start + _WIDE_ROWS]
            wide = torch.addmm(
                layer.inner.bias, part, layer.inner.weight, out=buffers.inner[: len(part)]
            )
            torch.ops.aten.gelu.out(wide, out=wide)
            torch.addmm(
                layer.outer.bias, wide, layer.outer.weight, out=output[start : start + _WIDE_ROWS]
            )
        return layer_norm(output.add_(values), (hidden,), *layer.norm, eps)

    def _buffers(self, tokens: int) -> _Buffers:
        """Return this thread's buffers, for at least so many tokens."""
        found: _Buffers | None = getattr(self._local, "buffers", None)
        if found is None or len(found.qkv) < tokens:
            layer, hidden = self._layers[0], self._words.shape[1]
            found = self._local.buffers = _Buffers(
                torch.empty(tokens, 3 * hidden),
                torch.empty(tokens, hidden),
                torch.empty(_WIDE_ROWS, len(layer.inner.bias)),
            )
        return found


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Outputs of one thread's layers: `(tokens, size)`."""

    qkv: torch.Tensor
    out: torch.Tensor
    inner: torch.Tensor


class _Product(NamedTuple):
    """A linear layer, as `torch.addmm` takes it: `(outputs,)` and `(inputs, outputs)`."""

    bias: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, layer: Linear) -> _Product:
        return cls(_tensor(layer.bias), _tensor(layer.weight).t())


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
    def of(cls, layer: CompactLayer) -> _Layer:
        return cls(
            qkv=_Product.of(layer.qkv),
            out=_Product.of(layer.out),
            inner=_Product.of(layer.inner),
            outer=_Product.of(layer.outer),
            attention_norm=_norm(layer.attention_norm),
            norm=_norm(layer.norm),
        )


def _pad(batch: Tokenized) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids, `(texts, longest)`, and lengths; the longest of a large batch is rounded up."""
    lengths = batch.lengths
    longest = int(lengths.max())
    if len(batch.ids) >= _ROUNDED_TOKENS:
        longest = -(-longest // _MULTIPLE) * _MULTIPLE
    ids = np.zeros((len(lengths), longest), np.int64)  # padding is masked, so any id will do
    ids[np.arange(longest) < lengths[:, None]] = batch.ids
    return torch.from_numpy(ids), torch.from_numpy(np.ascontiguousarray(lengths))


def _tensor(array: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(array)


def _norm(norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
    return _tensor(norm.weight), _tensor(norm.bias)
