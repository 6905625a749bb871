"""Counts of an encode so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from msmarco_qdrant.core.reports import EncodeReport
from msmarco_qdrant.errors import EncodeStoppedError, MsmarcoQdrantError


@dataclass
class EncodeCounts:
    """Counts of an encode that began when they were made; see `EncodeReport` for each."""

    encoded: int = 0
    found: int = 0
    rejected: int = 0
    shards: int = 0
    tokens: int = 0
    cut: int = 0
    startup_seconds: float = 0.0
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
            startup_seconds=self.startup_seconds,
        )


@contextmanager
def ended_by_errors(report: Callable[[], EncodeReport]) -> Iterator[None]:
    """Report how far a failing encode got.

    Args:
        report: Returns the counts so far.

    Raises:
        EncodeStoppedError: For an error of this package.
    """
    try:
        yield
    except MsmarcoQdrantError as exc:
        found = report()
        done = f"{found.encoded:,} passages were written; run the same encode again to resume"
        message = f"{exc} ({done})" if found.encoded else str(exc)
        raise EncodeStoppedError(message, found) from exc
