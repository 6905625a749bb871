"""From a model's name to a reranker, by the same steps as to an encoder."""

from __future__ import annotations

from os import PathLike

from msmarco_qdrant.catalog import PUBLISHED_MODELS, find_published
from msmarco_qdrant.encoding.loading import locate
from msmarco_qdrant.encoding.options import EncoderOptions, Precision, devices_of
from msmarco_qdrant.encoding.reranker import Reranker
from msmarco_qdrant.errors import UsageError


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
            f"{name} is a {published.kind}: it does not score pairs of a phrase and a passage. "
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
