"""Cross-encoders of sentence-transformers, loaded to be trained."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.encoder_types import NO_PROMPTS
from msmarco_qdrant.encoding.catalog import find_published
from msmarco_qdrant.encoding.fingerprint import compute_fingerprint
from msmarco_qdrant.encoding.hub import require_hub_or_cache
from msmarco_qdrant.encoding.loading import is_model_directory, locate_model
from msmarco_qdrant.encoding.pretrained import (
    find_model_directory,
    has_pair_head,
    load_cross_encoder,
)
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


@dataclass(frozen=True, slots=True, eq=False)
class TrainablePairs:
    """A cross-encoder to train.

    Attributes:
        model: The model, in float32.
        name: Its name, as given.
        fingerprint: Its fingerprint, without a new head.
        has_new_head: True if its head has random weights.
    """

    model: CrossEncoder
    name: str
    fingerprint: str
    has_new_head: bool


def load_trainable_pairs(
    model: str | PathLike[str], device: str | None = None, *, seed: int = 0
) -> TrainablePairs:
    """Load a cross-encoder, or another model to which a head for scores is added.

    Args:
        model: A directory, a name of the catalog, or a hub id: of a cross-encoder, of a bi-encoder,
            or of a transformer.
        device: A torch device; None for the best one.
        seed: Of the weights of a new head.

    Raises:
        ModelNotFoundError: If no model is found, it cannot be loaded, or it returns several scores.
        UsageError: For a baseline.
    """
    import torch

    name = str(model)
    if not name:
        raise UsageError("model must be a name, a hub id or a directory, got an empty string")
    known = None if is_model_directory(Path(name)) else find_published(name)
    if known is not None and known.kind == "baseline":
        raise UsageError(f"{name} is a baseline: it cannot be trained")
    location, hint = locate_model(name, known)
    if not Path(location).is_dir():
        require_hub_or_cache(name, location, "cross-encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loaded = load_cross_encoder(location, device, allow_new_head=True)
    directory = find_model_directory(location)
    fingerprint = compute_fingerprint(directory, NO_PROMPTS, loaded.max_seq_length)
    return TrainablePairs(loaded, hint, fingerprint, not has_pair_head(loaded))
