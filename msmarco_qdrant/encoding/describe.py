"""The properties of a loaded model, and which of them its files do not contain."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.encoder_types import NO_PROMPTS, EncoderInfo, Prompts, Similarity
from msmarco_qdrant.encoding.catalog import PublishedModel
from msmarco_qdrant.encoding.fingerprint import compute_fingerprint, list_modules, read_json
from msmarco_qdrant.encoding.fingerprint_1 import compute_fingerprint_1
from msmarco_qdrant.encoding.pretrained import NO_LENGTH, count_positions, limit_length
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Properties of a model that the library finds in its files.

    Attributes:
        dimension: Length of its vectors; None if it is not known.
        configured: Its configured maximum length in tokens, as the library reads it.
        positions: Tokens for which it has positions; None for any number.
        length: Maximum tokens of a text; None if no text is truncated.
        pooling: Name of its pooling, such as "mean"; "" without one.
    """

    dimension: int | None
    configured: int | None
    positions: int | None
    length: int | None
    pooling: str


def inspect_model(model: SentenceTransformer, name: str) -> ModelFacts:
    """Return a model's properties, and limit its maximum length to its positions.

    Args:
        model: The model, in float32.
        name: Its name, for messages.
    """
    return ModelFacts(
        dimension=model.get_embedding_dimension(),
        configured=model.max_seq_length,
        positions=count_positions(model),
        length=limit_length(model, name),
        pooling=_pooling(model),
    )


def describe_model(
    facts: ModelFacts,
    name: str,
    directory: Path,
    prompts: Prompts | None,
    similarity: Similarity | None,
    published: PublishedModel | None,
) -> EncoderInfo:
    """Describe a model.

    Args:
        facts: Its properties.
        name: Its name, to store.
        directory: Its directory.
        prompts: Prompts that the caller chose; None for those of the configuration.
        similarity: Similarity that the caller chose; None for that of the configuration.
        published: Entry of the catalog, for what the configuration does not contain.

    Raises:
        ModelNotFoundError: For a similarity other than cosine and dot, or without a dimension.
    """
    if facts.dimension is None:
        raise ModelNotFoundError(
            f"the configuration of {name} does not contain the dimension of its vectors"
        )
    own = _read_similarity(directory)
    likely = published.similarity if published is not None else None
    if similarity is None and own and likely and own != likely:
        _log.warning(
            "the configuration of %s has the similarity %s; the published %s has %s. Its own is "
            "used; to use the other, pass similarity=%r",
            *(name, own, published.name if published else "", likely, likely),
        )
    if prompts is None:
        prompts = _read_prompts(directory, name)
        if prompts == NO_PROMPTS and published is not None:
            prompts = published.prompts
    known = similarity or own or likely
    assumed = {
        "pooling": not (directory / "modules.json").is_file(),
        "similarity": known is None,
        "maximum length": not _has_length(directory),
    }
    first = compute_fingerprint_1(directory, prompts, facts.configured)
    return EncoderInfo(
        model=name,
        fingerprint=compute_fingerprint(directory, prompts, facts.length),
        dimension=facts.dimension,
        similarity=known or "cosine",
        prompts=prompts,
        max_seq_length=facts.length,
        other_fingerprints=() if first is None else (first,),
        pooling=facts.pooling,
        assumed=tuple(part for part, is_assumed in assumed.items() if is_assumed),
    )


def _read_prompts(directory: Path, name: str) -> Prompts:
    """Return the prompts of a model's configuration, chosen as the library chooses them."""
    settings = read_json(directory / "config_sentence_transformers.json")
    prompts: dict[str, str] = settings.get("prompts") or {}
    default = prompts.get(settings.get("default_prompt_name") or "", "")
    passage = next((key for key in ("document", "passage", "corpus") if key in prompts), None)
    found = Prompts(
        query=prompts.get("query", default) or "",
        passage=(prompts[passage] if passage is not None else default) or "",
    )
    unused = sorted(key for key, text in prompts.items() if text)
    if found == NO_PROMPTS and unused:
        _log.warning(
            "%s has prompts, but none is named query, document, passage or corpus: %s; none is "
            "used. Pass prompts=Prompts(query=..., passage=...) in Python if it needs them",
            *(name, ", ".join(unused)),
        )
    return found


def _read_similarity(directory: Path) -> Similarity | None:
    """Return the similarity of a model's configuration, None if it contains none."""
    settings = read_json(directory / "config_sentence_transformers.json")
    found: Any = settings.get("similarity_fn_name")
    if found is None or found in ("dot", "cosine"):
        similarity: Similarity | None = found
        return similarity
    raise ModelNotFoundError(
        f"similarity must be cosine or dot, got {found} in the model's configuration"
    )


def _has_length(directory: Path) -> bool:
    """True if the model's files contain its maximum length."""
    _, transformer = list_modules(directory)[0]
    settings = [read_json(path) for path in transformer.glob("sentence_*_config.json")]
    tokenizer = read_json(transformer / "tokenizer_config.json").get("model_max_length")
    return (tokenizer is not None and tokenizer < NO_LENGTH) or any(
        found.get("max_seq_length") for found in settings
    )


def _pooling(model: SentenceTransformer) -> str:
    """Return the name of a model's pooling, "" without one."""
    for module in model:
        if type(module).__name__ == "Pooling":
            modes: Any = getattr(module, "pooling_mode", "")
            return modes if isinstance(modes, str) else "+".join(modes)
    return ""
