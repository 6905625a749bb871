"""An accessor of DataFrames: `import msmarco_qdrant.integrations.pandas` adds `df.msmarco`.

A DataFrame of passages is ingested, and one with a column of queries is searched::

    passages.msmarco.ingest("./qdrant_data", model="all-MiniLM-L6-v2")
    hits = queries.msmarco.search(client, "question", limit=5)
"""

from __future__ import annotations

from os import PathLike
from typing import Any

from msmarco_qdrant.core.hits import Hits
from msmarco_qdrant.core.reports import IngestReport
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.integrations.extras import imports_of
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Store

with imports_of("pandas", "the accessor of DataFrames", "pandas"):
    import pandas as pd


@pd.api.extensions.register_dataframe_accessor("msmarco")
class MsmarcoAccessor:
    """Methods of `df.msmarco`, a DataFrame of passages or of queries."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def ingest(self, store: Store | str | PathLike[str], **options: Any) -> IngestReport:
        """Ingest the rows as passages; `**options` and errors are those of `ingest_passages`."""
        return ingest_passages(self._frame, store, **options)

    def search(self, client: SearchClient, column: str, **options: Any) -> pd.DataFrame:
        """Search for the queries of a column, in batches for encoder and engine.

        Args:
            client: The client.
            column: The column with the queries.
            **options: Those of `SearchClient.search_many`.

        Returns:
            One row per hit, with the columns of `Hits.to_pandas`, under the label of the query's
            row: `queries.join(hits)` shows both, if the labels are unique.

        Raises:
            UsageError: For an unknown column, or a query that is not a non-empty string.
        """
        if column not in self._frame.columns:
            names = ", ".join(map(repr, self._frame.columns))
            raise UsageError(f"column must be one of {names}, got {column!r}")
        found = client.search_many(self._frame[column].tolist(), **options)
        labels = self._frame.index.repeat([len(hits) for hits in found])
        return Hits(hit for hits in found for hit in hits).to_pandas().set_index(labels)
