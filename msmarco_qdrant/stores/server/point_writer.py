"""Writes of points to one collection of a Qdrant server, in concurrent requests.

Points are written through the client's public gRPC stub with messages made in `wire`, or through
its REST client with bodies made in `json_wire`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import chain

from qdrant_client import grpc

from msmarco_qdrant.core.collection_types import PointBatch
from msmarco_qdrant.core.limits import RequestLimits, at_most
from msmarco_qdrant.runtime.daemon_executor import DaemonExecutor
from msmarco_qdrant.stores.connection import Connection
from msmarco_qdrant.stores.convert import select_rows, split_by_presence
from msmarco_qdrant.stores.server.client import ServerClient
from msmarco_qdrant.stores.server.json_wire import bound_bytes, upsert_bodies
from msmarco_qdrant.stores.server.shard_keys import ShardKeys
from msmarco_qdrant.stores.server.wire import split_sizes, upsert_requests

_Write = grpc.UpsertPoints | bytes
"""A request that writes points, by gRPC or the body of one by REST."""


class PointWriter:
    """Writes points of one collection; a request is answered when the server has synced it.

    Args:
        server: A server; the local mode has no such requests.
        name: The collection's name.
        senders: The threads that send.
        connection: The size of a request, and how many are in flight.
        keys: The shard keys of the collection.
    """

    def __init__(
        self,
        server: ServerClient,
        name: str,
        senders: DaemonExecutor,
        connection: Connection,
        keys: ShardKeys,
    ) -> None:
        self._server = server
        self._name = name
        self._senders = senders
        self._connection = connection
        self._keys = keys

    def upsert(self, batch: PointBatch, limits: RequestLimits) -> None:
        """Write points."""
        self._send(self._requests(batch, limits))

    def upsert_if_seq(
        self, batch: PointBatch, seen: Sequence[int | None], limits: RequestLimits
    ) -> None:
        """Write points whose stored `seq` is still the one seen."""
        existing, seqs, absent = split_by_presence(batch, seen)
        inserts = self._requests(absent, limits, [None] * len(absent.ids))
        self._send(chain(inserts, self._requests(existing, limits, seqs)))

    def split(self, sizes: Iterable[int], limits: RequestLimits) -> Iterator[tuple[int, int]]:
        """Split payloads or vectors into requests; yield the start and end of each.

        Args:
            sizes: The bytes of each payload or vector.
            limits: The collection's limits.
        """
        limit = self._connection.batch_bytes
        if self._server.is_rest:
            limit = bound_bytes(limit)
        return split_sizes(sizes, at_most(self._connection.batch_points, limits.upserted), limit)

    def _requests(
        self, batch: PointBatch, limits: RequestLimits, seen: Sequence[int | None] | None = None
    ) -> Iterator[_Write]:
        """Yield the requests that write a batch, each to the shards of one key if it has keys."""
        if limits.shard_key is None:
            yield from self._requests_of(batch, limits, seen, None)
            return
        for key, rows in self._keys.rows(batch.payloads, limits.shard_key).items():
            part = None if seen is None else [seen[row] for row in rows]
            yield from self._requests_of(select_rows(batch, rows), limits, part, key)

    def _requests_of(
        self,
        batch: PointBatch,
        limits: RequestLimits,
        seen: Sequence[int | None] | None,
        key: str | None,
    ) -> Iterator[_Write]:
        """Yield the requests that write points to the shards of one key, or of none."""
        size, count = self._connection.batch_bytes, self._connection.batch_points
        count = at_most(count, limits.upserted)
        if seen is not None:  # each point has an id and a `seq`, or all ids are in one condition
            each = None if limits.conditions is None else limits.conditions // 2
            count = at_most(count, each, limits.condition_size)
        if self._server.is_rest:
            return upsert_bodies(batch, max_points=count, max_bytes=size, seen=seen, shard_key=key)
        return upsert_requests(
            self._name, batch, max_points=count, max_bytes=size, seen=seen, shard_key=key
        )

    def _send(self, requests: Iterable[_Write]) -> None:
        """Send writes concurrently; return when all have been answered or have failed."""
        self._server.check_open()  # in a forked child, the senders would wait for ever
        in_flight: list[Future[None]] = []
        errors: list[BaseException | None] = []
        try:
            for request in requests:
                if len(in_flight) >= self._connection.in_flight:
                    in_flight.pop(0).result()
                in_flight.append(self._submit(request))
        except Exception as exc:  # noqa: BLE001  # raised below, when no request is in flight
            errors.append(exc)
        errors += [future.exception() for future in in_flight]
        for error in errors:
            if error is not None:
                raise error

    def _submit(self, request: _Write) -> Future[None]:
        try:
            return self._senders.submit(self._send_one, request)
        except RuntimeError:  # another thread has closed the store
            self._server.check_open()
            raise

    def _send_one(self, request: _Write) -> None:
        if isinstance(request, bytes):
            self._server.call("writing points", self._put, request)
        else:
            write, timeout_s = self._server.client.grpc_points.Upsert, self._connection.timeout_s
            self._server.call("writing points", write, request, timeout=timeout_s)

    def _put(self, body: bytes) -> None:
        """Write points by REST; answered when they are durable."""
        self._server.client.http.client.request(
            type_=dict,
            method="PUT",
            url="/collections/{collection_name}/points",
            path_params={"collection_name": self._name},
            params={"wait": "true"},
            headers={"Content-Type": "application/json"},
            content=body,
        )
