"""Collection and encoder of an ingest: opened, or created after everything they need was found."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Protocol

from msmarco_qdrant.collection.create import (
    check_collection_name,
    create_if_missing,
    require_shards,
    shard_key_index,
)
from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.collection_types import (
    Bm25Settings,
    PayloadIndex,
    ShardSettings,
)
from msmarco_qdrant.core.encoder_types import EncoderInfo, Int8Loss
from msmarco_qdrant.encoding import Bm25Encoder, Encoder
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.checks import check_encoder
from msmarco_qdrant.encoding.forks import require_own_threads
from msmarco_qdrant.encoding.matching import require_same_model
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.errors import (
    CollectionNotFoundError,
    ModelMismatchError,
    SourceError,
    StoreNotFoundError,
    UnsupportedError,
    UsageError,
)
from msmarco_qdrant.ingest.alias_guard import AliasGuard, resolve_alias
from msmarco_qdrant.ingest.carry_over import carry_over
from msmarco_qdrant.ingest.options import IndexOptions, NewCollection
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.windows import RowStream
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import Connection, Store, check_creatable, use_store
from msmarco_qdrant.stores.connection import is_url
from msmarco_qdrant.stores.filters import index_kind, outside_lists


@dataclass(frozen=True, slots=True)
class Destination:
    """Store and collection to write to, and the settings to create the collection with.

    Raises:
        UsageError: For an invalid name of a collection.
        UnsupportedError: If the index cannot be built so in this store.
    """

    store: Store | str | PathLike[str]
    collection: str
    connection: Connection
    new: NewCollection
    index: IndexOptions

    def __post_init__(self) -> None:
        self.index.check_store(self.store)
        check_collection_name(self.collection)

    def open(self, stack: ExitStack, *, create: bool) -> Store:
        """Open the store, to be closed with the stack; the caller's own stays open."""
        return stack.enter_context(use_store(self.store, self.connection, create=create))

    def check_creatable(self) -> None:
        """Raise if the store cannot be created, before a model is loaded or downloaded."""
        sharding = self.new.sharding
        shard_key_index(sharding, self.new.indexes)
        if isinstance(self.store, str | PathLike):
            check_creatable(self.store, self.connection)
            if (sharding is not None or self.index.bulk) and not is_url(str(self.store)):
                feature = "bulk mode" if sharding is None else "shards and replicas"
                raise UnsupportedError(
                    f"this ingest needs a Qdrant server for {feature}, got {self.store}: pass the "
                    "URL of a server, or omit them"
                )


class Encoders(Protocol):
    """Loads the encoder of an ingest; None for one whose passages come with vectors."""

    @property
    def loss_of_vectors(self) -> Int8Loss | None:
        """The measured loss of those vectors, if they are of int8."""

    def for_new(self) -> tuple[EncoderInfo, Encoder | None]:
        """Load the encoder of a new collection."""

    def for_existing(
        self, collection: str, stored: EncoderInfo
    ) -> tuple[EncoderInfo, Encoder | None]:
        """Load the encoder of a collection, or raise `ModelMismatchError`."""


def choose_encoders(source: object, models: ModelChoice, encoder: Encoder | None) -> Encoders:
    """Return the encoders of an ingest of a source.

    Raises:
        UsageError: If two were chosen, or one for passages with vectors.
    """
    models.require_instead_of(encoder)
    if not isinstance(source, VectorShards):
        return EncoderChoice(models, encoder)
    require_own_vectors(source, models, encoder)
    return EncoderOfShards(source)


