"""Counts of an encode so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from msmarco_qdrant.core.reports import EncodeReport


@dataclass
class EncodeCounts:
    """Counts of an encode that began when they were made; see `EncodeReport` for each."""

    encoded: int = 0
    found: int = 0
    rejected: int = 0
    shards: int = 0
    tokens: int = 0
    cut: int = 0
    started: float = field(default_factory=time.perf_counter)

    def report(self) -> EncodeReport:
        """Return the counts so far."""
        return EncodeReport(
            read=self.encoded + self.found + self.rejected,
            encoded=self.encoded,
            found=self.found,
            rejected=self.rejected,
            shards=self.shards,
            tokens=self.tokens,
            cut=self.cut,
            seconds=time.perf_counter() - self.started,
        )
