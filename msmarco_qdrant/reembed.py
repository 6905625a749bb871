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

from msmarco_qdrant._generations import Copying, Generations, read_generations
from msmarco_qdrant._reembedding import Choices, Outcome, Reembedding
from msmarco_qdrant._shadow import prepare_shadow
from msmarco_qdrant.corpus import as_rows
from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.encoding.matching import check_same, encoder_of
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import MigrationError, UsageError
from msmarco_qdrant.records import EncoderCard, Passage, Reject
from msmarco_qdrant.reports import ReembedProgress, ReembedReport
from msmarco_qdrant.stores import Store
from msmarco_qdrant.stores.locks import check_held, held, migration_locks
from msmarco_qdrant.stores.names import base_name


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
    load_old: Callable[[EncoderCard], Encoder] | None = None,
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
        allow_worse: Swap even if a sample of phrases finds less than half of what it did.
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
        load_old or (lambda card: encoder_of(collection, card, None, options)),
        allow_rejects=allow_rejects,
        allow_worse=allow_worse,
        on_progress=on_progress,
    )
    with _locked(store, collection) as check:
        found = read_generations(store, collection)
        if found.copying is None and _holds(found, new.card):
            there = Copying(found.live, found.live, found.metadata, is_swapped=True)
            return _report(store, found, there, Outcome(), started)
        copying = prepare_shadow(store, found, new.card, check)
        outcome = Reembedding(store, found, copying, new, choices, check).run()
    return _report(store, found, copying, outcome, started)


def rollback_collection(  # noqa: PLR0913  # all but one have defaults
    store: Store,
    collection: str = "msmarco",
    *,
    model: str | PathLike[str] | None = None,
    encoder: Encoder | None = None,
    encoder_options: EncoderOptions | None = None,
    load_old: Callable[[EncoderCard], Encoder] | None = None,
    allow_rejects: bool = False,
    allow_worse: bool = False,
    on_progress: Callable[[ReembedProgress], None] = lambda _progress: None,
) -> ReembedReport:
    """Lead a name back to the physical collection that it led to before the last re-embedding.

    What was written and deleted since is brought into that one first, with the vectors of its own
    model; so nothing is lost, and searches and writes go on meanwhile. The collection that is left
    stays, too: `reembed_collection` with its model goes there again. After an interruption run it
    again; what was interrupted after a swap, a re-embedding too, is finished and nothing more.

    Args:
        store: Where the collection is.
        collection: Its name.
        model: Where to load the model of the older collection from, if not by the name that it
            remembers.
        encoder: A ready encoder instead.
        encoder_options: Where and how models run; None for what is fastest here.
        load_old: What loads the present model, for the comparison.
        allow_rejects: See `reembed_collection`.
        allow_worse: See `reembed_collection`.
        on_progress: See `reembed_collection`.

    Raises:
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
        load_old or (lambda card: encoder_of(collection, card, None, options)),
        allow_rejects=allow_rejects,
        allow_worse=allow_worse,
        on_progress=on_progress,
    )
    with _locked(store, collection) as check:
        found = read_generations(store, collection)
        copying = _way_back(found)
        card = copying.metadata.encoder
        if encoder is None:
            encoder = encoder_of(copying.target, card, model, options)
        check_same(copying.target, card, encoder.card)
        if not copying.is_swapped:
            check()
            store.put_metadata(copying.target, copying.metadata)
        outcome = Reembedding(store, found, copying, encoder, choices, check).run()
    return _report(store, found, copying, outcome, started)


def prune_collection(
    store: Store, collection: str = "msmarco", *, dry_run: bool = False
) -> tuple[str, ...]:
    """Remove the physical collections of a name that nothing leads to, with what is in them.

    Afterwards there is no way back. A re-embedding that was interrupted before its swap is given
    up by it.

    Args:
        store: Where the collection is.
        collection: Its name.
        dry_run: Remove nothing, and only tell what would be.

    Returns:
        The names of the physical collections that were removed, or would be.

    Raises:
        CollectionNotFoundError: If there is no such collection.
        MigrationError: If a re-embedding was interrupted after its swap: its last pass still needs
            the old collection.
        StoreInUseError: If somebody else is migrating it, saying who.
    """
    with _locked(store, collection) as check:
        found = read_generations(store, collection)
        if found.copying is not None and found.copying.is_swapped:
            raise MigrationError(
                f"nothing was removed: the re-embedding of '{found.name}' is not finished, and "
                f"{found.copying.source} may hold passages that {found.live} does not; finish it "
                f"with `msmarco-qdrant migrate reembed --model {found.metadata.encoder.model}`"
            )
        removed = [*(other.physical for other in found.others), *found.unreadable]
        for physical in () if dry_run else removed:
            check()
            store.drop_collection(physical)
        alone = replace(found.metadata, previous=None, copied_from=None)
        if found.metadata != alone and not dry_run:
            check()
            store.put_metadata(found.live, alone)
    return tuple(removed)


@contextmanager
def _locked(store: Store, collection: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a collection; what checks that it is still held."""
    name, locks = base_name(store.collection(collection).info().name), migration_locks(store)
    with held(locks, name) as ours:
        yield lambda: check_held(locks, name, ours)


def _holds(found: Generations, card: EncoderCard) -> bool:
    kept = found.metadata.encoder
    return (kept.fingerprint, kept.similarity) == (card.fingerprint, card.similarity)


def _way_back(found: Generations) -> Copying:
    """From the live collection to the one before it; of what is swapped already, its last pass."""
    copying = found.copying
    if copying is not None and copying.is_swapped:
        return copying
    previous = found.metadata.previous
    if copying is not None and copying.target != previous:
        raise MigrationError(
            f"there is nothing to go back to: '{found.name}' still leads to {found.live}. To give "
            "up the re-embedding that was begun: `msmarco-qdrant migrate prune`"
        )
    for other in found.others:
        if other.physical == previous:
            swaps = found.metadata.swaps + 1
            metadata = replace(other.metadata, copied_from=found.live, swaps=swaps)
            return Copying(found.live, previous, metadata, is_swapped=False)
    others = ", ".join(f"{one.physical} ({one.metadata.encoder.model})" for one in found.others)
    beside = (
        f"; beside it is {others}: `msmarco-qdrant migrate reembed` goes there" if others else ""
    )
    raise MigrationError(
        f"there is nothing to go back to: '{found.name}' leads to {found.live}{beside}"
    )


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
