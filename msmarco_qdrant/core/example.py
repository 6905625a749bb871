"""Examples of `similar`: a passage of the collection, a text or a vector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from msmarco_qdrant.core.short_text import shorten
from msmarco_qdrant.errors import UsageError


class VectorLike(Protocol):
    """A row of numbers: a list, a tuple or a NumPy array."""

    def __len__(self) -> int:
        """Return the dimension."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the numbers."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One example of a search by examples: exactly one of these.

    Attributes:
        pid: A passage of the collection, by its vector there.
        text: A text, which is encoded as a passage.
        vector: A vector `(dimension,)` of the collection's model, of any length.

    Raises:
        UsageError: For none or several of them, or a value of another type.
    """

    pid: str | None = None
    text: str | None = None
    vector: VectorLike | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("pid", "text", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                "an example must be one of pid, text and vector, got "
                f"{' and '.join(given) or 'none of them'}"
            )
        _check_text("pid", self.pid)
        _check_text("text", self.text)
        if self.vector is not None:
            _check_vector(self.vector)


def _check_text(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not (value if name == "pid" else value.strip()):
        raise UsageError(f"the {name} of an example must be a non-empty string, got {value!r}")
    if not value.isascii() and any("\ud800" <= one <= "\udfff" for one in value):
        raise UsageError(f"the {name} of an example must have no lone surrogates, got {value!r}")


def _check_vector(vector: object) -> None:
    import numpy as np

    try:
        given = np.asarray(vector)
    except ValueError as exc:
        raise UsageError(f"the vector of an example must be numbers: {exc}") from exc
    if given.dtype.kind not in "iuf":
        raise UsageError(f"the vector of an example must be numbers, got {shorten(repr(vector))}")
    if given.ndim != 1:
        raise UsageError(f"the vector of an example must be one row, got shape {given.shape}")
    with np.errstate(over="ignore"):  # infinite, which is refused
        values = given.astype(np.float32)
    if not np.isfinite(values).all() or not values.any():
        raise UsageError("the vector of an example must be finite and not zero")
