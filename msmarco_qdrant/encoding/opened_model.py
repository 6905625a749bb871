"""A model ready to be run: its description and tokenizers, and its weights in one form or both.

A model with a proof (`proof`) is opened from its files alone. Any other is loaded by the library,
and compared for the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.encoder_types import EncoderInfo, Prompts, Similarity
from msmarco_qdrant.encoding.backends.base import Task
from msmarco_qdrant.encoding.backends.cache import mark_used
from msmarco_qdrant.encoding.catalog import PublishedModel
from msmarco_qdrant.encoding.compact import CompactModel, read_compact
from msmarco_qdrant.encoding.describe import ModelFacts, describe_model, inspect_model
from msmarco_qdrant.encoding.forks import require_own_threads
from msmarco_qdrant.encoding.pretrained import (
    effective_length,
    find_model_directory,
    load_model,
    map_loading_errors,
)
from msmarco_qdrant.encoding.proof import (
    Proof,
    locate_proof,
    make_proof,
    read_proof,
    save_proof,
)
from msmarco_qdrant.encoding.protocols import Tokenizer
from msmarco_qdrant.encoding.tokenizers import build_tokenizer, count_prompt_tokens
from msmarco_qdrant.errors import ModelNotFoundError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A model, and what its caller or the catalog chose.

    Attributes:
        location: A directory or a hub id.
        name: Its name to store.
        prompts: Prompts of queries and passages; None for the model's own.
        similarity: Similarity of its vectors; None for the model's own.
        published: Entry of the catalog for what its files do not contain.
    """

    location: str
    name: str
    prompts: Prompts | None = None
    similarity: Similarity | None = None
    published: PublishedModel | None = None


@dataclass(eq=False)
class OpenedModel:
    """A model whose description is known.

    Attributes:
        info: The encoder's identity.
        directory: The directory of its files.
        prompt_lengths: Tokens of the prompt of each task, for a pooling that excludes it.
        make_tokenizer: Returns the tokenizer of a task.
        compact: Its weights, if they are proven; else None.
        library: The model of the library, in float32; None if it was not needed.
    """

    info: EncoderInfo
    directory: Path
    prompt_lengths: dict[Task, int | None]
    make_tokenizer: Callable[[Task], Tokenizer]
    compact: CompactModel | None
    library: SentenceTransformer | None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of passages."""
        return self.make_tokenizer("document")

    @cached_property
    def query_tokenizer(self) -> Tokenizer:
        """The tokenizer of queries."""
        return self.make_tokenizer("query")


def open_proven(request: ModelRequest) -> OpenedModel | None:
    """Open a model without the library; None without a proof.

    A model of the hub is opened as it is in the hub's cache, without asking for a newer one.

    Raises:
        EncodingError: In a forked child whose parent has loaded a model.
    """
    try:
        directory = find_model_directory(request.location)
    except ModelNotFoundError:
        return None  # it is downloaded, or the library's loading reports why not
    path = locate_proof(directory, request.prompts)
    proof = read_proof(path) if path is not None else None
    if path is None or proof is None:
        return None
    require_own_threads()
    effective_length(request.name, proof.facts.configured, proof.facts.positions)  # its warning
    info = _describe(request, directory, proof.facts)
    compact = read_compact(directory)
    if compact is None or info.prompts != proof.prompts:
        return None  # other prompts have not been compared
    if locate_proof(directory, request.prompts) != path:
        return None  # the files changed while they were read
    mark_used(path)
    lengths, place = proof.prompt_lengths, directory.absolute()
    return OpenedModel(info, place, lengths, proof.tokenizer, compact, None)


def open_by_library(request: ModelRequest, device: str | None) -> OpenedModel:
    """Load a model by the library, on a device; prove it for the next start.

    Raises:
        ModelNotFoundError: If it cannot be loaded.
        EncodingError: In a forked child whose parent has loaded a model.
    """
    before = _locate_proof_before(request)
    model = load_model(request.location, device)
    directory = find_model_directory(request.location)
    # The model is described in float32, so this comes before any change of precision.
    facts = inspect_model(model, request.name)
    info = _describe(request, directory, facts)
    with map_loading_errors(request.location, "pass a directory"):  # of a model's code
        tokenizers: dict[Task, Tokenizer] = {
            "document": build_tokenizer(model, "document", info.prompts.passage),
            "query": build_tokenizer(model, "query", info.prompts.query),
        }
        lengths = count_prompt_tokens(model, info.prompts)
    place = directory.absolute()  # the working directory may be another one later
    opened = OpenedModel(info, place, lengths, tokenizers.__getitem__, None, model)
    made = make_proof(model, directory, facts, info.prompts, tokenizers, lengths)
    if made is not None:
        proof, opened.compact = made
        _save(proof, directory, request, before)
    return opened


def _save(proof: Proof, directory: Path, request: ModelRequest, before: Path | None) -> None:
    """Save a proof, but not one of files that changed while they were read: it is of neither."""
    path = locate_proof(directory, request.prompts)
    if path is not None and before in (None, path):
        save_proof(path, proof)


def _locate_proof_before(request: ModelRequest) -> Path | None:
    """Return the path of the proof of a model that is not loaded yet; None before its download."""
    with suppress(ModelNotFoundError):
        return locate_proof(find_model_directory(request.location), request.prompts)
    return None


def _describe(request: ModelRequest, directory: Path, facts: ModelFacts) -> EncoderInfo:
    return describe_model(
        facts,
        request.name,
        directory,
        request.prompts,
        request.similarity,
        request.published,
    )
