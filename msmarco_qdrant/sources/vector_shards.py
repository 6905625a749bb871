"""A folder of encoded passages, as a source of an ingest without a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import TYPE_CHECKING

from msmarco_qdrant.core.digests import meta_digest, text_digest
from msmarco_qdrant.core.encoder_types import EncoderInfo, Int8Loss, Similarity, worst_loss
from msmarco_qdrant.core.records import EncodedPassage, Passage, Reject
from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.file_path import FilePath, to_path
from msmarco_qdrant.sources.lines import RAW_BYTES_KEPT
from msmarco_qdrant.sources.parquet import check_extra
from msmarco_qdrant.sources.rows import RowError, check_passage, json_object
from msmarco_qdrant.sources.shard_file import (
    MANIFEST,
    Footer,
    Manifest,
    ShardRows,
    read_footer,
    read_manifest,
    read_rows,
    shard_path,
    shard_paths,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FOOTERS_AT_ONCE = 8


class VectorShards:
    """The passages and vectors of a folder that `msmarco-qdrant encode` wrote.

    It can be iterated more than once, with one row group of one file in memory.

    Args:
        folder: The folder, a path or a URL such as ``s3://bucket/folder``.

    Attributes:
        folder: The folder.
        encoder: Encoder of the vectors.
        int8_loss: The largest measured loss of its vectors, if it used int8.
        paths: The files, in order.
        size: Rows in all files.
        position: Rows read so far.

    Raises:
        SourceError: On construction, if the folder is missing or not complete, or its files do
            not belong together.
        MissingExtraError: Without the extra `parquet`.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder: FilePath = to_path(folder)
        check_extra(f"reading vectors ({self.folder})")
        manifest = _require_manifest(self.folder)
        self.paths: Sequence[FilePath] = _list_shards(self.folder, manifest)
        footers = _read_footers(self.paths)
        self.encoder: EncoderInfo = footers[0].header.encoder
        self.int8_loss: Int8Loss | None = worst_loss(one.header.int8_loss for one in footers)
        self.size: int = manifest.passages
        self.position = 0
        for number, footer in enumerate(footers):
            _check_shard(self.paths[number], footer, number, manifest, self.encoder)
        found = sum(footer.passages for footer in footers)
        if found != manifest.passages:
            raise SourceError(
                f"{self.folder} must hold {manifest.passages:,} passages as its {MANIFEST} states, "
                f"got {found:,}: a shard is of another encode; encode again into another folder"
            )

    def __iter__(self) -> Iterator[EncodedPassage | Reject]:
        """Yield every row in order, as a passage with its vector or as a reject.

        Raises:
            SourceError: If a file cannot be read, or a checksum is wrong.
        """
        self.position = 0
        for path in self.paths:
            for row in shard_rows(path, self.encoder.similarity):
                self.position += 1
                yield row


def shard_rows(
    path: FilePath, similarity: Similarity, source: str | None = None
) -> Iterator[EncodedPassage | Reject]:
    """Yield every row of one file, as a passage with its vector or as a reject.

    Args:
        path: Path of the file.
        similarity: What its vectors are scaled for.
        source: The name of the file in passages and rejects; by default its path.

    Raises:
        SourceError: If the file cannot be read, or a checksum is wrong.
    """
    line = 0
    for rows in read_rows(path):
        vectors, usable = _usable(rows.vectors, similarity)
        for index in range(len(vectors)):
            line += 1
            vector = vectors[index] if usable[index] else None
            yield _row(source or str(path), line, rows, index, vector)


def _require_manifest(folder: FilePath) -> Manifest:
    """Read the folder's manifest; without it the folder is not complete."""
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is not None:
        return manifest
    if shards := len(shard_paths(folder)):
        raise SourceError(
            f"{folder} is not complete: {shards} shards, but no {MANIFEST}; run the same "
            "encode again to finish it"
        )
    found = "a folder without vectors" if folder.is_dir() else "no folder"
    raise SourceError(
        f"{folder} must be a DIR that `msmarco-qdrant encode SOURCE --out DIR` wrote, got {found}"
    )


