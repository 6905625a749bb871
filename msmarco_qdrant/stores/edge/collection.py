"""One physical collection of Qdrant Edge: a shard in this process. The adapter to the engine.

Edge raises bare `Exception`s, or panics; `error_mapping` maps their messages. Its calls hold the
GIL and its handle must not be closed during a query, so each collection has one lock: two
concurrent queries took as long as two in sequence. The lock is FIFO, or a thread that queries in a
loop would keep others waiting for seconds. Writers acquire a second lock first, so that an index
build makes writers wait, but not readers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge

from msmarco_qdrant.core.collection_types import CollectionInfo, CollectionSpec, PointBatch, PointId
from msmarco_qdrant.core.search_types import (
    Facet,
    OrderedPoint,
    PointOrder,
    PointQuery,
    ScoredPoint,
)
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.runtime.fair_lock import FairLock
from msmarco_qdrant.runtime.forks import keep_for_ever
from msmarco_qdrant.stores.edge import index_build
from msmarco_qdrant.stores.edge.convert import (
    payload_index,
    payload_schema,
    payload_selector,
    shard_config,
    spec_of,
    to_order_by,
    to_points,
)
from msmarco_qdrant.stores.edge.filters import edge_filter
from msmarco_qdrant.stores.edge.index_build import require_free_space
from msmarco_qdrant.stores.edge.locked_shard import LockedShard, edge_errors
from msmarco_qdrant.stores.edge.reads import search_points
from msmarco_qdrant.stores.edge.shared_files import SharedFiles
from msmarco_qdrant.stores.error_mapping import lacks_facet_index, lacks_range_index
from msmarco_qdrant.stores.filters import to_qdrant
from msmarco_qdrant.stores.payload import (
    page_size,
    seq_bound,
    to_ordered,
    to_payloads,
    to_scored,
)
from msmarco_qdrant.stores.protocols import INDEX_STALL_S

_CONFIG_FILE = "edge_config.json"


class EdgeCollection:
    """One shard of Edge; see `Collection` for its methods."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._writing, self._lock = threading.RLock(), FairLock()  # always in this order
        self._forked = self._closing = self._closed = False
        self._end_build: Callable[[], None] = lambda: None
        self._shared = SharedFiles(path)
        self._shard: qdrant_edge.EdgeShard | None = self._load()

    def info(
        self,
        *,
        all_replicas: bool = True,  # noqa: ARG002  # there is one
    ) -> CollectionInfo:
        """Return counts and index state."""
        with self.use_shard("reading its state") as shard:
            info = shard.info()
            # Without that index the creation was interrupted, and no points exist.
            last_seq = _last_seq(shard) if "seq" in info.payload_schema else 0
            spec = self._spec(info)
            indexed = info.indexed_vectors_count
            # Without a graph each is a sparse vector, also of a deleted point.
            if not index_build.has_graph(self.path):
                indexed = min(indexed, info.points_count)
        return CollectionInfo(
            name=self.path.name,
            points=info.points_count,
            indexed=indexed,
            segments=info.segments_count,
            state="ready",  # it builds indexes only in `optimize`
            last_seq=last_seq,
            spec=spec,
        )

    def spec(self) -> CollectionSpec:
        """Return the settings alone."""
        with self.use_shard("reading its settings") as shard:
            return self._spec(shard.info())

    def upsert(self, batch: PointBatch) -> None:
        """Write points."""
        with self.change_shard("writing points") as shard:
            shard.update(qdrant_edge.UpdateOperation.upsert_points(to_points(batch)))

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Replace payloads; vectors stay."""
        with self.change_shard("writing payloads") as shard:
            for point, payload in zip(ids, payloads, strict=True):
                shard.update(qdrant_edge.UpdateOperation.overwrite_payload([point], payload))

    def retrieve(
        self,
        ids: Sequence[PointId],
        fields: Sequence[str],
        *,
        all_replicas: bool = False,  # noqa: ARG002  # there is one
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return payload fields of those ids that exist."""
        with self.use_shard("reading points") as shard:
            chosen = payload_selector(fields)
            records = shard.retrieve(list(ids), with_payload=chosen, with_vector=False)
        return to_payloads(records)

    def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        with self.use_shard("searching") as shard:
            answers = search_points(shard, queries)
        # Its numbers are those of float32. An answer by `Mmr` has vectors that nobody asked for.
        return [
            to_scored(points, None if query.vector is None else tuple)
            for query, points in zip(queries, answers, strict=True)
        ]

    def count(self, meta_filter: SearchFilter | None = None, *, exact: bool = True) -> int:
        """Count the points, or those that match a filter."""
        with self.use_shard("counting points") as shard:
            if meta_filter is None:
                return shard.info().points_count
            return shard.count(qdrant_edge.CountRequest(exact, _filter(meta_filter)))

    def facet(
        self,
        key: str,
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
        exact: bool = True,
    ) -> list[Facet] | None:
        """Return the most frequent values of a payload key; None without an index for it."""
        request = qdrant_edge.FacetRequest(key, limit, exact, _filter(meta_filter))
        try:
            with self.use_shard("counting values") as shard:
                hits = shard.facet(request).hits
        except StoreError as exc:
            if not lacks_facet_index(exc):
                raise
            return None
        return [Facet(hit.value, hit.count) for hit in hits]

    def delete(self, ids: Sequence[PointId], *, up_to_seq: int) -> None:
        """Delete points with no higher `seq`."""
        old = qdrant_edge.RangeFloat(lte=seq_bound(up_to_seq))
        chosen = qdrant_edge.Filter(
            must=[
                qdrant_edge.HasIdCondition({*ids}),
                qdrant_edge.FieldCondition(key="seq", range=old),
            ]
        )
        with self.change_shard("deleting points") as shard:
            shard.update(qdrant_edge.UpdateOperation.delete_points_by_filter(chosen))

    def scan(
        self,
        fields: Sequence[str],
        *,
        all_replicas: bool = False,  # noqa: ARG002  # there is one
        meta_filter: SearchFilter | None = None,
        start: PointId | None = None,
    ) -> Iterator[tuple[PointId, dict[str, Any]]]:
        """Yield every point's id and payload fields."""
        chosen = _filter(meta_filter)
        offset: Any = start
        while True:
            request = qdrant_edge.ScrollRequest(
                limit=page_size(fields),
                offset=offset,
                filter=chosen,
                with_payload=payload_selector(fields),
            )
            with self.use_shard("reading points") as shard:
                records, offset = shard.scroll(request)
            yield from to_payloads(records).items()
            if offset is None:
                return

    def read_ordered(
        self,
        order: PointOrder,
        fields: Sequence[str],
        *,
        limit: int,
        meta_filter: SearchFilter | None = None,
    ) -> list[OrderedPoint] | None:
        """Return the first points of an order; None without an index for it."""
        request = qdrant_edge.ScrollRequest(
            limit=limit,
            filter=_filter(meta_filter),
            with_payload=payload_selector(fields),
            order_by=to_order_by(order),
        )
        try:
            with self.use_shard("reading points") as shard:
                records, _ = shard.scroll(request)
        except StoreError as exc:
            if not lacks_range_index(exc):
                raise
            return None
        return to_ordered(records)

    def flush(self) -> None:
        """Sync everything written so far."""
        with self._writing, self.use_shard("flushing") as shard:
            shard.flush()

    def optimize(self, *, stall_s: float = INDEX_STALL_S) -> None:  # noqa: ARG002  # it never stalls
        """Build the indexes in a child process, then replace the live segments.

        Readers wait only while the new segments are loaded; writers wait until the end. `close`
        ends the child process.
        """
        with self.freeze():
            try:
                index_build.build(self.path, self._lock_fd, self._note_build)
                self._swap()
            except StoreError as exc:
                if self._closing:
                    raise self._closed_error("building the index") from exc
                raise
            finally:
                index_build.remove_leftovers(self.path)

    @contextmanager
    def freeze(self) -> Iterator[Path]:
        """Keep the shard's files unchanged for the block, with every write so far in them.

        Readers go on; writers and index builds wait.
        """
        with self._writing:
            self.flush()
            yield self.path

    @contextmanager
    def share_files(self, on_change: Callable[[], None]) -> Iterator[Path]:
        """Yield a folder with the shard's files; see `Store.share_files`."""
        with self.freeze():
            folder = self._shared.add(on_change)
        try:
            yield folder
        finally:
            self._shared.remove(folder)

    def close(self) -> None:
        """Close the shard, and end an index build; only the store calls this."""
        self._closing = True
        self._end_build()
        with self._writing:
            self._shared.end()  # no other process begins to use files while writers wait
            with self._lock, edge_errors(self.path, "closing"):
                self._closed = True
                if self._shard is not None:
                    self._shard.close()

    def invalidate_after_fork(self) -> None:
        """In a forked child: refuse every use from now on."""
        # A thread of the parent may hold the locks.
        self._writing, self._lock = threading.RLock(), FairLock()
        self._shared = SharedFiles(self.path)
        self._forked = True
        if self._shard is not None:  # its destructor could write, or wait for threads
            keep_for_ever(self._shard)

    def config(self) -> dict[str, Any]:
        """Return `edge_config.json` of Edge 0.9, which has no call for it."""
        config: dict[str, Any] = json.loads((self.path / _CONFIG_FILE).read_text("utf-8"))
        return config

    def reload(self, config: qdrant_edge.EdgeConfig) -> None:
        """Load the shard with other settings, which it stores; `optimize` rebuilds the indexes."""
        with self.change_shard("changing its settings") as shard:
            shard.flush()
            self._unload(shard)
            qdrant_edge.EdgeShard.load(str(self.path), config).close()
            self._shard = self._load()

    def use_shard(self, action: str) -> AbstractContextManager[qdrant_edge.EdgeShard]:
        """Lock the shard for one call, and map its errors."""
        self._check_not_forked()
        return LockedShard(self.path, action, self._lock, self._usable_shard)

    @contextmanager
    def change_shard(self, action: str) -> Iterator[qdrant_edge.EdgeShard]:
        """Do the same for a write: it waits for an index build, and needs free disk space."""
        self._check_not_forked()
        with self._writing:
            self._shared.end()
            with self.use_shard(action) as shard:
                require_free_space(self.path, action)
                yield shard

    def _check_not_forked(self) -> None:
        if self._forked:
            raise fork_error(str(self.path))

    def _usable_shard(self, action: str) -> qdrant_edge.EdgeShard:
        """Return the shard, which the caller has locked."""
        if self._closed:
            raise self._closed_error(action)
        if self._shard is None:  # the last attempt to load it failed
            self._shard = self._load()
        return self._shard

    def _spec(self, info: qdrant_edge.ShardInfo) -> CollectionSpec:
        indexes = {field: payload_index(index) for field, index in info.payload_schema.items()}
        return spec_of(self.config(), indexes)

    def _closed_error(self, action: str) -> StoreError:
        return StoreError(
            f"{action} in {self.path} failed: the collection was dropped, or its store was closed; "
            "open it again"
        )

    def _note_build(self, end: Callable[[], None]) -> None:
        """Let `close` end the child process, also if it was called before its start."""
        self._end_build = end
        if self._closing:
            end()

    def _swap(self) -> None:
        """Load the new segments; after a failure, the next call reloads the former ones."""
        with self.use_shard("loading the new index") as replaced:
            self._unload(replaced)
            index_build.swap_in(self.path)
            shard = self._open()
            try:
                index_build.commit_swap(self.path)
            except BaseException:
                shard.close()
                raise
            self._shard = shard

    def _unload(self, shard: qdrant_edge.EdgeShard) -> None:
        """Close the shard, so that the next call loads it."""
        self._shard = None
        try:
            shard.close()
        finally:
            shard.close()  # closing twice is harmless; an open shard could not be loaded

    def _load(self) -> qdrant_edge.EdgeShard:
        with edge_errors(self.path, "loading"):
            # The directory's lock excludes other processes but those that search shared files.
            index_build.recover(self.path, keeps_shared=self._shared.is_used)
            return self._open()

    def _open(self) -> qdrant_edge.EdgeShard:
        return qdrant_edge.EdgeShard.load(str(self.path))


