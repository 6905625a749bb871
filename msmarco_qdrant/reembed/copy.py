"""Passes that make one physical collection hold what another one holds, with other vectors.

A point that the target lacks, or holds another write of, is encoded and written with the source's
payload, `seq` too: so a pass that is repeated finds what is left, and no pass needs to remember
anything. Others may write to the source and delete from both meanwhile:

* A point is written only over what was seen in the target (`AdminCollection.upsert_if_seq`), so nothing
  newer is ever overwritten.
* After a batch was written the source is read again, and what is gone from it is removed from the
  target. Whoever deletes does so in the source before the target's last time (`deleting`): so a
  deletion either comes after our write there, or is seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Passage, PointBatch, PointId, text_digest
from msmarco_qdrant.ingest.stages import IngestStages, IngestTarget, WindowDiff, WriteBatch
from msmarco_qdrant.ingest.windows import Window
from msmarco_qdrant.reembed.compare import Sample
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.stores import AdminCollection, Collection
from msmarco_qdrant.stores.payload import passage_of, payload_pid, point_id

_WRITE = ("text_digest", "meta_digest", "seq")  # what tells one write of a passage from another
_FIELDS = ("pid", "text", "meta", *_WRITE)
_COMPARED_AT_ONCE = 1000
_PAGES_TOLD = 64
_WRITTEN_AT_ONCE = 1024
_WINDOW = 8192
_MARK = "copy_of"
"""Payload field of a copy in a collection that others write to, or have written to: which copying.

What they write has none: so after a crash it is known which points may be removed.
"""


_Points: TypeAlias = Mapping[PointId, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class CopyJob:
    """What is copied where.

    Attributes:
        source: The collection that is read.
        mark: What tells the copies of this copying from all others.
        target: The collection that is filled, with what encodes for it.
        changed: The same, to be written to.
        check: Called before each write; raises `StoreInUseError` if the lock was taken away.
    """

    source: Collection
    mark: str
    target: IngestTarget
    changed: AdminCollection
    check: Callable[[], None]


@dataclass(slots=True)
class CopyStats:
    """What one pass over the source found and did.

    Attributes:
        compared: Points of the source.
        copied: Those that were encoded and written.
        removed: Those that were gone from the source by then, and were removed again.
        lost: Those that were looked for after they were written, and were not there.
        without_vector: The pids of those that the model gives no finite vector.
        sample: Some of the points.
    """

    compared: int = 0
    copied: int = 0
    removed: int = 0
    lost: int = 0
    without_vector: list[str] = field(default_factory=list)
    sample: Sample = field(default_factory=Sample)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the source held of a point that differs, and the `seq` that the target held of it."""

    payload: Mapping[str, Any]
    seen: int | None


