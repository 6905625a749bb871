"""What a batch says: from its file to passages to write and pids to delete, two disjoint sets.

Within a batch the last row of a pid counts. So the file is read once to find the pids that stand in
it more than once, and where each stands last, and then again for the passages, and for the pids to
delete. That keeps the memory small, however large the file: some 13 bytes a pid, given back before
the passages are read, and some 150 bytes for each pid that stands there more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from msmarco_qdrant.core.pid_set import PidSet, pid_key
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.service.interfaces import RowReject
from msmarco_qdrant.service.spool.directory import OPERATIONS
from msmarco_qdrant.service.spool.state import escape_surrogates
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES, Corpus, Format
from msmarco_qdrant.sources.lines import read_lines
from msmarco_qdrant.sources.rows import RowError, checked, decode, json_object, parse_fields

KEPT_REJECTS = 100


@dataclass(frozen=True, slots=True)
class Deletion:
    """A row that asks for a passage to be removed."""

    pid: str
    line: int


Parsed: TypeAlias = Passage | Deletion | Reject
"""What a row of a file says."""


@dataclass(slots=True)
class Rejects:
    """Rows that could not be applied: how many, and the first hundred that were told of."""

    count: int = 0
    first: list[RowReject] = field(default_factory=list)

    def add(self, reject: Reject) -> None:
        """Count a row."""
        self.count += 1
        if len(self.first) < KEPT_REJECTS:
            self.first.append(RowReject(reject.line, escape_surrogates(reject.reason)))


class BatchContent:
    """The rows of a batch's file, read when it is made and at each iteration.

    Args:
        path: The file.
        form: The end of its name, as the spool tells it.
        go_on: Called for each row that is counted; what it raises ends that.

    Attributes:
        passages: How many of its passages count.
        deletions: How many of its deletions count.
        superseded: Rows that a later row of the same pid made void.
        rejects: Rows that say nothing that can be done.

    Raises:
        SourceError: If it cannot be read.
        MissingExtraError: For Parquet without the extra `parquet`.
    """

    def __init__(self, path: Path, form: str, *, go_on: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._form = form
        self.passages = self.deletions = self.superseded = 0
        self.rejects = Rejects()
        self._last: dict[bytes, int] = {}
        self._count(go_on)

    def writes(self) -> Iterator[Passage]:
        """The passages to write, each pid once."""
        return (row for row in self._counting() if isinstance(row, Passage))

    def deletes(self) -> Iterator[str]:
        """The pids to delete, each once and none of them written."""
        return (row.pid for row in self._counting() if isinstance(row, Deletion))

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
        if self._last and deletions:  # which of them count shows only now
            deletions = 0
            for _ in self.deletes():
                go_on()
                deletions += 1
        self.deletions = deletions
        self.passages = len(seen) - deletions

    def _counting(self) -> Iterator[Passage | Deletion]:
        """Rows that no later row makes void."""
        for row in self._rows():
            if isinstance(row, Reject):
                continue
            if not self._last or self._last.get(pid_key(row.pid), row.line) == row.line:
                yield row

    def _rows(self) -> Iterator[Parsed]:
        if self._form == OPERATIONS:
            return _operations(self._path)
        return iter(Corpus(self._path, format=_format(self._form)))


def _format(form: str) -> Format:
    formats: dict[str, Format] = {"tsv": "tsv", "parquet": "parquet"}
    return formats.get(form.removesuffix(".gz"), "jsonl")


def _operations(path: Path) -> Iterator[Parsed]:
    try:
        with path.open("rb") as file:
            for line in read_lines(file, MAX_LINE_BYTES):
                problem = line.problem
                if problem is None and not line.data:
                    continue
                try:
                    if problem is None:
                        yield _operation(json_object(decode(line.data)), line.number)
                except RowError as exc:
                    problem = str(exc)
                if problem is not None:
                    yield Reject(path.name, line.number, problem, b"", line.length)
    except OSError as exc:
        raise SourceError(f"reading {path} failed: {exc.strerror}") from exc


def _operation(fields: dict[str, Any], line: int) -> Passage | Deletion:
    op = fields.pop("op", None)
    if op == "write":
        pid, text, meta = parse_fields(fields)
        return Passage(pid, text, meta, line=line)
    if op == "delete":
        unknown = sorted(set(fields) - {"pid"})
        if unknown:
            raise RowError(f"a delete has a pid and nothing else, found {unknown[0][:40]!r}")
        if fields.get("pid") is None:
            raise RowError("no pid: expected a field 'pid'")
        # A pid is looked at where a passage's is, by one that has a text.
        return Deletion(checked(Passage(fields["pid"], "to be deleted")).pid, line)
    raise RowError(f"unknown op {repr(op)[:40]}: expected 'write' or 'delete'")
