"""MS MARCO passage search in Qdrant.

Give it passages, and it answers search phrases::

    from msmarco_qdrant import SearchClient, ingest_passages

    ingest_passages("collection.tsv", "./qdrant_data", collection="msmarco")
    with SearchClient.open("./qdrant_data", collection="msmarco") as client:
        for hit in client.search("how big is london", limit=5):
            print(hit.rank, hit.score, hit.pid, hit.text)

The names below are the public ones; they are imported when first used, so that importing the
package costs neither torch nor an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant._lazy import lazily
from msmarco_qdrant._version import __version__

if TYPE_CHECKING:
    from msmarco_qdrant.async_search import AsyncSearchClient
    from msmarco_qdrant.catalog import PUBLISHED_MODELS, PublishedModel
    from msmarco_qdrant.corpus import Corpus
    from msmarco_qdrant.creation import drop_collection
    from msmarco_qdrant.encode import encode_corpus
    from msmarco_qdrant.encoding import (
        Encoder,
        EncoderOptions,
        Reranker,
        load_encoder,
        load_reranker,
    )
    from msmarco_qdrant.errors import MsmarcoQdrantError
    from msmarco_qdrant.filters import Exists, MetaFilter, Not, Range
    from msmarco_qdrant.ingest import ingest_passages
    from msmarco_qdrant.inspection import describe_store
    from msmarco_qdrant.migrate import migrate_collection, migration_status
    from msmarco_qdrant.passages import delete_passages, export_passages, get_passages
    from msmarco_qdrant.records import (
        Bm25Settings,
        Passage,
        PrunePolicy,
        Query,
        Reject,
        StorageSettings,
    )
    from msmarco_qdrant.reembed import (
        prune_collection,
        reembed_collection,
        rollback_collection,
    )
    from msmarco_qdrant.reports import EncodeReport, IngestReport, ReembedProgress, ReembedReport
    from msmarco_qdrant.search import SearchClient
    from msmarco_qdrant.search_records import Fusion, Hit
    from msmarco_qdrant.search_request import SearchOptions
    from msmarco_qdrant.stores import Connection, Store, open_store
    from msmarco_qdrant.vector_shards import VectorShards

_HOME = {
    "AsyncSearchClient": "async_search",
    "Bm25Settings": "records",
    "Connection": "stores",
    "Corpus": "corpus",
    "EncodeReport": "reports",
    "Encoder": "encoding",
    "EncoderOptions": "encoding",
    "Exists": "filters",
    "Fusion": "search_records",
    "Hit": "search_records",
    "IngestReport": "reports",
    "MetaFilter": "filters",
    "MsmarcoQdrantError": "errors",
    "Not": "filters",
    "PUBLISHED_MODELS": "catalog",
    "Passage": "records",
    "PrunePolicy": "records",
    "PublishedModel": "catalog",
    "Query": "records",
    "Range": "filters",
    "ReembedProgress": "reports",
    "ReembedReport": "reports",
    "Reject": "records",
    "Reranker": "encoding",
    "SearchClient": "search",
    "SearchOptions": "search_request",
    "StorageSettings": "records",
    "Store": "stores",
    "VectorShards": "vector_shards",
    "delete_passages": "passages",
    "describe_store": "inspection",
    "drop_collection": "creation",
    "encode_corpus": "encode",
    "export_passages": "passages",
    "get_passages": "passages",
    "ingest_passages": "ingest",
    "load_encoder": "encoding",
    "load_reranker": "encoding",
    "migrate_collection": "migrate",
    "migration_status": "migrate",
    "open_store": "stores",
    "prune_collection": "reembed",
    "reembed_collection": "reembed",
    "rollback_collection": "reembed",
}

__all__ = [
    "PUBLISHED_MODELS",
    "AsyncSearchClient",
    "Bm25Settings",
    "Connection",
    "Corpus",
    "EncodeReport",
    "Encoder",
    "EncoderOptions",
    "Exists",
    "Fusion",
    "Hit",
    "IngestReport",
    "MetaFilter",
    "MsmarcoQdrantError",
    "Not",
    "Passage",
    "PrunePolicy",
    "PublishedModel",
    "Query",
    "Range",
    "ReembedProgress",
    "ReembedReport",
    "Reject",
    "Reranker",
    "SearchClient",
    "SearchOptions",
    "StorageSettings",
    "Store",
    "VectorShards",
    "__version__",
    "delete_passages",
    "describe_store",
    "drop_collection",
    "encode_corpus",
    "export_passages",
    "get_passages",
    "ingest_passages",
    "load_encoder",
    "load_reranker",
    "migrate_collection",
    "migration_status",
    "open_store",
    "prune_collection",
    "reembed_collection",
    "rollback_collection",
]


__getattr__ = lazily(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
