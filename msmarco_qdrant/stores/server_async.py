"""Searching a Qdrant server from an event loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from msmarco_qdrant.records import DenseQuery, ScoredPoint
from msmarco_qdrant.stores import server_requests as requests
from msmarco_qdrant.stores.connection import Address, Connection
from msmarco_qdrant.stores.faults import mapped
from msmarco_qdrant.stores.retry import Retries
from msmarco_qdrant.stores.server_link import client_arguments

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient


class AsyncServerCollection:
    """A physical collection on a server; see `AsyncCollection`.

    Args:
        name: The physical collection's name.
        place: The store's DSN, for messages.
        address: Where the server is.
        connection: How it is spoken to.
    """

    def __init__(self, name: str, place: str, address: Address, connection: Connection) -> None:
        from qdrant_client import AsyncQdrantClient

        self._name = name
        self._place = place
        self._client: AsyncQdrantClient = AsyncQdrantClient(**client_arguments(address, connection))
        self._retries = Retries(connection.retry_s)

    async def query(self, queries: Sequence[DenseQuery]) -> list[list[ScoredPoint]]:
        """Answer queries in one batch."""
        asked = [requests.query_request(query, ann=True) for query in queries]
        search = partial(self._client.query_batch_points, self._name, asked)
        try:
            answers = await self._retries.call_async(search)
        except Exception as exc:
            raise mapped(exc, "searching", self._place) from exc
        return [requests.to_scored(answer.points) for answer in answers]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
