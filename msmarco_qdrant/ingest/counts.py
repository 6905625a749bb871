"""Counts of an ingest so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from msmarco_qdrant.core.reports import IngestReport, StageTiming


@dataclass(slots=True)
class IngestCounts:
    """Counts of an ingest, or of a part of it; see `IngestReport` for those not named here.

    Attributes:
        added: Passages written whose pid the collection lacked.
        vectors: Passages written with vectors.
        tokens: BM25 tokens of these.
    """

    written: int = 0
    unchanged: int = 0
    encoded: int = 0
    cut: int = 0
    added: int = 0
    vectors: int = 0
    tokens: int = 0
    missing: int = 0
    pruned: int = 0

    @property
    def stored(self) -> int:
        """Passages that are durable: those written, and those that were there already."""
        return self.written + self.unchanged

    def add(self, part: IngestCounts) -> None:
        """Add the counts of a part."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(part, field.name))

    def report(
        self,
        rejected: int,
        seconds: float,
        stages: Iterable[tuple[str, float]],
        sources: tuple[str, ...],
    ) -> IngestReport:
        """Return the report.

        Args:
            rejected: Rows that could not become a passage.
            seconds: Wall time so far.
            stages: Name and seconds of each stage, in pipeline order.
            sources: The shape of each file, in one line.
        """
        return IngestReport(
            read=self.stored + rejected,
            written=self.written,
            unchanged=self.unchanged,
            rejected=rejected,
            encoded=self.encoded,
            seconds=seconds,
            mean_tokens=self.tokens / self.vectors if self.vectors else None,
            pruned=self.pruned,
            stages=tuple(
                StageTiming(name, busy, min(busy / seconds, 1.0) if seconds > 0 else 0.0)
                for name, busy in stages
            ),
            cut=self.cut,
            sources=sources,
            missing=self.missing,
        )