def require_own_vectors(
    shards: VectorShards, models: ModelChoice, encoder: object, name: str = "encoder"
) -> None:
    """Refuse an encoder for passages that come with vectors.

    Args:
        shards: The passages.
        models: The choice of a model.
        encoder: Another way to get an encoder; None without.
        name: The argument that it was passed as.

    Raises:
        UsageError: If one was chosen.
    """
    if encoder is not None or models.model is not None:
        raise UsageError(
            f"{shards.folder} already holds vectors: omit model and {name}, or pass the "
            "passages themselves to encode them again"
        )
    models.require_instead_of(shards)


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """The encoder of an ingest: loaded by the caller, or when it is needed.

    Raises:
        UsageError: If `encoder` lacks a member.
    """

    models: ModelChoice
    encoder: Encoder | None = None
    loss_of_vectors: None = None

    def __post_init__(self) -> None:
        if self.encoder is not None:
            check_encoder(self.encoder)

    def for_new(self) -> tuple[EncoderInfo, Encoder | None]:
        """Load the encoder of a new collection."""
        encoder = self.encoder
        if encoder is None:
            encoder = self.models.load()
        elif isinstance(encoder, BiEncoder):  # in a forked child: before a collection is created
            require_own_threads()
        return encoder.info, encoder

    def for_existing(
        self, collection: str, stored: EncoderInfo
    ) -> tuple[EncoderInfo, Encoder | None]:
        """Load the encoder of a collection, or raise `ModelMismatchError`."""
        encoder = self.encoder
        if encoder is None:
            encoder = self.models.load_for(collection, stored)
        else:
            require_same_model(collection, stored, encoder.info)
        return encoder.info.stored_as(stored), encoder


@dataclass(frozen=True, slots=True)
class EncoderOfShards:
    """The properties of the encoder that made the vectors of shards; it is not loaded."""

    shards: VectorShards

    @property
    def loss_of_vectors(self) -> Int8Loss | None:
        """The measured loss of the shards' vectors."""
        return self.shards.int8_loss

    def for_new(self) -> tuple[EncoderInfo, None]:
        """Return its properties."""
        return self.shards.encoder, None

    def for_existing(self, collection: str, stored: EncoderInfo) -> tuple[EncoderInfo, None]:
        """Return its properties as a collection stores them, or raise `ModelMismatchError`."""
        _require_model_of_shards(self.shards, collection, stored)
        return self.shards.encoder.stored_as(stored), None


def _require_model_of_shards(shards: VectorShards, collection: str, stored: EncoderInfo) -> None:
    def describe(info: EncoderInfo) -> str:
        short = info.fingerprint[:8]
        return f"{info.model} ({info.dimension}, fingerprint {short}, {info.similarity})"

    try:
        require_same_model(collection, stored, shards.encoder)
    except ModelMismatchError as exc:
        raise ModelMismatchError(
            f"{shards.folder} holds vectors of {describe(shards.encoder)}, collection "
            f"'{collection}' those of {describe(stored)}: encode with the collection's model, or "
            "ingest into another collection"
        ) from exc


@dataclass(frozen=True, slots=True)
class Opened:
    """The collection of an ingest.

    Attributes:
        target: The collection and its encoders.
        guard: Its name.
        is_new: True if the ingest created it.
    """

    target: IngestTarget
    guard: AliasGuard
    is_new: bool


def open_target(
    stack: ExitStack,
    destination: Destination,
    encoders: Encoders,
    rows: RowStream,
    rejected: RejectCount,
) -> Opened | None:
    """Open the collection, or create it after everything it needs was found: also a passage.

    None if it does not exist and no file has a row.
    """
    try:
        return open_existing(stack, destination, encoders)
    except (StoreNotFoundError, CollectionNotFoundError):
        destination.check_creatable()
        for reject in rows.take_rejects():
            rejected.add(reject)
        if rows.is_empty and rejected.count:
            raise no_passages(rejected.count, rejected.first) from None
        if rows.is_empty and rows.is_stored:
            return None
    return create_target(stack, destination, encoders)


