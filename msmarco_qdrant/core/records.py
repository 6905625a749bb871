"""Rows of sources: passages, queries, and rows that are neither.

Frozen and slotted, without logic. A vector is a NumPy array of `float32`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

from msmarco_qdrant.core.short_text import shorten
from msmarco_qdrant.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Meta: TypeAlias = dict[str, Any]
"""The user's own fields of a passage: JSON values, possibly nested."""

WINDOW = 8192
"""Default number of passages that an ingest sorts by length, writes and flushes together."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage.

    Attributes:
        pid: The passage's id, any non-empty string.
        text: Exactly the encoded text; a title is joined in front.
        meta: The user's own fields.
        source: The file it came from ("" for a passage made in Python).
        line: The line or row in that file, counted from 1 (0 for a passage made in Python).
        raw: The original row, for the rejects file (b"" if there is none).
    """

    pid: str
    text: str
    meta: Meta = field(default_factory=dict, hash=False)
    source: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    raw: bytes = field(default=b"", compare=False, repr=False)

    def __repr__(self) -> str:
        meta = f", meta={shorten(repr(self.meta))}" if self.meta else ""
        place = f", source={self.source!r}, line={self.line}" if self.source else ""
        return f"Passage(pid={self.pid!r}, text={shorten(self.text)!r}{meta}{place})"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPassage:
    """A passage with its vector.

    Attributes:
        passage: The passage.
        vector: float32 `(dimension,)`, of unit length if the similarity is cosine.
    """

    passage: Passage
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a file: its id and its text."""

    qid: str
    text: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot become a passage.

    Attributes:
        source: The file.
        line: The line or row in it, counted from 1.
        reason: Reason of the rejection, for people.
        raw: The first bytes of the row, at most 4 KiB.
        raw_bytes: Length of the whole row in bytes.
    """

    source: str
    line: int
    reason: str
    raw: bytes
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """Limits for an ingest that deletes the passages that its source lacks.

    Attributes:
        max_share: Largest share of the collection to delete, 0 to 1. Beyond it nothing is
            deleted, as the source may be cut off.
        allow_rejects: Prune even if rows were rejected. A rejected row of a stored passage
            deletes that passage. A source that is cut off never prunes.

    Raises:
        UsageError: If `max_share` is out of range.
    """

    max_share: float = 0.2
    allow_rejects: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.max_share, Real) and 0 <= self.max_share <= 1):
            raise UsageError(f"max_share must be 0 to 1, got {self.max_share}")
