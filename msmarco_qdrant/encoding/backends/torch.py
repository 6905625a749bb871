"""The forward pass by torch: on a CPU with packed weights, on a GPU with overlapping copies.

The model's own modules run, from the transformer to pooling, dense and normalize layers. This
module decides the form of the input (end to end where the model allows it, see
`varlen_attention`) and the precision, and waits for the device only when a result is requested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

# At the top: this module is imported when a model is loaded.
import torch

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends.base import FinishedPass, ForwardPass, Task
from msmarco_qdrant.encoding.backends.packed_linear import (
    call_unpacking,
    pack_linears_if_faster,
)
from msmarco_qdrant.encoding.backends.torch_device import (
    default_tokens_per_batch,
    resolve_dtype,
)
from msmarco_qdrant.encoding.backends.varlen_attention import (
    compile_layers,
    has_varlen_attention,
    position_offset,
    supports_varlen,
    use_varlen_attention,
    varlen_features,
)
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer


class TorchBackend:
    """A model of sentence-transformers on one device.

    Args:
        model: The model; it is changed in place.
        prompt_lengths: Tokens of the prompt of each task, for a pooling that excludes it.
        precision: "float32", "bfloat16" or "float16"; None for the fast one of the device.
        compiled: Compile the layers with torch, on a GPU.

    Raises:
        UsageError: For a precision that torch does not compute in.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        prompt_lengths: Mapping[Task, int | None],
        precision: str | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        self._model = model
        self._device = model.device
        self._prompt_lengths = prompt_lengths
        self._on_gpu = self._device.type == "cuda"
        dtype = resolve_dtype(precision, self._device)
        self.device = str(self._device)
        self.precision = str(dtype).removeprefix("torch.")
        self.tokens_per_batch = default_tokens_per_batch(self._device)
        # A GPU works while the next batches are prepared; a CPU runs one at a time.
        self.max_in_flight = 3 if self._on_gpu else 1
        model.to(dtype)
        self.needs_padding = not (
            has_varlen_attention(self._device, dtype) and supports_varlen(model)
        )
        if not self.needs_padding:
            self._offset = position_offset(model)
            use_varlen_attention(model)
        pack_linears_if_faster(model, self._device, dtype)
        if compiled and self._on_gpu and not self.needs_padding:
            compile_layers(model)

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Start a forward pass; see `Backend.launch`."""
        try:
            with torch.inference_mode():
                output = call_unpacking(self._model, partial(self._forward, batch, task))
                return copy_to_host(output.float(), batch, self.device)
        except Exception as exc:  # mostly out of memory, else an error of the model's code
            raise forward_error(batch, self.device, exc) from exc

    def _forward(self, batch: Tokenized, task: Task) -> torch.Tensor:
        make = self._padded_features if self.needs_padding else self._varlen_features
        features = make(batch)
        if (prompt_length := self._prompt_lengths[task]) is not None:
            features["prompt_length"] = prompt_length
        output: torch.Tensor = self._model(features, task=task)["sentence_embedding"]
        return output

    def _padded_features(self, batch: Tokenized) -> dict[str, Any]:
        ids, mask = batch.padded(int(self._model.tokenizer.pad_token_id or 0))
        return {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }

    def _varlen_features(self, batch: Tokenized) -> dict[str, Any]:
        return varlen_features(batch, self._device, self._offset)


def copy_to_host(output: torch.Tensor, batch: Tokenized, device: str) -> ForwardPass:
    """Return a forward pass of `batch` whose output is on a device, without waiting for a GPU."""
    if output.device.type != "cuda":
        return FinishedPass(output.cpu().numpy())
    host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
    host.copy_(output, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(output.device))
    return _GpuPass(host, copied, batch, device)


@dataclass(frozen=True, slots=True)
class _GpuPass:
    """A forward pass on a GPU and the copy of its output into pinned memory."""

    host: torch.Tensor
    copied: torch.cuda.Event
    batch: Tokenized
    device: str

    def result(self) -> NDArray[np.float32]:
        try:
            self.copied.synchronize()
        except RuntimeError as exc:
            raise forward_error(self.batch, self.device, exc) from exc
        vectors: NDArray[np.float32] = self.host.numpy()
        return vectors


def forward_error(batch: Tokenized, device: str, exc: Exception) -> EncodingError:
    """Return the error for a forward pass that failed."""
    return EncodingError(
        f"the forward pass over {len(batch)} texts of {len(batch.ids):,} tokens failed on "
        f"{device}: {first_line(exc)}"
    )
