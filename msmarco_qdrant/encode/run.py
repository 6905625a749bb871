"""One encode into shards: the feed's passages through the encoder and onto the disk."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.encode.feed import ExistingShard, Layout, TokenizedShard
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import check_batch
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


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """A shard with its vectors."""

    ready: TokenizedShard
    vectors: NDArray[np.generic]
    is_finite: NDArray[np.bool_]  # before the cast to the stored type


class EncodeRun:
    """One encode: its counts, and the steps from shards of tokens to files.

    Only the caller's thread writes, counts and calls back.
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
    ) -> None:
        self._encoder = encoder
        self._info = info
        self._layout = layout
        self._size = size
        self._shards_at_once = shards_at_once
        self._stopping = threading.Event()
        self._on_reject = rejected.add
        self._on_progress = on_progress
        self._started = time.perf_counter()
        self._encoded = self._found = self._rejected = self._tokens = self._shards = self._cut = 0

    def run(self, feed: Iterable[TokenizedShard | ExistingShard]) -> None:
        """Encode every missing shard."""
        forward = ThreadPoolExecutor(self._shards_at_once)
        with Pipeline() as stages:
            try:
                shards = stages.run(feed, prefetch=_SHARDS_AHEAD)
                for shard in self._forward_shards(shards, forward):
                    self._finish(shard)
            finally:
                self._stopping.set()
                forward.shutdown(cancel_futures=True)
                if isinstance(feed, SubprocessIterator):
                    feed.close()  # otherwise a stage waits for it
        manifest = Manifest(
            shards=self._shards,
            passages=self._encoded + self._found,
            rejected=self._rejected,
            fingerprint=self._info.fingerprint,
            dtype=self._layout.dtype,
        )
        write_manifest(self._layout.folder, manifest)

    def report(self) -> EncodeReport:
        """Return the counts so far; a shard counts once it is on disk."""
        return EncodeReport(
            read=self._encoded + self._found + self._rejected,
            encoded=self._encoded,
            found=self._found,
            rejected=self._rejected,
            shards=self._shards,
            tokens=self._tokens,
            cut=self._cut,
            seconds=time.perf_counter() - self._started,
        )

    # -- in other threads --

    def _forward_shards(
        self, shards: Iterable[TokenizedShard | ExistingShard], forward: ThreadPoolExecutor
    ) -> Iterator[_Encoded | ExistingShard]:
        """Encode shards; two at once on a GPU, so that it always has batches."""
        in_flight: deque[Future[_Encoded | ExistingShard]] = deque()
        for shard in shards:
            in_flight.append(forward.submit(self._forward, shard))
            while len(in_flight) > self._shards_at_once:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()

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

    # -- in the caller's thread --

    def _finish(self, shard: _Encoded | ExistingShard) -> None:
        """Write a shard, or count an existing one."""
        if isinstance(shard, ExistingShard):
            self._found += shard.header.rows - shard.header.rejected
            self._rejected += shard.header.rejected
        else:
            self._write(shard)
        self._shards += 1
        if self._on_progress is not None:
            position = shard.position if isinstance(shard, ExistingShard) else shard.ready.position
            report = self.report()
            fraction = position / self._size if self._size else None
            self._on_progress(EncodeProgress(report.read, fraction, report))

    def _write(self, shard: _Encoded) -> None:
        import numpy as np

        ready = shard.ready
        usable = np.isfinite(shard.vectors).all(axis=1) & shard.vectors.any(axis=1)
        for reject in ready.rejects:
            self._on_reject(reject)
        for index in np.flatnonzero(~usable):
            too_large = f"its vector does not fit {self._layout.dtype}: encode it as float32"
            reason = too_large if shard.is_finite[index] else NO_VECTOR_REASON
            self._on_reject(reject_passage(ready.row(int(index)), reason))
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
        )
        remove_manifest(self._layout.folder)  # it is about to become wrong
        write_shard(shard_path(self._layout.folder, ready.number), header, texts, vectors)
        self._encoded += len(vectors)
        self._rejected += header.rejected
        self._tokens += len(ready.tokens.ids)
        self._cut += int(ready.tokens.which_cut()[usable].sum())
