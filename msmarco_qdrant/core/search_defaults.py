"""Search options that a collection keeps for searches that do not choose their own."""

from __future__ import annotations

from dataclasses import dataclass

from msmarco_qdrant.core.search_types import Fusion
from msmarco_qdrant.errors import UsageError

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class SearchDefaults:
    """Search options of a collection; None for the package's own default.

    They are kept in its metadata, and every client uses them for options that a search omits.

    Attributes:
        fusion: The fusion of "hybrid".
        ef: Candidates considered in the graph, 1 to 10,000.
        rerank_depth: Hits to rerank with `rerank_depth="auto"`, 1 to 10,000.
        source: Where they come from, for people, such as "tuned by RR@10 of 1,331 queries".

    Raises:
        UsageError: If a value is out of range or of another type.
    """

    fusion: Fusion | None = None
    ef: int | None = None
    rerank_depth: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.fusion is not None and not isinstance(self.fusion, Fusion):
            raise UsageError(f"fusion must be a Fusion, such as Fusion('rrf'), got {self.fusion!r}")
        if not isinstance(self.source, str):
            raise UsageError(f"source must be a string, got {self.source!r}")
        for name, value in (("ef", self.ef), ("rerank_depth", self.rerank_depth)):
            is_count = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (is_count and 1 <= value <= _MOST):
                raise UsageError(f"{name} must be 1 to {_MOST:,}, got {value!r}")

    def describe(self) -> str:
        """Return the options in one line, such as "convex fusion 0.75, ef 64"."""
        parts = []
        if self.fusion is not None:
            parts.append(f"{self.fusion.method} fusion {self.fusion.weight:g}")
        if self.ef is not None:
            parts.append(f"ef {self.ef}")
        if self.rerank_depth is not None:
            parts.append(f"rerank depth {self.rerank_depth}")
        source = f" ({self.source})" if parts and self.source else ""
        return (", ".join(parts) or "the package's") + source


NO_DEFAULTS = SearchDefaults()