class Copier:
    """Copies along a route, one pass after the other.

    Args:
        route: From where to where.
        on_progress: Called now and then with what a pass has done so far.
        is_swapped: Whether the name leads to the target, so that others write to it: then only
            older writes than the source's are replaced.
        only_copies: Whether the target holds nothing but copies. Else copies are marked, and only
            they are removed when the source does not hold them.
    """

    def __init__(
        self,
        route: CopyJob,
        on_progress: Callable[[CopyStats], None],
        *,
        is_swapped: bool,
        only_copies: bool,
    ) -> None:
        self._route = route
        self._on_progress = on_progress
        self._is_swapped = is_swapped
        self._only_copies = only_copies

    def copy(self, texts: Iterable[Passage] | None = None, *, verify: bool = False) -> CopyStats:
        """Copy what is missing, durably.

        Args:
            texts: Passages to take texts from instead of reading them; those that the source does
                not hold, or holds with another text, are left out.
            verify: Read what was written again, and count what is not there.
        """
        done, under_way = CopyStats(), _UnderWay()
        pages = self._held() if texts is None else self._held_of(texts)
        steps = IngestStages(
            self._route.target, lambda window: WindowDiff(window, window.passages, [], 0, 0)
        )
        to_write: list[WriteBatch] = []
        with Pipeline("write") as stages:
            for step in steps.run(stages, self._windows(pages, under_way, done)):
                if isinstance(step, WriteBatch):
                    to_write.append(step)
                waiting = sum(len(one.passages) for one in to_write)
                if waiting >= _WRITTEN_AT_ONCE or isinstance(step, WindowDiff):
                    self._write(to_write, under_way, done, verify=verify)
                    to_write.clear()
                    self._on_progress(done)
        self._route.target.collection.flush()
        return done

    def remove_strays(self) -> int:
        """Remove copies that the source does not hold any more, durably; how many they were."""
        route, removed = self._route, 0
        for page in in_batches(route.target.collection.scan(("seq", _MARK)), _COMPARED_AT_ONCE):
            held = {
                id_: payload["seq"]
                for id_, payload in page
                if self._only_copies or payload.get(_MARK) == route.mark
            }
            route.check()
            removed += self._remove_gone(held)
        route.target.collection.flush()
        return removed

    # ---- reading ---------------------------------------------------------------------------

    def _held(self) -> Iterator[_Points]:
        """The points of the source, without their texts, a page at a time."""
        for page in in_batches(self._route.source.scan(("pid", *_WRITE)), _COMPARED_AT_ONCE):
            yield dict(page)

    def _held_of(self, texts: Iterable[Passage]) -> Iterator[_Points]:
        """Of given passages those that the source holds with the same text, each once."""
        seen = PidSet()
        for page in in_batches((one for one in texts if seen.add(one.pid)), _COMPARED_AT_ONCE):
            given = {point_id(passage.pid): passage.text for passage in page}
            held = self._route.source.retrieve([*given], ("pid", "meta", *_WRITE))
            yield {
                id_: {**payload, "text": given[id_]}
                for id_, payload in held.items()
                if payload.get("text_digest") == text_digest(given[id_])
            }

    def _windows(
        self, pages: Iterable[_Points], under_way: _UnderWay, done: CopyStats
    ) -> Iterator[Window]:
        """What is to be encoded; now and then nothing, so that a pass tells how far it is."""
        wanted: dict[PointId, _Wanted] = {}
        for number, page in enumerate(pages, start=1):
            wanted |= self._compared(page, done)
            if len(wanted) >= _WINDOW or number % _PAGES_TOLD == 0:
                yield self._window(wanted, under_way)
                wanted = {}
        yield self._window(wanted, under_way)

    def _compared(self, held: _Points, done: CopyStats) -> Mapping[PointId, _Wanted]:
        """The points of a page that the target lacks, or holds another write of."""
        found = self._route.target.collection.retrieve([*held], _WRITE) if held else {}
        done.compared += len(held)
        wanted = {}
        for id_, payload in held.items():
            done.sample.add(id_, payload_pid(id_, payload))
            there = found.get(id_)
            if there is None or self._differs(there, payload):
                wanted[id_] = _Wanted(payload, there["seq"] if there is not None else None)
        return wanted

    def _differs(self, there: Mapping[str, Any], payload: Mapping[str, Any]) -> bool:
        """Whether the target's is to be replaced; before the swap it holds nothing but copies."""
        if self._is_swapped:
            return bool(there["seq"] < payload["seq"])
        return any(there[name] != payload[name] for name in _WRITE)

    def _window(self, wanted: Mapping[PointId, _Wanted], under_way: _UnderWay) -> Window:
        """Passages with their texts; what is gone from the source by now is left out."""
        unread = [id_ for id_, one in wanted.items() if "text" not in one.payload]
        read = self._route.source.retrieve(unread, _FIELDS) if unread else {}
        whole = {id_: one for id_, one in wanted.items() if "text" in one.payload}
        whole |= {id_: _Wanted(payload, wanted[id_].seen) for id_, payload in read.items()}
        under_way.add(whole)
        return Window([passage_of(id_, one.payload) for id_, one in whole.items()], [], 0, 0)

    # ---- writing ---------------------------------------------------------------------------

    def _write(
        self, encoded: Sequence[WriteBatch], under_way: _UnderWay, done: CopyStats, *, verify: bool
    ) -> None:
        """Write what was encoded, then look whether the source still holds it."""
        import numpy as np

        if not encoded:
            return
        passages = [passage for one in encoded for passage in one.passages]
        dense = np.concatenate([one.dense for one in encoded])
        sparse = [vector for one in encoded for vector in one.sparse]
        wanted = [under_way.take(point_id(passage.pid)) for passage in passages]
        finite = np.isfinite(dense).all(axis=1)
        rows = np.flatnonzero(finite).tolist()
        for row in np.flatnonzero(~finite).tolist():
            self._leave_out(passages[row].pid, wanted[row].seen, done)
        batch = PointBatch(
            using=self._route.target.info.vector_name,
            ids=[point_id(passages[row].pid) for row in rows],
            dense=dense[finite],
            sparse=[sparse[row] for row in rows],
            payloads=[self._payload(wanted[row].payload) for row in rows],
        )
        self._route.check()
        self._route.changed.upsert_if_seq(batch, [wanted[row].seen for row in rows])
        done.copied += len(rows)
        written = {
            id_: payload["seq"] for id_, payload in zip(batch.ids, batch.payloads, strict=True)
        }
        done.removed += self._remove_gone(written)
        done.lost += self._lost(written) if verify else 0

    def _payload(self, held: Mapping[str, Any]) -> dict[str, Any]:
        payload = {name: held[name] for name in _FIELDS}
        return payload if self._only_copies else {**payload, _MARK: self._route.mark}

    def _leave_out(self, pid: str, seen: int | None, done: CopyStats) -> None:
        """What has no vector now may have had one: no older write is left in its place."""
        done.without_vector.append(pid)
        if seen is not None:
            self._route.check()
            self._route.target.collection.delete([point_id(pid)], up_to_seq=seen)

    def _remove_gone(self, held: Mapping[PointId, int]) -> int:
        """Remove from the target what is gone from the source, if it is still what we know."""
        if not held:
            return 0
        there = self._route.source.retrieve([*held], ("seq",))
        gone = [id_ for id_ in held if id_ not in there]
        for id_ in gone:  # one at a time: each has its own `seq`, and they are few
            self._route.target.collection.delete([id_], up_to_seq=held[id_])
        return len(gone)

    def _lost(self, written: Mapping[PointId, int]) -> int:
        """How much of it is not there, though the source holds it as it was.

        Somebody who is removing a point just now may make it look so: another pass tells.
        """
        there = self._route.target.collection.retrieve([*written], ("seq",))
        lost = [id_ for id_, seq in written.items() if there.get(id_, {}).get("seq") != seq]
        held = self._route.source.retrieve(lost, ("seq",)) if lost else {}
        return sum(payload["seq"] == written[id_] for id_, payload in held.items())


class _UnderWay:
    """What is known of the points that are being encoded, between the first stage and the last."""

    def __init__(self) -> None:
        self._wanted: dict[PointId, _Wanted] = {}

    def add(self, wanted: Mapping[PointId, _Wanted]) -> None:
        self._wanted.update(wanted)

    def take(self, id_: PointId) -> _Wanted:
        return self._wanted.pop(id_)
