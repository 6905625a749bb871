"""A sidecar without a model to load, in a process of its own, for tests that kill it.

Usage: python -m tests.service.serve_program STORE SPOOL [INBOX]

Its URL is the first line of its standard output; its log goes to standard error.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from msmarco_qdrant.core.records import EncoderInfo
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.service.logs import configure_logs
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.sidecar import Sidecar
from msmarco_qdrant.service.worker.indexing import IndexingSettings
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker

OFTEN = IndexingSettings(every=100, latest=300, segment=1000, least=50)
"""So often that a kill can come during an index build."""


class CostlessModels:
    """Models that cost nothing."""

    def new(self) -> Encoder:
        """The one that there is."""
        return HashingEncoder()

    def of(self, encoder_info: EncoderInfo) -> Encoder:  # noqa: ARG002
        """The same."""
        return HashingEncoder()

    def reranker(self) -> Reranker | None:
        """One that costs nothing, too."""
        return WordOverlapReranker()


def settings_of(store: str, spool: str, inbox: str | None = None) -> SidecarSettings:
    """Any free port, and short retries."""
    return SidecarSettings(
        store=store,
        spool=Path(spool),
        inbox=Path(inbox) if inbox else None,
        port=0,
        timeout_s=5.0,
        retry_s=1.0,
    )


def main(*arguments: str) -> None:
    """Serve until it is stopped."""
    configure_logs("info")
    sidecar = Sidecar(
        settings_of(*arguments),
        CostlessModels(),
        indexing=OFTEN,
        on_listening=lambda url: print(url, flush=True),
    )
    asyncio.run(sidecar.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
