"""The encode that the kill tests kill: without a model, so that it starts fast.

Usage: python encode_program.py SOURCE FOLDER
"""

from __future__ import annotations

import sys

from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.testing import HashingEncoder


def main(source: str, folder: str) -> None:
    """Encode the source in small shards, parsed in processes of their own."""
    print(encode_corpus(source, folder, encoder=HashingEncoder(), shard_chunks=1, workers=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
