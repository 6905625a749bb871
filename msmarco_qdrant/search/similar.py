"""Search by examples: passages similar to some, and less similar to others.

The target is the mean of the positive examples, moved away from the mean of the negative ones:
`p + (p - n)`, which is Rocchio's formula with equal weights (SMART, 1971) and Qdrant's strategy
`average_vector`. The steps below are without I/O, as those of `steps`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.collection_types import PointId
from msmarco_qdrant.core.example import Example, VectorLike
from msmarco_qdrant.errors import PassageNotFoundError, UsageError
from msmarco_qdrant.filters import SearchFilter
from msmarco_qdrant.search.step import EncodePassages, Steps
from msmarco_qdrant.search.stored_vectors import StoredVectors, read_vectors
from msmarco_qdrant.stores.payload import point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.search.steps import Searcher

MAX_EXAMPLES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Checked examples of one search.

    Attributes:
        positive: Hits are similar to these; at least one.
        negative: Hits are less similar to these.
        all: The positive examples, then the negative ones.
    """

    positive: Sequence[Example]
    negative: Sequence[Example]
    all: Sequence[Example] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all", [*self.positive, *self.negative])

    @property
    def texts(self) -> Sequence[str]:
        """The texts among them."""
        return [one.text for one in self.all if one.text is not None]

    @property
    def ids(self) -> Sequence[PointId]:
        """The points of the passages among them, each once."""
        return [*dict.fromkeys(point_id(one.pid) for one in self.all if one.pid is not None)]

    @property
    def one_id(self) -> PointId | None:
        """The point of the only example, None if there are several or it is not a passage."""
        only = self.positive[0].pid if len(self.all) == 1 else None
        return None if only is None else point_id(only)


def to_examples(
    pid: str | None,
    text: str | None,
    vector: VectorLike | None,
    positive: Sequence[str | Example],
    negative: Sequence[str | Example],
) -> Examples:
    """Check the arguments of `similar`.

    Raises:
        UsageError: For no positive example, too many, or one of another type.
    """
    first = [] if pid is None else [Example(pid)]
    if text is not None:
        first.append(Example(text=text))
    if vector is not None:
        first.append(Example(vector=vector))
    found = Examples([*first, *_to_list("positive", positive)], [*_to_list("negative", negative)])
    if not found.positive:
        raise UsageError("pass an example: pid, text, vector, or positive with at least one")
    if (count := len(found.all)) > MAX_EXAMPLES:
        raise UsageError(f"there must be at most {MAX_EXAMPLES:,} examples, got {count:,}")
    return found


def _to_list(name: str, given: Sequence[str | Example]) -> list[Example]:
    if type(given) not in (list, tuple) and (  # most are one of these
        isinstance(given, str | Example) or not isinstance(given, Sequence)
    ):
        raise UsageError(
            f"{name} must be a list of pids or Example values, also for one, got {given!r}"
        )
    return [_to_example(name, one) for one in given] if given else []


def _to_example(name: str, given: object) -> Example:
    if isinstance(given, Example):
        return given
    if not isinstance(given, str):
        raise UsageError(
            f"{name} must be a list of pids (strings) or Example values, got {given!r} in it"
        )
    return Example(pid=given)


def find_target(
    examples: Examples, searcher: Searcher, scope: SearchFilter | None = None
) -> Steps[NDArray[np.float32]]:
    """Return the vector to search for: float32 `(dimension,)`; passages must match `scope`.

    Raises:
        PassageNotFoundError: If the collection lacks a passage of the examples.
        UsageError: For a vector of another dimension, or if the examples cancel out.
    """
    import numpy as np

    encoder = searcher.metadata.encoder
    _check_dimensions(examples.all, encoder.dimension, searcher.collection)
    stored = yield from read_vectors(examples.ids, searcher, scope)
    check_found(examples, stored, searcher.collection)
    encoded: Any = ()
    if examples.texts:
        encoded = yield EncodePassages(searcher.encoder, examples.texts)
    texts = iter(encoded)
    rows = [_vector_of(one, stored, texts) for one in examples.all]
    if encoder.similarity == "cosine":
        rows = [row / np.linalg.norm(row) for row in rows]
    target = _mean(rows[: len(examples.positive)])
    if examples.negative:
        target = 2 * target - _mean(rows[len(examples.positive) :])
    length = np.linalg.norm(target)
    if not length > 1e-6:  # float32 leaves a rest of this size
        raise UsageError(
            "the examples cancel out: their vectors leave nothing to search for; pass fewer"
        )
    if encoder.similarity == "cosine":
        target = target / length
    return np.asarray(target, np.float32)


def _check_dimensions(examples: Sequence[Example], dimension: int, collection: str) -> None:
    for one in examples:
        if one.vector is not None and len(one.vector) != dimension:
            raise UsageError(
                f"the vector of an example must have {dimension} numbers, as those of collection "
                f"'{collection}', got {len(one.vector)}"
            )


def check_found(examples: Examples, found: Container[PointId], collection: str) -> None:
    """Check that the passages among examples were found.

    Raises:
        PassageNotFoundError: If the collection lacks one of them.
    """
    for one in examples.all:
        if one.pid is not None and point_id(one.pid) not in found:
            raise PassageNotFoundError(
                f"no passage {one.pid!r} in collection '{collection}', to search by it: pass pids "
                "of its passages, as hits have them, or a text"
            )


def _vector_of(one: Example, stored: StoredVectors, texts: Any) -> Any:
    import numpy as np

    if one.pid is not None:
        return stored[point_id(one.pid)].astype(np.float64)
    given = next(texts) if one.text is not None else one.vector
    return np.asarray(given, np.float64)


def _mean(rows: Sequence[Any]) -> Any:
    return sum(rows) / len(rows)
