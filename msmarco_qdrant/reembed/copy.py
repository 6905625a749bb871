"""Copy passes from one physical collection to another that has vectors of another model.

A pass encodes and writes each point that the target lacks or has an older write of, with the
source's payload and `seq`. A repeated pass finds what is left, so passes need no state. Other
clients may write to the source and delete from both collections during a pass:

* A point is written only if the target still has the `seq` that was read (`upsert_if_seq`), so a
  newer write is never overwritten.
* After each batch the source is read again, and points deleted from it are deleted from the target.
  A delete visits the source before its last visit to the target (`collection.delete`), so it
  either comes after the batch's write or is seen by this check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointBatch, PointId
from msmarco_qdrant.core.digests import text_digest
from msmarco_qdrant.core.encoder_types import Int8Loss, worst_loss
from msmarco_qdrant.core.id_ranges import IdRange
from msmarco_qdrant.core.metadata_types import Copying
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import WINDOW, Passage
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.ingest.stages import IngestStages, IngestTarget, WindowDiff, WriteBatch
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.reembed.compare import Sample
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.stores import Collection, Store
from msmarco_qdrant.stores.foreign import ForeignPoints, has_seq
from msmarco_qdrant.stores.migration_locks import HeldLock
from msmarco_qdrant.stores.payload import point_id

_WRITE = ("text_digest", "meta_digest", "seq")  # identify one write of a passage
_FIELDS = ("pid", "text", "meta", *_WRITE)
_PAGE = 1000
_PAGES_PER_PROGRESS = 64
_WRITE_BATCH = 1024
_ALL = IdRange()
_MARK = "copy_of"
"""Payload field that identifies the copying, on copies in a collection that others write to.

Other clients' writes lack it, so after a crash only copies are deleted as strays.
"""

_Points: TypeAlias = Mapping[PointId, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class CopyJob:
    """The source and target of a copying.

    Attributes:
        store: The store of both.
        copying: Their names, and the target's metadata. If the alias points to the target, other
            clients write to it, and only older writes are replaced.
        lock: The lock of the collection, checked before each write.
        encoder: The encoder of the target.
        on_progress: Called regularly with the counts of the current pass.
    """

    store: Store
    copying: Copying
    lock: HeldLock
    encoder: Encoder
    on_progress: Callable[[CopyStats], None]

    @property
    def source(self) -> Collection:
        """The collection that is read."""
        return self.store.collection(self.copying.source)

    @property
    def only_copies(self) -> bool:
        """True if the target contains nothing but copies.

        Otherwise copies are marked, and only marked points are deleted as strays.
        """
        return self.copying.metadata.only_copies and not self.copying.is_swapped

    @property
    def mark(self) -> str:
        """The value that identifies the copies of this copying."""
        return f"{self.copying.source} {self.copying.metadata.swaps}"


@dataclass(slots=True)
class CopyStats:
    """The counts of one pass.

    Attributes:
        compared: Points of the source.
        copied: Points that were encoded and written.
        removed: Copies that were deleted, because the source lost them.
        lost: Points that were missing when they were read after their write.
        retried: Attempts that ended early, whose counts are unknown; later ones covered the same
            points.
        foreign: Points that are not passages, and that only the source has; they are not copied.
        without_vector: The pids of passages for which the model returns no finite vector.
        sample: A sample of the source's points.
        int8_loss: The largest measured loss of vectors that were made in int8.
    """

    compared: int = 0
    copied: int = 0
    removed: int = 0
    lost: int = 0
    retried: int = 0
    foreign: int = 0
    without_vector: list[str] = field(default_factory=list)
    sample: Sample = field(default_factory=Sample)
    int8_loss: Int8Loss | None = None

    def add(self, other: CopyStats) -> None:
        """Add the counts of other points of the same pass."""
        self.compared += other.compared
        self.copied += other.copied
        self.removed += other.removed
        self.lost += other.lost
        self.retried += other.retried
        self.foreign += other.foreign
        self.without_vector += other.without_vector
        self.sample.merge(other.sample)
        self.int8_loss = worst_loss([self.int8_loss, other.int8_loss])


class CopyPasses(Protocol):
    """Passes of one job over all points."""

    def copy(self, *, verify: bool = False) -> CopyStats:
        """Copy all differences, durably.

        Args:
            verify: Read each batch after its write and count missing points.
        """

    def remove_strays(self) -> int:
        """Delete copies that the source no longer has, durably; returns their number."""


OpenPasses: TypeAlias = Callable[[CopyJob], AbstractContextManager[CopyPasses]]
"""Begins the passes of a job; the block's end frees what they need."""


