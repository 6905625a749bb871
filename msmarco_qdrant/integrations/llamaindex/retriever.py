"""A retriever of LlamaIndex."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.integrations.arguments import check_k, options_of_similar, to_options
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.integrations.llamaindex.nodes import to_node
from msmarco_qdrant.integrations.loop_clients import LoopClients
from msmarco_qdrant.search.client import SearchClient

with imports_of("llama_index", "the LlamaIndex integration", "llamaindex"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index.core.callbacks.base import CallbackManager
    from llama_index.core.schema import QueryBundle


class MsmarcoRetriever(BaseRetriever):
    """A retriever of LlamaIndex on a search client. Thread-safe.

    The client encodes the query, unless a `QueryBundle` has an embedding.

    Args:
        client: The client, which stays open.
        similarity_top_k: Number of nodes.
        search_options: Options of `SearchClient.search`, such as `{"mode": "hybrid"}`.
        callback_manager: Callbacks of LlamaIndex.

    Raises:
        UsageError: For an invalid number or option.
    """

    def __init__(
        self,
        client: SearchClient,
        *,
        similarity_top_k: int = 2,
        search_options: Mapping[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        check_k(similarity_top_k, "similarity_top_k")
        super().__init__(callback_manager=callback_manager)
        self._client = client
        self._limit = similarity_top_k
        self._options = to_options(search_options or {})
        self._loops = LoopClients(client)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        vector, options = query_bundle.embedding, self._options
        if vector is None:
            return _scored(
                self._client.search(query_bundle.query_str, limit=self._limit, **options)
            )
        known = options_of_similar({}, options)
        return _scored(self._client.similar(vector=vector, limit=self._limit, **known))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        vector, options = query_bundle.embedding, self._options
        client = await self._loops.client()
        if vector is None:
            return _scored(
                await client.search(query_bundle.query_str, limit=self._limit, **options)
            )
        known = options_of_similar({}, options)
        return _scored(await client.similar(vector=vector, limit=self._limit, **known))


def _scored(hits: Iterable[Hit]) -> list[NodeWithScore]:
    return [NodeWithScore(node=to_node(hit), score=hit.score) for hit in hits]
