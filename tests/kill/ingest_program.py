"""The command that the kill tests kill: an ingest without a model, so that it starts fast.

Usage: python ingest_program.py SOURCE STORE
"""

from __future__ import annotations

import sys

from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder

DIMENSION = 1024  # with a few thousand passages enough for an index to be built


def main(source: str, store: str) -> None:
    """Ingest the source, in small windows so that many flushes can be hit."""
    encoder = HashingEncoder(DIMENSION, batch_size=64)
    report = ingest_passages(source, store, encoder=encoder, window=256)
    print(report)


if __name__ == "__main__":
    main(*sys.argv[1:])
