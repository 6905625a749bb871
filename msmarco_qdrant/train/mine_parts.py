"""Parts of mined negatives: the checkpoints of a mining run, and then its file.

A part has the candidates of some neighboring queries. Its first line is JSON with a digest of
these queries and counts; then follow the lines of the file as one gzip member. So the parts
without their first lines are the file.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import OutputError, UsageError
from msmarco_qdrant.runtime.atomic_file import atomic_write
from msmarco_qdrant.train.negatives_file import to_line
from msmarco_qdrant.train.out_folder import digest_of
from msmarco_qdrant.train.records import MinedQuery, Positives


@dataclass(frozen=True, slots=True)
class QueryPart:
    """Neighboring queries that are mined together.

    Attributes:
        number: Place of the part, from 0.
        queries: The queries.
        positives: Their positives, by qid.
        digest: A digest of both.
    """

    number: int
    queries: Sequence[Query]
    positives: Positives
    digest: str

    @classmethod
    def of(cls, number: int, queries: Sequence[Query], positives: Positives) -> QueryPart:
        """Return a part of some queries, with only their positives."""
        own = {query.qid: positives[query.qid] for query in queries}
        return cls(number, queries, own, _digest_queries(queries, own))


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Counts of one part.

    Attributes:
        queries: Number of queries.
        missing_positives: Positives that the collection lacks.
        candidates: Number of candidates, by system.
        short: Queries with fewer candidates than wanted, by system.
    """

    queries: int
    missing_positives: int
    candidates: Mapping[str, int]
    short: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MinedPart:
    """The candidates of a part.

    Attributes:
        counts: Their counts.
        data: The lines of the file, as one gzip member.
    """

    counts: PartCounts
    data: bytes

    @classmethod
    def of(cls, counts: PartCounts, mined: Iterable[MinedQuery]) -> MinedPart:
        """Return the part of some queries. The same queries give the same bytes."""
        return cls(counts, gzip.compress(b"".join(map(to_line, mined)), mtime=0))


class PartFiles:
    """The parts in a folder.

    Args:
        folder: The folder; it is made by the first part.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read_counts(self, part: QueryPart) -> PartCounts | None:
        """Return the counts of a part; None if it is not yet mined.

        Raises:
            UsageError: If it was mined for other queries or positives.
            OutputError: If it cannot be read.
        """
        path = self._path(part.number)
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline())
            found, counts = head.pop("digest"), PartCounts(**head)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise OutputError(f"cannot read {path}: {exc}; delete it to mine it again") from exc
        if found != part.digest:
            raise other_queries(self._folder.parent)
        return counts

    def write(self, part: QueryPart, mined: MinedPart) -> None:
        """Write a part, atomically.

        Raises:
            OutputError: If it cannot be written.
        """
        path, counts = self._path(part.number), mined.counts
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as exc:
            raise OutputError(f"cannot make {self._folder}: {exc.strerror}") from exc
        head: dict[str, Any] = {
            "digest": part.digest,
            "queries": counts.queries,
            "missing_positives": counts.missing_positives,
            "candidates": dict(counts.candidates),
            "short": dict(counts.short),
        }
        with atomic_write(path) as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(mined.data)

    def join(self, count: int, path: Path) -> None:
        """Write the file of the first `count` parts, atomically.

        Raises:
            UsageError: If there are more parts, of other queries.
            OutputError: If the file cannot be written.
        """
        # Not only the next one: workers on Ray write parts in any order.
        if any(int(more.stem) >= count for more in self._folder.glob("[0-9]*.part")):
            raise other_queries(self._folder.parent)
        with atomic_write(path) as file:
            for number in range(count):
                with self._path(number).open("rb") as part:
                    part.readline()
                    shutil.copyfileobj(part, file)

    def remove(self) -> None:
        """Remove all parts."""
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.part"


def _digest_queries(queries: Sequence[Query], positives: Positives) -> str:
    return digest_of(
        part
        for query in queries
        for pids in (positives[query.qid],)
        for part in (query.qid, query.text, str(len(pids)), *pids)
    )


def other_queries(folder: Path) -> UsageError:
    """Return the error for a folder that was begun with other queries or positives."""
    return UsageError(
        f"{folder} was begun with other queries or positives: repeat the first call to resume it, "
        "or name another folder"
    )


def add_counts(counts: Iterable[PartCounts]) -> PartCounts:
    """Return the sums of the counts of parts."""
    queries, missing = 0, 0
    candidates: Counter[str] = Counter()
    short: Counter[str] = Counter()
    for one in counts:
        queries += one.queries
        missing += one.missing_positives
        candidates.update(one.candidates)
        short.update(one.short)
    return PartCounts(queries, missing, dict(candidates), dict(short))