def _list_shards(folder: FilePath, manifest: Manifest) -> list[FilePath]:
    """List the shards, which must be exactly those of the manifest."""
    expected = [shard_path(folder, number) for number in range(manifest.shards)]
    found = shard_paths(folder)
    if missing := sorted(set(expected) - set(found)):
        raise SourceError(
            f"{missing[0]} is missing: {folder / MANIFEST} lists {manifest.shards} shards, and "
            f"{len(missing)} of them are missing; run the same encode "
            "again to recreate them"
        )
    if more := sorted(set(found) - set(expected)):
        raise SourceError(
            f"{more[0]} is not in {folder / MANIFEST}, which lists {manifest.shards} shards, got "
            f"{len(found)} files; move the others out of the folder"
        )
    if not expected:
        raise SourceError(f"{folder} holds no shards: its source was empty")
    return expected


def _read_footers(paths: Sequence[FilePath]) -> list[Footer]:
    """Read the footers of files, several at once: those behind URLs need two requests each."""
    threads = ThreadPoolExecutor(_FOOTERS_AT_ONCE, "msmarco-qdrant-footers")
    try:
        return [*threads.map(read_footer, paths)]
    finally:
        threads.shutdown(wait=False)


def _check_shard(
    path: FilePath, footer: Footer, number: int, manifest: Manifest, encoder: EncoderInfo
) -> None:
    """Refuse a shard of another encode, with the property that differs."""
    header = footer.header
    for what, found, expected in (
        ("number", header.number, number),
        ("fingerprint", header.encoder.fingerprint, manifest.fingerprint),
        ("dtype", header.dtype, manifest.dtype),
        ("dimension", footer.dimension, encoder.dimension),
        ("similarity", header.encoder.similarity, encoder.similarity),
    ):
        if found != expected:
            raise SourceError(
                f"{path} does not belong to the others: its {what} must be {expected}, got "
                f"{found}; put back the original file, or encode again into another folder"
            )


def _usable(
    vectors: NDArray[np.float32], similarity: Similarity
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Restore vectors after rounding, and mark those that are finite and not zero.

    Rounding to float16 changes a length by up to 5e-4, so vectors for cosine are scaled to unit
    length again. Lengths are computed in float64, where no square of a float32 overflows.
    """
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    usable = np.isfinite(lengths) & (lengths > 0)
    if similarity == "cosine":
        factors = np.where(usable, lengths, 1.0)[:, None]
        vectors = np.divide(vectors, factors, dtype=np.float64).astype(np.float32)
    return vectors, usable


def _row(
    source: str, line: int, rows: ShardRows, index: int, vector: NDArray[np.float32] | None
) -> EncodedPassage | Reject:
    fields = {name: column[index] for name, column in rows.columns.items()}
    try:
        meta = json_object(fields["meta"])
        passage = check_passage(Passage(fields["pid"], fields["text"], meta, source, line))
        _check_digest("text", fields, text_digest(passage.text))
        _check_digest("meta", fields, meta_digest(passage.meta))
    except RowError as exc:
        return _reject(source, line, fields, str(exc))
    if vector is None:
        return _reject(source, line, fields, "its vector is zero or not finite")
    return EncodedPassage(passage, vector)


def _check_digest(what: str, fields: dict[str, str], found: str) -> None:
    stored = fields[f"{what}_digest"]
    if found != stored:
        raise RowError(
            f"its {what} was changed after it was encoded: its digest must be {stored}, got {found}"
        )


def _reject(source: str, line: int, fields: dict[str, str], reason: str) -> Reject:
    row = {name: fields[name] for name in ("pid", "text", "meta")}
    raw = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")
    return Reject(source, line, reason, raw[:RAW_BYTES_KEPT], len(raw))
