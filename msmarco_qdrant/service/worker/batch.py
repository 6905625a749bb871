"""Content of a batch: passages to write and pids to delete, two disjoint sets, from its file.

Within a batch the last row of a pid counts. So the file is read once to find the last row of each
repeated pid, then once for the passages and once for the pids to delete. This takes little memory
for a file of any size: about 13 bytes per pid, freed before the passages are read, and about 150
bytes per repeated pid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from msmarco_qdrant.core.escape import escape_surrogates
from msmarco_qdrant.core.pid_set import PidSet, pid_key
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.service.interfaces import RowReject
from msmarco_qdrant.service.spool.directory import OPERATIONS
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES, Corpus
from msmarco_qdrant.sources.files import read_text
from msmarco_qdrant.sources.rows import (
    RowError,
    check_passage,
    decode_utf8,
    json_object,
    parse_fields,
)

MAX_REJECTS = 100


@dataclass(frozen=True, slots=True)
class Deletion:
    """A row that deletes a passage."""

    pid: str
    line: int


Parsed: TypeAlias = Passage | Deletion | Reject
"""A parsed row of a file."""


@dataclass(slots=True)
class Rejects:
    """Rejected rows: their number, and the first hundred."""

    count: int = 0
    first: list[RowReject] = field(default_factory=list)

    def add(self, reject: Reject) -> None:
        """Count a row."""
        self.count += 1
        if len(self.first) < MAX_REJECTS:
            self.first.append(RowReject(reject.line, escape_surrogates(reject.reason)))


class BatchContent:
    """Rows of a batch's file, read on construction and by each iteration.

    Args:
        path: The file.
        form: The end of its name in the spool.
        go_on: Called for each row of the first reading; an error it raises ends the reading.
        max_line_bytes: A longer line of a user's file is a reject. Batches by HTTP have limits of
            their own.

    Attributes:
        passages: Number of passages to write.
        deletions: Number of pids to delete.
        superseded: Rows that a later row of the same pid replaces.
        rejects: Rows that are invalid.

    Raises:
        SourceError: If the file cannot be read.
        MissingExtraError: For Parquet without the extra `parquet`.
    """

    def __init__(
        self,
        path: Path,
        form: str,
        *,
        go_on: Callable[[], None] = lambda: None,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._path = path
        self._form = form
        self._max_line_bytes = max_line_bytes
        self.passages = self.deletions = self.superseded = 0
        self.rejects = Rejects()
        self._last: dict[bytes, int] = {}
        self._count(go_on)

    def writes(self) -> Iterator[Passage]:
        """Yield the passages to write, each pid once."""
        return (row for row in self._effective_rows() if isinstance(row, Passage))

    def deletes(self) -> Iterator[str]:
        """Yield the pids to delete, each once and none of them written."""
        return (row.pid for row in self._effective_rows() if isinstance(row, Deletion))

    def _count(self, go_on: Callable[[], None]) -> None:
        seen, rows, deletions = PidSet(), 0, 0
        for row in self._rows():
            go_on()
            if isinstance(row, Reject):
                self.rejects.add(row)
                continue
            rows += 1
            deletions += isinstance(row, Deletion)
            key = pid_key(row.pid)
            if not seen.add_key(key):
                self._last[key] = row.line
        self.superseded = rows - len(seen)
        if self._last and deletions:  # only now the superseded ones are known
            deletions = 0
            for _ in self.deletes():
                go_on()
                deletions += 1
        self.deletions = deletions
        self.passages = len(seen) - deletions

    def _effective_rows(self) -> Iterator[Passage | Deletion]:
        """Yield valid rows that no later row supersedes."""
        for row in self._rows():
            if isinstance(row, Reject):
                continue
            if not self._last or self._last.get(pid_key(row.pid), row.line) == row.line:
                yield row

    def _rows(self) -> Iterator[Parsed]:
        if self._form == OPERATIONS:
            return _operations(self._path)
        return iter(Corpus(self._path, max_line_bytes=self._max_line_bytes))


def _operations(path: Path) -> Iterator[Parsed]:
    for line in read_text(str(path), MAX_LINE_BYTES):
        problem = line.problem
        try:
            if problem is None:
                yield _operation(json_object(decode_utf8(line.data)), line.number)
        except RowError as exc:
            problem = str(exc)
        if problem is not None:
            yield Reject(path.name, line.number, problem, b"", line.length)


def _operation(fields: dict[str, Any], line: int) -> Passage | Deletion:
    op = fields.pop("op", None)
    if op == "write":
        pid, text, meta = parse_fields(fields)
        return Passage(pid, text, meta, line=line)
    if op == "delete":
        unknown = sorted(set(fields) - {"pid"})
        if unknown:
            raise RowError(f"a delete must have only a pid, got {unknown[0][:40]!r}")
        if fields.get("pid") is None:
            raise RowError("no pid: expected a field 'pid'")
        # The pid is validated as that of a passage, so the passage needs a text.
        return Deletion(check_passage(Passage(fields["pid"], "to be deleted")).pid, line)
    raise RowError(f"op must be 'write' or 'delete', got {repr(op)[:40]}")
