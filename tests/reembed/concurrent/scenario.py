"""A collection with passages, two models, and the changes between them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from msmarco_qdrant.core.reports import ReembedReport
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.status import unlock_migrations
from msmarco_qdrant.reembed.api import reembed_collection, rollback_collection
from msmarco_qdrant.stores import Store
from msmarco_qdrant.testing import HashingEncoder
from tests.engines import another_handle
from tests.reembed.concurrent.expected_passages import ExpectedPassages, make_anchors, make_passages
from tests.reembed.concurrent.traffic import Models, Traffic

NAME = "msmarco"
OLD = HashingEncoder(256)
NEW = HashingEncoder(320, salt="new")
MODELS = Models(OLD, NEW)


def fill(store: Store, passages: int, anchors: int = 5) -> ExpectedPassages:
    """Fill a new collection with vectors of the old model."""
    expected = ExpectedPassages(make_anchors(anchors), make_passages(passages))
    ingest_passages(
        [*expected.passages.values()], store, collection=NAME, encoder=OLD, optimize=False
    )
    return expected


def start_traffic(store: Store, expected: ExpectedPassages, seed: int, **options: Any) -> Traffic:
    """Start threads that each have their own handle."""
    handles: partial[AbstractContextManager[Store]] = partial(another_handle, store)
    return Traffic(handles, NAME, expected, MODELS, seed=seed, **options)


def reembed(store: Store) -> ReembedReport:
    """Change to the new model."""
    return reembed_collection(store, NAME, encoder=NEW, load_old=MODELS)


def rollback(store: Store) -> ReembedReport:
    """Change back to the old model."""
    return rollback_collection(store, NAME, encoder=OLD, load_old=MODELS)


def unlock(store: Store) -> None:
    """Release the lock of a killed process."""
    holder = store.migration_locks.holder(NAME)
    if holder is not None:
        unlock_migrations(store, NAME, holder.token)
