"""The forward pass by torch: on a CPU with packed weights, on a GPU with copies that overlap.

What runs is the model's own modules, from the transformer to pooling, dense and normalize layers.
Ours is the form that texts come in (end to end where the model allows it, see `flat_attention`),
the precision, and that nothing waits for the device until a result is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# At the top: nothing imports this module before a model is loaded.
import torch

from msmarco_qdrant.encoding.backends.base import Launched, Task
from msmarco_qdrant.encoding.backends.packed_linear import pack_linears_if_faster
from msmarco_qdrant.encoding.backends.torch_device import (
    dtype_of,
    sent,
    tokens_per_batch_of,
)
from msmarco_qdrant.encoding.backends.varlen_attention import (
    can_flatten,
    compile_layers,
    flatten,
    position_offset,
    runs_of,
)
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_GPU_AHEAD = 2


class TorchBackend:
    """A model of sentence-transformers on one device, in the precision that it is fast in.

    Args:
        model: The model; it is changed in place.
        prompt_lengths: Tokens of the prompt of each task, for a pooling that leaves it out.
        precision: "float32", "bfloat16" or "float16"; None for what the device is fast in.
        compiled: Whether to let torch compile the layers, on a GPU.

    Raises:
        UsageError: For a precision that the device has not.
    """

    name = "torch"

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
        self._dtype = dtype_of(precision, self._device)
        model.to(self._dtype)
        self.pads = not _attends_flat(self._device, self._dtype) or not can_flatten(model)
        if not self.pads:
            self._offset = position_offset(model)
            flatten(model)
        pack_linears_if_faster(model, self._device, self._dtype)
        if compiled and self._on_gpu and not self.pads:
            compile_layers(model)

    @property
    def device(self) -> str:
        """The torch device, such as "cpu" or "cuda:0"."""
        return str(self._device)

    @property
    def precision(self) -> str:
        """The dtype of its forward pass."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def tokens_per_batch(self) -> int:
        """Tokens of a batch that this device is fast with."""
        return tokens_per_batch_of(self._device)

    @property
    def ahead(self) -> int:
        """A GPU works while the next batches are prepared; a CPU does one thing at a time."""
        return _GPU_AHEAD if self._on_gpu else 0

    def launch(self, batch: Tokenized, task: Task) -> Launched:
        """Begin a forward pass; see `Backend.launch`."""
        make = self._padded_features if self.pads else self._flat_features
        try:
            with torch.inference_mode():
                features = make(batch)
                if (prompt_length := self._prompt_lengths[task]) is not None:
                    features["prompt_length"] = prompt_length
                output: torch.Tensor = self._model(features, task=task)["sentence_embedding"]
                return self._on_its_way(output.float(), batch)
        except RuntimeError as exc:  # out of memory, above all
            raise _failed(batch, self.device, exc) from exc

    def _on_its_way(self, output: torch.Tensor, batch: Tokenized) -> Launched:
        if not self._on_gpu:
            return _Done(output.cpu().numpy())
        host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
        host.copy_(output, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(self._device))
        return _Copying(host, copied, batch, self.device)

    def _padded_features(self, batch: Tokenized) -> dict[str, Any]:
        ids, mask = batch.padded(int(self._model.tokenizer.pad_token_id or 0))
        return {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }

    def _flat_features(self, batch: Tokenized) -> dict[str, Any]:
        """What `flat_attention` and the pooling of sentence-transformers read."""
        import numpy as np

        lengths = batch.lengths
        tokens = np.empty((3, len(batch.ids)), np.int32)
        ids, places, rows = tokens  # each token's id, its place in its text, and its text
        ids[:] = batch.ids
        rows[:] = np.repeat(np.arange(len(batch), dtype=np.int32), lengths)
        places[:] = np.arange(len(ids)) - np.repeat(batch.offsets[:-1] - self._offset, lengths)
        flat = sent(torch.from_numpy(tokens), self._device)
        edges = sent(torch.from_numpy(batch.offsets.astype(np.int32)), self._device)
        features = {
            "input_ids": flat[0:1],
            "position_ids": flat[1:2],
            "seq_idx": flat[2:3],
            **{f"cu_seq_lens_{side}": edges for side in "qk"},
            **{f"max_length_{side}": int(lengths.max()) for side in "qk"},
        }
        return features if self._on_gpu else {**features, "runs": runs_of(batch)}


@dataclass(frozen=True, slots=True)
class _Done:
    """A forward pass that has ended."""

    vectors: NDArray[np.float32]

    def result(self) -> NDArray[np.float32]:
        return self.vectors


@dataclass(frozen=True, slots=True)
class _Copying:
    """A forward pass on a GPU, and the copy of what comes out into pinned memory."""

    host: torch.Tensor
    copied: torch.cuda.Event
    batch: Tokenized
    device: str

    def result(self) -> NDArray[np.float32]:
        try:
            self.copied.synchronize()
        except RuntimeError as exc:
            raise _failed(self.batch, self.device, exc) from exc
        vectors: NDArray[np.float32] = self.host.numpy()
        return vectors


def _attends_flat(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is attention without padding: on GPUs from Ampere on, in half precision."""
    if device.type == "cuda":
        return dtype != torch.float32 and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu"


def _failed(batch: Tokenized, device: str, exc: RuntimeError) -> EncodingError:
    return EncodingError(
        f"the forward pass over {len(batch)} texts of {len(batch.ids):,} tokens failed on "
        f"{device}: {exc}"
    )
