"""The machine of a worker, in errors that other machines may not have."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

from msmarco_qdrant.errors import ModelMismatchError, ModelNotFoundError


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
