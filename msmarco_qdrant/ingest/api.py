"""Passages into a collection.

``read → skip what is there → tokenize → forward → sparse → write and flush → report``, each stage
an iterator over the one before; all run in threads of their own, a bounded number of items ahead,
but for writing, which runs in the caller's. The report tells how long each was at work.

The collection is the checkpoint: there is no state file. A passage whose point already carries the
same `text_digest` is not encoded again, and one of which only the meta changed gets a new payload.
That one rule gives resumption after a crash, repetition without effect, and incremental updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Protocol

from msmarco_qdrant.collection.create import check_collection_name, check_index, create_if_missing
from msmarco_qdrant.core.records import (
    WINDOW,
    Bm25Settings,
    EncoderInfo,
    Passage,
    PayloadIndex,
    PrunePolicy,
    Reject,
    StorageSettings,
)
from msmarco_qdrant.core.reports import IngestProgress, IngestReport
from msmarco_qdrant.encoding import Bm25Encoder, Encoder, load_encoder
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.matching import load_collection_encoder, require_same_model
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    IngestStoppedError,
    ModelMismatchError,
    MsmarcoQdrantError,
    PruneRefusedError,
    StoreNotFoundError,
    UsageError,
)
from msmarco_qdrant.ingest.alias_guard import AliasGuard, resolve_alias
from msmarco_qdrant.ingest.run import IngestRun
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.sources.corpus import as_rows
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, check_creatable, open_store
from msmarco_qdrant.stores.filters import index_kind, meta_key


def ingest_passages(  # noqa: PLR0913  # all but two have defaults
    source: Iterable[Passage | Reject]
    | VectorShards
    | str
    | PathLike[str]
    | Sequence[str | PathLike[str]],
    store: Store | str | PathLike[str],
    *,
    collection: str = "msmarco",
    model: str | PathLike[str] | None = None,
    default_model: str = DEFAULT_MODEL,
    encoder: Encoder | None = None,
    encoder_options: EncoderOptions | None = None,
    bm25: Bm25Settings | None = None,
    storage: StorageSettings | None = None,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    max_passages: int | None = None,
    prune: PrunePolicy | None = None,
    window: int = WINDOW,
    optimize: bool = True,
    on_reject: Callable[[Reject], None] | None = None,
    on_progress: Callable[[IngestProgress], None] | None = None,
) -> IngestReport:
    """Bring passages into a collection, creating it if need be.

    Running it again with the same source writes and encodes nothing; running it again after a
    crash or an interruption goes on where it stood.

    Args:
        source: A path or several, a `Corpus`, or any iterable of passages; or `VectorShards`, whose
            vectors are taken as they are, without loading a model. It is iterated in a thread of
            its own; one that waits for input is left behind when the ingest is.
        store: An open store, or where one is or shall be.
        collection: The name of the collection.
        model: The model to encode with: a directory, a name of the catalog, or a hub id. By
            default the collection's own, or `default_model` for a new collection.
        default_model: See `model`.
        encoder: A ready encoder instead of `model`.
        encoder_options: Where and how the model runs; None for what is fastest here.
        bm25: Settings of the sparse vectors of a new collection; an existing one keeps its own.
        storage: How a new collection keeps its vectors; an existing one keeps its own.
        payload_indexes: The `meta` fields that a new collection indexes, so that filters on them
            are fast, such as `{"lang": "keyword", "year": "integer"}`; an existing one has to have
            them. An index holds values of its kind alone.
        connection: The API key, port, time limits and request sizes of a server, where `store` is
            a URL.
        max_passages: Stop after so many passages.
        prune: At the end, remove the passages that were in the collection before and that the
            source did not hold. By default nothing is removed.
        window: Passages that are sorted by length together, and flushed together.
        optimize: Build the index at the end. Without it, new passages are found by exact scan.
        on_reject: Called for each row that cannot become a passage.
        on_progress: Called after each batch and each stage.

    Returns:
        What was done. Both callbacks are called in the caller's thread.

    Raises:
        IngestStoppedError: If it ended early; what was written until then is in its `report`.
        PruneRefusedError: If everything went in, but the policy forbade to prune.
        SourceError: If the source cannot be read; nothing was created.
        ModelError: If the model cannot be loaded, or it or the vectors' is not the collection's;
            nothing was created.
        StoreError: If the store cannot be opened or created, or holds something else.
        UsageError: If the arguments cannot mean anything.
    """
    load = _loader(source, model, default_model, encoder, encoder_options)
    if window < 1:
        raise UsageError(f"a window of {window} passages holds none: pass 1 or more")
    if max_passages is not None and max_passages < 1:
        raise UsageError(f"max_passages={max_passages} takes none: pass 1 or more, or None for all")
    if max_passages is not None and prune is not None:
        raise UsageError("max_passages takes a part of the source: prune would remove the rest")
    check_collection_name(collection)
    indexes = _indexed_keys(payload_indexes or {})
    rows = source if isinstance(source, VectorShards) else as_rows(source)
    with ExitStack() as stack:
        place = _Place(store, collection, connection, storage, indexes)
        target, guard = _open_target(stack, place, load, bm25)
        guard.warn_if_unfinished()
        run = IngestRun(target, guard, on_reject, on_progress)
        try:
            run.passages(rows, window, max_passages)
            run.check_count()
            if optimize:
                run.index()
            run.check_bm25()
            if prune is not None:
                run.prune(prune)
        except PruneRefusedError:
            raise
        except MsmarcoQdrantError as exc:
            reason = guard.root_cause(exc)
            raise IngestStoppedError(
                f"{reason} ({run.written:,} passages had been written; the same ingest goes on "
                "from there)",
                run.report(),
            ) from reason
        return run.report()


# ---- the target ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the caller wants the passages, and how a collection would be made there."""

    store: Store | str | PathLike[str]
    collection: str
    connection: Connection
    storage: StorageSettings | None
    indexes: Mapping[str, PayloadIndex]

    def opened(self, stack: ExitStack, *, create: bool) -> Store:
        """A store of ours, closed with the stack, or the caller's own as it is."""
        if isinstance(self.store, str | PathLike):
            store = open_store(self.store, create=create, connection=self.connection)
            return stack.enter_context(closing(store))
        return self.store

    def check_creatable(self) -> None:
        """Before a model is loaded, or even downloaded, for nothing."""
        if isinstance(self.store, str | PathLike):
            check_creatable(self.store, self.connection)


