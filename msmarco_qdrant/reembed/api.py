"""Change the model of a collection that is in use, and go back.

A second physical collection is filled next to the live one, the alias is repointed to it, and the
writes that the old one received until then are copied (`reembed.run`). A rollback does the same in
the other direction, into the old collection, which exists until it is pruned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from os import PathLike
from typing import TypeAlias

from msmarco_qdrant.collection.generations import (
    Generations,
    abandon_command,
    read_generations,
    reembed_command,
)
from msmarco_qdrant.collection.replicas import most_points
from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.metadata_types import CollectionMetadata, Copying, Generation
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import ReembedProgress, ReembedReport
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import check_encoder
from msmarco_qdrant.encoding.matching import require_same_model
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.errors import MigrationError
from msmarco_qdrant.reembed.progress import ReembedDisplay
from msmarco_qdrant.reembed.run import ReembedOptions, ReembedResult, ReembedRun
from msmarco_qdrant.reembed.target import prepare_target
from msmarco_qdrant.runtime.progress import add_display
from msmarco_qdrant.sources.corpus import as_rows
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store
from msmarco_qdrant.stores.migration_locks import HeldLock, hold_lock

_Source: TypeAlias = (
    Iterable[Passage | Reject] | str | PathLike[str] | Sequence[str | PathLike[str]]
)


@suggest_keywords
def reembed_collection(  # noqa: PLR0913  # all but one have defaults
    store: Store | str | PathLike[str],
    collection: str = "msmarco",
    *,
    model: str | PathLike[str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderChoices | None = None,
    source: _Source | None = None,
    load_old: Callable[[EncoderInfo], Encoder] | None = None,
    allow_rejects: bool = False,
    allow_worse: bool = False,
    on_progress: Callable[[ReembedProgress], None] | None = None,
    progress: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> ReembedReport:
    """Give a collection the vectors of another model, while other clients search and write.

    Run it again after an interruption to resume. The old physical collection is kept:
    `rollback_collection` goes back to it, `prune_collection` removes it.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection's name.
        model: The new model: a directory, a name of the catalog, or a hub id.
        encoder: A loaded encoder, instead of `model`.
        encoder_options: An `EncoderOptions`, a dictionary of its fields, or a device such as
            "cuda:1"; None for the fastest here.
        source: Files or passages whose texts are used instead of reading them from the collection.
            Passages that it lacks are read from the collection; passages that the collection
            lacks, or has with another text, are skipped.
        load_old: Loads the old model for the comparison; by default from its stored name.
        allow_rejects: Swap even if some passages have no vector of the new model. They are missing
            from the new collection.
        allow_worse: Swap even if sample queries find less than half of what they found before.
        on_progress: Called regularly, in the caller's thread.
        progress: Show it on standard error: a bar in a terminal or a notebook, else lines.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        StoreInUseError: If another process is migrating it, or has taken the lock away.
        ModelNotFoundError: If the model cannot be loaded.
        MigrationError: If migrations are pending, a passage has no vector, or the comparison or
            verification failed; the alias is not changed.
        UsageError: If the arguments conflict, or another re-embedding is unfinished.
        StoreError: If the engine fails; finished work is kept.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(use_store(store, connection))
        started = time.perf_counter()
        models = ModelChoice.of(model, encoder_options)
        models.require_one(encoder)
        opened.metadata(collection)  # fails before a model is loaded
        if encoder is not None:
            check_encoder(encoder)
        new = encoder or models.load()
        texts = (
            None if source is None else (row for row in as_rows(source) if isinstance(row, Passage))
        )
        options = ReembedOptions(
            texts,
            load_old or stored_model_loader(collection, models),
            allow_rejects,
            allow_worse,
            add_display(stack, ReembedDisplay("new") if progress else None, on_progress),
        )
        return change_model(opened, collection, new, options, started)


