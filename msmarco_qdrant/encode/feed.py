"""The remaining work of an encode: shards of passages, parsed and tokenized, in order.

A shard covers neighboring rows of the source and contains their digest. A later run of the same
encode reads these rows, compares the digest, and resumes after them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, cast

from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.encode.prepare import PreparedChunk, open_preparers
from msmarco_qdrant.encoding import Tokenized, Tokenizer
from msmarco_qdrant.encoding.matching import require_same_vectors
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.sources.corpus import Chunk, Corpus, RowChunk, to_chunks
from msmarco_qdrant.sources.file_path import FilePath
from msmarco_qdrant.sources.rejects import check_row
from msmarco_qdrant.sources.shard_file import (
    ShardHeader,
    VectorType,
    join_batches,
    read_column,
    read_footer,
    shard_path,
    shard_paths,
)

_SHARDS_AHEAD = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Folder of the shards, chunks per shard, and type of the stored vectors."""

    folder: FilePath
    chunks: int
    dtype: VectorType


@dataclass(frozen=True, slots=True)
class ExistingShard:
    """A shard of an earlier run.

    Attributes:
        header: Its header.
        position: Bytes of the source up to its end.
    """

    header: ShardHeader
    position: int


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedShard:
    """A shard whose passages are tokenized.

    Attributes:
        number: Its number, from 0.
        full: Chunks per shard of its folder.
        chunks: Its chunks.
        parts: The prepared chunks.
        tokens: The token ids of all its passages.
        position: Bytes of the source up to its end.
    """

    number: int
    full: int
    chunks: Sequence[Chunk]
    parts: list[PreparedChunk]
    tokens: Tokenized
    position: int

    @property
    def rows(self) -> int:
        """Number of rows of the source, passages and rejects."""
        return sum(len(part.indexes) + len(part.rejects) for part in self.parts)

    @property
    def rejects(self) -> Iterator[Reject]:
        """The rejected rows."""
        return (reject for part in self.parts for reject in part.rejects)

    @property
    def source_sha256(self) -> str:
        """Sha256 of the digests of the chunks."""
        return hashlib.sha256(b"".join(part.digest for part in self.parts)).hexdigest()

    def texts(self) -> Any:
        """The passages' columns, a `pyarrow.Table`."""
        return join_batches([part.texts for part in self.parts])

    def row(self, index: int) -> Passage:
        """Return a passage as in the source."""
        for chunk, part in zip(self.chunks, self.parts, strict=True):
            if index < len(part.indexes):
                return cast("Passage", chunk.rows()[part.indexes[index]])
            index -= len(part.indexes)
        raise IndexError(index)


@dataclass(frozen=True, slots=True)
class _Submitted:
    """Chunks of a shard that are being prepared."""

    number: int
    full: int
    chunks: list[tuple[Chunk, Future[PreparedChunk]]]
    position: int


