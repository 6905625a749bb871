"""Qdrant Edge: Qdrant's own engine in this process, in a directory. The one adapter to it.

Edge raises bare `Exception`s; what their messages mean is told in `_mapped`, and nowhere else.
Its calls hold Python's lock and its handle must not be closed under a running query, so each
collection has one lock; two threads that queried side by side took as long as one after the other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    MsmarcoQdrantError,
    SchemaError,
    StoreError,
    StoreInUseError,
    StoreUnavailableError,
)
from msmarco_qdrant.records import (
    CollectionInfo,
    CollectionMetadata,
    CollectionSpec,
    DenseQuery,
    PointBatch,
    PointId,
    ScoredPoint,
)
from msmarco_qdrant.stores import edge_optimize
from msmarco_qdrant.stores.edge_directory import EdgeDirectory
from msmarco_qdrant.stores.edge_requests import payload_schema, query_request, shard_config
from msmarco_qdrant.stores.metadata import metadata_from_json, metadata_to_json
from msmarco_qdrant.stores.points import SPARSE_VECTOR
from msmarco_qdrant.stores.protocols import Capabilities

if TYPE_CHECKING:
    import qdrant_edge

_CAPABILITIES = Capabilities(ann=True, payload_indexes=True, quantisation=True, multi_process=False)


class EdgeStore:
    """A handle on a store directory; `EdgeStore.open` gives it, `close` gives it back.

    Handles on one directory share one engine, which closes with the last of them.
    """

    def __init__(self, engine: _Engine, dsn: str) -> None:
        self._engine = engine
        self._dsn = dsn
        self._closed = False

    @classmethod
    def open(cls, dsn: str, *, create: bool) -> EdgeStore:
        """Open a directory; see `open_store` for what is raised."""
        return cls(_ENGINES.acquire(Path(dsn), create=create), dsn)

    @property
    def dsn(self) -> str:
        """The path it was opened by."""
        return self._dsn

    @property
    def capabilities(self) -> Capabilities:
        """What Edge can do."""
        return _CAPABILITIES

    def create_collection(self, name: str, spec: CollectionSpec) -> None:
        """Create an empty physical collection; see `Store`."""
        with self._directory() as directory:
            if name in directory.aliases.values():
                raise SchemaError(f"a collection '{name}' exists already in {self._dsn}")
            self._engine.forget(name)
            _create_shard(directory.fresh_shard_path(name), spec)
            directory.put_collection(name, None)

    def collection(self, name: str) -> EdgeCollection:
        """The collection behind a name; see `Store`."""
        with self._directory() as directory:
            physical = self._resolve(directory, name)
            return self._engine.collection(physical)

    def metadata(self, name: str) -> CollectionMetadata:
        """What was kept with a collection; see `Store`."""
        with self._directory() as directory:
            physical = self._resolve(directory, name)
            return metadata_from_json(directory.collections[physical], physical)

    def put_metadata(self, name: str, metadata: CollectionMetadata) -> None:
        """Keep metadata with a collection; see `Store`."""
        with self._directory() as directory:
            directory.put_collection(self._resolve(directory, name), metadata_to_json(metadata))

    def lock(self) -> AbstractContextManager[object]:
        """Held while a collection is looked for and made; see `Store`."""
        return self._engine.lock

    def aliases(self) -> Mapping[str, str]:
        """Every alias and its physical collection."""
        with self._directory() as directory:
            return directory.aliases

    def set_alias(self, alias: str, name: str) -> None:
        """Let an alias stand for a physical collection; see `Store`."""
        with self._directory() as directory:
            if name not in directory.collections:
                raise _no_collection(name, directory, self._dsn)
            directory.put_alias(alias, name)

    def close(self) -> None:
        """Give the handle back. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            _ENGINES.release(self._engine)

    def __enter__(self) -> EdgeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _directory(self) -> Iterator[EdgeDirectory]:
        if self._closed:
            raise StoreError(f"this handle on the store {self._dsn} was closed: open it again")
        if not self._engine.usable:
            raise _after_fork(self._dsn)
        with self._engine.lock:
            yield self._engine.directory

    def _resolve(self, directory: EdgeDirectory, name: str) -> str:
        physical = directory.aliases.get(name, name)
        if physical not in directory.collections:
            raise _no_collection(name, directory, self._dsn)
        return physical


