"""Search in a Qdrant server from an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.core.records import PointId
from msmarco_qdrant.core.search_types import PointQuery, ScoredPoint
from msmarco_qdrant.stores.connection import Address, Connection
from msmarco_qdrant.stores.error_mapping import map_error
from msmarco_qdrant.stores.filters import from_id
from msmarco_qdrant.stores.payload import page_size, to_payloads, to_scored
from msmarco_qdrant.stores.server import convert
from msmarco_qdrant.stores.server.arguments import client_arguments
from msmarco_qdrant.stores.server.retry import RetryPolicy

_T = TypeVar("_T")


class AsyncServerCollection:
    """A collection on a server; see `AsyncCollection`.

    Args:
        name: The name in each request: a physical collection, or an alias.
        place: The store's DSN, for messages.
        address: The server's address, with the transport.
        connection: The connection's settings.
    """

    def __init__(self, name: str, place: str, address: Address, connection: Connection) -> None:
        self._name = name
        self._place = place
        self._client: AsyncQdrantClient = AsyncQdrantClient(**client_arguments(address, connection))
        self._retries = RetryPolicy(connection.retry_s)

    async def query(self, queries: Sequence[PointQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        requests = [convert.query_request(query, ann=True) for query in queries]
        search = partial(self._client.query_batch_points, self._name, requests)
        answers = await self._call("searching", search)
        return [to_scored(answer.points) for answer in answers]

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

    async def _call(self, action: str, call: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await self._retries.call_async(call)
        except Exception as exc:
            raise map_error(exc, action, self._place) from exc