class _Loader(Protocol):
    """What the vectors come from: the encoder info for the collection, and what encodes, if anything."""

    def for_new(self) -> tuple[EncoderInfo, Encoder | None]: ...

    def for_existing(
        self, collection: str, encoder_info: EncoderInfo
    ) -> tuple[EncoderInfo, Encoder | None]: ...


@dataclass(frozen=True, slots=True)
class _ByModel:
    """Vectors of the encoder that the caller asked for."""

    model: str | PathLike[str] | None
    default_model: str
    encoder: Encoder | None
    options: EncoderOptions

    def for_new(self) -> tuple[EncoderInfo, Encoder]:
        encoder = self.encoder
        if encoder is None:
            encoder = load_encoder(self.model or self.default_model, **asdict(self.options))
        return encoder.info, encoder

    def for_existing(
        self, collection: str, encoder_info: EncoderInfo
    ) -> tuple[EncoderInfo, Encoder]:
        if self.encoder is None:
            encoder = load_collection_encoder(collection, encoder_info, self.model, self.options)
            return encoder.info, encoder
        require_same_model(collection, encoder_info, self.encoder.info)
        return self.encoder.info, self.encoder


@dataclass(frozen=True, slots=True)
class _FromShards:
    """Vectors that are there already."""

    shards: VectorShards

    def for_new(self) -> tuple[EncoderInfo, None]:
        return self.shards.encoder, None

    def for_existing(self, collection: str, encoder_info: EncoderInfo) -> tuple[EncoderInfo, None]:
        try:
            require_same_model(collection, encoder_info, self.shards.encoder)
        except ModelMismatchError as exc:
            found = self.shards.encoder
            raise ModelMismatchError(
                f"{self.shards.folder} holds vectors of {found.model} ({found.dimension}, "
                f"fingerprint {found.fingerprint[:8]}, {found.similarity}), collection "
                f"'{collection}' those of {encoder_info.model} ({encoder_info.dimension}, fingerprint "
                f"{encoder_info.fingerprint[:8]}, {encoder_info.similarity}): encode with the collection's model, "
                "or ingest into another collection"
            ) from exc
        return self.shards.encoder, None


