"""One ingest from rows to points: the steps between `ingest_passages` and the store.

``rows → windows → plans (what is there already?) → encoded batches → write → flush → counts``
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msmarco_qdrant._fields import RowError, checked
from msmarco_qdrant._lines import RAW_BYTES_KEPT
from msmarco_qdrant._pid_set import PidSet
from msmarco_qdrant._prune import Pruning
from msmarco_qdrant._stages import Stages
from msmarco_qdrant.corpus import Corpus
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.errors import EncodingError, PruneRefusedError, StoreError, UsageError
from msmarco_qdrant.records import (
    EncodedBatch,
    IngestProgress,
    IngestReport,
    Passage,
    PointBatch,
    PrunePolicy,
    Reject,
    SparseVector,
)
from msmarco_qdrant.stores import Collection
from msmarco_qdrant.stores.points import (
    DIGEST_FIELDS,
    SeqClock,
    check_pid,
    meta_digest,
    payload_of,
    point_id,
    text_digest,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_WINDOWS_AHEAD = 1
_SOURCE_PATIENCE_S = 1.0
_PASSAGES_FOR_A_MEAN = 100
# Three windows are alive at most; of real passages 8,192 are 3 million characters.
_WINDOW_CHARACTERS = 32_000_000
_BATCHES_AHEAD = 4
# So that a server gets several requests at once, however few passages the encoder gives at once.
_WRITTEN_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Where passages go, and what encodes them."""

    collection: Collection
    encoder: Encoder
    bm25: Bm25Encoder


@dataclass(frozen=True, slots=True)
class _Window:
    """Rows that are handled together, and the source's position before and behind them."""

    passages: list[Passage]
    rejects: list[Reject]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a window's passages need."""

    window: _Window
    encode: list[Passage]
    new_meta: list[Passage]
    unchanged: int
    rewritten: int


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """Passages of a window with their vectors, ready to be written."""

    window: _Window
    passages: list[Passage]
    dense: NDArray[np.float32]
    sparse: list[SparseVector]
    tokens: int


