"""The stages of an ingest between reading and writing, each in a thread of its own.

``read → skip (what is there already?) → tokenize → forward → sparse →`` the caller, who writes.
Passages that came with their vectors go from skip to sparse.

They touch no count: what they find travels to the caller's thread, which alone counts and calls
back. Between two stages one window waits at most, and behind the model a few batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from msmarco_qdrant.core.records import EncodedBatch, EncoderInfo, Passage, SparseVector
from msmarco_qdrant.encoding import Bm25Encoder, Encoder, Tokenized
from msmarco_qdrant.errors import EncodingError
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.stores import Collection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WINDOWS_AHEAD = 1
_SOURCE_JOIN_TIMEOUT_S = 1.0
_BATCHES_AHEAD = 4
_ROWS_TOGETHER = 1024


@dataclass(frozen=True, slots=True)
class IngestTarget:
    """Where passages go, and what encodes them: no encoder for those that come with vectors."""

    collection: Collection
    info: EncoderInfo
    bm25: Bm25Encoder
    encoder: Encoder | None


@dataclass(frozen=True, slots=True)
class WindowDiff:
    """What a window's passages need."""

    window: Window
    encode: list[Passage]
    new_meta: list[Passage]
    unchanged: int
    rewritten: int


@dataclass(frozen=True, slots=True, eq=False)
class WriteBatch:
    """Passages of a window with their vectors, ready to be written."""

    window: Window
    passages: list[Passage]
    dense: NDArray[np.float32]
    sparse: list[SparseVector]
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class _Dense:
    """The same before the sparse vectors."""

    window: Window
    passages: list[Passage]
    vectors: NDArray[np.float32]


Step: TypeAlias = WriteBatch | WindowDiff
_DenseStep: TypeAlias = _Dense | WindowDiff


class IngestStages:
    """The stages of one ingest.

    Args:
        target: Where its passages go.
        plan: What a window's passages need; called for one after the other, in a thread.
    """

    def __init__(self, target: IngestTarget, plan: Callable[[Window], WindowDiff]) -> None:
        self._target = target
        self._plan = plan

    def run(self, stages: Pipeline, windows: Iterable[Window]) -> Iterator[Step]:
        """For each window its encoded batches, then its plan as the sign of its end."""
        windows = stages.run(
            windows, _WINDOWS_AHEAD, join_timeout_s=_SOURCE_JOIN_TIMEOUT_S, name="read"
        )
        plans = stages.run(map(self._plan, windows), _WINDOWS_AHEAD, name="skip")
        encoder = self._target.encoder
        if encoder is None:
            dense = _with_vectors(plans)
        else:
            tokenized = _tokenized(plans, encoder)
            tokenized = stages.run(tokenized, _WINDOWS_AHEAD, name="tokenize")
            dense = stages.run(_encoded(tokenized, encoder), _BATCHES_AHEAD, name="forward")
        return stages.run(map(self._weighed, dense), _BATCHES_AHEAD, name="sparse")

    def _weighed(self, step: _DenseStep) -> Step:
        """Add the sparse vectors."""
        if isinstance(step, WindowDiff):
            return step
        texts, bm25 = [passage.text for passage in step.passages], self._target.bm25
        return WriteBatch(
            window=step.window,
            passages=step.passages,
            dense=step.vectors,
            sparse=[bm25.encode_passage(text) for text in texts],
            tokens=sum(bm25.count_tokens(text) for text in texts),
        )


def _tokenized(
    plans: Iterable[WindowDiff], encoder: Encoder
) -> Iterator[tuple[WindowDiff, Tokenized | None]]:
    for plan in plans:
        texts = [passage.text for passage in plan.encode]
        yield plan, encoder.tokenizer(texts) if texts else None


def _encoded(
    tokenized: Iterable[tuple[WindowDiff, Tokenized | None]], encoder: Encoder
) -> Iterator[_DenseStep]:
    for plan, tokens in tokenized:
        if tokens is not None:
            yield from _batches(plan, tokens, encoder)
        yield plan


def _batches(plan: WindowDiff, tokens: Tokenized, encoder: Encoder) -> Iterator[_Dense]:
    missing = set(range(len(plan.encode)))
    for batch in encoder.encode_passages(tokens):
        _check_batch(batch, missing, encoder.info.dimension)
        chosen = [plan.encode[position] for position in batch.positions]
        yield _Dense(plan.window, chosen, batch.vectors)
    if missing:
        raise EncodingError(
            f"the encoder gave no vector for {len(missing)} of {len(plan.encode)} passages"
        )


def _check_batch(batch: EncodedBatch, missing: set[int], dimension: int) -> None:
    """Refuse what would lose or double a passage, and take the batch's positions off `missing`."""
    expected = (len(batch.positions), dimension)
    if batch.vectors.shape != expected or batch.vectors.dtype != "float32":
        raise EncodingError(
            f"the encoder gave {batch.vectors.dtype} {batch.vectors.shape} for a batch, expected "
            f"float32 {expected}"
        )
    for position in batch.positions.tolist():
        if position not in missing:
            raise EncodingError(f"the encoder gave position {position} twice, or out of range")
        missing.remove(position)


def _with_vectors(plans: Iterable[WindowDiff]) -> Iterator[_DenseStep]:
    """The vectors that came with the passages, in place of the encoder's."""
    import numpy as np

    for plan in plans:
        for start in range(0, len(plan.encode), _ROWS_TOGETHER):
            chosen = plan.encode[start : start + _ROWS_TOGETHER]
            vectors = np.stack([plan.window.vectors[passage.pid] for passage in chosen])
            yield _Dense(plan.window, chosen, vectors)
        yield plan
