"""Bi-encoders of sentence-transformers: loading, batches, and what becomes of the vectors.

What is computed is the model's own modules, so pooling, dense and normalize layers and prompts
stay the library's, as `encode_document` does for passages and `encode_query` for queries. What is
ours is what goes in and where: a window is tokenized at once, sorted by token count and cut into
batches under a token budget; a `Backend` runs them in the precision that its device is fast in.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from msmarco_qdrant.core.records import EncodedBatch, EncoderInfo, Prompts, Similarity
from msmarco_qdrant.encoding.backends.base import Backend, Launched, Task
from msmarco_qdrant.encoding.batching import token_budget_batches
from msmarco_qdrant.encoding.fingerprint import fingerprint
from msmarco_qdrant.encoding.options import EncoderOptions, Precision, devices_of
from msmarco_qdrant.encoding.pretrained import directory_of, load_model, own_prompts, own_similarity
from msmarco_qdrant.encoding.protocols import Tokenizer
from msmarco_qdrant.encoding.query_cache import QueryVectorCache
from msmarco_qdrant.encoding.tokenizers import prompt_lengths, tokenizer_of
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, ModelNotFoundError, UsageError
from msmarco_qdrant.runtime.fair_lock import FairLock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

# A sum of squares below this has lost digits in float32.
_SMALL = 1e-30


class BiEncoder:
    """A sentence-transformers model, ready to encode.

    Thread-safe: one batch at a time is launched on a device.

    Args:
        location: A directory or a hub id.
        hint: The name that people know it by.
        prompts: What to put in front of queries and passages; None for the model's own.
        similarity: What its vectors are compared by; None for the model's own.
        options: Where and how it runs; None for what is fastest here.

    Raises:
        ModelNotFoundError: If the model cannot be loaded.
        UsageError: If the options cannot be met.
    """

    def __init__(
        self,
        location: str,
        *,
        hint: str | None = None,
        prompts: Prompts | None = None,
        similarity: Similarity | None = None,
        options: EncoderOptions | None = None,
    ) -> None:
        self._location = location
        self._lock = FairLock()  # so that a query waits for one batch of passages, and not for many
        self._exact: Backend | None = None
        options = options or EncoderOptions()
        first, *others = devices_of(options.device)
        model = load_model(location, first)
        self._prompts = prompts if prompts is not None else own_prompts(model)
        # The fingerprint and the info describe the model, so they precede any change of precision.
        self._info = self._describe(model, hint or location, similarity or own_similarity(model))
        self._tokenizer = tokenizer_of(model, "document", self._prompts.passage)
        self._query_tokenizer = tokenizer_of(model, "query", self._prompts.query)
        self._prompt_lengths = prompt_lengths(model, self._prompts)
        models = [model, *(load_model(location, device) for device in others)]
        self._backends = [self._backend(model, options) for model in models]
        self._tokens_per_batch = options.tokens_per_batch or self._backends[0].tokens_per_batch
        self._recent = QueryVectorCache(options.cached_queries)
        _log.info(
            "%s runs by %s on %s in %s", self._info.model, self.backend, self.device, self.precision
        )

    @property
    def info(self) -> EncoderInfo:
        """What a collection has to know about this encoder."""
        return self._info

    @property
    def location(self) -> str:
        """The directory or hub id it was loaded from."""
        return self._location

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own, for passages."""
        return self._tokenizer

    @property
    def backend(self) -> str:
        """What runs the forward pass: "torch" or "openvino"."""
        return self._backends[0].name

    @property
    def device(self) -> str:
        """Where it runs, such as "cpu" or "cuda:0, cuda:1"."""
        return ", ".join(backend.device for backend in self._backends)

    @property
    def gpus(self) -> int:
        """How many GPUs run it, 0 for a CPU."""
        return sum(backend.device.startswith("cuda") for backend in self._backends)

    @property
    def precision(self) -> str:
        """What the forward pass computes in: "bfloat16", "float16", "float32" or "int8"."""
        return self._backends[0].precision

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Encode a window of passages; see `Encoder.encode_passages`.

        Raises:
            EncodingError: If the forward pass fails, as when memory runs out.
        """
        return self._encode(passages, "document")

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Encode queries; see `Encoder.encode_queries`.

        Raises:
            EncodingError: If a query has no finite, non-zero vector, or the forward pass fails.
            UsageError: For one string instead of a list.
        """
        if isinstance(queries, str):
            raise UsageError("encode_queries takes a list of queries, not one string")
        return self._recent.vectors(queries, self._info.dimension, self._encode_queries)

    def warm_up(self) -> None:
        """Do now what happens once; on a GPU that takes a batch as large as those to come."""
        import numpy as np

        texts = self._query_tokenizer(["how big is london"])
        for backend in self._backends:
            copies = self._tokens_per_batch // len(texts.ids) if backend.ahead else 1
            batch = texts.take(np.zeros(max(copies, 1), np.int64))
            for _ in range(backend.ahead + 1):
                with self._lock:
                    backend.launch(batch, "query").result()

    def _encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        vectors = np.empty((len(queries), self._info.dimension), np.float32)
        for batch in self._encode(self._query_tokenizer(queries), "query"):
            vectors[batch.positions] = batch.vectors
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise EncodingError(
                f"{self._info.model} has no finite, non-zero vector for the query "
                f"{queries[int(bad[0])]!r}"
            )
        return vectors

    def _encode(self, texts: Tokenized, task: Task) -> Iterator[EncodedBatch]:
        import numpy as np

        if (empty := np.flatnonzero(texts.lengths == 0)).size:  # nothing to make a vector of
            yield EncodedBatch(empty, np.full((len(empty), self._info.dimension), np.nan, "f4"))
        for positions, raw in self._forward(texts, task):
            vectors = self._finished(raw)
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if bad.size and self.precision != "float32":
                vectors[bad] = self._again_in_float32(texts.take(positions[bad]), task)
            yield EncodedBatch(positions, vectors)

    def _forward(
        self, texts: Tokenized, task: Task
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Batches in turn to each device, several under way, results in the order of launching."""
        import numpy as np

        first = self._backends[0]
        some = np.flatnonzero(texts.lengths)
        cut = token_budget_batches(texts.lengths[some], self._tokens_per_batch, padded=first.pads)
        batches = (some[batch] for batch in cut)
        ahead = len(self._backends) * (first.ahead + 1) - 1
        under_way: deque[tuple[NDArray[np.int64], Launched]] = deque()
        for positions, backend in zip(batches, cycle(self._backends), strict=False):
            with self._lock:
                under_way.append((positions, backend.launch(texts.take(positions), task)))
            if len(under_way) > ahead:
                done, launched = under_way.popleft()
                yield done, launched.result()
        for done, launched in under_way:
            yield done, launched.result()

    def _again_in_float32(self, texts: Tokenized, task: Task) -> NDArray[np.float32]:
        with self._lock:
            if self._exact is None:
                _log.warning(
                    "%s gave a vector that is not finite in %s; trying such passages in float32",
                    self._info.model,
                    self.precision,
                )
                model = load_model(self._location, self._backends[0].device)
                self._exact = _torch_backend(model, self._prompt_lengths, "float32")
            raw = self._exact.launch(texts, task).result()
        return self._finished(raw)

    def _backend(self, model: SentenceTransformer, options: EncoderOptions) -> Backend:
        """The one that was asked for; of "auto" the fastest here, if it takes the model."""
        asked = options.backend
        if asked == "auto" and options.precision == "int8":  # which one of them has
            asked = "openvino"
        on_cpu = model.device.type == "cpu"
        if asked == "openvino" and not on_cpu:
            raise UsageError(
                f"the backend openvino runs on the CPU, not on {model.device}: pass device cpu"
            )
        if asked != "torch" and on_cpu:
            from msmarco_qdrant.encoding.backends.openvino import OpenVinoBackend, is_faster_here

            try:
                if asked == "openvino" or is_faster_here():
                    return OpenVinoBackend(
                        model, self._prompt_lengths, self._info.fingerprint, options.precision
                    )
            except (UsageError, EncodingError) as exc:
                if asked == "openvino":
                    raise
                _log.info("the backend openvino cannot run this model here: %s", exc)
        return _torch_backend(
            model, self._prompt_lengths, options.precision, compiled=options.compiled
        )

    def _finished(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit length for cosine; a row of NaN for one that is not finite or is zero."""
        import numpy as np

        squares = np.einsum("ij,ij->i", vectors, vectors)
        if not (np.isfinite(squares) & (squares > _SMALL)).all():
            # Squares of large float32 components overflow, those of small ones vanish.
            exact = vectors.astype(np.float64)
            squares = np.einsum("ij,ij->i", exact, exact)
        usable = np.isfinite(squares) & (squares > 0)
        scale = np.sqrt(squares) if self._info.similarity == "cosine" else np.ones_like(squares)
        # A product of float32 and NaN, not a division by zero, so that nothing has to be muted.
        factors = np.where(usable, 1.0 / np.where(usable, scale, 1.0), np.nan)
        finished: NDArray[np.float32] = (vectors * factors[:, None]).astype(np.float32, copy=False)
        return finished

    def _describe(
        self, model: SentenceTransformer, hint: str, similarity: Similarity
    ) -> EncoderInfo:
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise ModelNotFoundError(f"{hint} does not tell the dimension of its vectors")
        max_seq_length = model.max_seq_length
        return EncoderInfo(
            model=hint,
            fingerprint=fingerprint(directory_of(self._location), self._prompts, max_seq_length),
            dimension=dimension,
            similarity=similarity,
            prompts=self._prompts,
            max_seq_length=max_seq_length,
        )


def _torch_backend(
    model: SentenceTransformer,
    prompt_lengths: dict[Task, int | None],
    precision: Precision | None,
    *,
    compiled: bool = False,
) -> Backend:
    from msmarco_qdrant.encoding.backends.torch import TorchBackend

    return TorchBackend(model, prompt_lengths, precision, compiled=compiled)
