"""The progress of an encode, for people."""

from __future__ import annotations

from msmarco_qdrant.core.reports import EncodeProgress
from msmarco_qdrant.runtime.progress import ProgressDisplay


class EncodeDisplay(ProgressDisplay):
    """Shows the progress of an encode; call it with each `EncodeProgress`."""

    def __call__(self, progress: EncodeProgress, /) -> None:
        """Show the progress; its rate leaves out the start-up, as that of the report does."""
        self.show(progress.done, progress.fraction, progress.report.seconds)
