"""Scores by query, from a file that is not held in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.train.score_files import (
    Columns,
    QueryScores,
    has_small_lists,
    open_parquet,
    parse_row,
    read_scores,
    score_paths,
    write_scores,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NONE: Mapping[str, float] = {}


class ScoreLookup(Protocol):
    """Scores by query. Use it as a context manager, or call `close`."""

    def get(self, qid: str) -> Mapping[str, float]:
        """Return the score of each judged pid of a query; empty for a query without scores."""
        ...

    def __len__(self) -> int:
        """Return the number of queries with scores."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...

    def __enter__(self) -> ScoreLookup:
        """Return it."""
        ...

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        ...


def open_scores(
    source: str | PathLike[str] | Mapping[str, Mapping[str, float]],
) -> ScoreLookup:
    """Open scores for look-ups by query.

    A file of `write_scores` is read in place, one row group in memory at a time: asking for
    queries in the order of the file reads each once. Any other form is first rewritten to a
    temporary file of that one. An index of the queries takes 16 bytes per query.

    Args:
        source: A file or folder that `read_scores` takes, or the scores themselves, by qid.

    Raises:
        SourceError: See `read_scores`.
        MissingExtraError: Without the extra `train`.
    """
    if isinstance(source, Mapping):
        return _HeldScores(source)
    path, *others = score_paths(source)
    if not others and _is_parquet(path) and has_small_lists(path):
        return _ParquetScores(path)
    with tempfile.NamedTemporaryFile(suffix=".parquet", delete=False) as file:
        temporary = Path(file.name)
    try:
        write_scores(temporary, read_scores(source))
        return _ParquetScores(temporary, name=str(source), owns_file=True)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class _HeldScores:
    """Scores in memory."""

    def __init__(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        self._scores = scores

    def get(self, qid: str) -> Mapping[str, float]:
        return self._scores.get(qid, _NONE)

    def __len__(self) -> int:
        return len(self._scores)

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> _HeldScores:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ParquetScores:
    """Scores of a Parquet file with a row per query.

    Args:
        path: The file.
        name: Its name in messages; None for the path.
        owns_file: True to delete it when closed.
    """

    def __init__(self, path: Path, *, name: str | None = None, owns_file: bool = False) -> None:
        self._name = name or str(path)
        self._group = -1
        self._held: dict[str, Mapping[str, float]] = {}
        with ExitStack() as stack:
            if owns_file:
                stack.callback(path.unlink, missing_ok=True)
            self._file: Any = stack.enter_context(open_parquet(path))
            self._columns = Columns.of(self._name, self._file.schema_arrow.names)
            self._keys, self._groups = self._index()
            self._resources = stack.pop_all()

    def get(self, qid: str) -> Mapping[str, float]:
        import numpy as np

        key = np.uint64(_key(qid))
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            return _NONE
        group = int(self._groups[place])
        if group != self._group:
            self._held = dict(self._read(group))
            self._group = group
        return self._held.get(qid, _NONE)

    def __len__(self) -> int:
        return len(self._keys)

    def close(self) -> None:
        self._resources.close()

    def __enter__(self) -> _ParquetScores:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the sorted keys of the qids, uint64 `(n,)`, and the row group of each."""
        import numpy as np

        keys: list[NDArray[np.uint64]] = []
        groups: list[NDArray[np.int64]] = []
        for group in range(self._file.num_row_groups):
            column = self._file.read_row_group(group, columns=[self._columns.qid]).column(0)
            found = np.array([_key(str(qid)) for qid in column.to_pylist()], np.uint64)
            keys.append(found)
            groups.append(np.full(len(found), group, np.int64))
        together = np.concatenate(keys) if keys else np.empty(0, np.uint64)
        if not len(together):
            raise SourceError(f"{self._name} must have the scores of one query or more, got none")
        order = np.argsort(together, kind="stable")
        if (np.diff(together[order]) == 0).any():
            raise SourceError(f"{self._name} must have one row per query, got two of one query")
        return together[order], np.concatenate(groups)[order]

    def _read(self, group: int) -> Iterator[QueryScores]:
        columns = self._columns
        names = [columns.qid, columns.pid, columns.score]
        for row in self._file.read_row_group(group, columns=names).to_pylist():
            yield parse_row(f"{self._name}: query {row[columns.qid]!r}", row, columns)


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _key(qid: str) -> int:
    return int.from_bytes(hashlib.blake2b(qid.encode(), digest_size=8).digest(), "little")
