"""The physical collection that a re-embedding fills: made, or one that is there already.

It is made like the live one: by the package's own migrations, with the live one's settings, payload
indexes and ledger. One that is there is what an interrupted run left, or what a way back left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from msmarco_qdrant.collection.create import create_physical
from msmarco_qdrant.collection.generations import Generations, giving_up_command
from msmarco_qdrant.collection.migration import CollectionPlan, load_migrations
from msmarco_qdrant.core.records import Copying, EncoderInfo, Generation
from msmarco_qdrant.errors import MigrationError, UsageError
from msmarco_qdrant.stores import Store


def prepare_shadow(
    store: Store, found: Generations, encoder_info: EncoderInfo, check: Callable[[], None]
) -> Copying:
    """What is to be copied where, for the vectors of a model.

    Args:
        store: Where.
        found: The physical collections that there are.
        encoder_info: The model.
        check: Called before each write; raises if the lock was taken away.

    Raises:
        MigrationError: If the live collection has migrations of the package pending.
        UsageError: If another re-embedding is unfinished, or what is there cannot be used.
    """
    copying = found.copying
    if copying is None:
        _check_new(found, encoder_info)
        kept = _of_model(found, encoder_info)
        copying = _new(store, found, encoder_info, check) if kept is None else found.into(kept)
        check()
        store.put_metadata(copying.target, copying.metadata)
    elif copying.metadata.encoder.fingerprint != encoder_info.fingerprint:
        raise UsageError(_other_begun(found, copying, encoder_info))
    if not copying.is_swapped and copying.target != found.metadata.previous:
        _settle(store, found, copying, check)
    return copying


def _new(
    store: Store, found: Generations, encoder_info: EncoderInfo, check: Callable[[], None]
) -> Copying:
    physical = found.next_physical
    spec = store.collection(found.live).info().spec
    indexes = {field: kind for field, kind in spec.payload_indexes.items() if field != "seq"}
    plan = CollectionPlan(physical, encoder_info, found.metadata.bm25, spec.storage, indexes)
    check()
    metadata = create_physical(
        store,
        plan,
        load_migrations(),
        copied_from=found.live,
        swaps=found.metadata.swaps + 1,
        check=check,
    )
    return Copying(found.live, physical, metadata, is_swapped=False)


def _settle(store: Store, found: Generations, copying: Copying, check: Callable[[], None]) -> None:
    """Give it what the live one has been given by migrations since it was made."""
    live, spec = (store.collection(name).info().spec for name in (copying.source, copying.target))
    changed = store.admin_collection(copying.target)
    if store.capabilities.ann:
        thresholds = store.admin_collection(copying.source).optimizers()
        if (thresholds, live.hnsw, live.storage) != (changed.optimizers(), spec.hnsw, spec.storage):
            check()
            changed.alter(replace(thresholds, **asdict(live.hnsw), **asdict(live.storage)))
    if store.capabilities.payload_indexes:
        for field, kind in live.payload_indexes.items():
            if spec.payload_indexes.get(field) != kind:
                check()
                changed.create_payload_index(field, kind)
    check()
    metadata = replace(copying.metadata, migrations=found.metadata.migrations)
    store.put_metadata(copying.target, metadata)


def _check_new(found: Generations, encoder_info: EncoderInfo) -> None:
    """Refuse a collection that has not had what a new one has had."""
    pending = [one.name for one in load_migrations() if one.name not in found.metadata.migrations]
    if pending:
        raise MigrationError(
            f"'{found.name}' has migrations pending ({', '.join(pending)}): apply them first with "
            f"`msmarco-qdrant migrate up --collection {found.name}`"
        )
    kept = found.metadata.encoder
    if kept.fingerprint == encoder_info.fingerprint:
        raise UsageError(
            f"'{found.name}' compares vectors of {encoder_info.model} by {kept.similarity}, you asked for "
            f"{encoder_info.similarity}: ingest into another collection for that"
        )


def _of_model(found: Generations, encoder_info: EncoderInfo) -> Generation | None:
    """The collection of a model that is there beside the live one."""
    for other in found.others:
        if other.metadata.encoder.fingerprint != encoder_info.fingerprint:
            continue
        if other.physical == found.metadata.previous:
            return other  # the way back, which keeps the settings that it has
        if other.metadata.bm25 != found.metadata.bm25:
            raise UsageError(
                f"{other.physical} holds vectors of {encoder_info.model}, but BM25 vectors of other "
                f"settings than '{found.name}' has now: remove it, and any other way back, with "
                f"`msmarco-qdrant migrate prune --collection {found.name} --yes`, and begin anew"
            )
        return other
    return None


def _other_begun(found: Generations, copying: Copying, encoder_info: EncoderInfo) -> str:
    begun = copying.metadata.encoder.model
    give_up = "" if copying.is_swapped else f", or give it up with {giving_up_command(found.name)}"
    return (
        f"'{found.name}' is being re-embedded with {begun} ({copying.target}), you asked for "
        f"{encoder_info.model}: finish it with --model {begun}{give_up}"
    )
