"""What an encode has still to do: shards of passages, parsed and tokenized, in their order.

A shard covers neighboring rows of the source and carries their digest, so that a later run of the
same command knows which rows are done: it reads them, compares, and goes on behind them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import EncoderInfo, Passage, Reject
from msmarco_qdrant.encode.prepare import Prepared, Preparers, pids_of
from msmarco_qdrant.encoding import Tokenized, Tokenizer
from msmarco_qdrant.encoding.matching import check_same_vectors
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.runtime.pipeline import Pipeline
from msmarco_qdrant.sources.corpus import Chunk, Corpus, RowChunk, chunks_of
from msmarco_qdrant.sources.rejects import checked_row
from msmarco_qdrant.sources.shard_file import (
    ShardHeader,
    VectorType,
    joined_table,
    read_column,
    read_header,
    shard_path,
    shard_paths,
)

_SHARDS_AHEAD = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How shards are written: where, of how many chunks, and what their vectors are kept in."""

    folder: Path
    chunks: int
    dtype: VectorType


@dataclass(frozen=True, slots=True)
class ExistingShard:
    """A shard that an earlier run has left.

    Attributes:
        header: What it says of itself.
        position: Bytes of the source consumed up to its end.
    """

    header: ShardHeader
    position: int


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedShard:
    """A shard whose passages are tokenized.

    Attributes:
        number: Its place among the shards.
        full: Chunks that a shard of its folder covers.
        chunks: The chunks that it covers.
        parts: What became of each of them.
        tokens: The token ids of all its passages.
        position: Bytes of the source consumed up to its end.
    """

    number: int
    full: int
    chunks: list[Chunk]
    parts: list[Prepared]
    tokens: Tokenized
    position: int

    @property
    def rows(self) -> int:
        """Rows of the source, passages and rejects."""
        return sum(len(part.places) + len(part.rejects) for part in self.parts)

    @property
    def rejects(self) -> Iterator[Reject]:
        """The rows that are no passages."""
        return (reject for part in self.parts for reject in part.rejects)

    @property
    def source_sha256(self) -> str:
        """Over the digests of the chunks."""
        return hashlib.sha256(b"".join(part.digest for part in self.parts)).hexdigest()

    def texts(self) -> Any:
        """The passages' columns, a `pyarrow.Table`."""
        return joined_table([part.texts for part in self.parts])

    def row(self, index: int) -> Passage:
        """A passage as it stood in the source."""
        for chunk, part in zip(self.chunks, self.parts, strict=True):
            if index < len(part.places):
                return cast("Passage", chunk.rows()[part.places[index]])
            index -= len(part.places)
        raise IndexError(index)


@dataclass(frozen=True, slots=True)
class _Planned:
    """Chunks of a shard, on their way through the preparers."""

    number: int
    full: int
    chunks: list[tuple[Chunk, Future[Prepared]]]
    position: int


@dataclass(frozen=True, slots=True)
class _Covered:
    """A shard that is there, with all pids of its rows."""

    found: ExistingShard
    pids: list[str]


