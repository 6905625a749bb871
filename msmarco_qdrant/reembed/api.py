"""Another model for a collection that is being searched and written to, and the way back.

A second physical collection is filled beside the live one, the name is led to it, and what was
written to the old one until then is copied (`_reembedding`). Going back is the same in the other
direction, into the old collection, which is there until it is pruned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from os import PathLike

from msmarco_qdrant.collection.generations import (
    Generations,
    giving_up_command,
    read_generations,
    reembedding_command,
)
from msmarco_qdrant.core.records import (
    CollectionMetadata,
    Copying,
    EncoderInfo,
    Generation,
    Passage,
    Reject,
)
from msmarco_qdrant.core.reports import ReembedProgress, ReembedReport
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.encoding.matching import load_collection_encoder, require_same_model
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import MigrationError, UsageError
from msmarco_qdrant.reembed.run import Choices, Outcome, Reembedding
from msmarco_qdrant.reembed.target import prepare_shadow
from msmarco_qdrant.sources.corpus import as_rows
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.migration_locks import hold_lock, require_lock


def reembed_collection(  # noqa: PLR0913  # all but one have defaults
    store: Store,
    collection: str = "msmarco",
    *,
    model: str | PathLike[str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderOptions | None = None,
    source: Iterable[Passage | Reject]
    | str
    | PathLike[str]
    | Sequence[str | PathLike[str]]
    | None = None,
    load_old: Callable[[EncoderInfo], Encoder] | None = None,
    allow_rejects: bool = False,
    allow_worse: bool = False,
    on_progress: Callable[[ReembedProgress], None] = lambda _progress: None,
) -> ReembedReport:
    """Give a collection the vectors of another model, while it is searched and written to.

    Run it again after an interruption: it goes on where it stood. When it is done the old physical
    collection is still there: `rollback_collection` goes back to it, `prune_collection` removes it.

    Args:
        store: Where the collection is.
        collection: Its name.
        model: The new model: a directory, a name of the catalog, or a hub id.
        encoder: A ready encoder instead.
        encoder_options: Where and how models run; None for what is fastest here.
        source: Where to take texts from instead of reading them from the collection: the files
            that it was ingested from, or passages. What they do not hold is read from the
            collection, and what the collection does not hold is left out.
        load_old: What loads the old model, for the comparison; by default the one of its name.
        allow_rejects: Swap even if the new model gives some passages no vector; they are then not
            in the new collection.
        allow_worse: Swap even if a sample of queries finds less than half of what it did.
        on_progress: Called now and then, in the caller's thread.

    Raises:
        CollectionNotFoundError: If there is no such collection.
        StoreInUseError: If somebody else is migrating it, saying who, or took our lock away.
        ModelNotFoundError: If the model cannot be loaded.
        MigrationError: If the collection has migrations pending, a passage has no vector, or the
            comparison or the verification failed; the name leads where it led.
        UsageError: If the arguments cannot mean anything, or another re-embedding is unfinished.
        StoreError: If the engine fails; what was done is kept.
    """
    started = time.perf_counter()
    if (model is None) == (encoder is None):
        raise UsageError("say what to encode with: pass a model or an encoder, not both")
    store.metadata(collection)  # before a model is loaded for nothing
    options = encoder_options or EncoderOptions()
    new = encoder or load_encoder(model or "", **asdict(options))
    choices = Choices(
        None if source is None else _passages(source),
        load_old
        or (lambda encoder_info: load_collection_encoder(collection, encoder_info, None, options)),
        allow_rejects=allow_rejects,
        allow_worse=allow_worse,
        on_progress=on_progress,
    )
    with _locked(store, collection) as check:
        found = read_generations(store, collection)
        if found.copying is None and _holds(found, new.info):
            # What it was copied from is gone, or it would be under way.
            live = Generation(found.live, found.metadata)
            _keep(store, live, replace(live.metadata, copied_from=None), check)
            there = Copying(found.live, found.live, found.metadata, is_swapped=True)
            return _report(store, found, there, Outcome(), started)
        copying = prepare_shadow(store, found, new.info, check)
        outcome = Reembedding(store, found, copying, new, choices, check).run()
    return _report(store, found, copying, outcome, started)


def rollback_collection(  # noqa: PLR0913  # all but one have defaults
    store: Store,
    collection: str = "msmarco",
    *,
    model: str | PathLike[str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderOptions | None = None,
    load_old: Callable[[EncoderInfo], Encoder] | None = None,
    allow_rejects: bool = False,
    allow_worse: bool = False,
    on_progress: Callable[[ReembedProgress], None] = lambda _progress: None,
) -> ReembedReport:
    """Lead a name back to the physical collection that it led to before the last re-embedding.

    What was written and deleted since is brought into that one first, with the vectors of its own
    model; so nothing is lost, and searches and writes go on meanwhile. The collection that is left
    stays, too: `reembed_collection` with its model goes there again. After an interruption run it
    again. A re-embedding that was interrupted after its swap is finished first.

    Args:
        store: Where the collection is.
        collection: Its name.
        model: Where to load the model of the older collection from, if not by the name that it
            remembers.
        encoder: A ready encoder instead.
        encoder_options: Where and how models run; None for what is fastest here.
        load_old: What loads the present model, for the comparison and for finishing a re-embedding
            that was interrupted; by default the one of its name.
        allow_rejects: See `reembed_collection`.
        allow_worse: See `reembed_collection`.
        on_progress: See `reembed_collection`.

    Raises:
        CollectionNotFoundError: If there is no such collection.
        UsageError: If both model and encoder are given, or a physical collection's name.
        ModelNotFoundError: If the older model cannot be loaded.
        ModelMismatchError: If the model is not that of the older collection.
        MigrationError: If there is nothing to go back to, or what `reembed_collection` says.
        StoreInUseError: If somebody else is migrating it, saying who.
        StoreError: If the engine fails; what was done is kept.
    """
    started = time.perf_counter()
    if model is not None and encoder is not None:
        raise UsageError("pass a model or an encoder, not both")
    options = encoder_options or EncoderOptions()
    choices = Choices(
        None,
        load_old
        or (lambda encoder_info: load_collection_encoder(collection, encoder_info, None, options)),
        allow_rejects=allow_rejects,
        allow_worse=allow_worse,
        on_progress=on_progress,
    )
    with _locked(store, collection) as check:
        found = read_generations(store, collection)
        found = _finished_first(store, found, choices, check)
        copying = _way_back(found)
        encoder_info = copying.metadata.encoder
        if encoder is None:
            encoder = load_collection_encoder(copying.target, encoder_info, model, options)
        require_same_model(copying.target, encoder_info, encoder.info)
        if not copying.is_swapped:
            check()
            store.put_metadata(copying.target, copying.metadata)
        outcome = Reembedding(store, found, copying, encoder, choices, check).run()
    return _report(store, found, copying, outcome, started)


def prune_collection(
    store: Store,
    collection: str = "msmarco",
    *,
    unfinished: bool = False,
    dry_run: bool = False,
) -> tuple[str, ...]:
    """Remove the physical collections of a name that nothing leads to, with what is in them.

    Afterwards there is no way back. A re-embedding that was interrupted before its swap is given
    up by it.

    Args:
        store: Where the collection is.
        collection: Its name.
        unfinished: Only give up what was interrupted before its swap, and keep the way back: a
            collection that was made for it is removed, an older one stays.
        dry_run: Remove nothing, and only tell what would be.

    Returns:
        The names of the physical collections that were removed, or would be.

    Raises:
        CollectionNotFoundError: If there is no such collection.
        MigrationError: If a re-embedding was interrupted after its swap: its last pass still needs
            the old collection.
        StoreCorruptError: If one of them is another application's; all of them stay.
        UsageError: For a physical collection's name.
        StoreInUseError: If somebody else is migrating it, saying who.
    """
    with _locked(store, collection) as check:
        found = read_generations(store, collection)
        if found.copying is not None and found.copying.is_swapped:
            raise MigrationError(
                f"nothing was removed: the re-embedding of '{found.name}' is not finished, and "
                f"{found.copying.source} may hold passages that {found.live} does not; finish it "
                f"with {reembedding_command(found.name, found.metadata.encoder.model)}"
            )
        begun = [one for one in found.others if one.metadata.copied_from is not None]
        given_up = [one for one in begun if one.metadata.only_copies]
        removed = [one.physical for one in (given_up if unfinished else found.others)]
        removed += _interrupted_creations(store, found)
        if not dry_run:
            _drop(store, removed, check)
            for one in begun:
                if one.physical not in removed:
                    _keep(store, one, replace(one.metadata, copied_from=None), check)
            previous = found.metadata.previous if unfinished else None
            alone = replace(found.metadata, copied_from=None, previous=previous)
            _keep(store, Generation(found.live, found.metadata), alone, check)
    return tuple(removed)


def _interrupted_creations(store: Store, found: Generations) -> list[str]:
    """What crashes left; what holds points and cannot be read is no such thing.

    Raises:
        StoreCorruptError: If there is any.
    """
    for physical in found.unreadable:
        if store.collection(physical).info().points:
            store.metadata(physical)  # which only ours, of this version, has
    return [*found.unreadable]


def _drop(store: Store, names: Sequence[str], check: Callable[[], None]) -> None:
    for physical in names:
        check()
        store.drop_collection(physical)


def _keep(
    store: Store, one: Generation, metadata: CollectionMetadata, check: Callable[[], None]
) -> None:
    """Put metadata that are others than those there are."""
    if metadata != one.metadata:
        check()
        store.put_metadata(one.physical, metadata)


@contextmanager
def _locked(store: Store, collection: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a collection; what checks that it is still held."""
    read_generations(store, collection)  # before a lock of no collection is taken
    locks = store.migration_locks
    with hold_lock(locks, collection) as ours:
        yield lambda: require_lock(locks, collection, ours)


