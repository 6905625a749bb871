"""Search in a Qdrant server from an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.limits import RequestLimits, at_most
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.errors import StoreAccessError, StoreError, UnsupportedError
from msmarco_qdrant.stores.connection import Address, Connection
from msmarco_qdrant.stores.error_mapping import is_limit_error, map_error
from msmarco_qdrant.stores.filters import from_id, point_filter
from msmarco_qdrant.stores.payload import page_size, to_payloads, to_scored
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.arguments import client_arguments
from msmarco_qdrant.stores.server.limits import (
    StoredLimits,
    explain_limit,
    fit_queries,
    merge_answers,
    outdated_requests,
)
from msmarco_qdrant.stores.server.retry import RequestFailures, RetryPolicy
from msmarco_qdrant.stores.server.shard_keys import KnownKeys, lacks_shard_key, wanted_values
from msmarco_qdrant.stores.server.transport import GRPC

_T = TypeVar("_T")


class AsyncServerCollection:
    """A collection on a server; see `AsyncCollection`.

    Args:
        name: The name in each request: a physical collection, or an alias.
        place: The store's DSN, for messages.
        address: The server's address, with the transport.
        connection: The connection's settings.
        limits: The collection's limits on requests.
        failures: Counts failed requests; None for a count of its own.
    """

    def __init__(
        self,
        name: str,
        place: str,
        address: Address,
        connection: Connection,
        limits: StoredLimits,
        failures: RequestFailures | None = None,
    ) -> None:
        self._name = name
        self._limits = limits
        self._place = place
        self._client: AsyncQdrantClient = AsyncQdrantClient(**client_arguments(address, connection))
        if address.transport != "rest":
            GRPC.note_use(self._client)
        self._retries = RetryPolicy(connection.retry_s, failures)

    async def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        limits = self._limits.found or await self._read_limits()
        try:
            return await self._query(queries, limits)
        except StoreError as exc:
            if lacks_shard_key(exc):
                self._limits.keys.forget()
                return await self._query(queries, limits)
            if not is_limit_error(exc):
                raise
            newer = await self._read_limits()
            if (explained := explain_limit(self._name, exc, self._place)) is not None:
                raise explained from exc
            if newer == limits:
                raise
        with outdated_requests():
            return await self._query(queries, newer)

    async def retrieve(
        self, ids: Sequence[PointId], fields: Sequence[str]
    ) -> Mapping[PointId, dict[str, Any]]:
        """Return payload fields of those ids that exist."""
        found: dict[PointId, dict[str, Any]] = {}
        for page in in_batches(map(from_id, ids), page_size(fields)):
            read = partial(self._client.retrieve, self._name, page, with_payload=list(fields))
            found.update(to_payloads(await self._call("reading points", read)))
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _query(
        self, queries: Sequence[PointQuery], limits: RequestLimits
    ) -> list[list[ScoredPoint]]:
        parts = fit_queries(self._name, queries, limits)
        known = await self._known_keys(queries, limits)
        requests = [
            convert.query_request(part, ann=True, limits=limits, keys=known) for _, part in parts
        ]
        found: list[list[ScoredPoint]] = []
        for batch in in_batches(requests, at_most(max(len(requests), 1), limits.queries)):
            search = partial(self._client.query_batch_points, self._name, batch)
            answers = await self._call("searching", search)
            found += [to_scored(answer.points) for answer in answers]
        return merge_answers(queries, [position for position, _ in parts], found)

    async def _known_keys(
        self, queries: Sequence[PointQuery], limits: RequestLimits
    ) -> KnownKeys | None:
        """Return the known shard keys, read again if one of a query is missing; None without."""
        if limits.shard_key is None:
            return None
        known = self._limits.keys
        wanted = (wanted_values(point_filter(query), limits.shard_key) for query in queries)
        if any(known.should_read(values) for values in wanted):
            read = partial(self._client.collection_cluster_info, self._name)
            try:
                known.learn(await self._call("reading the shard keys", read))
            except (StoreAccessError, UnsupportedError) as exc:
                known.cannot_read(exc)
        return known

    async def _read_limits(self) -> RequestLimits:
        read = partial(self._client.get_collection, self._name)
        return self._limits.learn(await self._call("reading the collection's state", read))

    async def _call(self, action: str, call: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await self._retries.call_async(call)
        except Exception as exc:
            raise map_error(exc, action, self._place) from exc
