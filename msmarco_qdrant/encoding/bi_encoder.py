"""Bi-encoders of sentence-transformers: loading, batches, and normalized vectors.

Vectors are the library's, as in `encode_document` for passages and `encode_query` for queries: by
the model's own modules, or by a forward pass that was compared with them (`proof`,
`backends.choice`, `backends.cuda_choice`). This module decides the input: a window is tokenized at
once, sorted by token count and split into batches under a token budget. A `Backend` runs them in
the precision that is fast on its device.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar, overload

from msmarco_qdrant.core.encoder_types import EncodedBatch, Int8Loss, Prompts, Similarity
from msmarco_qdrant.encoding.backends.base import Backend, Task
from msmarco_qdrant.encoding.catalog import PublishedModel
from msmarco_qdrant.encoding.compact import CompactModel
from msmarco_qdrant.encoding.fingerprint import compute_fingerprint
from msmarco_qdrant.encoding.forks import require_own_threads
from msmarco_qdrant.encoding.launcher import Launched, Launcher
from msmarco_qdrant.encoding.opened_model import ModelRequest, open_by_library, open_proven
from msmarco_qdrant.encoding.options import EncoderOptions, count_gpus, resolve_devices
from msmarco_qdrant.encoding.pretrained import limit_length, load_model
from msmarco_qdrant.encoding.protocols import Tokenizer
from msmarco_qdrant.encoding.query_cache import QueryVectorCache
from msmarco_qdrant.encoding.texts import encode_texts
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, UsageError
from msmarco_qdrant.runtime.fair_lock import FairLock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)
_W = TypeVar("_W")

# A sum of squares below this is imprecise in float32.
_SMALL = 1e-30
# A longer query is worth the import of torch.
_EARLY_TOKENS = 128


class BiEncoder:
    """A sentence-transformers model, ready to encode.

    Thread-safe: one batch at a time is launched on a device.

    Args:
        location: A directory or a hub id.
        hint: The model's name to store; None for the location.
        prompts: Prompts of queries and passages; None for the model's own.
        similarity: Similarity of its vectors; None for the model's own.
        published: Entry of the catalog with the prompts and similarity of a model whose files
            contain none.
        options: Device, precision and so on; None for the fastest.

    Attributes:
        info: The encoder's identity, stored with a collection.
        location: The directory or hub id from which it was loaded.

    Raises:
        ModelNotFoundError: If the model cannot be loaded.
        UsageError: If the device does not exist. A precision is refused by `prepare`, or by the
            first call that needs the forward pass.
    """

    def __init__(
        self,
        location: str,
        *,
        hint: str | None = None,
        prompts: Prompts | None = None,
        similarity: Similarity | None = None,
        published: PublishedModel | None = None,
        options: EncoderOptions | None = None,
    ) -> None:
        self.location = location
        self._lock = FairLock()  # a query waits for one batch of passages, not for many
        self._loading = threading.Lock()
        self._made: list[Backend] | None = None
        self._float32_backend: Backend | None = None
        self._options = options = options or EncoderOptions()
        devices = resolve_devices(options.device)
        request = ModelRequest(location, hint or location, prompts, similarity, published)
        self._opened = open_proven(request) or open_by_library(request, devices[0])
        self.info = self._opened.info
        self._query_cache = QueryVectorCache(options.cached_queries)
        _log.info("%s: %s", self.info.model, self.info.encoding)

    def prepare(self) -> None:
        """Make the forward pass, unless it can wait for the first call.

        It can if the library was not needed, and the precision is one that every device has.

        Raises:
            UsageError: If the precision is refused.
        """
        if self._opened.library is not None or self._options.precision not in (None, "float32"):
            self._require_backends()

    def __repr__(self) -> str:
        return (
            f"BiEncoder({self.info.model!r}, dimension={self.info.dimension}, "
            f"similarity={self.info.similarity!r}{self._describe_backends()})"
        )

    def _describe_backends(self) -> str:
        if self._made is None:
            return ""
        return f"; on {self.device} in {self.precision}"

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of passages."""
        return self._opened.tokenizer

    @property
    def device(self) -> str:
        """The devices, such as "cpu" or "cuda:0, cuda:1"."""
        return ", ".join(backend.device for backend in self._require_backends())

    @property
    def gpus(self) -> int:
        """Number of GPUs that run it; 0 for a CPU."""
        return count_gpus(self._options.device)

    @property
    def precision(self) -> str:
        """Precision of the forward pass: "bfloat16", "float16", "float32", "int8" or "fp8"."""
        return self._require_backends()[0].precision

    @property
    def int8_loss(self) -> Int8Loss | None:
        """The measured loss of passages in int8; None before int8 is used, and without it."""
        return getattr(self._made[0], "loss", None) if self._made else None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts as passages: float32 `(len(texts), dimension)`; see `encode_texts`."""
        return encode_texts(self, texts)

    @overload
    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]: ...
    @overload
    def encode_passages(self, passages: Sequence[str]) -> NDArray[np.float32]: ...
    def encode_passages(
        self, passages: Tokenized | Sequence[str]
    ) -> Iterator[EncodedBatch] | NDArray[np.float32]:
        """Encode passages: strings to one array, a tokenized window to batches as they are ready.

        Args:
            passages: Strings (see `encode`), or a window tokenized by `tokenizer`.

        Raises:
            EncodingError: If the forward pass fails, for example without enough memory; or in a
                forked child.
        """
        require_own_threads()
        if not isinstance(passages, Tokenized):
            return encode_texts(self, passages)
        return self._encode_one(passages, "document")

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; see `Encoder.encode_queries`.

        Raises:
            EncodingError: If a query has no finite, non-zero vector, or the forward pass fails;
                or in a forked child.
            UsageError: For a string instead of a list.
        """
        require_own_threads()
        if isinstance(queries, str):
            raise UsageError("queries must be a list of strings, got a string")
        return self._query_cache.vectors(queries, self.info.dimension, self._encode_queries)

    def warm_up(self) -> None:
        """Encode a batch, so that one-time costs are paid; on a GPU, batches of the usual size."""
        import numpy as np

        require_own_threads()
        texts = self._opened.query_tokenizer(["how big is london"])
        for backend in self._require_backends():
            # On a CPU, full batches would only take the time of so many passages.
            passes = 1 if backend.device == "cpu" else backend.max_in_flight
            copies = self._batch_tokens() // len(texts.ids) if passes > 1 else 1
            batch = texts.take(np.zeros(max(copies, 1), np.int64))
            for _ in range(passes):
                with self._lock:
                    backend.launch(batch, "query").result()

    def _encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        texts = self._opened.query_tokenizer(queries)
        vectors = np.empty((len(queries), self.info.dimension), np.float32)
        batches = self._encode_early(texts) or self._encode_one(texts, "query")
        for batch in batches:
            vectors[batch.positions] = batch.vectors
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise EncodingError(
                f"{self.info.model} returns no finite, non-zero vector for the query "
                f"{queries[int(bad[0])]!r}"
            )
        return vectors

    def _encode_early(self, texts: Tokenized) -> list[EncodedBatch]:
        """Encode a query by NumPy, in a process that has not imported torch; else nothing."""
        import numpy as np

        compact = self._opened.compact
        is_one = len(texts) == 1 and 0 < len(texts.ids) <= _EARLY_TOKENS
        if compact is None or self._made is not None or "torch" in sys.modules or not is_one:
            return []
        from msmarco_qdrant.encoding.backends.numpy_forward import NumpyForward

        raw = NumpyForward(compact)(texts.ids)
        return [EncodedBatch(np.zeros(1, np.int64), self._normalize(raw[None]))]

    def encode_windows(
        self, windows: Iterator[tuple[_W, Tokenized]], is_ready: Callable[[], bool]
    ) -> Iterator[tuple[_W, EncodedBatch | None]]:
        """Encode windows of passages without a pause in between; see `windows.encode_windows`.

        Args:
            windows: Windows and their passages.
            is_ready: True if the next window is there, without waiting.

        Yields:
            Batches of a window as for `encode_passages`, then None; then those of the next one.

        Raises:
            EncodingError: If a forward pass fails; or in a forked child.
        """
        require_own_threads()
        yield from self._encode(windows, is_ready, "document")

    def _encode_one(self, texts: Tokenized, task: Task) -> Iterator[EncodedBatch]:
        encoded = self._encode(iter([(None, texts)]), lambda: False, task)
        return (batch for _, batch in encoded if batch is not None)

    def _encode(
        self, windows: Iterator[tuple[_W, Tokenized]], is_ready: Callable[[], bool], task: Task
    ) -> Iterator[tuple[_W, EncodedBatch | None]]:
        launcher = Launcher(self._require_backends(), self._batch_tokens(), self._lock)
        for launched in launcher.run(windows, is_ready, task):
            if len(launched.positions):
                vectors = self._vectors(launched, task)
                yield launched.window, EncodedBatch(launched.positions, vectors)
            if launched.is_last:
                yield launched.window, None

    def _vectors(self, launched: Launched[_W], task: Task) -> NDArray[np.float32]:
        """Wait for the vectors of a batch; NaN for texts that have none."""
        import numpy as np

        positions = launched.positions
        if launched.forward is None:
            return np.full((len(positions), self.info.dimension), np.nan, np.float32)
        vectors = self._normalize(launched.forward.result())
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size and self.precision != "float32":
            vectors[bad] = self._retry_in_float32(launched.texts.take(positions[bad]), task)
        return vectors

    def _batch_tokens(self) -> int:
        return self._options.tokens_per_batch or self._require_backends()[0].tokens_per_batch

    def _retry_in_float32(self, texts: Tokenized, task: Task) -> NDArray[np.float32]:
        from msmarco_qdrant.encoding.backends.torch import TorchBackend

        with self._lock:
            if self._float32_backend is None:
                _log.warning(
                    "%s returned a vector that is not finite in %s; retrying such texts in float32",
                    *(self.info.model, self.precision),
                )
                model = self._load_again(self._require_backends()[0].device)
                self._float32_backend = TorchBackend(model, self._opened.prompt_lengths, "float32")
            raw = self._float32_backend.launch(texts, task).result()
        return self._normalize(raw)

    def _require_backends(self) -> list[Backend]:
        """Return a backend for each device; the first call makes them."""
        if self._made is None:
            with self._loading:
                if self._made is None:
                    self._made = self._make_backends()
        return self._made

    def _make_backends(self) -> list[Backend]:
        devices = resolve_devices(self._options.device)
        compact, library = self._opened.compact, self._opened.library
        made: list[Backend]
        if compact is not None and (precision := self._fused_precision(compact)):
            made = [self._make_fused(compact, precision)]
        elif compact is not None and (on_gpus := self._make_on_gpus(devices, compact)):
            made = [*on_gpus]
        else:
            models = [library or self._load_again(devices[0])]
            models += [self._load_again(device) for device in devices[1:]]
            made = [self._make_backend(model) for model in models]
        # The backends hold the weights that they use.
        self._opened.library = self._opened.compact = None
        _log.info(
            "%s runs by torch on %s in %s",
            *(self.info.model, ", ".join(one.device for one in made)),
            made[0].precision,
        )
        return made

    def _make_on_gpus(self, devices: list[str | None], compact: CompactModel) -> Sequence[Backend]:
        """Return a backend for each GPU; none if the library's modules have to run the model."""
        from msmarco_qdrant.encoding.backends.cuda_choice import find_gpus, make_cuda_backends

        gpus = find_gpus(devices)
        made = make_cuda_backends(compact, gpus, self._options.precision) if gpus else None
        if made and self._options.compiled:
            _log.warning("compiled has no effect: this model has a faster forward pass for GPUs")
        return made or []

    def _make_fused(self, compact: CompactModel, precision: str) -> Backend:
        from msmarco_qdrant.encoding.backends.fused import FusedBackend
        from msmarco_qdrant.encoding.backends.int8 import Int8Backend

        if self._options.precision == "int8":
            return Int8Backend(compact, self.info.model, self.info.fingerprint, precision)
        return FusedBackend(compact, precision=precision)

    def _fused_precision(self, compact: CompactModel) -> str | None:
        """Return the floats of a compact model on the CPU; None to run the library's modules."""
        if self.gpus:
            return None
        from msmarco_qdrant.encoding.backends import choice, linear_choice

        wanted, precisions = self._options.precision, choice.supported_precisions()
        if wanted not in (None, "int8"):
            is_exact = wanted == "float32"
            has_it = wanted in precisions and (is_exact or choice.is_precise(compact, wanted))
            return wanted if has_it else None
        if wanted is None and "bfloat16" not in precisions and linear_choice.is_bfloat16_faster():
            return None  # this build of torch has other operators for it
        return choice.choose_precision(compact, self.info.fingerprint, self.info.model)

    def _make_backend(self, model: SentenceTransformer) -> Backend:
        """Create the backend that runs the library's modules."""
        from msmarco_qdrant.encoding.backends.torch import TorchBackend

        options = self._options
        return TorchBackend(
            model, self._opened.prompt_lengths, options.precision, compiled=options.compiled
        )

    def _normalize(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale to unit length for cosine; set a vector that is zero or not finite to NaN."""
        import numpy as np

        squares = np.einsum("ij,ij->i", vectors, vectors)
        if not (np.isfinite(squares) & (squares > _SMALL)).all():
            # Squares of large float32 components overflow, those of small ones underflow.
            exact = vectors.astype(np.float64)
            squares = np.einsum("ij,ij->i", exact, exact)
        usable = np.isfinite(squares) & (squares > 0)
        scale = np.sqrt(squares) if self.info.similarity == "cosine" else np.ones_like(squares)
        # Multiplying by NaN, unlike dividing by zero, causes no warning.
        factors = np.where(usable, 1.0 / np.where(usable, scale, 1.0), np.nan)
        normalized: NDArray[np.float32] = vectors * factors[:, None]
        return normalized.astype(np.float32, copy=False)

    def _load_again(self, device: str | None) -> SentenceTransformer:
        """Load the model from the files that were opened, not from a newer version of the hub.

        Raises:
            EncodingError: If the files have changed since.
        """
        directory = self._opened.directory
        model = load_model(str(directory), device)
        limit_length(model, self.info.model)
        found = compute_fingerprint(directory, self.info.prompts, self.info.max_seq_length)
        if found != self.info.fingerprint:
            raise EncodingError(
                f"the files of {self.info.model} in {directory} have changed since the model was "
                "opened: load it again"
            )
        return model