class Run:
    """One ingest: its counts, and the steps from rows to points.

    `_windows`, `_plan` and `_batches` run in the stages' threads and touch no count; what they
    find travels to the caller's thread, which alone writes, counts and calls back.
    """

    def __init__(
        self,
        target: Target,
        on_reject: Callable[[Reject], None] | None,
        on_progress: Callable[[IngestProgress], None] | None,
    ) -> None:
        self._collection = target.collection
        self._encoder = target.encoder
        self._vector_name = target.encoder.card.vector_name
        self._bm25 = target.bm25
        found = target.collection.info()
        self._seq_before = found.last_seq
        self._points_before = found.points
        self._clock = SeqClock(found.last_seq)
        # Of an empty collection nothing has to be asked: within a run every pid is new.
        self._was_empty = found.points == 0
        self._seen = PidSet()
        self._on_reject = on_reject
        self._on_progress = on_progress
        self._started = time.perf_counter()
        self._source_size: int | None = None
        self._rejected = self._unchanged = self._encoded = self._tokens = 0
        self._unflushed = self._added = 0
        self._to_write: list[_Encoded] = []
        self.written = self.pruned = 0

    # -- steps in the caller's thread --

    def passages(
        self, rows: Iterable[Passage | Reject], window: int, max_passages: int | None
    ) -> None:
        """Bring every row of the source in."""
        if isinstance(rows, Corpus):
            self._source_size = rows.size
        with Stages() as stages:
            windows = stages.run(
                _windows(rows, self._seen, window, max_passages),
                ahead=_WINDOWS_AHEAD,
                join_timeout_s=_SOURCE_PATIENCE_S,
            )
            for step in stages.run(self._steps(windows), ahead=_BATCHES_AHEAD):
                if isinstance(step, _Plan):
                    self._finish(step)
                else:
                    self._take(step)

    def check_count(self) -> None:
        """Compare what was counted with what the engine holds.

        Raises:
            StoreError: If it holds fewer than were there before with those that were added.
        """
        found = self._collection.info().points
        expected = max(self._points_before + self._added, self.written + self._unchanged)
        if found < expected:
            raise StoreError(
                f"the collection holds {found:,} passages, expected are {expected:,}: it held "
                f"{self._points_before:,} before, and this run added {self._added:,}. Something "
                "else removed passages meanwhile; run the same ingest again to bring back what "
                "its source holds"
            )

    def prune(self, policy: PrunePolicy) -> None:
        """Remove what the source did not hold, if the policy allows it.

        Raises:
            PruneRefusedError: If it does not; nothing was removed.
        """
        self._tell("prune", self._source_size or 0)
        pruning = Pruning(self._collection, self._seen, self._seq_before)
        if refusal := pruning.refusal(policy, self._rejected):
            raise PruneRefusedError(refusal, self.report())
        self.pruned = pruning.remove()

    def index(self) -> None:
        """Build the index over what is there, if anything is."""
        if self._collection.info().points == 0:
            return
        self._tell("index", self._source_size or 0)
        self._collection.optimize()

    def report(self) -> IngestReport:
        """The counts so far; what is not flushed is not counted as written."""
        return IngestReport(
            read=self.written + self._unchanged + self._rejected,
            written=self.written,
            unchanged=self._unchanged,
            rejected=self._rejected,
            encoded=self._encoded,
            seconds=time.perf_counter() - self._started,
            mean_tokens=self._tokens / self._encoded if self._encoded else None,
            pruned=self.pruned,
        )

    def check_bm25(self) -> None:
        """Warn when the collection's `avg_len` is far from the passages it holds."""
        mean, assumed = self.report().mean_tokens, self._bm25.settings.avg_len
        if self._encoded < _PASSAGES_FOR_A_MEAN:
            return
        if mean is not None and not assumed / 2 <= mean <= assumed * 2:
            _log.warning(
                "the passages have %.1f BM25 tokens on average, the collection assumes %.1f: "
                "BM25 will weigh length wrongly; a collection for such passages is better made "
                "with Bm25Settings(avg_len=%.1f)",
                mean,
                assumed,
                mean,
            )

    def _take(self, batch: _Encoded) -> None:
        """Collect batches until there are enough for several requests at once."""
        self._to_write.append(batch)
        self._unflushed += len(batch.passages)
        self._encoded += len(batch.passages)
        self._tokens += batch.tokens
        if sum(len(taken.passages) for taken in self._to_write) >= _WRITTEN_AT_ONCE:
            self._write()
        share = self._unflushed / len(batch.window.passages)
        self._tell("passages", batch.window.start + share * (batch.window.end - batch.window.start))

    def _write(self) -> None:
        """Write what was collected; what has no vector is rejected."""
        import numpy as np

        taken, self._to_write = self._to_write, []
        if not taken:
            return
        dense = np.concatenate([batch.dense for batch in taken])
        passages = [passage for batch in taken for passage in batch.passages]
        sparse = [vector for batch in taken for vector in batch.sparse]
        finite = np.isfinite(dense).all(axis=1)
        for index in np.flatnonzero(~finite):
            self._reject(_without_vector(passages[index]))
        kept = np.flatnonzero(finite)
        self._unflushed -= len(passages) - len(kept)
        self._collection.upsert(
            PointBatch(
                using=self._vector_name,
                ids=[point_id(passages[index].pid) for index in kept],
                dense=dense[finite],
                sparse=[sparse[index] for index in kept],
                payloads=[payload_of(passages[index], self._clock.next()) for index in kept],
            )
        )

    def _finish(self, plan: _Plan) -> None:
        """The end of a window: what needs no encoding, then one flush, then the counts."""
        for reject in plan.window.rejects:
            self._reject(reject)
        self._write()
        if plan.new_meta:
            self._collection.replace_payloads(
                [point_id(passage.pid) for passage in plan.new_meta],
                [payload_of(passage, self._clock.next()) for passage in plan.new_meta],
            )
        self._collection.flush()
        self.written += self._unflushed + len(plan.new_meta)
        self._added += self._unflushed - plan.rewritten
        self._unflushed = 0
        self._unchanged += plan.unchanged
        self._tell("passages", plan.window.end)

    def _reject(self, reject: Reject) -> None:
        self._rejected += 1
        if self._on_reject is not None:
            self._on_reject(reject)

    def _tell(self, stage: Literal["passages", "prune", "index"], position: float) -> None:
        if self._on_progress is None:
            return
        report = self.report()
        fraction = position / self._source_size if self._source_size else None
        self._on_progress(IngestProgress(stage, report.read + self._unflushed, fraction, report))

    # -- steps in threads of their own --

    def _steps(self, windows: Iterable[_Window]) -> Iterator[_Encoded | _Plan]:
        """For each window its encoded batches, then the plan itself as the sign of its end."""
        for window in windows:
            plan = self._plan(window)
            yield from self._batches(window, plan.encode)
            yield plan

    def _plan(self, window: _Window) -> _Plan:
        """Ask the collection which passages it has already."""
        if self._was_empty or not window.passages:
            return _Plan(window, window.passages, [], 0, 0)
        ids = [point_id(passage.pid) for passage in window.passages]
        stored = self._collection.retrieve(ids, DIGEST_FIELDS)
        encode, new_meta = [], []
        for passage, id_ in zip(window.passages, ids, strict=True):
            payload = stored.get(id_)
            if payload is not None:
                check_pid(passage.pid, payload)
            if payload is None or payload.get("text_digest") != text_digest(passage.text):
                encode.append(passage)
            elif payload.get("meta_digest") != meta_digest(passage.meta):
                new_meta.append(passage)
        return _Plan(
            window,
            encode,
            new_meta,
            unchanged=len(ids) - len(encode) - len(new_meta),
            rewritten=len(encode) - sum(id_ not in stored for id_ in ids),
        )

    def _batches(self, window: _Window, passages: list[Passage]) -> Iterator[_Encoded]:
        missing = set(range(len(passages)))
        for batch in self._encoder.encode_passages([passage.text for passage in passages]):
            _check_batch(batch, missing, self._encoder.card.dimension)
            chosen = [passages[position] for position in batch.positions]
            yield _Encoded(
                window=window,
                passages=chosen,
                dense=batch.vectors,
                sparse=[self._bm25.encode_passage(passage.text) for passage in chosen],
                tokens=sum(self._bm25.count_tokens(passage.text) for passage in chosen),
            )
        if missing:
            raise EncodingError(
                f"the encoder gave no vector for {len(missing)} of {len(passages)} passages"
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


# ---- windows -------------------------------------------------------------------------------


def _windows(
    rows: Iterable[Passage | Reject], seen: PidSet, size: int, max_passages: int | None
) -> Iterator[_Window]:
    """Cut rows into windows, by count and by characters of text, and note the pids in `seen`."""
    position = start = characters = 0
    passages: list[Passage] = []
    rejects: list[Reject] = []
    for row in rows:
        admitted = _admitted(row, seen, is_checked=isinstance(rows, Corpus))
        if isinstance(admitted, Passage):
            passages.append(admitted)
            characters += len(admitted.text)
        else:
            rejects.append(admitted)
        if isinstance(rows, Corpus):
            position = rows.position
        if len(passages) + len(rejects) >= size or characters >= _WINDOW_CHARACTERS:
            yield _Window(passages, rejects, start, position)
            passages, rejects, start, characters = [], [], position, 0
        if max_passages is not None and len(seen) >= max_passages:
            break  # before another row is taken: a pipe may have no more to give
    if passages or rejects:
        yield _Window(passages, rejects, start, position)


def _admitted(row: Passage | Reject, seen: PidSet, *, is_checked: bool) -> Passage | Reject:
    """The passage, or a reject if it cannot go in; what a corpus yields was checked there."""
    if isinstance(row, Reject):
        return row
    if not isinstance(row, Passage):
        raise UsageError(f"a source of passages yielded a {type(row).__name__}, expected a Passage")
    try:
        passage = row if is_checked else checked(row)
    except RowError as exc:
        return _late(row, str(exc))
    if not seen.add(passage.pid):
        return _late(row, f"pid {row.pid!r} stood before in this run; the first wins")
    return passage


def _without_vector(passage: Passage) -> Reject:
    return _late(passage, "the model gives no finite, non-zero vector for it, in float32 neither")


def _late(passage: Passage, reason: str) -> Reject:
    """A reject of what had parsed: its row as it stood, or written anew if it never stood."""
    raw = passage.raw or _as_json(passage)
    return Reject(passage.source, passage.line, reason, raw[:RAW_BYTES_KEPT], len(raw))


def _as_json(passage: Passage) -> bytes:
    row = {"pid": passage.pid, "text": passage.text, "meta": passage.meta}
    try:
        text = json.dumps(row, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):  # no JSON, which is why it is rejected
        text = repr(row)
    return text.encode("utf-8", "backslashreplace")
