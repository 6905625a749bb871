"""The forward pass by torch on a CPU: written for the shape, a batch per core.

Queries, keys and values are one product; lengths are multiples at which attention is fast; the
layers are in `fused_layers`. Each worker computes a batch of its own in one thread: threads that
share a batch wait for the slowest of them, which other work on the machine delays. Workers share
the weights and are not pinned: on several NUMA nodes, a process per node has both on its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

# At the top: this module is imported when a model is loaded.
import numpy as np
import torch
from torch.nn.functional import layer_norm, normalize, scaled_dot_product_attention

from msmarco_qdrant.encoding.backends.base import ForwardPass, Task
from msmarco_qdrant.encoding.backends.fused_layers import (
    Buffers,
    FusedLayer,
    PackedLayer,
    PlainLayer,
    as_tensor,
)
from msmarco_qdrant.encoding.backends.packed_linear import packs
from msmarco_qdrant.encoding.backends.processor import usable_cores
from msmarco_qdrant.encoding.backends.threads import single_threads
from msmarco_qdrant.encoding.backends.torch import forward_error
from msmarco_qdrant.encoding.compact import CompactLayer, CompactModel
from msmarco_qdrant.encoding.tokens import Tokenized

if TYPE_CHECKING:
    from numpy.typing import NDArray

# In a smaller batch, such as one query, the padding would cost more.
_ROUNDED_TOKENS = 256


class Form(NamedTuple):
    """A precision of the forward pass.

    Attributes:
        name: The precision's.
        dtype: Of the layers' input and output.
        multiple: Lengths at which attention is fast.
        tokens_per_batch: Tokens of a batch in one thread that are fast.
        make_layer: Makes a layer from its weights and the epsilon of its normalizations.
    """

    name: str
    dtype: torch.dtype
    multiple: int
    tokens_per_batch: int
    make_layer: Callable[[CompactLayer, float], FusedLayer]


def _float32_layer(layer: CompactLayer, eps: float) -> FusedLayer:
    """Return a layer that packs its weights on a processor on which that is fast."""
    if packs(torch.float32):
        return PackedLayer(layer, eps, torch.float32)
    return PlainLayer(layer, eps)


FORMS = {
    # Of 1,024 to 4,096 in each of two workers with all-MiniLM-L6-v2, 1,024 was fastest, with AVX2
    # and with AMX.
    "float32": Form("float32", torch.float32, 8, 1024, _float32_layer),
    "bfloat16": Form(
        *("bfloat16", torch.bfloat16, 16, 1024), partial(PackedLayer, dtype=torch.bfloat16)
    ),
}
"""By the name of a precision."""


class FusedBackend:
    """A bi-encoder on the CPU; see `Backend`. Passes run in threads of its own.

    Args:
        model: Its weights.
        precision: As in `FusedForward`.
        form: As in `FusedForward`.
        workers: Number of threads; None for one per core that this process may use.

    Attributes:
        forward: The forward pass of a batch.
    """

    device = "cpu"
    needs_padding = True

    def __init__(
        self,
        model: CompactModel,
        precision: str = "float32",
        *,
        form: Form | None = None,
        workers: int | None = None,
    ) -> None:
        self.forward = FusedForward(model, precision, form)
        self.precision = self.forward.form.name
        self.tokens_per_batch = self.forward.form.tokens_per_batch
        count = workers or min(usable_cores(), torch.get_num_threads())
        self.max_in_flight = count + 1  # one waits, so that no worker does
        # Queries do not wait for batches of passages.
        self._pools: dict[Task, ThreadPoolExecutor] = {
            "document": single_threads(count, "passages"),
            "query": single_threads(count, "queries"),
        }

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Start a forward pass; see `Backend.launch`."""
        return _Launched(self._pools[task].submit(self.forward, batch), batch)


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