def open_existing(stack: ExitStack, destination: Destination, encoders: Encoders) -> Opened:
    """Open a collection that exists.

    Raises:
        StoreNotFoundError: If the store does not exist.
        CollectionNotFoundError: If the store has no such collection.
    """
    name, new = destination.collection, destination.new
    store = destination.open(stack, create=False)
    guard = resolve_alias(store, name)
    _require_same_bm25(name, guard.metadata.bm25, new.bm25)
    _require_same_indexes(store, name, new.indexes)
    _require_same_shards(store, name, new.sharding)
    sparse = Bm25Encoder(guard.metadata.bm25)
    info, encoder = encoders.for_existing(name, guard.metadata.encoder)
    if encoder is not None:
        carry_over(guard, encoder)
    target = IngestTarget(guard.collection, info, sparse, encoder, encoders.loss_of_vectors)
    return Opened(target, guard, is_new=False)


def create_target(stack: ExitStack, destination: Destination, encoders: Encoders) -> Opened:
    """Create a collection, unless another client has just created it."""
    name, new = destination.collection, destination.new
    sparse = Bm25Encoder(new.bm25 or Bm25Settings())
    info, encoder = encoders.for_new()
    store = destination.open(stack, create=True)
    is_new = create_if_missing(
        store, name, info, sparse.settings, new.storage, new.indexes, new.sharding
    )
    # Another client may have created it first, for another model or without these indexes.
    guard = resolve_alias(store, name)
    require_same_model(name, guard.metadata.encoder, info)
    _require_same_indexes(store, name, new.indexes)
    _require_same_shards(store, name, new.sharding)
    target = IngestTarget(guard.collection, info, sparse, encoder, encoders.loss_of_vectors)
    return Opened(target, guard, is_new)


def no_passages(count: int, first: str) -> SourceError:
    """Return the error of a source whose rows were all rejected; `first` is the first of them."""
    rows = "its only row was" if count == 1 else f"all {count:,} rows were"
    return SourceError(
        f"the source has no passage: {rows} rejected, the first: {first}; no collection was created"
    )


def _require_same_bm25(name: str, stored: Bm25Settings, given: Bm25Settings | None) -> None:
    if given is not None and given != stored:
        raise UsageError(
            f"bm25 must be the {stored} of collection '{name}', got {given}: omit it, ingest into "
            "another collection, or change the settings of this one with a migration of your own "
            "(SetBm25; see `msmarco-qdrant migrate up --help`)"
        )


def _require_same_indexes(store: Store, name: str, given: Mapping[str, PayloadIndex]) -> None:
    """Raise if an existing collection lacks one of the payload indexes: an ingest adds none."""
    if not given or not store.capabilities.payload_indexes:
        return
    spec = store.collection(name).spec()
    if not spec.payload_indexes and spec.sharding and spec.sharding.shard_key:
        # It has no shard. Before 1.17, Qdrant keeps its indexes and shows none of them.
        for key, kind in given.items():
            store.admin_collection(name).create_payload_index(key, kind)
        return
    for key, kind in given.items():
        found = index_kind(spec.payload_indexes, key)
        if found != kind:
            field = outside_lists(key).removeprefix("meta.")
            place = {"collection": name, "store": store.dsn}
            step = f"add it with {advised_command('index', 'add', f'{field}={kind}', **place)}"
            if found:
                step = f"first remove it with {advised_command('index', 'remove', field, **place)}"
            index = f"a payload index of kind {found}" if found else "no payload index"
            raise UsageError(
                f"collection '{name}' has {index} on '{key}', you asked for {kind}: omit it, or "
                f"{step}"
            )


def _require_same_shards(store: Store, name: str, given: ShardSettings | None) -> None:
    """Raise if an existing collection has other shards or replicas: an ingest changes none."""
    if given is None:
        return
    require_shards(store)
    found = store.collection(name).spec().sharding or ShardSettings()
    for field, wanted in asdict(given).items():
        if wanted is not None and wanted != (value := getattr(found, field)):
            kept = "absent, as in" if value is None else f"the {value} of"
            raise UsageError(
                f"{field} must be {kept} collection '{name}', got {wanted}: omit it, or ingest "
                "into another collection"
            )