def _holds(found: Generations, encoder_info: EncoderInfo) -> bool:
    kept = found.metadata.encoder
    return (kept.fingerprint, kept.similarity) == (
        encoder_info.fingerprint,
        encoder_info.similarity,
    )


def _way_back(found: Generations) -> Copying:
    """From the live collection to the one before it; what is swapped already has its last pass."""
    copying = found.copying
    if copying is not None and copying.is_swapped:
        return copying
    if (back := found.way_back) is not None:
        return back
    if copying is not None:
        raise MigrationError(
            f"there is nothing to go back to: '{found.name}' still leads to {found.live}. To give "
            f"up the re-embedding that was begun: {giving_up_command(found.name)}"
        )
    ways = [reembedding_command(found.name, one.metadata.encoder.model) for one in found.others]
    beside = "".join(
        f"; {one.physical} is beside it: {way} goes there"
        for one, way in zip(found.others, ways, strict=True)
    )
    raise MigrationError(
        f"there is nothing to go back to: '{found.name}' leads to {found.live}{beside}"
    )


def _finished_first(
    store: Store, found: Generations, choices: Choices, check: Callable[[], None]
) -> Generations:
    """What there is after the last pass of a re-embedding, if one was interrupted in it."""
    copying = found.copying
    if copying is None or not copying.is_swapped or not _is_forward(found, copying):
        return found
    present = choices.load_old(copying.metadata.encoder)
    Reembedding(store, found, copying, present, choices, check).run()
    return read_generations(store, found.name)


def _is_forward(found: Generations, copying: Copying) -> bool:
    """Whether an interrupted last pass is of a re-embedding, and not of a way back."""
    metadata = [one.metadata for one in found.others if one.physical == copying.source]
    return all(one.previous != copying.target for one in metadata)


def _passages(
    source: Iterable[Passage | Reject] | str | PathLike[str] | Sequence[str | PathLike[str]],
) -> Iterator[Passage]:
    """The passages of a source; what is none is in no collection."""
    return (row for row in as_rows(source) if isinstance(row, Passage))


def _report(
    store: Store, found: Generations, copying: Copying, outcome: Outcome, started: float
) -> ReembedReport:
    return ReembedReport(
        collection=found.name,
        old=copying.source,
        new=copying.target,
        model=copying.metadata.encoder.model,
        passages=store.collection(copying.target).info().points,
        copied=outcome.copied,
        removed=outcome.removed,
        without_vector=tuple(sorted(outcome.without_vector)),
        comparison=outcome.comparison,
        seconds=time.perf_counter() - started,
    )
