"""Stages of an ingest between reading and writing, each in a thread of its own.

``read → skip (unchanged passages) → tokenize → forward → sparse →`` the caller, who writes.
Passages that came with their vectors go from skip to sparse.

The stages change no counts: their results go to the caller's thread, which alone counts and calls
back. At most one window waits between two stages, and a few batches after the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msmarco_qdrant.core.collection_types import SparseVector
from msmarco_qdrant.core.encoder_types import EncodedBatch, EncoderInfo, Int8Loss
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Bm25Encoder, Encoder, Tokenized, Tokenizer
from msmarco_qdrant.encoding.checks import check_batch, int8_loss_of
from msmarco_qdrant.encoding.windows import encode_windows
from msmarco_qdrant.errors import EncodingError
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.runtime.pipeline import Channel, Pipeline
from msmarco_qdrant.stores import Collection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WINDOW_PREFETCH = 1
_BATCH_PREFETCH = 4
# Seconds to wait at the end for a thread that reads: its source or server may never answer.
_READ_JOIN_TIMEOUT_S = 0.5
_VECTORS_PER_BATCH = 1024  # of passages that came with their vectors


@dataclass(frozen=True, slots=True)
class IngestTarget:
    """Collection and encoders of an ingest; no encoder for passages with vectors.

    Attributes:
        collection: The collection.
        info: The properties of the encoder, as the collection stores them.
        bm25: Makes the sparse vectors.
        encoder: Makes the dense ones; None for passages that have them.
        loss_of_vectors: The measured loss of those that passages have, if they are of int8.
    """

    collection: Collection
    info: EncoderInfo
    bm25: Bm25Encoder
    encoder: Encoder | None
    loss_of_vectors: Int8Loss | None = None

    @property
    def int8_loss(self) -> Int8Loss | None:
        """The measured loss of vectors of int8; None before it is known, and for other vectors."""
        return self.loss_of_vectors if self.encoder is None else int8_loss_of(self.encoder)


@dataclass(frozen=True, slots=True)
class WindowDiff:
    """Difference between a window and the collection.

    Attributes:
        window: The window.
        encode: Passages to encode and write.
        new_meta: Passages of which only the payload changed.
        unchanged: Passages that need no write.
        rewritten: Passages of `encode` whose pid the collection holds.
    """

    window: Window
    encode: list[Passage]
    new_meta: list[Passage] = field(default_factory=list)
    unchanged: int = 0
    rewritten: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _DenseBatch:
    """Passages of a window with their dense vectors, float32 `(n, dimension)`.

    `cut` is the number of those whose end the model did not read.
    """

    window: Window
    passages: list[Passage]
    dense: NDArray[np.float32]
    cut: int


@dataclass(frozen=True, slots=True, eq=False)
class WriteBatch(_DenseBatch):
    """Passages of a window with all their vectors, and their number of BM25 tokens."""

    sparse: list[SparseVector]
    tokens: int


class IngestStages:
    """The stages of one ingest.

    Args:
        target: The collection and its encoders.
        compare: Returns the difference between a window and the collection; called in a thread,
            for one window after the other.
        is_remote: True if that asks a server: then the end of the pipeline does not wait for it.
    """

    def __init__(
        self,
        target: IngestTarget,
        compare: Callable[[Window], WindowDiff],
        *,
        is_remote: bool = False,
    ) -> None:
        self._target = target
        self._compare = compare
        self._is_remote = is_remote

    def run(
        self, pipeline: Pipeline, windows: Iterable[Window]
    ) -> Iterator[WriteBatch | WindowDiff]:
        """Yield for each window its batches, then its difference, which marks its end."""
        windows = pipeline.run(
            windows, _WINDOW_PREFETCH, join_timeout_s=_READ_JOIN_TIMEOUT_S, name="read"
        )
        timeouts = {"join_timeout_s": _READ_JOIN_TIMEOUT_S} if self._is_remote else {}
        diffs = pipeline.run(map(self._compare, windows), _WINDOW_PREFETCH, name="skip", **timeouts)
        encoder = self._target.encoder
        if encoder is None:
            dense = _take_vectors(diffs)
        else:
            tokenized = pipeline.run(
                _tokenize(diffs, encoder.tokenizer), _WINDOW_PREFETCH, name="tokenize"
            )
            dense = pipeline.run(_encode(tokenized, encoder), _BATCH_PREFETCH, name="forward")
        return pipeline.run(map(self._add_sparse, dense), _BATCH_PREFETCH, name="sparse")

    def _add_sparse(self, item: _DenseBatch | WindowDiff) -> WriteBatch | WindowDiff:
        if isinstance(item, WindowDiff):
            return item
        found = [self._target.bm25.encode_with_length(passage.text) for passage in item.passages]
        return WriteBatch(
            item.window,
            item.passages,
            item.dense,
            item.cut,
            sparse=[vector for vector, _ in found],
            tokens=sum(tokens for _, tokens in found),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Encoding:
    """A window that is being encoded: its passages without a vector, and those that are cut."""

    diff: WindowDiff
    missing: set[int]
    cut: NDArray[np.bool_]

    def collect(self, batch: EncodedBatch, dimension: int) -> _DenseBatch:
        """Take a batch of the encoder."""
        check_batch(batch, self.missing, dimension)
        passages = [self.diff.encode[position] for position in batch.positions]
        cut = int(self.cut[batch.positions].sum())
        return _DenseBatch(self.diff.window, passages, batch.vectors, cut)

    def end(self) -> WindowDiff:
        """Require that every passage has got its vector."""
        if self.missing:
            raise EncodingError(
                f"the encoder returned no vector for {len(self.missing)} of "
                f"{len(self.diff.encode)} passages"
            )
        return self.diff


def _tokenize(
    diffs: Iterable[WindowDiff], tokenizer: Tokenizer
) -> Iterator[tuple[_Encoding, Tokenized]]:
    for diff in diffs:
        texts = [passage.text for passage in diff.encode]
        tokens = tokenizer(texts) if texts else Tokenized.from_rows([])
        yield _Encoding(diff, set(range(len(diff.encode))), tokens.which_cut()), tokens


def _encode(
    tokenized: Channel[tuple[_Encoding, Tokenized]], encoder: Encoder
) -> Iterator[_DenseBatch | WindowDiff]:
    for window, batch in encode_windows(encoder, tokenized):
        if batch is None:
            yield window.end()
        else:
            yield window.collect(batch, encoder.info.dimension)


def _take_vectors(diffs: Iterable[WindowDiff]) -> Iterator[_DenseBatch | WindowDiff]:
    """Batch the vectors that came with the passages."""
    import numpy as np

    for diff in diffs:
        for start in range(0, len(diff.encode), _VECTORS_PER_BATCH):
            passages = diff.encode[start : start + _VECTORS_PER_BATCH]
            vectors = np.stack([diff.window.vectors[passage.pid] for passage in passages])
            yield _DenseBatch(diff.window, passages, vectors, 0)
        yield diff
