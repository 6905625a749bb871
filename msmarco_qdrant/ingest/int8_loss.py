"""The loss of vectors in int8, in the metadata of their collection."""

from __future__ import annotations

import logging
from dataclasses import replace

from msmarco_qdrant.collection.metadata import change_metadata
from msmarco_qdrant.core.encoder_types import Int8Loss, worst_loss
from msmarco_qdrant.core.metadata_types import CollectionMetadata
from msmarco_qdrant.errors import StoreError
from msmarco_qdrant.ingest.alias_guard import AliasGuard

_log = logging.getLogger(__name__)


def keep_loss(guard: AliasGuard, loss: Int8Loss) -> bool:
    """Keep the loss with the collection, unless it has a larger one; True if it is kept.

    False without the right to write metadata, or while a migration runs, which is logged.
    """

    def add(metadata: CollectionMetadata) -> CollectionMetadata:
        return replace(metadata, int8_loss=worst_loss([metadata.int8_loss, loss]))

    if add(guard.metadata) == guard.metadata:
        return True
    try:
        change_metadata(guard.store, guard.physical, add)
    except StoreError as exc:
        _log.info("collection '%s' does not keep the loss of int8 yet: %s", guard.name, exc)
        return False
    return True
