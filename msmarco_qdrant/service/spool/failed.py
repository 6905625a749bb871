"""Failed batches of a spool, for commands: list, show, requeue and purge them.

No lock is taken, so this works while a sidecar uses the spool and when none does. A requeue is one
rename, to `requeue/`, so it happens exactly once; the sidecar queues such batches within seconds,
or at its next start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path

from msmarco_qdrant.core.advice import advised_command
from msmarco_qdrant.core.escape import escape_surrogates
from msmarco_qdrant.errors import MsmarcoQdrantError, SpoolError, UsageError
from msmarco_qdrant.runtime.atomic_file import sync_directory
from msmarco_qdrant.service.interfaces import BatchId, BatchState
from msmarco_qdrant.service.spool.directory import BatchName, parse_name
from msmarco_qdrant.service.spool.state import state_from_json
from msmarco_qdrant.sources.files import read_text

_MAX_LINE = 1 << 20
_REPORT = ".json"
_BINARY = ("parquet", "arrow", "feather")


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """A failed batch.

    Attributes:
        id: Its id.
        form: The end of its file's name, such as "ops.jsonl" for a batch by HTTP.
        size: Bytes of its file; None if only the report is left.
        state: Its report; None if that is missing or damaged.
        is_requeued: True if it waits for the sidecar to queue it.
    """

    id: BatchId
    form: str
    size: int | None
    state: BatchState | None
    is_requeued: bool = False


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A row of a batch: its line, its text, and the reason of its rejection, "" without one."""

    line: int
    text: str
    reason: str = ""


class FailedBatches:
    """The failed batches of a spool.

    Args:
        directory: The spool.

    Raises:
        SpoolError: If it is not a spool.
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        self._path = Path(directory).expanduser()
        if not (self._path / "failed").is_dir():
            raise SpoolError(
                f"the spool must be the directory of a sidecar, got {self._path}, which has no "
                "folder 'failed': pass --spool or set MSMARCO_QDRANT_SPOOL"
            )

    def list(self) -> Sequence[FailedBatch]:
        """Return the failed batches, the oldest first, then those that are requeued.

        Raises:
            SpoolError: If the spool cannot be read.
        """
        return [
            FailedBatch(
                name.id, name.form, _size(path), self._state(name), is_requeued=folder == "requeue"
            )
            for folder in ("failed", "requeue")
            for name, path in self._files(folder)
        ]

    def rows(self, id_: BatchId, most: int) -> Sequence[BatchRow]:
        """Return rows of a failed batch: the rejected ones, or the first without any.

        The texts of rows in a Parquet or Arrow file are not shown.

        Raises:
            SpoolError: If the batch cannot be read.
            UsageError: If it is not a failed batch.
        """
        name, path = self._find(id_)
        state = self._state(name)
        rejects = {row.line: row.reason for row in state.report.rejects} if state else {}
        if name.form in _BINARY:
            return [BatchRow(line, "", reason) for line, reason in rejects.items()][:most]
        try:
            lines = (
                BatchRow(line.number, line.data.decode("utf-8", "backslashreplace"))
                for line in read_text(str(path), _MAX_LINE)
            )
            wanted = (row for row in lines if not rejects or row.line in rejects)
            return [replace(row, reason=rejects.get(row.line, "")) for row in islice(wanted, most)]
        except MsmarcoQdrantError as exc:
            raise SpoolError(f"the file of batch {id_} cannot be read: {exc}") from exc

    def check(self, id_: BatchId) -> None:
        """Raise a UsageError if it is not a failed batch."""
        self._find(id_)

    def requeue(self, ids: Iterable[BatchId]) -> None:
        """Let failed batches be applied again, after all that wait now; one by one, durably.

        Raises:
            SpoolError: If the disk fails.
            UsageError: If one is not a failed batch; those before it are requeued.
        """
        target = self._path / "requeue"
        for id_ in ids:
            _, path = self._find(id_)
            try:
                target.mkdir(exist_ok=True)
                path.rename(target / path.name)
                sync_directory(target)
                sync_directory(path.parent)
            except FileNotFoundError:  # another command or the size limit was faster
                raise self._unknown(id_) from None
            except OSError as exc:
                raise SpoolError(f"batch {id_} cannot be moved: {exc.strerror}") from exc

    def purge(self, ids: Iterable[BatchId]) -> None:
        """Remove failed batches and their reports.

        Raises:
            SpoolError: If the disk fails.
            UsageError: If one is not a failed batch; those before it are removed.
        """
        for id_ in ids:
            _, path = self._find(id_)
            try:
                path.unlink(missing_ok=True)
                self._report(path.name).unlink(missing_ok=True)
                sync_directory(path.parent)
            except OSError as exc:
                raise SpoolError(f"batch {id_} cannot be removed: {exc.strerror}") from exc

    def _find(self, id_: BatchId) -> tuple[BatchName, Path]:
        for name, path in self._files("failed"):
            if name.id == id_:
                return name, path
        raise self._unknown(id_)

    def _unknown(self, id_: BatchId) -> UsageError:
        command = advised_command("spool", "list", "--spool", str(self._path))
        return UsageError(
            f"batch must be a failed one of {self._path}, got {id_}: list them with {command}"
        )

    def _files(self, folder: str) -> Iterator[tuple[BatchName, Path]]:
        """Yield each batch of a folder, in their order, with the path of its file.

        The report of a requeued batch stays in `failed` until the sidecar has queued it.
        """
        names = self._names(folder)
        if folder == "failed":
            names -= self._names("requeue")
        for text in sorted(names):
            if name := parse_name(text):
                yield name, self._path / folder / text

    def _names(self, folder: str) -> set[str]:
        place = self._path / folder
        try:
            return {entry.name.removesuffix(_REPORT) for entry in place.iterdir()}
        except FileNotFoundError:  # an earlier version made no folder `requeue`
            return set()
        except OSError as exc:
            raise SpoolError(f"{place} cannot be read: {exc.strerror}") from exc

    def _report(self, name: str) -> Path:
        return self._path / "failed" / f"{name}{_REPORT}"

    def _state(self, name: BatchName) -> BatchState | None:
        try:
            return state_from_json(json.loads(self._report(str(name)).read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def cut_text(text: str, most: int = 200) -> str:
    """Return a text for one line of output, cut to a length."""
    text = escape_surrogates(text)
    return text if len(text) <= most else f"{text[:most]}..."