def create_shard(
    path: Path, spec: CollectionSpec, optimizers: Mapping[str, Any] | None = None
) -> None:
    """Create an empty shard with its payload indexes in an empty directory.

    `optimizers` are the optimizer settings that differ from the engine's defaults.
    """
    with edge_errors(path, "creating the collection"):
        require_free_space(path, "creating the collection")
        shard = qdrant_edge.EdgeShard.create(str(path), shard_config(spec, optimizers))
        for field, kind in spec.payload_indexes.items():
            schema = payload_schema(kind)
            shard.update(qdrant_edge.UpdateOperation.create_field_index(field, schema))
        shard.flush()
        shard.close()


def _filter(given: SearchFilter | None) -> qdrant_edge.Filter | None:
    return None if given is None else edge_filter(to_qdrant(given))


def _last_seq(shard: qdrant_edge.EdgeShard) -> int:
    """Return the highest `seq` in use, from its index."""
    order = qdrant_edge.OrderBy("seq", qdrant_edge.Direction.Desc)
    records, _ = shard.scroll(
        qdrant_edge.ScrollRequest(limit=1, order_by=order, with_payload=["seq"])
    )
    return int(records[0].payload["seq"]) if records and records[0].payload else 0


def fork_error(place: str) -> StoreError:
    """Return the error for using a parent's store in a forked child."""
    return StoreError(
        f"the store {place} was opened before this process was forked, and only one process may "
        "use it: close it before forking and open it in one child, or use a Qdrant server to share "
        "passages between processes"
    )