@dataclass(frozen=True, slots=True)
class Feed:
    """The shards of a source, to be iterated once, here or in another process.

    Attributes:
        rows: The source; for another process, a `Corpus`.
        layout: Where shards are or shall be.
        encoder_info: The encoder's.
        tokenizer: The encoder's.
        workers: Processes that parse and tokenize, 0 for a thread.
    """

    rows: Iterable[Passage | Reject]
    layout: Layout
    info: EncoderInfo
    tokenizer: Tokenizer
    workers: int

    def __iter__(self) -> Iterator[TokenizedShard | ExistingShard]:
        """Yield each shard in order; one that is there is compared with the source, no more.

        Raises:
            OutputError: If what is there was made of other rows, or is of another kind.
            ModelMismatchError: If it was made by another model.
            SourceError: If the source cannot be read.
            WorkerError: If a process has ended.
        """
        with closing(Preparers(self.tokenizer, self.workers)) as preparers, Pipeline() as stages:
            yield from self._prepared(stages.run(self._plan(preparers), ahead=_SHARDS_AHEAD))

    def _plan(self, preparers: Preparers) -> Iterator[_Planned | _Covered]:
        """Read: hand out the chunks of each shard that is not there yet."""
        layout = _as_begun(self.layout)
        chunks = self._chunks()
        for number in count():
            path = shard_path(layout.folder, number)
            if path.exists():
                header = self._checked_header(path)
                covered = list(islice(chunks, header.chunks))
                if not covered:
                    break
                _check_covered(path, header, covered)
                found = ExistingShard(header, self._position())
                yield _Covered(found, _pids_of(path, header, covered))
                continue
            taken = islice(chunks, layout.chunks)
            handed = [(chunk, preparers.submit(chunk)) for chunk in taken]
            if not handed:
                break
            yield _Planned(number, layout.chunks, handed, self._position())
        _check_no_others(layout.folder, number)

    def _prepared(
        self, shards: Iterable[_Planned | _Covered]
    ) -> Iterator[TokenizedShard | ExistingShard]:
        """Gather the chunks of each shard, leaving out pids that came before."""
        seen = PidSet()
        for shard in shards:
            if isinstance(shard, _Covered):
                for pid in shard.pids:
                    seen.add(pid)
                yield shard.found
                continue
            parts = [future.result().admitted(chunk, seen) for chunk, future in shard.chunks]
            yield TokenizedShard(
                number=shard.number,
                full=shard.full,
                chunks=[chunk for chunk, _ in shard.chunks],
                parts=parts,
                tokens=Tokenized.joined([part.tokens for part in parts]),
                position=shard.position,
            )

    def _chunks(self) -> Iterator[Chunk]:
        """Of rows that were made in Python, those that can go in, looked at before they travel."""
        for chunk in chunks_of(self.rows):
            is_checked = isinstance(self.rows, Corpus)
            yield chunk if is_checked else RowChunk([checked_row(row) for row in chunk.rows()])

    def _checked_header(self, path: Path) -> ShardHeader:
        """What a shard that is there says of itself, if it can belong to this encode."""
        header = read_header(path)
        check_same_vectors(str(path), header.encoder, self.info)
        if header.dtype != self.layout.dtype:
            raise OutputError(
                f"{path} holds vectors of {header.dtype}, this encode writes {self.layout.dtype}: "
                f"pass --dtype {header.dtype}, or another directory"
            )
        return header

    def _position(self) -> int:
        return self.rows.position if isinstance(self.rows, Corpus) else 0


def _as_begun(layout: Layout) -> Layout:
    """The layout with the size of the shards that are there, so that those missing fit between."""
    found = shard_paths(layout.folder)
    return replace(layout, chunks=read_header(found[0]).full) if found else layout


def _pids_of(path: Path, header: ShardHeader, chunks: list[Chunk]) -> list[str]:
    """Those of passages that got no vector too: what repeats one is rejected in any run."""
    if header.rejected:
        return [pid for chunk in chunks for pid in pids_of(chunk)]
    return read_column(path, "pid")


def _check_covered(path: Path, header: ShardHeader, chunks: list[Chunk]) -> None:
    """Refuse a shard that was made of other rows than those of the source."""
    digests = [chunk.digest() for chunk in chunks]
    found = hashlib.sha256(b"".join(digests)).hexdigest()
    if len(digests) != header.chunks or found != header.source_sha256:
        raise OutputError(
            f"{path} was encoded from other rows than stand in this source now: the source has "
            "changed. Name another directory, or delete this file and those behind it"
        )


def _check_no_others(folder: Path, shards: int) -> None:
    # By name, not by count: those that are missing may not be written yet.
    expected = {shard_path(folder, number) for number in range(shards)}
    if others := [path for path in shard_paths(folder) if path not in expected]:
        raise OutputError(
            f"{others[0]} lies beyond the {shards} shards of this source: it was encoded from a "
            "longer one. Delete it, or name another directory"
        )