@dataclass(frozen=True, slots=True)
class _Difference:
    """The source's payload of a point that differs, and the target's `seq` of it, if any."""

    payload: Mapping[str, Any]
    seen: int | None
    in_part: bool = False
    """True if some replicas of the target have other writes of the point, or none."""


class Copier:
    """Copies from the source to the target of a job, one pass at a time.

    Args:
        job: The job.
        ids: The ids that the passes cover.
    """

    def __init__(self, job: CopyJob, ids: IdRange = _ALL) -> None:
        store, copying = job.store, job.copying
        self._job = job
        self._ids = ids
        self._source, self._target = job.source, store.collection(copying.target)
        self._admin = store.admin_collection(copying.target)
        self._info = copying.metadata.encoder
        self._bm25 = Bm25Encoder(copying.metadata.bm25)
        self._is_replicated = store.request_limits(copying.target).replicas > 1
        self._foreign = ForeignPoints(copying.source, store.dsn)

    def copy(self, texts: Iterable[Passage] | None = None, *, verify: bool = False) -> CopyStats:
        """Copy all differences, durably.

        Args:
            texts: Passages whose texts are used instead of the source's; those that the source
                lacks, or has with another text, are skipped.
            verify: Read each batch after its write and count missing points.
        """
        stats, pending = CopyStats(), dict[PointId, _Difference]()
        pages: Iterable[_Points]
        if texts is None:
            pages = map(dict, in_batches(self._scan(self._source, ("pid", *_WRITE)), _PAGE))
        else:
            pages = self._match_source(texts)
        target = IngestTarget(self._target, self._info, self._bm25, self._job.encoder)
        steps = IngestStages(target, lambda window: WindowDiff(window, window.passages, [], 0, 0))
        batch: list[WriteBatch] = []
        with Pipeline("write") as stages:
            for step in steps.run(stages, self._read_windows(pages, pending, stats)):
                if isinstance(step, WriteBatch):
                    batch.append(step)
                waiting = sum(len(encoded.passages) for encoded in batch)
                if waiting >= _WRITE_BATCH or isinstance(step, WindowDiff):
                    self._write(batch, pending, stats, verify=verify)
                    batch.clear()
                    stats.int8_loss = target.int8_loss if stats.copied else None
                    self._job.on_progress(stats)
        self._target.flush()
        return stats

    def remove_strays(self) -> int:
        """Delete copies that the source no longer has, durably; returns their number."""
        job, removed = self._job, 0
        for page in in_batches(self._scan(self._target, ("seq", _MARK)), _PAGE):
            copies = {
                id_: payload["seq"]
                for id_, payload in page
                if has_seq(payload) and (job.only_copies or payload.get(_MARK) == job.mark)
            }
            job.lock.check()
            removed += self._remove_deleted(copies)
        self._target.flush()
        return removed

    # ---- reading ---------------------------------------------------------------------------

    def _scan(
        self, collection: Collection, fields: Sequence[str]
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        return self._ids.until_stop(collection.scan(fields, start=self._ids.start))

    def _match_source(self, texts: Iterable[Passage]) -> Iterator[_Points]:
        """Yield the given passages that the source has with the same text, each once."""
        seen = PidSet()
        for page in in_batches((passage for passage in texts if seen.add(passage.pid)), _PAGE):
            given = {point_id(passage.pid): passage.text for passage in page}
            stored = self._source.retrieve([*given], ("pid", "meta", *_WRITE))
            yield {
                id_: {**payload, "text": given[id_]}
                for id_, payload in stored.items()
                if payload.get("text_digest") == text_digest(given[id_])
            }

    def _read_windows(
        self, pages: Iterable[_Points], pending: dict[PointId, _Difference], stats: CopyStats
    ) -> Iterator[Window]:
        """Yield windows to encode; an empty one now and then, so that progress is reported."""
        differences: dict[PointId, _Difference] = {}
        for number, page in enumerate(pages, start=1):
            differences |= self._compare(page, stats)
            if len(differences) >= WINDOW or number % _PAGES_PER_PROGRESS == 0:
                yield self._window(differences, pending, stats)
                differences = {}
        yield self._window(differences, pending, stats)

    def _compare(self, page: _Points, stats: CopyStats) -> Mapping[PointId, _Difference]:
        """Select the points of a page that the target lacks or has another write of."""
        stored = self._target.retrieve([*page], _WRITE, all_replicas=True) if page else {}
        stats.compared += len(page)
        differences = {}
        passages = {id_: payload for id_, payload in page.items() if self._is_copied(id_, payload)}
        # Points that the target stores count as its own, so only the others explain a difference.
        stats.foreign += sum(id_ not in stored for id_ in page if id_ not in passages)
        damaged = [id_ for id_ in passages if id_ in stored and not has_seq(stored[id_])]
        if damaged:  # another program overwrote their payloads: they are copied again
            self._job.lock.check()
            self._admin.delete_if_seq(damaged, [None] * len(damaged))
        # These are new, or their replicas differ; then one replica may show the `seq`.
        missing = [id_ for id_ in passages if id_ not in stored]
        ask_one = self._is_replicated and missing
        in_part = self._target.retrieve(missing, ("seq",)) if ask_one else {}
        for id_, payload in passages.items():
            stats.sample.add(id_, payload["pid"])
            copy = stored.get(id_)
            if copy is None and id_ in in_part:
                if not self._is_newer(in_part[id_], payload):
                    differences[id_] = _Difference(payload, None, in_part=True)
            elif copy is None or not has_seq(copy):
                differences[id_] = _Difference(payload, None)
            elif self._differs(copy, payload):
                differences[id_] = _Difference(payload, copy["seq"])
        return differences

    def _is_copied(self, id_: PointId, payload: Mapping[str, Any]) -> bool:
        """True for a passage; a point without digests may have any content."""
        if not self._foreign.is_written(id_, payload):
            return False
        missing = [name for name in _WRITE if name not in payload]
        if missing:
            self._foreign.add(id_, f"no {missing[0]}")
        return not missing

    def _is_newer(self, copy: Mapping[str, Any], payload: Mapping[str, Any]) -> bool:
        """True if another client is writing the point to the target, after the swap."""
        return self._job.copying.is_swapped and has_seq(copy) and copy["seq"] > payload["seq"]

    def _differs(self, copy: Mapping[str, Any], payload: Mapping[str, Any]) -> bool:
        """True if the target's point must be replaced; before the swap it has only copies."""
        if self._job.copying.is_swapped:
            return bool(copy["seq"] < payload["seq"])
        return any(copy.get(name) != payload[name] for name in _WRITE)

    def _window(
        self,
        differences: Mapping[PointId, _Difference],
        pending: dict[PointId, _Difference],
        stats: CopyStats,
    ) -> Window:
        """Read missing texts and note the points as pending; deleted ones are skipped."""
        unread = [id_ for id_, found in differences.items() if "text" not in found.payload]
        read = self._source.retrieve(unread, _FIELDS) if unread else {}
        whole = {id_: found for id_, found in differences.items() if "text" in found.payload}
        for id_, payload in read.items():
            whole[id_] = _Difference(payload, differences[id_].seen)
        passages = []
        for id_, found in whole.items():
            passage = self._foreign.passage(id_, found.payload)
            if passage is None or not self._is_copied(id_, found.payload):
                stats.foreign += found.seen is None
                continue
            passages.append(passage)
            pending[id_] = found
        return Window(passages, [], 0, 0)

    # ---- writing ---------------------------------------------------------------------------

    def _write(
        self,
        encoded: Sequence[WriteBatch],
        pending: dict[PointId, _Difference],
        stats: CopyStats,
        *,
        verify: bool,
    ) -> None:
        """Write encoded passages, then delete those that the source no longer has."""
        import numpy as np

        if not encoded:
            return
        ids = [point_id(passage.pid) for part in encoded for passage in part.passages]
        dense = np.concatenate([part.dense for part in encoded])
        sparse = [vector for part in encoded for vector in part.sparse]
        differences = [pending.pop(id_) for id_ in ids]
        finite = np.isfinite(dense).all(axis=1)
        rows = np.flatnonzero(finite).tolist()
        for row in np.flatnonzero(~finite).tolist():
            self._leave_out(ids[row], differences[row], stats)
        batch = PointBatch(
            using=self._info.vector_name,
            ids=[ids[row] for row in rows],
            dense=dense[finite],
            sparse=[sparse[row] for row in rows],
            payloads=[self._payload(differences[row].payload) for row in rows],
        )
        self._job.lock.check()
        for row in rows:  # one call each, because each has its own `seq`; they are few
            if differences[row].in_part:  # else some replicas would keep an older write
                self._target.delete([ids[row]], up_to_seq=differences[row].payload["seq"])
        self._admin.upsert_if_seq(batch, [differences[row].seen for row in rows])
        stats.copied += len(rows)
        written = {
            id_: differences[row].payload["seq"] for id_, row in zip(batch.ids, rows, strict=True)
        }
        stats.removed += self._remove_deleted(written)
        stats.lost += self._count_lost(written) if verify else 0

    def _payload(self, source: Mapping[str, Any]) -> dict[str, Any]:
        payload = {name: source[name] for name in _FIELDS}
        return payload if self._job.only_copies else {**payload, _MARK: self._job.mark}

    def _leave_out(self, id_: PointId, found: _Difference, stats: CopyStats) -> None:
        """Skip a passage without a vector, and delete an older copy that has one."""
        stats.without_vector.append(found.payload["pid"])
        if found.seen is not None:
            self._job.lock.check()
            self._target.delete([id_], up_to_seq=found.seen)

    def _remove_deleted(self, copies: Mapping[PointId, int]) -> int:
        """Delete copies that the source no longer has, unless they have a newer `seq`."""
        if not copies:
            return 0
        # One replica is enough: each write that was acknowledged is on all of them. Asking all
        # would hide, and so delete, passages with a newer write that only some of them accepted.
        stored = self._source.retrieve([*copies], ("seq",))
        deleted = [id_ for id_ in copies if id_ not in stored]
        for id_ in deleted:  # one call each, because each has its own `seq`; they are few
            self._target.delete([id_], up_to_seq=copies[id_])
        return len(deleted)

    def _count_lost(self, written: Mapping[PointId, int]) -> int:
        """Count written points that the target lacks although the source still has them unchanged.

        A concurrent delete may also look like this; a further pass shows the difference.
        """
        stored = self._target.retrieve([*written], ("seq",), all_replicas=True)
        lost = [id_ for id_, seq in written.items() if stored.get(id_, {}).get("seq") != seq]
        current = self._source.retrieve(lost, ("seq",)) if lost else {}
        return sum(payload["seq"] == written[id_] for id_, payload in current.items())
