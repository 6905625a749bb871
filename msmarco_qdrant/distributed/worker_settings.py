"""Settings that the workers on Ray have in common: the server, and the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.stores import Connection, Store, open_store


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of every worker of one run; they are sent to other machines.

    Attributes:
        url: URL of the server.
        connection: Its settings.
        models: The model.
        make_encoder: Makes the encoder, instead of the model.
    """

    url: str
    connection: Connection
    models: ModelChoice
    make_encoder: Callable[[], Encoder] | None

    def open_store(self) -> Store:
        """Connect to the server.

        Raises:
            StoreError: If it cannot be reached.
        """
        return open_store(self.url, connection=self.connection)
