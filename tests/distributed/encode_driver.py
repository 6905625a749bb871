"""The encode that the kill tests kill: by a Ray cluster, or by this process.

Usage: python -m tests.distributed.encode_driver ADDRESS|alone SOURCE FOLDER
"""

from __future__ import annotations

import sys

from msmarco_qdrant.distributed import encode_dataset
from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.sources import chunk_extents, corpus
from msmarco_qdrant.testing import HashingEncoder

ALONE = "alone"
_LINE_BYTES = 500  # the longest line, which is less than a chunk


def main(address: str, source: str, folder: str) -> None:
    """Encode a source in small shards, and print the passages and rejects of all of them."""
    for module in (corpus, chunk_extents):
        vars(module)["CHUNK_BYTES"] = 2000  # a shard is some dozen lines
    rows = corpus.Corpus(source, max_line_bytes=_LINE_BYTES)
    if address == ALONE:
        report = encode_corpus(rows, folder, encoder=HashingEncoder(), workers=0, shard_chunks=1)
    else:
        report = encode_dataset(
            rows,
            folder,
            address=address,
            workers=2,
            cpus_per_worker=0.5,
            gpus_per_worker=0,
            make_encoder=HashingEncoder,
            shard_chunks=1,
        )
    print(report.encoded + report.found, report.rejected, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
