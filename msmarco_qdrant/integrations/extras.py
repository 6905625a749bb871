"""Imports of a framework, with an error that names the missing extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msmarco_qdrant.errors import MissingExtraError


@contextmanager
def imports_of(package: str, feature: str, extra: str) -> Iterator[None]:
    """Import `package` inside this block.

    Args:
        package: The top-level package, such as `haystack`.
        feature: The feature that needs it, as the subject of a sentence.
        extra: The extra of this distribution that installs it.

    Raises:
        MissingExtraError: If `package` is not installed. Another missing module is its own error.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(feature, extra) from exc
