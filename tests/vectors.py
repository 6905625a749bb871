"""Folders of vectors for tests of what reads them, as `msmarco-qdrant encode` makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.sources.shard_file import (
    TEXT_COLUMNS,
    Manifest,
    ShardHeader,
    VectorType,
    shard_path,
    write_manifest,
    write_shard,
)


def vectors_of(passages: Sequence[Passage], encoder: Encoder) -> np.ndarray:
    """What an encoder gives for passages, float32 `(n, dimension)` in their order."""
    vectors = np.zeros((len(passages), encoder.info.dimension), np.float32)
    for batch in encoder.encode_passages(encoder.tokenizer([p.text for p in passages])):
        vectors[batch.positions] = batch.vectors
    return vectors


def table_of(passages: Sequence[Passage]) -> pa.Table:
    """The columns of a shard but for its vectors."""
    rows = [
        (p.pid, p.text, json.dumps(p.meta), text_digest(p.text), meta_digest(p.meta))
        for p in passages
    ]
    columns = zip(*rows, strict=True) if rows else [()] * len(TEXT_COLUMNS)
    names = zip(TEXT_COLUMNS, columns, strict=True)
    return pa.table({name: pa.array(column, pa.string()) for name, column in names})


def header_of(
    passages: Sequence[Passage], encoder: Encoder, number: int = 0, dtype: VectorType = "float16"
) -> ShardHeader:
    """A header that fits them."""
    return ShardHeader(encoder.info, dtype, number, len(passages), 0, "0" * 64, 1, 1)


def write_folder(
    folder: Path,
    passages: Sequence[Passage],
    encoder: Encoder,
    rows: int = 2,
    dtype: VectorType = "float16",
) -> Path:
    """A complete folder of shards of so many rows."""
    folder.mkdir(exist_ok=True)
    starts = range(0, len(passages), rows)
    for number, start in enumerate(starts):
        part = passages[start : start + rows]
        write_shard(
            shard_path(folder, number),
            header_of(part, encoder, number, dtype),
            table_of(part),
            vectors_of(part, encoder).astype(dtype),
        )
    fingerprint = encoder.info.fingerprint
    write_manifest(folder, Manifest(len(starts), len(passages), 0, fingerprint, dtype))
    return folder
