"""Changes to a collection with points on a Qdrant server.

The server rebuilds indexes of former settings in the background, segment by segment, and answers
from the old segments until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from qdrant_client import models

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import (
    PayloadIndex,
    PointBatch,
    PointId,
    Quantization,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.core.limits import RequestLimits, at_most
from msmarco_qdrant.errors import StoreError, UnsupportedError
from msmarco_qdrant.stores.convert import select_rows
from msmarco_qdrant.stores.filters import from_id
from msmarco_qdrant.stores.payload import (
    SPARSE_VECTOR,
    page_size,
    seq_bound,
    to_all_sparse_vectors,
    to_dense_vectors,
    to_payloads,
    to_point_batch,
)
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.collection import ServerCollection
from msmarco_qdrant.stores.server.shard_keys import lacks_shards
from msmarco_qdrant.stores.server.wire import sparse_bytes

_TURBOQUANT = (1, 18)
"""The first server version with TurboQuant."""


class ServerAdminCollection(ServerCollection):
    """A collection to be changed; see `AdminCollection` for its methods."""

    def alter(self, change: SettingsChange) -> None:
        """Change settings; the server starts to rebuild what they concern."""
        check_quantization(self._server, change.quantization)
        self._require_server("settings of an index")
        arguments = convert.update_arguments(convert.to_spec(self.read_info()).dense, change)
        self._call("changing its settings", self._client.update_collection, **arguments)

    def optimizers(self) -> SettingsChange:
        """Return the thresholds in force; a server reports its defaults, too."""
        if not self._server.is_remote:
            return SettingsChange()
        config = self.read_info().config.optimizer_config
        return SettingsChange(
            indexing_threshold_kb=config.indexing_threshold,
            max_segment_size_kb=config.max_segment_size,
        )

    def create_payload_index(self, field: str, kind: PayloadIndex) -> None:
        """Index a payload field."""
        self._require_server("payload indexes")
        create, schema = self._client.create_payload_index, convert.index_schema(kind)
        self._change_index("creating a payload index", create, field, schema)

    def drop_payload_index(self, field: str) -> None:
        """Remove the index of a payload field."""
        self._require_server("payload indexes")
        drop = self._client.delete_payload_index
        self._change_index("removing a payload index", drop, field)

    def _change_index(self, action: str, method: Callable[..., Any], *args: Any) -> None:
        try:
            self._call(action, method, *args, wait=True)
        except StoreError as exc:
            # Before 1.17, Qdrant records it for shards that will be created, and then fails.
            if not lacks_shards(exc):
                raise

    def sparse_vectors(self, ids: Sequence[PointId]) -> Mapping[PointId, SparseVector]:
        """Return the sparse vectors of those ids that exist."""
        found: dict[PointId, SparseVector] = {}
        for page in in_batches(map(from_id, ids), page_size(())):
            read, names = self._client.retrieve, [SPARSE_VECTOR]
            records = self._call(
                "reading sparse vectors",
                read,
                page,
                with_payload=False,
                with_vectors=names,
                consistency=models.ReadConsistencyType.ALL,
            )
            found.update(to_all_sparse_vectors(records))
        return found

    def scan_points(self) -> Iterator[PointBatch]:
        """Yield every point with its vectors and whole payload, as one active replica has it.

        Each write that was acknowledged is on all of them. Asking all of them would leave out
        points with a newer write that failed on some, and end at the first such page.
        """
        dense = convert.to_spec(self.read_info()).dense
        offset: models.ExtendedPointId | None = None

        def read(limits: RequestLimits) -> Any:
            limit, scroll = at_most(page_size(("text",)), limits.points), self._client.scroll
            options = {"with_payload": True, "with_vectors": True}
            return self._call("reading points", scroll, limit=limit, offset=offset, **options)

        while True:
            records, offset = self.within_limits(read)
            yield to_point_batch(records, dense)
            if offset is None:
                return

    def dense_vectors(self, ids: Sequence[PointId], name: str) -> Mapping[PointId, Sequence[float]]:
        """Return the dense vectors of those ids that have one."""
        found: dict[PointId, Sequence[float]] = {}
        for page in in_batches(map(from_id, ids), page_size(())):
            read, names = self._client.retrieve, [name]
            records = self._call(
                "reading vectors", read, page, with_payload=False, with_vectors=names
            )
            found.update(to_dense_vectors(records, name))
        return found

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Replace sparse vectors."""
        old = models.FieldCondition(key="seq", range=models.Range(lte=seq_bound(up_to_seq)))
        rows: list[models.PointVectors] = [
            models.PointVectors(id=from_id(id_), vector={SPARSE_VECTOR: convert.from_sparse(row)})
            for id_, row in zip(ids, vectors, strict=True)
        ]
        update, condition = self._client.update_vectors, models.Filter(must=[old])

        def write(limits: RequestLimits) -> None:
            for start, stop in self._writer.split(map(sparse_bytes, vectors), limits):
                for where, part in self._located(rows[start:stop], limits):
                    options = {"wait": True, "update_filter": condition, **where}
                    self._call("writing sparse vectors", update, part, **options)

        self.within_limits(write)

    def upsert_if_seq(self, batch: PointBatch, seen: Sequence[int | None]) -> None:
        """Write points whose stored `seq` is still the one seen."""
        if not self._server.is_remote:
            expected = dict(zip(batch.ids, seen, strict=True))
            self._server.call("writing points", self._upsert_locally, batch, expected)
            return
        self.within_limits(partial(self._writer.upsert_if_seq, batch, seen))

    def set_payloads_if_seq(
        self,
        ids: Sequence[PointId],
        payloads: Sequence[dict[str, Any]],
        seen: Sequence[int | None],
    ) -> None:
        """Set payload fields of points whose stored `seq` is still the one seen."""

        def operations(limits: RequestLimits) -> list[models.UpdateOperation]:
            return [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(
                        payload=payload,
                        filter=convert.select_unchanged([id_], [seq]),
                        shard_key=where.get("shard_key_selector"),
                    )
                )
                for where in self._keys.everywhere(limits.shard_key)
                for id_, payload, seq in zip(ids, payloads, seen, strict=True)
            ]

        self._update(operations, payloads)

    def delete_if_seq(self, ids: Sequence[PointId], seen: Sequence[int | None]) -> None:
        """Delete points whose stored `seq` is still the one seen."""

        def delete(limits: RequestLimits) -> None:
            each = None if limits.conditions is None else limits.conditions // 2
            count = at_most(self._connection.batch_points, each, limits.condition_size)
            for page in in_batches(zip(ids, seen, strict=True), count):
                chosen = convert.select_unchanged(*map(list, zip(*page, strict=True)))
                self._delete(models.FilterSelector(filter=chosen), limits)

        self.within_limits(delete)

    def _located(
        self, rows: Sequence[models.PointVectors], limits: RequestLimits
    ) -> Iterator[tuple[dict[str, Any], Sequence[models.PointVectors]]]:
        """Yield vectors of existing points by shard key, with the arguments for their shards.

        Those of a point that does not exist are with the first key, where the write then fails.
        """
        if limits.shard_key is None:
            yield {}, rows
            return
        ids, read = [row.id for row in rows], self._client.retrieve
        found = self._call("finding the shards of points", read, ids, with_payload=False)
        keys = {record.id: str(record.shard_key) for record in found}
        groups: dict[str, list[models.PointVectors]] = {key: [] for key in self._keys.read()}
        first = next(iter(groups), "")
        for row in rows:
            groups.setdefault(keys.get(row.id, first), []).append(row)
        for key, part in groups.items():
            if part:
                yield {"shard_key_selector": key}, part

    def _upsert_locally(self, batch: PointBatch, expected: Mapping[PointId, int | None]) -> None:
        """Read, compare and write: the local mode has no such write, and one caller at a time."""
        ids = list(map(from_id, batch.ids))
        records = self._client.retrieve(self._name, ids, with_payload=["seq"])
        found = {
            id_: payload.get("seq", -1)  # a point of another program never has a seen `seq`
            for id_, payload in to_payloads(records).items()
        }
        rows = [row for row, id_ in enumerate(batch.ids) if found.get(id_) == expected[id_]]
        if rows:
            self._client.upsert(self._name, convert.point_structs(select_rows(batch, rows)))

    def _require_server(self, feature: str) -> None:
        if not self._server.is_remote:
            raise UnsupportedError(
                f"{self._server.place} has no {feature}: it compares every vector"
            )


def check_quantization(server: ServerClient, wanted: Quantization | None) -> None:
    """Check that the server supports a quantization; an older one would ignore it.

    Raises:
        UnsupportedError: If it does not.
    """
    if wanted in (None, "none"):
        return
    if not server.is_remote:
        raise UnsupportedError(
            f"{server.place} cannot quantize vectors: leave quantization at 'none'"
        )
    if wanted == "turbo4" and (found := server.version()) < _TURBOQUANT:
        raise UnsupportedError(
            f"quantization 'turbo4' needs Qdrant {'.'.join(map(str, _TURBOQUANT))} or later, got "
            f"{'.'.join(map(str, found))} at {server.place}"
        )
