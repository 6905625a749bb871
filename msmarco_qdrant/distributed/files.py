"""The source of a distributed ingest: files that every machine can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from msmarco_qdrant.core.meta_values import with_article
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.sources.corpus import DEFAULT_READING, Corpus, Reading, as_rows
from msmarco_qdrant.sources.extents import Extent, SourceFile, list_files, list_shards
from msmarco_qdrant.sources.vector_shards import VectorShards


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a source.

    Attributes:
        files: The files in their order, and where each may be cut.
        reading: How their rows are read.
        shards: The folder, if they are files of vectors.
        descriptions: The shape of each in one line.
        blocks: References to Arrow tables in a cluster, instead of files.
    """

    files: Sequence[SourceFile]
    reading: Reading
    shards: VectorShards | None
    descriptions: tuple[str, ...]
    blocks: Sequence[Any] = ()

    @classmethod
    def of_blocks(cls, blocks: Sequence[Any], size: int, reading: Reading) -> SourceFiles:
        """Return blocks of so many bytes together as a source."""
        each = size // max(1, len(blocks))
        files = [SourceFile(Extent.of_block(number, each)) for number in range(len(blocks))]
        return cls(files, reading, None, (), blocks)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.whole.bytes for file in self.files)

    def blocks_of(self, extents: Sequence[Extent]) -> list[Any]:
        """Return the references of the tables of some extents, none for files."""
        return [self.blocks[extent.start] for extent in extents if extent.kind == "block"]


def open_files(source: Any, reading: Reading = DEFAULT_READING) -> SourceFiles:
    """Return the files of a source.

    Args:
        source: One or several paths, a `Corpus`, or `VectorShards`.
        reading: How paths are read.

    Raises:
        SourceError: If one cannot be read, or its first rows are not passages.
        UsageError: If the source is not made of files.
    """
    if isinstance(source, VectorShards):
        reading.require_default(source)
        return SourceFiles(list_shards(source), reading, source, ())
    if is_files(source):
        rows = as_rows(source, reading)
        if isinstance(rows, Corpus):
            if rows.size is None:
                raise UsageError(
                    "source must be files, got standard input or a pipe, which other machines "
                    "cannot read"
                )
            return SourceFiles(list_files(rows), rows.reading, None, rows.descriptions)
    raise UsageError(
        "source must be files that every machine can read, or a ray.data.Dataset, got "
        f"{with_article(type(source).__name__)}: pass it to ingest_passages"
    )


def is_files(source: object) -> bool:
    """True for one or several paths, and for a `Corpus`."""
    return isinstance(source, str | PathLike | Corpus) or (
        isinstance(source, list | tuple)
        and bool(source)
        and all(isinstance(one, str | PathLike) for one in source)
    )
