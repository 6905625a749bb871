"""The progress of a re-embedding, for people."""

from __future__ import annotations

from typing import Any

from msmarco_qdrant.core.reports import ReembedProgress
from msmarco_qdrant.runtime.progress import ProgressDisplay

_NOTICES = {
    "copy": "copying missing passages to the {which} collection",
    "index": "building the index of the {which} collection",
    "compare": "searching both collections with sample queries",
    "verify": "comparing every passage of both collections",
    "swap": "repointing the alias to the {which} collection",
    "last pass": "copying passages written before the swap",
}


class ReembedDisplay(ProgressDisplay):
    """Announces each stage of a re-embedding and shows its progress; call it with each.

    Args:
        which: An adjective for the collection that is filled: "new", or "older" in a rollback.
        options: See `ProgressDisplay`.
    """

    def __init__(self, which: str, **options: Any) -> None:
        super().__init__(**options)
        self._which = which
        self._stage = ""

    def __call__(self, progress: ReembedProgress) -> None:
        """Show the progress."""
        if progress.stage != self._stage:
            self._stage = progress.stage
            self.announce(_NOTICES[progress.stage].format(which=self._which))
        if progress.done:
            self.show_of(progress.done, max(progress.total, 1))
