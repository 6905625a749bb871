"""Search clients of workers: each opens its own, with its own copy of the model."""

from __future__ import annotations

from dataclasses import dataclass

from msmarco_qdrant.distributed.machine import named_machine
from msmarco_qdrant.distributed.worker_settings import WorkerSettings
from msmarco_qdrant.search.client import SearchClient


@dataclass(frozen=True, slots=True)
class ClientSettings(WorkerSettings):
    """Settings of the clients of every worker.

    Attributes:
        collection: The collection whose encoder is chosen; others name their models. All run with
            the options of that choice.
    """

    collection: str

    def open(self, collection: str, *, bm25_only: bool) -> SearchClient:
        """Open a client on a collection.

        Args:
            collection: Name of the collection.
            bm25_only: True to load no model.

        Raises:
            ModelNotFoundError: If this machine cannot load the model.
            ModelMismatchError: If its model is not that of the collection's vectors.
            StoreError: If the server cannot be reached.
        """
        is_main = collection == self.collection and not bm25_only
        make_encoder = self.make_encoder if is_main else None
        with named_machine():
            return SearchClient.open(
                self.url,
                collection=collection,
                model=self.models.model if is_main else None,
                encoder=None if make_encoder is None else make_encoder(),
                encoder_options=self.models.options if make_encoder is None else None,
                bm25_only=bm25_only,
                connection=self.connection,
            )
