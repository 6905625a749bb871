"""Changing a collection of a Qdrant server that holds points.

The server builds anew what was built by the old settings, in the background, segment by segment,
and answers from the old segments meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import (
    PayloadIndex,
    PointBatch,
    PointId,
    Quantization,
    SettingsChange,
    SparseVector,
)
from msmarco_qdrant.errors import UnsupportedError
from msmarco_qdrant.stores.base import select_rows, split_by_presence
from msmarco_qdrant.stores.connection import Connection
from msmarco_qdrant.stores.filters import from_id
from msmarco_qdrant.stores.payload import SPARSE_VECTOR, page_size, seq_bound, sort_tokens
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.collection import ServerCollection
from msmarco_qdrant.stores.server.wire import sparse_bytes, split_sizes, upsert_requests

if TYPE_CHECKING:
    from qdrant_client import grpc, models

_TURBOQUANT = (1, 18)
"""The first server that has it; one before would overlook what it does not know."""


class ServerAdminCollection:
    """A collection to be changed; see `AdminCollection` for what its methods promise."""

    def __init__(
        self, server: ServerClient, name: str, connection: Connection, collection: ServerCollection
    ) -> None:
        self._server = server
        self._client = server.client
        self._name = name
        self._connection = connection
        self._collection = collection

    def alter(self, change: SettingsChange) -> None:
        """Change settings; the server begins to build anew what they concern."""
        check_quantization(self._server, change.quantization)
        self._need_server("settings of an index")
        read = partial(self._client.get_collection, self._name)
        dense = convert.to_spec(self._server.call("reading its settings", read)).dense
        arguments = convert.update_arguments(dense, change)
        update = partial(self._client.update_collection, self._name, **arguments)
        self._server.call("changing its settings", update)

    def optimizers(self) -> SettingsChange:
        """The thresholds in force; a server tells its own defaults, too."""
        if not self._server.is_remote:
            return SettingsChange()
        read = partial(self._client.get_collection, self._name)
        told = self._server.call("reading its settings", read).config.optimizer_config
        return SettingsChange(
            indexing_threshold_kb=told.indexing_threshold,
            max_segment_size_kb=told.max_segment_size,
        )

    def create_payload_index(self, field: str, kind: PayloadIndex) -> None:
        """Index a payload field."""
        self._need_server("payload indexes")
        create = partial(
            self._client.create_payload_index,
            self._name,
            field,
            convert.field_schema(kind),
            wait=True,
        )
        self._server.call("creating a payload index", create)

    def drop_payload_index(self, field: str) -> None:
        """Remove the index of a payload field."""
        self._need_server("payload indexes")
        drop = partial(self._client.delete_payload_index, self._name, field, wait=True)
        self._server.call("removing a payload index", drop)

    def sparse_vectors(self, ids: Sequence[PointId]) -> Mapping[PointId, SparseVector]:
        """Sparse vectors of those ids that exist."""
        found: dict[PointId, SparseVector] = {}
        for page in in_batches(map(from_id, ids), page_size(())):
            read = partial(
                self._client.retrieve,
                self._name,
                page,
                with_payload=False,
                with_vectors=[SPARSE_VECTOR],
            )
            for record in self._server.call("reading sparse vectors", read):
                vectors: Any = record.vector or {}
                if (sparse := vectors.get(SPARSE_VECTOR)) is not None:
                    found[convert.to_id(record.id)] = sort_tokens(sparse.indices, sparse.values)
        return found

    def replace_sparse(
        self, ids: Sequence[PointId], vectors: Sequence[SparseVector], *, up_to_seq: int
    ) -> None:
        """Replace sparse vectors."""
        from qdrant_client import models

        old = models.FieldCondition(key="seq", range=models.Range(lte=seq_bound(up_to_seq)))
        rows: list[models.PointVectors] = [
            models.PointVectors(
                id=from_id(id_),
                vector={
                    SPARSE_VECTOR: models.SparseVector(indices=sparse.indices, values=sparse.values)
                },
            )
            for id_, sparse in zip(ids, vectors, strict=True)
        ]
        sizes = map(sparse_bytes, vectors)
        for start, stop in split_sizes(
            sizes, self._connection.batch_points, self._connection.batch_bytes
        ):
            update = partial(
                self._client.update_vectors,
                self._name,
                rows[start:stop],
                wait=True,
                update_filter=models.Filter(must=[old]),
            )
            self._server.call("writing sparse vectors", update)

    def upsert_if_seq(self, batch: PointBatch, seen: Sequence[int | None]) -> None:
        """Write points where what is there is as it was seen."""
        if not self._server.is_remote:
            expected = dict(zip(batch.ids, seen, strict=True))
            write = partial(self._write_over_here, batch, expected)
            self._server.call("writing points", write)
            return
        there, seqs, absent = split_by_presence(batch, seen)
        self._collection.send(
            chain(self._requests(absent, [None] * len(absent.ids)), self._requests(there, seqs))
        )

    def _requests(
        self, batch: PointBatch, seen: Sequence[int | None]
    ) -> Iterator[grpc.UpsertPoints]:
        return upsert_requests(
            self._name,
            batch,
            max_points=self._connection.batch_points,
            max_bytes=self._connection.batch_bytes,
            seen=seen,
        )

    def _write_over_here(self, batch: PointBatch, expected: Mapping[PointId, int | None]) -> None:
        """The local mode looks at a filter's conditions one by one; here nobody comes between."""
        ids = list(map(from_id, batch.ids))
        records = self._client.retrieve(self._name, ids, with_payload=["seq"])
        found = {
            id_: payload.get("seq", -1)  # what something else wrote is nothing that was seen
            for id_, payload in convert.to_payloads(records).items()
        }
        rows = [row for row, id_ in enumerate(batch.ids) if found.get(id_) == expected[id_]]
        if rows:
            self._client.upsert(self._name, convert.point_structs(select_rows(batch, rows)))

    def _need_server(self, what: str) -> None:
        if not self._server.is_remote:
            raise UnsupportedError(f"{self._server.place} has no {what}: it compares every vector")


def check_quantization(server: ServerClient, wanted: Quantization | None) -> None:
    """Refuse what would be overlooked.

    Raises:
        UnsupportedError: If vectors cannot be quantized so there.
    """
    if wanted in (None, "none"):
        return
    if not server.is_remote:
        raise UnsupportedError(
            f"{server.place} cannot quantize vectors: leave quantization at 'none'"
        )
    if wanted == "turbo4" and (found := server.version()) < _TURBOQUANT:
        raise UnsupportedError(
            f"the server at {server.place} is Qdrant {'.'.join(map(str, found))}, which has no "
            f"TurboQuant: quantization 'turbo4' needs {'.'.join(map(str, _TURBOQUANT))} or later"
        )
