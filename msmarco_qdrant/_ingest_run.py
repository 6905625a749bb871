"""One ingest from rows to points: the steps between `ingest_passages` and the store.

``rows → windows → plans (what is there already?) → encoded batches → write → flush → counts``
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from msmarco_qdrant._fields import RowError, checked
from msmarco_qdrant._in_batches import in_batches
from msmarco_qdrant._lines import RAW_BYTES_KEPT
from msmarco_qdrant._pid_set import PidSet
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
    PointId,
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
    payload_pid,
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
_PRUNED_AT_ONCE = 1000


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
        self._clock = SeqClock(found.last_seq)
        # Of an empty collection nothing has to be asked: within a run every pid is new.
        self._was_empty = found.points == 0
        self._seen = PidSet()
        self._on_reject = on_reject
        self._on_progress = on_progress
        self._started = time.perf_counter()
        self._source_size: int | None = None
        self._rejected = self._unchanged = self._encoded = self._tokens = 0
        self._unflushed = 0
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
                    self._write(step)

    def check_count(self) -> None:
        """Compare what was counted with what the engine holds.

        Raises:
            StoreError: If it holds fewer passages than this run wrote or found.
        """
        expected, found = self.written + self._unchanged, self._collection.info().points
        if found < expected:
            raise StoreError(
                f"the collection holds {found:,} passages, but this run wrote {self.written:,} and "
                f"found {self._unchanged:,}: something else removed passages meanwhile. Run the "
                "same ingest again to bring them back"
            )

    def prune(self, policy: PrunePolicy) -> None:
        """Remove what the source did not hold, if the policy allows it.

        Raises:
            PruneRefusedError: If it does not; nothing was removed.
        """
        self._tell("prune", self._source_size or 0)
        if not self._seen:
            raise PruneRefusedError(
                "nothing was pruned: the source holds no passage, which would empty the "
                "collection; drop does that",
                self.report(),
            )
        if self._rejected and not policy.despite_rejects:
            raise PruneRefusedError(
                f"nothing was pruned: {self._rejected:,} rows were rejected, and their passages "
                "may be in the collection. Mend the rows, or pass --allow-rejects "
                "(PrunePolicy(despite_rejects=True)) to remove what they stand for as well",
                self.report(),
            )
        stale, points = sum(1 for _ in self._stale()), self._collection.info().points
        if stale > policy.max_share * points:
            raise PruneRefusedError(
                f"nothing was pruned: the source lacks {stale:,} of {points:,} passages "
                f"({stale / max(points, 1):.0%}, allowed are {policy.max_share:.0%}). If it is "
                "complete, pass --yes (PrunePolicy(max_share=1))",
                self.report(),
            )
        for ids in in_batches(self._stale(), _PRUNED_AT_ONCE):
            # Asked again, as another writer may have brought one back since it was seen.
            found = self._collection.retrieve(ids, ("seq",))
            still = [id_ for id_, payload in found.items() if self._is_old(payload)]
            self._collection.delete(still)
            self.pruned += len(still)
        self._collection.flush()

    def _stale(self) -> Iterator[PointId]:
        """What was there before this run and not in its source; what others wrote since stays."""
        for id_, payload in self._collection.scan(("pid", "seq")):
            pid = payload_pid(id_, payload)
            if self._is_old(payload) and pid not in self._seen:
                yield id_

    def _is_old(self, payload: Mapping[str, Any]) -> bool:
        """Whether it was written before this run began."""
        return bool(payload["seq"] <= self._seq_before)

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

    def _write(self, batch: _Encoded) -> None:
        import numpy as np

        finite = np.isfinite(batch.dense).all(axis=1)
        for index in np.flatnonzero(~finite):
            self._reject(_without_vector(batch.passages[index]))
        kept = [batch.passages[index] for index in np.flatnonzero(finite)]
        if kept:
            self._collection.upsert(
                PointBatch(
                    using=self._vector_name,
                    ids=[point_id(passage.pid) for passage in kept],
                    dense=batch.dense[finite],
                    sparse=[batch.sparse[index] for index in np.flatnonzero(finite)],
                    payloads=[payload_of(passage, self._clock.next()) for passage in kept],
                )
            )
        self._unflushed += len(kept)
        self._encoded += len(batch.passages)
        self._tokens += batch.tokens
        share = self._unflushed / len(batch.window.passages)
        self._tell("passages", batch.window.start + share * (batch.window.end - batch.window.start))

    def _finish(self, plan: _Plan) -> None:
        """The end of a window: what needs no encoding, then one flush, then the counts."""
        for reject in plan.window.rejects:
            self._reject(reject)
        if plan.new_meta:
            self._collection.replace_payloads(
                [point_id(passage.pid) for passage in plan.new_meta],
                [payload_of(passage, self._clock.next()) for passage in plan.new_meta],
            )
        self._collection.flush()
        self.written += self._unflushed + len(plan.new_meta)
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
            return _Plan(window, window.passages, [], 0)
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
        return _Plan(window, encode, new_meta, len(ids) - len(encode) - len(new_meta))

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
