"""Search clients of workers: each opens its own, with its own copy of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msmarco_qdrant.distributed.machine import named_machine
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import Connection


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Settings of the clients of every worker; they are sent to other machines.

    Attributes:
        url: URL of the server.
        connection: Its settings.
        collection: The collection whose model is chosen; others name theirs.
        models: Its model, and how to run all of them.
        make_encoder: Makes its encoder, instead of a model.
    """

    url: str
    connection: Connection
    collection: str
    models: ModelChoice
    make_encoder: Callable[[], Encoder] | None

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
                encoder_options=self.models.options,
                bm25_only=bm25_only,
                connection=self.connection,
            )
