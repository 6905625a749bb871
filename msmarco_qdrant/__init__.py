"""MS MARCO passage search in Qdrant.

Ingest passages, then search them::

    from msmarco_qdrant import SearchClient, ingest_passages

    ingest_passages("collection.tsv", "./qdrant_data", collection="msmarco")
    with SearchClient.open("./qdrant_data", collection="msmarco") as client:
        for hit in client.search("how big is london", limit=5):
            print(hit.rank, hit.score, hit.pid, hit.text)

The names in `__all__` are public. Each is imported on first use, so that an import of the package
loads neither torch nor an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmarco_qdrant.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from msmarco_qdrant.collection.backup import backup_collection
    from msmarco_qdrant.collection.check import CheckReport, check_collection
    from msmarco_qdrant.collection.create import drop_collection
    from msmarco_qdrant.collection.describe import describe_store
    from msmarco_qdrant.collection.facets import count_facets
    from msmarco_qdrant.collection.foreign_passages import ForeignPassages
    from msmarco_qdrant.collection.link import link_collection
    from msmarco_qdrant.collection.metadata import save_search_defaults
    from msmarco_qdrant.collection.optimize import optimize_collection
    from msmarco_qdrant.collection.passages import (
        count_passages,
        delete_passages,
        export_passages,
        get_passages,
        list_passages,
    )
    from msmarco_qdrant.collection.restore import restore_collection
    from msmarco_qdrant.collection.scroll import scroll_passages
    from msmarco_qdrant.core.collection_types import Bm25Settings, ShardSettings, StorageSettings
    from msmarco_qdrant.core.encoder_types import Prompts
    from msmarco_qdrant.core.example import Example
    from msmarco_qdrant.core.hits import Hits
    from msmarco_qdrant.core.records import Passage, PrunePolicy, Query, Reject
    from msmarco_qdrant.core.reports import (
        BackupReport,
        EncodeReport,
        IngestReport,
        ReembedProgress,
        ReembedReport,
        RestoreReport,
        UpsertReport,
    )
    from msmarco_qdrant.core.search_defaults import SearchDefaults
    from msmarco_qdrant.core.search_types import Facet, Fusion, Hit
    from msmarco_qdrant.encode.api import encode_corpus
    from msmarco_qdrant.encoding import (
        Encoder,
        EncoderOptions,
        Reranker,
        load_encoder,
        load_reranker,
    )
    from msmarco_qdrant.encoding.catalog import PUBLISHED_MODELS, PublishedModel
    from msmarco_qdrant.errors import MsmarcoQdrantError
    from msmarco_qdrant.filters import (
        All,
        Any,
        Exists,
        GeoRadius,
        MetaFilter,
        Not,
        Range,
        Text,
    )
    from msmarco_qdrant.ingest.api import ingest_passages
    from msmarco_qdrant.migrate.indexes import add_index, list_indexes, remove_index
    from msmarco_qdrant.migrate.runner import migrate_collection
    from msmarco_qdrant.migrate.status import migration_status
    from msmarco_qdrant.migrate.tenants import set_tenant_field
    from msmarco_qdrant.reembed.api import prune_collection, reembed_collection, rollback_collection
    from msmarco_qdrant.search.async_client import AsyncSearchClient
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.search.options import SearchOptions
    from msmarco_qdrant.sources.corpus import Corpus
    from msmarco_qdrant.sources.preview import SourcePreview, preview_sources
    from msmarco_qdrant.sources.vector_shards import VectorShards
    from msmarco_qdrant.stores import Connection, Store, open_store

__version__ = "0.1.0"

_MODULES = {
    "collection.backup": "backup_collection",
    "collection.create": "drop_collection",
    "collection.describe": "describe_store",
    "collection.check": "CheckReport check_collection",
    "collection.facets": "count_facets",
    "collection.foreign_passages": "ForeignPassages",
    "collection.link": "link_collection",
    "collection.metadata": "save_search_defaults",
    "collection.optimize": "optimize_collection",
    "collection.passages": (
        "count_passages delete_passages export_passages get_passages list_passages"
    ),
    "collection.restore": "restore_collection",
    "core.collection_types": "Bm25Settings ShardSettings StorageSettings",
    "core.encoder_types": "Prompts",
    "collection.scroll": "scroll_passages",
    "core.example": "Example",
    "core.hits": "Hits",
    "core.records": "Passage PrunePolicy Query Reject",
    "core.reports": "BackupReport EncodeReport IngestReport ReembedProgress ReembedReport "
    "RestoreReport UpsertReport",
    "core.search_defaults": "SearchDefaults",
    "core.search_types": "Facet Fusion Hit",
    "encode.api": "encode_corpus",
    "encoding": "Encoder EncoderOptions Reranker load_encoder load_reranker",
    "encoding.catalog": "PUBLISHED_MODELS PublishedModel",
    "errors": "MsmarcoQdrantError",
    "filters": "All Any Exists GeoRadius MetaFilter Not Range Text",
    "ingest.api": "ingest_passages",
    "migrate.indexes": "add_index list_indexes remove_index",
    "migrate.runner": "migrate_collection",
    "migrate.status": "migration_status",
    "migrate.tenants": "set_tenant_field",
    "reembed.api": "prune_collection reembed_collection rollback_collection",
    "search.async_client": "AsyncSearchClient",
    "search.client": "SearchClient",
    "search.options": "SearchOptions",
    "sources.corpus": "Corpus",
    "sources.preview": "SourcePreview preview_sources",
    "sources.vector_shards": "VectorShards",
    "stores": "Connection Store open_store",
}

__all__ = [
    "PUBLISHED_MODELS",
    "All",
    "Any",
    "AsyncSearchClient",
    "BackupReport",
    "Bm25Settings",
    "CheckReport",
    "Connection",
    "Corpus",
    "EncodeReport",
    "Encoder",
    "EncoderOptions",
    "Example",
    "Exists",
    "Facet",
    "ForeignPassages",
    "Fusion",
    "GeoRadius",
    "Hit",
    "Hits",
    "IngestReport",
    "MetaFilter",
    "MsmarcoQdrantError",
    "Not",
    "Passage",
    "Prompts",
    "PrunePolicy",
    "PublishedModel",
    "Query",
    "Range",
    "ReembedProgress",
    "ReembedReport",
    "Reject",
    "Reranker",
    "RestoreReport",
    "SearchClient",
    "SearchDefaults",
    "SearchOptions",
    "ShardSettings",
    "SourcePreview",
    "StorageSettings",
    "Store",
    "Text",
    "UpsertReport",
    "VectorShards",
    "__version__",
    "add_index",
    "backup_collection",
    "check_collection",
    "count_facets",
    "count_passages",
    "delete_passages",
    "describe_store",
    "drop_collection",
    "encode_corpus",
    "export_passages",
    "get_passages",
    "ingest_passages",
    "link_collection",
    "list_indexes",
    "list_passages",
    "load_encoder",
    "load_reranker",
    "migrate_collection",
    "migration_status",
    "open_store",
    "optimize_collection",
    "preview_sources",
    "prune_collection",
    "reembed_collection",
    "remove_index",
    "restore_collection",
    "rollback_collection",
    "save_search_defaults",
    "scroll_passages",
    "set_tenant_field",
]


__getattr__ = lazy_attributes(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)