@dataclass(frozen=True, slots=True)
class Feed:
    """The shards of a source, to iterate once, in this or another process.

    Attributes:
        rows: The source; for another process, a `Corpus`.
        layout: Folder and size of the shards.
        info: The encoder's info.
        tokenizer: The encoder's tokenizer.
        workers: Processes that parse and tokenize, 0 for a thread.
    """

    rows: Iterable[Passage | Reject]
    layout: Layout
    info: EncoderInfo
    tokenizer: Tokenizer
    workers: int

    def __iter__(self) -> Iterator[TokenizedShard | ExistingShard]:
        """Yield each shard in order; an existing one is only compared with the source.

        Raises:
            OutputError: If an existing shard has other rows or another dtype.
            ModelMismatchError: If it is of another model.
            SourceError: If the source cannot be read.
            WorkerError: If a process ended early.
        """
        with open_preparers(self.tokenizer, self.workers) as submit, Pipeline() as stages:
            yield from self._gather(stages.run(self._submit(submit), prefetch=_SHARDS_AHEAD))

    def _submit(
        self, submit: Callable[[Chunk], Future[PreparedChunk]]
    ) -> Iterator[_Submitted | tuple[ExistingShard, list[str]]]:
        """Read the source: yield existing shards with their pids, submit chunks of missing ones."""
        folder, chunks = self.layout.folder, self._chunks()
        # With the size of existing shards, missing ones fit between them.
        full = chunks_of_full(self.layout)
        for number in count():
            path = shard_path(folder, number)
            if path.exists():
                header = read_matching_header(path, self.info, self.layout.dtype)
                covered = list(islice(chunks, header.chunks))
                if not covered:
                    break
                require_same_rows(path, header, [chunk.digest() for chunk in covered])
                existing = ExistingShard(header, self._position())
                yield existing, _shard_pids(path, header, covered)
                continue
            submitted = [(chunk, submit(chunk)) for chunk in islice(chunks, full)]
            if not submitted:
                break
            yield _Submitted(number, full, submitted, self._position())
        require_no_shards_beyond(folder, number)

    def _gather(
        self, shards: Iterable[_Submitted | tuple[ExistingShard, list[str]]]
    ) -> Iterator[TokenizedShard | ExistingShard]:
        """Gather the chunks of each shard, rejecting repeated pids."""
        seen = PidSet()
        for shard in shards:
            if isinstance(shard, tuple):
                existing, pids = shard
                for pid in pids:
                    seen.add(pid)
                yield existing
                continue
            parts = [
                future.result().without_repeated(chunk, seen) for chunk, future in shard.chunks
            ]
            yield TokenizedShard(
                number=shard.number,
                full=shard.full,
                chunks=[chunk for chunk, _ in shard.chunks],
                parts=parts,
                tokens=Tokenized.joined([part.tokens for part in parts]),
                position=shard.position,
            )

    def _chunks(self) -> Iterator[Chunk]:
        """Yield chunks; rows made in Python are checked before another process gets them."""
        for chunk in to_chunks(self.rows):
            is_checked = isinstance(self.rows, Corpus)
            yield chunk if is_checked else RowChunk([check_row(row) for row in chunk.rows()])

    def _position(self) -> int:
        return self.rows.position if isinstance(self.rows, Corpus) else 0


def chunks_of_full(layout: Layout) -> int:
    """Return the chunks of a full shard: those of existing ones, else the layout's."""
    found = shard_paths(layout.folder)
    return read_footer(found[0]).header.full if found else layout.chunks


def read_matching_header(path: FilePath, info: EncoderInfo, dtype: VectorType) -> ShardHeader:
    """Return the header of an existing shard; refuse one that cannot belong to an encode.

    Args:
        path: Its path.
        info: The info of the encode's encoder.
        dtype: The type of its vectors.

    Raises:
        OutputError: If the shard is of another type.
        ModelMismatchError: If it is of another model.
    """
    header = read_footer(path).header
    require_same_vectors(str(path), header.encoder, info)
    if header.dtype != dtype:
        raise OutputError(
            f"{path} holds vectors of {header.dtype}, this encode writes {dtype}: "
            f"pass dtype={header.dtype}, or another directory"
        )
    return header


def _shard_pids(path: FilePath, header: ShardHeader, chunks: list[Chunk]) -> list[str]:
    """Return all pids, also of passages without a vector: repeating one is rejected in any run."""
    if header.rejected:
        rows = (row for chunk in chunks for row in chunk.rows())
        return [row.pid for row in rows if isinstance(row, Passage)]
    return read_column(path, "pid")


def require_same_rows(path: FilePath, header: ShardHeader, digests: Sequence[bytes]) -> None:
    """Refuse a shard of other rows than those of the source, by the digests of its chunks."""
    found = hashlib.sha256(b"".join(digests)).hexdigest()
    if len(digests) != header.chunks or found != header.source_sha256:
        raise OutputError(
            f"{path} was encoded from other rows than this source has now: the source changed. "
            "Pass another directory, or delete this file and all later ones"
        )


def require_no_shards_beyond(folder: FilePath, shards: int) -> None:
    """Refuse a folder with more shards than those of the source."""
    # By name, not by count, because missing shards are not written yet.
    expected = {shard_path(folder, number) for number in range(shards)}
    if others := [path for path in shard_paths(folder) if path not in expected]:
        raise OutputError(
            f"{others[0]} is after the {shards} shards of this source: it was encoded from a "
            "longer one. Delete it, or pass another directory"
        )