def change_model(
    store: Store, collection: str, new: Encoder, options: ReembedOptions, started: float
) -> ReembedReport:
    """Give a collection the vectors of an encoder.

    Args:
        store: An open store.
        collection: The collection's name.
        new: The encoder.
        options: Options of the run.
        started: The `time.perf_counter` of the start.

    Raises:
        Exception: See `reembed_collection`.
    """
    with _lock(store, collection) as lock:
        found = read_generations(store, collection)
        if found.copying is None and found.metadata.encoder.has_same_vectors_as(new.info):
            # A remaining copied_from names a dropped source; else copying would not be None.
            metadata = replace(found.metadata, copied_from=None)
            _put_changed(store, Generation(found.live, found.metadata), metadata, lock)
            done = Copying(found.live, found.live, metadata, is_swapped=True)
            return _make_report(store, found.name, done, ReembedResult(), started)
        copying = prepare_target(store, found, new.info, lock.check)
        result = ReembedRun(store, found.name, copying, new, options, lock).run()
    return _make_report(store, found.name, copying, result, started)


@suggest_keywords
def rollback_collection(  # noqa: PLR0913  # all but one have defaults
    store: Store | str | PathLike[str],
    collection: str = "msmarco",
    *,
    model: str | PathLike[str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderChoices | None = None,
    load_old: Callable[[EncoderInfo], Encoder] | None = None,
    allow_rejects: bool = False,
    allow_worse: bool = False,
    on_progress: Callable[[ReembedProgress], None] | None = None,
    progress: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> ReembedReport:
    """Repoint a name to the physical collection that was live before the last re-embedding.

    Writes and deletes since then are copied into it first, with vectors of its own model, so
    nothing is lost; searches and writes continue. The current collection is kept, too:
    `reembed_collection` with its model returns to it. Run it again after an interruption to resume.
    A re-embedding that was interrupted after its swap is finished first.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection's name.
        model: The model of the older collection, if its stored name cannot be loaded.
        encoder: A loaded encoder, instead of `model`.
        encoder_options: An `EncoderOptions`, a dictionary of its fields, or a device such as
            "cuda:1"; None for the fastest here.
        load_old: Loads the current model, for the comparison and to finish an interrupted
            re-embedding; by default from its stored name.
        allow_rejects: See `reembed_collection`.
        allow_worse: See `reembed_collection`.
        on_progress: See `reembed_collection`.
        progress: See `reembed_collection`.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        UsageError: If both model and encoder are given, or for a physical collection's name.
        ModelNotFoundError: If the older model cannot be loaded.
        ModelMismatchError: If the model is not that of the older collection.
        MigrationError: If no older collection exists, or as in `reembed_collection`.
        StoreInUseError: If another process is migrating it, or has taken the lock away.
        StoreError: If the engine fails; finished work is kept.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(use_store(store, connection))
        started = time.perf_counter()
        models = ModelChoice.of(model, encoder_options)
        models.require_instead_of(encoder)
        options = ReembedOptions(
            None,
            load_old or stored_model_loader(collection, models),
            allow_rejects,
            allow_worse,
            add_display(stack, ReembedDisplay("older") if progress else None, on_progress),
        )
        with _lock(opened, collection) as lock:
            found = _finish_interrupted(opened, collection, options, lock)
            copying = _select_rollback(opened, found)
            encoder_info = copying.metadata.encoder
            if encoder is None:
                encoder = models.load_for(copying.target, encoder_info)
            require_same_model(copying.target, encoder_info, encoder.info)
            if not copying.is_swapped:
                lock.check()
                opened.put_metadata(copying.target, copying.metadata)
            result = ReembedRun(opened, found.name, copying, encoder, options, lock).run()
        return _make_report(opened, found.name, copying, result, started)


@suggest_keywords
def prune_collection(
    store: Store | str | PathLike[str],
    collection: str = "msmarco",
    *,
    unfinished: bool = False,
    dry_run: bool = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> tuple[str, ...]:
    """Drop the physical collections of a name that are not live, with every passage.

    A rollback is then impossible. A re-embedding that was interrupted before its swap is abandoned.

    Args:
        store: An open store, which is not closed, or a path or URL to open.
        collection: The collection's name.
        unfinished: Only abandon a re-embedding or rollback interrupted before its swap. A
            collection created for it is dropped; an older one stays, so a rollback is possible.
        dry_run: Drop nothing, and only report the names.
        connection: The API key, port and time limits of a server, if `store` is a URL.

    Returns:
        The names of the physical collections that were dropped, or would be in a dry run.

    Raises:
        CollectionNotFoundError: If the collection does not exist.
        MigrationError: If a re-embedding was interrupted after its swap, because its last pass
            needs the old collection.
        StoreCorruptError: If one of them belongs to another application; nothing is dropped.
        UsageError: For a physical collection's name.
        StoreInUseError: If another process is migrating it, or has taken the lock away.
    """
    with use_store(store, connection) as opened:
        with _lock(opened, collection) as lock:
            found = read_generations(opened, collection)
            if found.copying is not None and found.copying.is_swapped:
                model = found.metadata.encoder.model
                raise MigrationError(
                    f"nothing was removed: the re-embedding of '{found.name}' is not finished, and "
                    f"{found.copying.source} may contain passages that {found.live} lacks; finish "
                    f"it with {reembed_command(opened.dsn, found.name, model)}"
                )
            begun = [other for other in found.others if other.metadata.copied_from is not None]
            created = [other for other in begun if other.metadata.only_copies]
            dropped = [other.physical for other in (created if unfinished else found.others)]
            for physical in found.unreadable:
                if most_points(opened, physical):
                    opened.metadata(physical)  # raises: it is not from this version of the package
            dropped += found.unreadable
            if not dry_run:
                for physical in dropped:
                    lock.check()
                    opened.drop_collection(physical)
                for other in begun:
                    if other.physical not in dropped:
                        _put_changed(opened, other, replace(other.metadata, copied_from=None), lock)
                previous = found.metadata.previous if unfinished else None
                alone = replace(found.metadata, copied_from=None, previous=previous)
                _put_changed(opened, Generation(found.live, found.metadata), alone, lock)
        return tuple(dropped)


def _put_changed(
    store: Store, generation: Generation, metadata: CollectionMetadata, lock: HeldLock
) -> None:
    """Write metadata if they differ from the stored ones."""
    if metadata != generation.metadata:
        lock.check()
        store.put_metadata(generation.physical, metadata)


@contextmanager
def _lock(store: Store, collection: str) -> Iterator[HeldLock]:
    """Hold the lock of a collection."""
    read_generations(store, collection)  # no lock is taken for an unknown collection
    locks = store.migration_locks
    with hold_lock(locks, collection, store.dsn) as ours:
        yield HeldLock(locks, collection, ours)


def stored_model_loader(collection: str, models: ModelChoice) -> Callable[[EncoderInfo], Encoder]:
    """Return a function that loads a stored model, with the options of the chosen one."""
    stored = replace(models, model=None)
    return lambda encoder_info: stored.load_for(collection, encoder_info)


def _select_rollback(store: Store, found: Generations) -> Copying:
    """The copying back to the previous collection, or one after its swap that lacks last passes."""
    copying = found.copying
    if copying is not None and copying.is_swapped:
        return copying
    if (rollback := found.rollback) is not None:
        return rollback
    if copying is not None:
        raise MigrationError(
            f"no collection to go back to: '{found.name}' still points to {found.live}. To abandon "
            f"the unfinished re-embedding: {abandon_command(store.dsn, found.name)}"
        )
    others = "".join(
        f"; {other.physical} exists: "
        f"{reembed_command(store.dsn, found.name, other.metadata.encoder.model)} repoints to it"
        for other in found.others
    )
    raise MigrationError(
        f"no collection to go back to: '{found.name}' points to {found.live}{others}"
    )


def _finish_interrupted(
    store: Store, collection: str, options: ReembedOptions, lock: HeldLock
) -> Generations:
    """Run the last passes of a re-embedding that was interrupted after its swap, if there is one.

    Returns:
        The collections of the name after that.
    """
    found = read_generations(store, collection)
    copying = found.copying
    if copying is None or not copying.is_swapped or not _is_forward(found, copying):
        return found
    current = options.load_old(copying.metadata.encoder)
    ReembedRun(store, found.name, copying, current, options, lock).run()
    return read_generations(store, found.name)


def _is_forward(found: Generations, copying: Copying) -> bool:
    """True if a swapped copying belongs to a re-embedding, False if to a rollback."""
    metadata = [other.metadata for other in found.others if other.physical == copying.source]
    return all(source.previous != copying.target for source in metadata)


def _make_report(
    store: Store, name: str, copying: Copying, result: ReembedResult, started: float
) -> ReembedReport:
    return ReembedReport(
        collection=name,
        old=copying.source,
        new=copying.target,
        model=copying.metadata.encoder.model,
        passages=store.collection(copying.target).info().points,
        copied=result.copied,
        removed=result.removed,
        without_vector=tuple(sorted(result.without_vector)),
        comparison=result.comparison,
        seconds=time.perf_counter() - started,
    )
