"""A sidecar without a model to load, in a process of its own, for tests that kill it.

Usage: python -m tests.service.serve_program STORE SPOOL [INBOX]

Its URL is the first line of its standard output; its log goes to standard error.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from msmarco_qdrant.ingest.indexing import IndexingSettings
from msmarco_qdrant.service.logs import configure_logs
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.service.sidecar import Sidecar
from tests.service.sidecars import CountedModels

OFTEN = IndexingSettings(every=250, latest=750, segment=2500, least=100)
"""So often that a kill can come during an index build."""


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
        CountedModels(),
        indexing=OFTEN,
        on_listening=lambda url: print(url, flush=True),
    )
    asyncio.run(sidecar.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
