"""The progress of an ingest, for people."""

from __future__ import annotations

from typing import Any

from msmarco_qdrant.core.reports import IngestProgress
from msmarco_qdrant.runtime.progress import ProgressDisplay

INDEX_NOTICE = "building the index, which can take minutes"
PRUNE_NOTICE = "searching for passages that are not in the source, to remove them"


class IngestDisplay(ProgressDisplay):
    """Shows the progress of an ingest; call it with each `IngestProgress`.

    Args:
        index_notice: The line that announces an index build, without control characters.
        options: See `ProgressDisplay`.

    Attributes:
        last: The latest `IngestProgress`, None before the first.
    """

    def __init__(self, index_notice: str = INDEX_NOTICE, **options: Any) -> None:
        super().__init__(**options)
        self.last: IngestProgress | None = None
        self._notices = {"prune": PRUNE_NOTICE, "index": index_notice}

    def __call__(self, progress: IngestProgress, /) -> None:
        """Show the progress; its rate leaves out the start-up, as that of the report does."""
        self.last = progress
        if progress.stage == "passages":
            self.show(progress.done, progress.fraction, progress.report.seconds)
        else:
            self.announce(self._notices[progress.stage])
