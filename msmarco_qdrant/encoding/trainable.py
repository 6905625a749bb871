"""Models of sentence-transformers, loaded to be trained."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from msmarco_qdrant.core.encoder_types import EncoderInfo, Prompts, Similarity
from msmarco_qdrant.encoding.describe import describe_model, inspect_model
from msmarco_qdrant.encoding.loading import locate_bi_encoder
from msmarco_qdrant.encoding.pretrained import find_model_directory, load_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load_trainable(
    model: str | PathLike[str],
    device: str | None = None,
    *,
    prompts: Prompts | None = None,
    similarity: Similarity | None = None,
) -> tuple[SentenceTransformer, EncoderInfo]:
    """Load a bi-encoder in float32 with its description.

    Its configuration gets the prompts, the similarity and the maximum length in effect, so that the
    saved model has them, too, if they came from the catalog or from the caller.

    Args:
        model: A directory, a name of the catalog, or a hub id.
        device: The device of torch.
        prompts: Prompts of queries and passages; None for the model's own.
        similarity: "cosine" or "dot"; None for the model's own.

    Raises:
        ModelNotFoundError: If no model is found, or it cannot be loaded.
        UsageError: For a cross-encoder or a baseline.
    """
    found = locate_bi_encoder(model, prompts, similarity)
    loaded = load_model(found.location, device)
    directory = find_model_directory(found.location)
    facts = inspect_model(loaded, found.hint)
    info = describe_model(
        facts, found.hint, directory, found.prompts, found.similarity, found.published
    )
    texts = {"query": info.prompts.query, "document": info.prompts.passage}
    loaded.prompts = {**loaded.prompts, **texts}
    loaded.similarity_fn_name = info.similarity
    return loaded, info


def load_trainable_for(
    stored: EncoderInfo, model: str | PathLike[str], device: str | None = None
) -> tuple[SentenceTransformer, EncoderInfo]:
    """Load a bi-encoder to train for a collection; the collection's own one with its prompts.

    The prompts of an ingest are in the collection, and may be in none of the model's files.

    Args:
        stored: The encoder in the collection's metadata.
        model: See `load_trainable`; so for `device`, and what is raised.
        device: See above.
    """
    loaded, info = load_trainable(model, device)
    if (info.prompts, info.similarity) == (stored.prompts, stored.similarity):
        return loaded, info
    again = load_trainable(model, device, prompts=stored.prompts, similarity=stored.similarity)
    return again if again[1].is_same_model_as(stored) else (loaded, info)