class EdgeCollection:
    """One shard of Edge; see `Collection` for what its methods promise."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self._path = path
        self._lock_fd = lock_fd
        self._lock = threading.RLock()
        self._left_to_parent = False
        self._shard = self._load()

    def info(self) -> CollectionInfo:
        """Counts and index state."""
        with self._using("reading its state") as shard:
            info = shard.info()
        return CollectionInfo(
            name=self._path.name,
            points=info.points_count,
            indexed=info.indexed_vectors_count,
            segments=info.segments_count,
        )

    def upsert(self, batch: PointBatch) -> None:
        """Write points."""
        import qdrant_edge

        with self._using("writing points") as shard:
            points = [
                qdrant_edge.Point(
                    id=point,
                    vector={
                        batch.using: vector,
                        SPARSE_VECTOR: qdrant_edge.SparseVector(sparse.indices, sparse.values),
                    },
                    payload=payload,
                )
                for point, vector, sparse, payload in zip(
                    batch.ids, batch.dense, batch.sparse, batch.payloads, strict=True
                )
            ]
            shard.update(qdrant_edge.UpdateOperation.upsert_points(points))

    def replace_payloads(self, ids: Sequence[PointId], payloads: Sequence[dict[str, Any]]) -> None:
        """Replace payloads and leave vectors."""
        import qdrant_edge

        with self._using("writing payloads") as shard:
            for point, payload in zip(ids, payloads, strict=True):
                shard.update(qdrant_edge.UpdateOperation.overwrite_payload([point], payload))

    def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Payload fields of those ids that exist."""
        with self._using("reading points") as shard:
            records = shard.retrieve(list(ids), with_payload=list(fields), with_vector=False)
        return {_native_id(record.id): record.payload or {} for record in records}

    def query(self, queries: Sequence[DenseQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        import qdrant_edge

        with self._using("searching") as shard:
            requests = [query_request(query) for query in queries]
            answers = shard.query_batch(qdrant_edge.QueryBatchRequest(requests))
        return [
            [ScoredPoint(_native_id(p.id), p.score, p.payload or {}) for p in points]
            for points in answers
        ]

    def last_seq(self) -> int:
        """The highest `seq` in use, from its index."""
        import qdrant_edge

        order = qdrant_edge.OrderBy("seq", qdrant_edge.Direction.Desc)
        request = qdrant_edge.ScrollRequest(limit=1, order_by=order, with_payload=["seq"])
        with self._using("reading the last seq") as shard:
            records, _ = shard.scroll(request)
        return int(records[0].payload["seq"]) if records and records[0].payload else 0

    def flush(self) -> None:
        """Sync everything written so far."""
        with self._using("flushing") as shard:
            shard.flush()

    def optimize(self) -> None:
        """Build the indexes in a child process; queries of other threads wait meanwhile."""
        with self._using("building the index") as shard:
            try:
                shard.flush()
                shard.close()
                _run_optimize(self._path, self._lock_fd)
            finally:
                shard.close()  # closing twice is no error, leaving it open is
                self._shard = self._load()

    def close(self) -> None:
        """Close the shard; the store calls this."""
        with self._lock, _edge_errors(self._path, "closing"):
            self._shard.close()

    def leave_to_parent(self) -> None:
        """In a forked child: refuse every use from now on."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._left_to_parent = True

    @contextmanager
    def _using(self, action: str) -> Iterator[qdrant_edge.EdgeShard]:
        if self._left_to_parent:
            raise _after_fork(str(self._path))
        with self._lock, _edge_errors(self._path, action):
            yield self._shard

    def _load(self) -> qdrant_edge.EdgeShard:
        import qdrant_edge

        # What a killed optimize() left; Edge never removes it, and nobody else holds the lock.
        shutil.rmtree(self._path / "temp_segments", ignore_errors=True)
        with _edge_errors(self._path, "loading"):
            return qdrant_edge.EdgeShard.load(str(self._path))


class _Engine:
    """What the handles on one directory share."""

    def __init__(self, directory: EdgeDirectory) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.handles = 0
        self.usable = True
        self._collections: dict[str, EdgeCollection] = {}

    def collection(self, physical: str) -> EdgeCollection:
        if physical not in self._collections:
            path = self.directory.shard_path(physical)
            self._collections[physical] = EdgeCollection(path, self.directory.lock_fd)
        return self._collections[physical]

    def forget(self, physical: str) -> None:
        if (collection := self._collections.pop(physical, None)) is not None:
            collection.close()

    def leave_to_parent(self) -> None:
        self.usable = False
        for collection in self._collections.values():
            collection.leave_to_parent()
        self.directory.leave_to_parent()

    def close(self) -> None:
        if not self.usable:
            return
        with self.lock:
            try:
                for physical in list(self._collections):
                    self.forget(physical)
            finally:
                self.directory.close()


class _EngineRegistry:
    """The directories that this process has open: Edge refuses to open one twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[Path, _Engine] = {}
        self._of_parent: list[_Engine] = []

    def acquire(self, path: Path, *, create: bool) -> _Engine:
        # Resolved once: the working directory or a link may change while it is open.
        path = path.expanduser().resolve()
        with self._lock:
            engine = self._engines.get(path)
            if engine is None:
                engine = _Engine(EdgeDirectory(path, create=create))
                self._engines[path] = engine
            engine.handles += 1
            return engine

    def release(self, engine: _Engine) -> None:
        with self._lock:
            engine.handles -= 1
            if engine.handles == 0:
                # In a forked child the path may be another engine's by now.
                if self._engines.get(engine.directory.path) is engine:
                    del self._engines[engine.directory.path]
                engine.close()

    def leave_to_parent(self) -> None:
        """In a forked child: what is open stays the parent's.

        Its engines are kept, unused: their threads do not exist here, and to take them down
        without those could wait for ever.
        """
        self._lock = threading.Lock()
        self._of_parent = [*self._of_parent, *self._engines.values()]
        self._engines = {}
        for engine in self._of_parent:
            engine.leave_to_parent()


_ENGINES = _EngineRegistry()
os.register_at_fork(after_in_child=_ENGINES.leave_to_parent)


# ---- shards ---------------------------------------------------------------------------------


def _create_shard(path: Path, spec: CollectionSpec) -> None:
    import qdrant_edge

    with _edge_errors(path, "creating the collection"):
        shard = qdrant_edge.EdgeShard.create(str(path), shard_config(spec))
        for field, kind in spec.payload_indexes.items():
            schema = payload_schema(kind)
            shard.update(qdrant_edge.UpdateOperation.create_field_index(field, schema))
        shard.flush()
        shard.close()


def _run_optimize(shard: Path, lock_fd: int) -> None:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603  # our own program, a path we made
            [sys.executable, "-P", edge_optimize.__file__, str(shard)],
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=errors,
            stderr=errors,
            pass_fds=(lock_fd,),  # the directory stays locked until the child is gone, too
        )
        try:
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if status:
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise StoreError(
                f"building the index of {shard.name} ended with status {status}: "
                f"{lines[-1] if lines else 'killed'}; every passage is there, run optimize again"
            )


def _native_id(point: Any) -> PointId:
    """Edge gives an int or a UUID where its stubs also allow a string."""
    native: PointId = point
    return native


# ---- errors ---------------------------------------------------------------------------------


@contextmanager
def _edge_errors(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except MsmarcoQdrantError:
        raise
    except Exception as exc:
        raise _mapped(exc, path, action) from exc


def _mapped(exc: Exception, path: Path, action: str) -> StoreError:
    """Our error for one of Edge, which tells kinds apart by message only (0.9)."""
    message = str(exc)
    text = f"{action} in {path} failed: {message}"
    if "Vector dimension error" in message or "Not existing vector name" in message:
        return SchemaError(text)
    if "WouldBlock" in message:
        return StoreInUseError(f"{text}; another process has this collection open")
    if "No space left" in message or "Permission denied" in message:
        return StoreUnavailableError(text)
    return StoreError(text)


def _after_fork(place: str) -> StoreError:
    return StoreError(
        f"{place} was opened before this process was forked and stays the parent's: open it in "
        "one process only, after forking"
    )


def _no_collection(name: str, directory: EdgeDirectory, dsn: str) -> CollectionNotFoundError:
    known = ", ".join(sorted(directory.aliases)) or "none"
    return CollectionNotFoundError(
        f"no collection '{name}' in {dsn}; there: {known}. Pass one of them with --collection, "
        "or ingest into a new one"
    )