def _loader(
    source: object,
    model: str | PathLike[str] | None,
    default_model: str,
    encoder: Encoder | None,
    options: EncoderOptions | None,
) -> _Loader:
    if encoder is not None and model is not None:
        raise UsageError("pass a model or an encoder, not both")
    if not isinstance(source, VectorShards):
        return _ByModel(model, default_model, encoder, options or EncoderOptions())
    if encoder is not None or model is not None:
        raise UsageError(
            f"{source.folder} holds vectors already: pass no model and no encoder with it, or the "
            "passages themselves to encode them again"
        )
    return _FromShards(source)


def _open_target(
    stack: ExitStack, place: _Place, load: _Loader, bm25: Bm25Settings | None
) -> tuple[IngestTarget, AliasGuard]:
    """Open the collection, or create it once everything it needs is known to be there."""
    name = place.collection
    try:
        opened = place.opened(stack, create=False)
        guard = resolve_alias(opened, name)
    except (StoreNotFoundError, CollectionNotFoundError):
        place.check_creatable()
        sparse = Bm25Encoder(bm25 or Bm25Settings())
        encoder_info, encoder = load.for_new()
        opened = place.opened(stack, create=True)
        create_if_missing(opened, name, encoder_info, sparse.settings, place.storage, place.indexes)
        # Another may have made it meanwhile, for another model or without these indexes.
        guard = resolve_alias(opened, name)
        require_same_model(name, guard.metadata.encoder, encoder_info)
        _check_indexes_kept(opened, name, place.indexes)
    else:
        _check_bm25_kept(name, guard.metadata.bm25, bm25)
        _check_indexes_kept(opened, name, place.indexes)
        sparse = Bm25Encoder(guard.metadata.bm25)
        encoder_info, encoder = load.for_existing(name, guard.metadata.encoder)
    return IngestTarget(guard.collection, encoder_info, sparse, encoder), guard


def _check_bm25_kept(name: str, kept: Bm25Settings, asked: Bm25Settings | None) -> None:
    if asked is not None and asked != kept:
        raise UsageError(
            f"collection '{name}' has {kept}, you asked for {asked}: leave it out, ingest into "
            "another collection, or change those of this one with a migration (SetBm25, "
            "`msmarco-qdrant migrate up`)"
        )


def _check_indexes_kept(store: Store, name: str, asked: Mapping[str, PayloadIndex]) -> None:
    """An ingest makes payload indexes with a collection, and leaves those of an existing one."""
    if not asked or not store.capabilities.payload_indexes:
        return
    told = store.collection(name).info().spec.payload_indexes
    for key, kind in asked.items():
        found = index_kind(told, key)
        if found != kind:
            has = f"a payload index of kind {found}" if found else "no payload index"
            raise UsageError(
                f"collection '{name}' has {has} on '{key}', you asked for {kind}: leave it out, "
                "and add or change the index of an existing collection with a migration "
                "(AddPayloadIndex, `msmarco-qdrant migrate up`)"
            )


def _indexed_keys(fields: Mapping[str, PayloadIndex]) -> Mapping[str, PayloadIndex]:
    """The payload keys of `meta` fields that shall be indexed, each with a kind that there is."""
    if not isinstance(fields, Mapping):
        raise UsageError(f"payload_indexes maps fields to kinds, it is no {type(fields).__name__}")
    for name, kind in fields.items():
        check_index(name, kind)
    return {meta_key(name): kind for name, kind in fields.items()}