class FusedForward:
    """The forward pass of a batch. Thread-safe: each thread has buffers of its own.

    Args:
        model: The weights.
        precision: "float32", or "bfloat16" on a processor that packs it.
        form: Another form; None for that of the precision.

    Attributes:
        form: The form.
    """

    def __init__(
        self, model: CompactModel, precision: str = "float32", form: Form | None = None
    ) -> None:
        self._words, self._positions = as_tensor(model.words), as_tensor(model.positions)
        self._norm = as_tensor(model.norm.weight), as_tensor(model.norm.bias)
        self.form = form = form or FORMS[precision]
        self._layers = [form.make_layer(layer, model.eps) for layer in model.layers]
        # The first one has the sizes of all; layers that copy their weights need no others.
        self._model = replace(model, layers=model.layers[:1])
        self._local = threading.local()

    @torch.inference_mode()
    def __call__(self, batch: Tokenized) -> NDArray[np.float32]:
        """Encode texts of at least one token each.

        Returns:
            float32 `(texts, hidden)`.
        """
        ids, lengths = _pad(batch, self.form.multiple)
        rows, longest = ids.shape
        known = torch.arange(longest) < lengths[:, None]
        mask = self._mask(known)
        hidden = self._words.shape[1]
        values = self._words[ids].add_(self._positions[self._places(ids)]).view(-1, hidden)
        values = layer_norm(values, (hidden,), *self._norm, self._model.eps).to(self.form.dtype)
        buffers = self._buffers(len(values))
        attend = partial(self._attend, rows=rows, mask=mask)
        for layer in self._layers:
            values = layer(values, attend, buffers)
        tokens = values.view(rows, longest, hidden)
        if self._model.pooling == "cls":
            pooled = tokens[:, 0].float()
        else:
            weights = known.to(torch.float32) / lengths[:, None]
            pooled = torch.bmm(weights[:, None, :], tokens.float()).squeeze(1)
        pooled = normalize(pooled) if self._model.normalizes else pooled
        vectors: NDArray[np.float32] = pooled.numpy().copy()
        return vectors

    def _mask(self, known: torch.Tensor) -> torch.Tensor | None:
        """Return what attention adds to its scores, or the keys that it leaves out.

        Args:
            known: bool `(texts, longest)`, False for padding.

        Returns:
            A tensor that expands to `(texts, heads, longest, longest)`; None for nothing.
        """
        is_key = None if bool(known.all()) else known[:, None, None, :]
        biases = self._model.score_biases(known.shape[1])
        if biases is None:
            return is_key
        added = torch.from_numpy(biases).to(self.form.dtype)[None]
        return added if is_key is None else added.where(is_key, -torch.inf)

    def _places(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the row of each token's position, `(longest,)` or `(texts, longest)`."""
        # Positions beyond a model's last one are padding; any vector will do there.
        last, pad_id = len(self._positions) - 1, self._model.pad_id
        if pad_id is None or bool((counted := ids != pad_id).all()):
            return torch.arange(ids.shape[1]).clamp_(max=last)
        return torch.where(counted, counted.cumsum(1) - 1, -1).clamp_(max=last)

    def _attend(
        self, joined: torch.Tensor, *, rows: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Attention within each text of `(tokens, 3 * hidden)`."""
        count = len(joined)
        split = joined.view(rows, count // rows, 3, self._model.heads, -1).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=mask)
        return attended.transpose(1, 2).reshape(count, -1)

    def _buffers(self, tokens: int) -> Buffers:
        """Return this thread's buffers, for at least so many tokens."""
        found: Buffers | None = getattr(self._local, "buffers", None)
        if found is None or len(found.qkv) < tokens:
            found = self._local.buffers = Buffers.of(self._model.layers[0], tokens)
        return found


def _pad(batch: Tokenized, multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids, `(texts, longest)`, and lengths; the longest of a large batch is rounded up."""
    lengths = batch.lengths
    longest = int(lengths.max())
    if len(batch.ids) >= _ROUNDED_TOKENS:
        longest = -(-longest // multiple) * multiple
    ids = np.zeros((len(lengths), longest), np.int64)  # padding is masked, so any id will do
    ids[np.arange(longest) < lengths[:, None]] = batch.ids
    return torch.from_numpy(ids), torch.from_numpy(np.ascontiguousarray(lengths))
