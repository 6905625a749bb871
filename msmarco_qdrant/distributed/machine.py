"""The model and the sources on the machine of a worker, which may have other files than others."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.encoding.checks import check_encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.errors import ModelMismatchError, ModelNotFoundError, SourceError


@contextmanager
def named_machine() -> Iterator[None]:
    """Name this machine in errors of a model: other machines may have it."""
    try:
        yield
    except (ModelNotFoundError, ModelMismatchError) as exc:
        raise type(exc)(
            f"{exc}. This is so on {platform.node()}: copy the same files to every machine, or "
            "name a directory that all of them share"
        ) from exc


@contextmanager
def named_sources() -> Iterator[None]:
    """Name this machine in the error of a source that is missing: other machines may have it."""
    try:
        yield
    except SourceError as exc:
        if not isinstance(exc.__cause__, FileNotFoundError):
            raise
        raise SourceError(
            f"{exc}. This is so on {platform.node()}: pass files that every machine can read under "
            "the same path, or URLs"
        ) from exc.__cause__


def load_encoder(models: ModelChoice, make_encoder: Callable[[], Encoder] | None) -> Encoder:
    """Load the encoder of a worker.

    Args:
        models: Its model.
        make_encoder: Makes it, instead of the model.

    Raises:
        ModelError: If it cannot be loaded.
    """
    if make_encoder is None:
        with named_machine():
            return models.load()
    encoder = make_encoder()
    check_encoder(encoder)
    return encoder


def require_first_model(wanted: EncoderInfo, found: EncoderInfo) -> None:
    """Refuse the model of this machine if its files differ from those that were loaded first.

    Raises:
        ModelMismatchError: If they do.
    """
    if not found.is_same_model_as(wanted):
        raise ModelMismatchError(
            f"{platform.node()} has another {found.model} than the machine that loaded it first: "
            f"fingerprint {found.fingerprint[:8]}, there {wanted.fingerprint[:8]}. Copy the same "
            "files to every machine, or name a directory that all of them share"
        )
