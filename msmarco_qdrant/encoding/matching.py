"""The encoder of a collection: load it, or refuse another model."""

from __future__ import annotations

from dataclasses import asdict
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.encoding.loading import load_encoder
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.encoding.protocols import Encoder
from msmarco_qdrant.errors import ModelMismatchError, ModelNotFoundError


def load_collection_encoder(
    collection: str,
    encoder_info: EncoderInfo,
    model: str | PathLike[str] | None = None,
    options: EncoderOptions | None = None,
) -> Encoder:
    """Load the encoder of a collection.

    Args:
        collection: The collection's name, for messages.
        encoder_info: The encoder in the collection's metadata.
        model: A directory, a name of the catalog or a hub id to load it from; None for the name
            in the metadata.
        options: Device, precision and so on; None for the fastest.

    Raises:
        ModelMismatchError: If the loaded model is another one.
        ModelNotFoundError: If it cannot be loaded.
    """
    try:
        encoder = load_encoder(
            _stored_name(encoder_info.model) if model is None else model,
            prompts=encoder_info.prompts,
            similarity=encoder_info.similarity,
            **asdict(options or EncoderOptions()),
        )
    except ModelNotFoundError as exc:
        if model is not None:
            raise
        raise ModelNotFoundError(
            f"{exc}. Collection '{collection}' holds its vectors; if the model was moved, pass "
            "model=DIRECTORY"
        ) from exc
    require_same_model(collection, encoder_info, encoder.info)
    return encoder


def _stored_name(name: str) -> str:
    """Return a name for the stored model; a directory is stored with its full path.

    So a directory of a published name in the current directory is another model.
    """
    published = find_published(name)
    if published is not None and published.hub_id is not None and Path(name).is_dir():
        return published.hub_id
    return name


def require_same_vectors(path: str, stored: EncoderInfo, offered: EncoderInfo) -> None:
    """Refuse another model than the one whose vectors a file holds.

    Raises:
        ModelMismatchError: Naming both models.
    """
    if not offered.is_same_model_as(stored):
        raise ModelMismatchError(
            f"{path} holds vectors of {stored.model} ({stored.dimension}, fingerprint "
            f"{stored.fingerprint[:8]}); you asked for {offered.model} ({offered.dimension}, "
            f"{offered.fingerprint[:8]}): pass model={stored.model}, or another directory"
        )


def require_same_model(collection: str, stored: EncoderInfo, offered: EncoderInfo) -> None:
    """Refuse another model than the one whose vectors the collection holds.

    Raises:
        ModelMismatchError: Naming both models.
    """
    if offered.is_same_model_as(stored):
        if offered.similarity != stored.similarity:
            raise ModelMismatchError(
                f"collection '{collection}' compares vectors by {stored.similarity}, the encoder "
                f"was loaded for {offered.similarity}: load it with similarity="
                f"'{stored.similarity}', or let the collection load it"
            )
        return
    if offered.model == stored.model:
        raise ModelMismatchError(
            f"collection '{collection}' holds vectors of another {stored.model} than the one "
            f"loaded: fingerprint {stored.fingerprint[:8]}, loaded {offered.fingerprint[:8]}. "
            "Pass the original with model=DIRECTORY, or ingest into another collection"
        )
    raise ModelMismatchError(
        f"collection '{collection}' holds vectors of {stored.model} ({stored.dimension}); "
        f"you asked for {offered.model} ({offered.dimension}): "
        f"pass model={stored.model}, ingest into another collection, or re-embed this one with "
        f"{offered.model} (`msmarco-qdrant migrate reembed --help`)"
    )
