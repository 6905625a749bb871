"""A search client for an integration: on a collection that exists, or on a new one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from os import PathLike

from msmarco_qdrant.core.collection_types import PayloadIndex
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.matching import load_collection_encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.encoding.options import EncoderChoices
from msmarco_qdrant.errors import (
    ModelMismatchError,
    ModelNotFoundError,
    StoreNotFoundError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.integrations.text_encoder import TextEncoder, require_same_space
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection, Store, use_store

_FRAMEWORKS = ("haystack:", "langchain:", "llamaindex:")
"""Beginnings of the names of models that are a framework's embedders."""


def open_client(  # noqa: PLR0913  # all but two have defaults
    store: Store | str | PathLike[str],
    *,
    collection: str,
    encoder: Encoder | None = None,
    model: str | PathLike[str] | None = None,
    encoder_options: EncoderChoices | None = None,
    reranker: str | PathLike[str] | Reranker | None = None,
    create: bool = False,
    payload_indexes: Mapping[str, PayloadIndex] | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    encoder_name: str = "encoder",
) -> SearchClient:
    """Open a client on a collection.

    Args:
        store: The path or URL of a store, or an open store, which stays open.
        collection: Name of the collection.
        encoder: A loaded encoder, such as a `TextEncoder` of a framework's embedder, which is
            compared with a stored vector; None for the collection's model.
        model: Location of the model, instead of `encoder`; by default the name in the metadata,
            or the default model for a new collection.
        encoder_options: Device, precision and so on; see `SearchClient.open`.
        reranker: A cross-encoder, or the location of one.
        create: Create the collection if it does not exist.
        payload_indexes: The `meta` fields that a new collection indexes.
        connection: API key, port and timeouts, if `store` is a URL.
        encoder_name: The caller's argument for `encoder`, for messages.

    Raises:
        ModelMismatchError: If the collection's vectors are not those of the model or encoder.
        StoreError: If the store cannot be opened, or has no such collection.
        UsageError: For `encoder` together with `model`, or with options that no model has, or if a
            framework's embedder is needed.
    """
    models = ModelChoice.of(model, encoder_options)
    loads_reranker = isinstance(reranker, str | PathLike)
    models.require_instead_of(encoder, encoder_name, loads_others=loads_reranker)
    if create and not _has_collection(store, collection, connection):
        if encoder is None:
            encoder, model = models.load(), None
            encoder_options = encoder_options if loads_reranker else None
        ingest_passages(
            [],
            store,
            collection=collection,
            encoder=encoder,
            payload_indexes=payload_indexes,
            connection=connection,
            optimize=False,
        )
    with ExitStack() as stack:
        try:
            client = SearchClient.open(
                store,
                collection=collection,
                model=model,
                encoder=encoder,
                encoder_options=encoder_options,
                reranker=reranker,
                connection=connection,
                load_encoder=partial(
                    load_collection_encoder, collection, model=None, options=models.options
                ),
            )
        except (ModelMismatchError, ModelNotFoundError) as exc:
            stored = _stored_model(store, collection, connection)
            if model is not None or not stored.startswith(_FRAMEWORKS):
                raise
            raise _needs_embedder(collection, stored, encoder) from exc
        stack.callback(client.close)
        if isinstance(encoder, TextEncoder):
            require_same_space(client.store, collection, encoder)
        stack.pop_all()
    return client


def _has_collection(
    store: Store | str | PathLike[str], collection: str, connection: Connection
) -> bool:
    try:
        with use_store(store, connection) as opened:
            return collection in opened.aliases()
    except StoreNotFoundError:
        return False


def _stored_model(
    store: Store | str | PathLike[str], collection: str, connection: Connection
) -> str:
    with use_store(store, connection) as opened:
        return opened.metadata(collection).encoder.model


def _needs_embedder(
    collection: str, stored: str, encoder: Encoder | None
) -> ModelMismatchError | UsageError:
    """Return the error of a collection whose vectors are those of another embedder, or of one."""
    holds = f"collection '{collection}' holds vectors of {stored}"
    if encoder is None:
        return UsageError(f"{holds}, an embedder of that framework: pass that embedder")
    info = encoder.info
    return ModelMismatchError(
        f"{holds}, the embedder passed is {info.model} with {info.dimension} numbers: pass the "
        "embedder that the collection was made with, or use another collection"
    )
