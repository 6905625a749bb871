"""Create or prepare the physical collection that a re-embedding fills.

A new one is created by the package's own migrations, with the settings, payload indexes and ledger
of the live one. An existing one was left by an interrupted run or by a rollback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace

from msmarco_qdrant.collection.bulk import lasting_optimizers
from msmarco_qdrant.collection.create import create_physical
from msmarco_qdrant.collection.generations import Generations, abandon_hint
from msmarco_qdrant.collection.migration import CollectionPlan, load_migrations
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.metadata_types import Copying, Generation
from msmarco_qdrant.core.search_defaults import NO_DEFAULTS
from msmarco_qdrant.errors import MigrationError, UsageError
from msmarco_qdrant.stores import Store

_log = logging.getLogger(__name__)


def prepare_target(
    store: Store, found: Generations, encoder_info: EncoderInfo, check: Callable[[], None]
) -> Copying:
    """Choose or create the collection to fill with vectors of a model.

    `check` is called before each write; it raises if the lock was taken away.

    Raises:
        MigrationError: If the live collection has pending migrations of the package.
        UsageError: If another re-embedding is unfinished, or the existing collection of this model
            cannot be used.
    """
    copying = found.copying
    if copying is None:
        _check_live(store.dsn, found, encoder_info)
        existing = _find_existing(found, encoder_info)
        if existing is None:
            copying = _create(store, found, encoder_info, check)
        else:
            copying = found.copying_into(existing)
        check()
        store.put_metadata(copying.target, copying.metadata)
    elif not copying.metadata.encoder.is_same_model_as(encoder_info):
        begun = copying.metadata.encoder.model
        raise UsageError(
            f"model must be {begun}, because the re-embedding of '{found.name}' into "
            f"{copying.target} is not finished, got {encoder_info.model}: finish it with --model "
            f"{begun} (model={begun!r}){abandon_hint(store.dsn, found.name, copying)}"
        )
    if not copying.is_swapped and copying.target != found.metadata.previous:
        _copy_settings(store, found, copying, check)
    return copying


def _create(
    store: Store, found: Generations, encoder_info: EncoderInfo, check: Callable[[], None]
) -> Copying:
    physical = found.next_physical
    spec = store.collection(found.live).spec()
    indexes = {field: kind for field, kind in spec.payload_indexes.items() if field != "seq"}
    sharding = spec.sharding if store.capabilities.replicas else None
    bm25 = found.metadata.bm25
    plan = CollectionPlan(physical, encoder_info, bm25, spec.storage, indexes, sharding)
    if found.metadata.search_defaults != NO_DEFAULTS:
        _log.warning(
            "the search defaults of '%s', %s, were chosen for %s and are not kept: choose others "
            "for the new model with evaluate --tune --save (tune_search)",
            *(found.name, found.metadata.search_defaults.describe(), found.metadata.encoder.model),
        )
    check()
    metadata = create_physical(
        store,
        plan,
        load_migrations(),
        copied_from=found.live,
        swaps=found.metadata.swaps + 1,
        check=check,
    )
    if (tenant_field := found.metadata.tenant_field) is not None:
        metadata = replace(metadata, tenant_field=tenant_field)
        check()
        store.put_metadata(physical, metadata)
    return Copying(found.live, physical, metadata, is_swapped=False)


def _copy_settings(
    store: Store, found: Generations, copying: Copying, check: Callable[[], None]
) -> None:
    """Apply the settings and ledger that migrations have changed in the live collection."""
    live, spec = (store.collection(name).spec() for name in (copying.source, copying.target))
    admin = store.admin_collection(copying.target)
    if store.capabilities.ann:
        thresholds = lasting_optimizers(store, copying.source)
        if (thresholds, live.hnsw, live.storage) != (admin.optimizers(), spec.hnsw, spec.storage):
            check()
            admin.alter(replace(thresholds, **asdict(live.hnsw), **asdict(live.storage)))
    if store.capabilities.payload_indexes:
        for field, kind in live.payload_indexes.items():
            if spec.payload_indexes.get(field) != kind:
                check()
                admin.create_payload_index(field, kind)
    check()
    ledger = found.metadata
    metadata = replace(
        copying.metadata,
        migrations=ledger.migrations,
        user_migrations=ledger.user_migrations,
        tenant_field=ledger.tenant_field,
    )
    store.put_metadata(copying.target, metadata)


def _check_live(dsn: str, found: Generations, encoder_info: EncoderInfo) -> None:
    """Refuse pending migrations, and this model with another similarity."""
    pending = [one.name for one in load_migrations() if one.name not in found.metadata.migrations]
    if pending:
        raise MigrationError(
            f"'{found.name}' has pending migrations ({', '.join(pending)}): apply them first with "
            f"{advised_command('migrate', 'up', collection=found.name, store=dsn)}"
        )
    current = found.metadata.encoder
    if current.is_same_model_as(encoder_info):
        raise UsageError(
            f"similarity must be {current.similarity}, as in '{found.name}', which has vectors of "
            f"{encoder_info.model}, got {encoder_info.similarity}: ingest into another collection"
        )


def _find_existing(found: Generations, encoder_info: EncoderInfo) -> Generation | None:
    """Find another physical collection with vectors of a model."""
    for other in found.others:
        if not other.metadata.encoder.is_same_model_as(encoder_info):
            continue
        if other.physical == found.metadata.previous:
            return other  # a rollback keeps that collection's own settings
        if other.metadata.bm25 != found.metadata.bm25:
            raise UsageError(
                f"{other.physical} has vectors of {encoder_info.model}, but its BM25 settings "
                f"differ from those of '{found.name}': without it, a new one would be filled. To "
                "remove all old collections, after which a rollback is impossible, see "
                f"{advised_command('migrate', 'prune', '--help')}"
            )
        return other
    return None
