"""One encode into shards: the feed's passages through the encoder and onto the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.encode.counts import EncodeCounts
from msmarco_qdrant.encode.feed import ExistingShard, Layout, TokenizedShard
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import check_batch, int8_loss_of
from msmarco_qdrant.errors import EncodingError
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.runtime.subprocesses import SubprocessIterator
from msmarco_qdrant.sources.rejects import NO_VECTOR_REASON, RejectCount, reject_passage
from msmarco_qdrant.sources.shard_file import (
    Manifest,
    ShardHeader,
    remove_manifest,
    shard_path,
    write_manifest,
    write_shard,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHARDS_AHEAD = 1

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """A shard with its vectors."""

    ready: TokenizedShard
    vectors: NDArray[np.generic]
    is_finite: NDArray[np.bool_]  # before the cast to the stored type


@dataclass(frozen=True, slots=True)
class _Written:
    """A shard on disk: its header, rejects, tokens, cut texts, and end in the source."""

    header: ShardHeader
    rejects: list[Reject]
    tokens: int
    cut: int
    position: int


def complete_folder(layout: Layout, info: EncoderInfo, report: EncodeReport) -> None:
    """Mark a folder of shards as complete."""
    manifest = Manifest(
        shards=report.shards,
        passages=report.encoded + report.found,
        rejected=report.rejected,
        fingerprint=info.fingerprint,
        dtype=layout.dtype,
    )
    write_manifest(layout.folder, manifest)


class EncodeRun:
    """One encode: its counts, and the steps from shards of tokens to files.

    Only the caller's thread counts and calls back.
    """

    def __init__(
        self,
        encoder: Encoder,
        info: EncoderInfo,
        layout: Layout,
        size: int | None,
        shards_at_once: int,
        rejected: RejectCount,
        on_progress: Callable[[EncodeProgress], None] | None,
        startup_seconds: float = 0.0,
    ) -> None:
        self._encoder = encoder
        self._info = info
        self._layout = layout
        self._size = size
        self._shards_at_once = shards_at_once
        self._stopping = threading.Event()
        self._on_reject = rejected.add
        self._on_progress = on_progress
        self._before_write: Callable[[], None] = lambda: None
        self._counts = EncodeCounts(startup_seconds=startup_seconds)

    def run(self, feed: Iterable[TokenizedShard | ExistingShard]) -> None:
        """Encode every missing shard, then mark the folder as complete."""
        self._before_write = partial(remove_manifest, self._layout.folder)
        self.encode(feed)
        complete_folder(self._layout, self._info, self.report())

    def encode(self, feed: Iterable[TokenizedShard | ExistingShard]) -> None:
        """Encode every missing shard; the caller marks the folder."""
        forward = ThreadPoolExecutor(self._shards_at_once)
        # A GPU encodes a shard about as fast as one thread writes it.
        writing = ThreadPoolExecutor(self._shards_at_once)
        failures: list[Exception] = []  # raised when what is being written has been counted
        with Pipeline() as stages:
            try:
                shards = stages.run(feed, prefetch=_SHARDS_AHEAD)
                encoded = _in_order(shards, forward, self._forward, self._shards_at_once)
                # On a CPU each shard is on disk before the next one is awaited.
                for shard in _in_order(
                    _until_error(encoded, failures), writing, self._write, self._shards_at_once - 1
                ):
                    self._finish(shard)
                for failure in failures:
                    raise failure
            finally:
                self._stopping.set()
                for pool in (forward, writing):
                    pool.shutdown(cancel_futures=True)
                if isinstance(feed, SubprocessIterator):
                    feed.close()  # otherwise a stage waits for it

    def report(self) -> EncodeReport:
        """Return the counts so far; a shard counts once it is on disk."""
        return self._counts.report()

    # -- in other threads --

    def _forward(self, ready: TokenizedShard | ExistingShard) -> _Encoded | ExistingShard:
        import numpy as np

        if isinstance(ready, ExistingShard):
            return ready
        count = len(ready.tokens)
        vectors = np.empty((count, self._encoder.info.dimension), self._layout.dtype)
        is_finite, missing = np.zeros(count, bool), set(range(count))
        for batch in self._encoder.encode_passages(ready.tokens):
            check_batch(batch, missing, self._encoder.info.dimension)
            with np.errstate(over="ignore"):  # rejected when the shard is written
                vectors[batch.positions] = batch.vectors
            is_finite[batch.positions] = np.isfinite(batch.vectors).all(axis=1)
            if self._stopping.is_set():
                return _Encoded(ready, vectors, is_finite)  # the result is not used
        if missing:
            raise EncodingError(
                f"the encoder returned no vector for {len(missing)} of {count} passages"
            )
        return _Encoded(ready, vectors, is_finite)

    def _write(self, shard: _Encoded | ExistingShard) -> _Written | ExistingShard:
        import numpy as np

        if isinstance(shard, ExistingShard):
            return shard
        ready = shard.ready
        usable = np.isfinite(shard.vectors).all(axis=1) & shard.vectors.any(axis=1)
        rejects = [*ready.rejects, *self._reject_unusable(shard, np.flatnonzero(~usable))]
        texts, vectors = ready.texts(), shard.vectors
        if not usable.all():
            texts, vectors = texts.filter(usable), vectors[usable]
        header = ShardHeader(
            encoder=self._info,
            dtype=self._layout.dtype,
            number=ready.number,
            rows=ready.rows,
            rejected=ready.rows - len(vectors),
            source_sha256=ready.source_sha256,
            chunks=len(ready.chunks),
            full=ready.full,
            int8_loss=int8_loss_of(self._encoder),
        )
        self._before_write()  # the manifest is about to become wrong
        write_shard(shard_path(self._layout.folder, ready.number), header, texts, vectors)
        cut = int(ready.tokens.which_cut()[usable].sum())
        return _Written(header, rejects, len(ready.tokens.ids), cut, ready.position)

    def _reject_unusable(self, shard: _Encoded, indexes: NDArray[np.int64]) -> Iterator[Reject]:
        """Reject passages whose vector is zero, not finite, or too large for the stored type."""
        for index in indexes.tolist():
            too_large = f"its vector does not fit {self._layout.dtype}: encode it as float32"
            reason = too_large if shard.is_finite[index] else NO_VECTOR_REASON
            yield reject_passage(shard.ready.row(index), reason)

    # -- in the caller's thread --

    def _finish(self, shard: _Written | ExistingShard) -> None:
        """Count a shard that is on disk, and call back."""
        rejected = shard.header.rejected
        if isinstance(shard, ExistingShard):
            self._counts.found += shard.header.rows - rejected
        else:
            for reject in shard.rejects:
                self._on_reject(reject)
            self._counts.encoded += shard.header.rows - rejected
            self._counts.tokens += shard.tokens
            self._counts.cut += shard.cut
        self._counts.rejected += rejected
        self._counts.shards += 1
        if self._on_progress is not None:
            report = self.report()
            fraction = shard.position / self._size if self._size else None
            self._on_progress(EncodeProgress(report.read, fraction, report))


def _in_order(
    items: Iterable[_In], pool: ThreadPoolExecutor, function: Callable[[_In], _Out], ahead: int
) -> Iterator[_Out]:
    """Call a function with each item in a pool; yield results in order.

    Args:
        items: The items.
        pool: The threads.
        function: The function.
        ahead: Most calls that are not awaited before the next item is requested.
    """
    in_flight: deque[Future[_Out]] = deque()
    for item in items:
        in_flight.append(pool.submit(function, item))
        while len(in_flight) > ahead:
            yield in_flight.popleft().result()
    while in_flight:
        yield in_flight.popleft().result()


def _until_error(items: Iterable[_In], failures: list[Exception]) -> Iterator[_In]:
    """Yield items until the end or an error, which is appended to `failures`."""
    try:
        yield from items
    except Exception as exc:  # noqa: BLE001  # the caller raises it
        failures.append(exc)
