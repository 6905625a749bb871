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

from importlib import import_module
from typing import TYPE_CHECKING

from msmarco_qdrant._version import __version__

if TYPE_CHECKING:
    from msmarco_qdrant.catalog import PUBLISHED_MODELS, PublishedModel
    from msmarco_qdrant.corpus import Corpus
    from msmarco_qdrant.encoding import Encoder, load_encoder
    from msmarco_qdrant.errors import MsmarcoQdrantError
    from msmarco_qdrant.ingest import ingest_passages
    from msmarco_qdrant.records import Bm25Settings, Hit, IngestReport, Passage, Query, Reject
    from msmarco_qdrant.search import SearchClient
    from msmarco_qdrant.stores import Store, open_store

_HOME = {
    "Bm25Settings": "records",
    "Corpus": "corpus",
    "Encoder": "encoding",
    "Hit": "records",
    "IngestReport": "records",
    "MsmarcoQdrantError": "errors",
    "PUBLISHED_MODELS": "catalog",
    "Passage": "records",
    "PublishedModel": "catalog",
    "Query": "records",
    "Reject": "records",
    "SearchClient": "search",
    "Store": "stores",
    "ingest_passages": "ingest",
    "load_encoder": "encoding",
    "open_store": "stores",
}

__all__ = [
    "PUBLISHED_MODELS",
    "Bm25Settings",
    "Corpus",
    "Encoder",
    "Hit",
    "IngestReport",
    "MsmarcoQdrantError",
    "Passage",
    "PublishedModel",
    "Query",
    "Reject",
    "SearchClient",
    "Store",
    "__version__",
    "ingest_passages",
    "load_encoder",
    "open_store",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
