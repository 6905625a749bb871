"""Files of a spool; `queue` and `archive` hold their state in memory.

::

    spool/
      .lock           locked by the process that uses the spool
      sequence        a number above those of all batches so far
      tmp/            files that are not accepted yet; emptied at each start
      incoming/       accepted batches
      working/        the batches that are being applied
      done/           reports of applied batches, and the batches with rejected rows
      failed/         failed batches, each with its report
      requeue/        failed batches to be applied again, moved here by `spool requeue`

A batch is one file, `<sequence>-<id>.<form>`, in one folder; its report is a file of the same name
with `.json` appended. It has ended once its report exists; the next start completes what a crash
interrupted after that.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from msmarco_qdrant.errors import OutputError, SpoolError
from msmarco_qdrant.runtime.atomic_file import atomic_write_text, sync_directory, sync_file
from msmarco_qdrant.runtime.file_lock import FileLock, FileLockedError

_log = logging.getLogger(__name__)

Folder: TypeAlias = Literal["incoming", "working", "done", "failed", "requeue"]
EndFolder: TypeAlias = Literal["done", "failed"]

_FOLDERS = ("tmp", "incoming", "working", "done", "failed", "requeue")
_LOCK_FILE = ".lock"
_SEQUENCE_FILE = "sequence"
_RESERVED_SEQUENCES = 10_000
_REPORT = ".json"
_SOURCE_ERRORS = (errno.EXDEV, errno.ENOENT, errno.EACCES, errno.EPERM)

OPERATIONS = "ops.jsonl"
FORMS = (
    OPERATIONS,
    *(
        f"{kind}{packed}"
        for kind in ("tsv", "csv", "jsonl", "ndjson")
        for packed in ("", ".gz", ".bz2", ".xz", ".zst")
    ),
    *("parquet", "arrow", "feather"),
)
"""Ends of the names of files that are taken. Their content decides how they are read."""

_SEQUENCE = re.compile(r"[0-9]{1,15}")
_NAME = re.compile(rf"([0-9]{{16}})-([0-9a-f]{{32}})\.({'|'.join(map(re.escape, FORMS))})")


@dataclass(frozen=True, slots=True)
class BatchName:
    """Name of a batch's file.

    Attributes:
        sequence: Its position in the order of all batches.
        id: 32 hexadecimal digits.
        form: The end of the name, one of `FORMS`.
    """

    sequence: int
    id: str
    form: str

    @property
    def source(self) -> str:
        """The source as far as the name has it: "http", or the form of a file."""
        return "http" if self.form == OPERATIONS else self.form

    def __str__(self) -> str:
        return f"{self.sequence:016}-{self.id}.{self.form}"


def parse_name(name: str) -> BatchName | None:
    """Parse the file name of a batch; return None for any other name."""
    match = _NAME.fullmatch(name)
    return BatchName(int(match[1]), match[2], match[3]) if match else None


def form_of(name: str) -> str | None:
    """Return the one of `FORMS` that ends a file name, None for any other end."""
    lower = name.lower()
    return next((form for form in FORMS if lower.endswith(f".{form}")), None)


class SpoolDirectory:
    """A locked spool directory. Thread-safe. Its methods raise SpoolError if the disk fails.

    Args:
        path: The directory; made if missing.

    Raises:
        SpoolError: If it cannot be made or written, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._mapped_errors():
            for folder in _FOLDERS:
                (path / folder).mkdir(parents=True, exist_ok=True)
            sync_directory(path)
            self._lock = self._acquire_lock()
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def path_of(self, name: BatchName, folder: Folder) -> Path:
        """Return the path of a batch's file in a folder."""
        return self.path / folder / str(name)

    def temporary_path(self, id_: str) -> Path:
        """Return a path for a file that is not accepted yet."""
        return self.path / "tmp" / id_

    def batches(self, folder: Folder) -> list[BatchName]:
        """Return the batches of a folder, in their order."""
        return self._names(folder, "")

    def reports(self, folder: Folder) -> list[BatchName]:
        """Return the batches with a report in a folder, in their order."""
        return self._names(folder, _REPORT)

    def size_and_ctime(self, name: BatchName, folder: Folder) -> tuple[int, float]:
        """Return a batch's bytes, and the seconds since 1970 at which it entered its folder."""
        with self._mapped_errors():
            status = self.path_of(name, folder).stat()
        return status.st_size, status.st_ctime

    def move_in(self, path: Path, name: BatchName) -> None:
        """Rename a file to be a batch of `incoming`; `sync` makes it durable.

        Raises:
            OSError: If a file outside of `tmp` is on another file system (`errno.EXDEV`), is
                missing, or must not be moved.
            SpoolError: For any other failure.
        """
        is_ours = path.parent == self.path / "tmp"
        with self._mapped_errors(but=() if is_ours else _SOURCE_ERRORS):
            path.rename(self.path_of(name, "incoming"))

    def discard(self, path: Path) -> None:
        """Remove a temporary file; if that fails, the next start removes it."""
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            _log.warning("%s stays until the next start: %s", path, exc.strerror)

    def sync(self, folder: Folder) -> None:
        """Make renames into and out of a folder durable."""
        with self._mapped_errors():
            sync_directory(self.path / folder)

    def move(self, names: Sequence[BatchName], source: Folder, target: Folder) -> None:
        """Move batches durably, all with two syncs; do nothing for a missing one.

        Raises:
            SpoolError: If one cannot be moved, or the directory is closed.
        """
        self._check_open()
        with self._mapped_errors():
            for name in names:
                if self.path_of(name, source).exists():
                    self.path_of(name, source).rename(self.path_of(name, target))
        self.sync(target)
        self.sync(source)

    def remove(self, names: Sequence[BatchName], folder: Folder) -> None:
        """Remove files of batches durably, all with one sync; do nothing for a missing one.

        Raises:
            SpoolError: If one cannot be removed, or the directory is closed.
        """
        self._check_open()
        with self._mapped_errors():
            for name in names:
                self.path_of(name, folder).unlink(missing_ok=True)
        self.sync(folder)

    def write_reports(
        self, reports: Sequence[tuple[BatchName, dict[str, Any]]], folder: Folder
    ) -> None:
        """Write reports of batches, each atomically, all durably, without texts that are not JSON.

        Raises:
            SpoolError: If the disk fails, or the directory is closed.
        """
        self._check_open()
        for name, report in reports:
            temporary = self.path / "tmp" / f"{name}{_REPORT}"
            path = self._report_path(name, folder)
            try:
                with temporary.open("wb") as file:
                    file.write(_report_json(report, name).encode())
                    file.flush()
                    sync_file(file.fileno())
                temporary.replace(path)
            except OSError as exc:
                text = f"cannot write {path}: {exc.strerror}: {self._advice()}"
                raise SpoolError(text) from exc
            finally:
                self.discard(temporary)
        self.sync(folder)

    def read_report(self, name: BatchName, folder: Folder) -> dict[str, Any] | None:
        """Read a batch's report; return None without one.

        Raises:
            SpoolError: If it cannot be read, or is damaged.
        """
        path = self._report_path(name, folder)
        with self._mapped_errors():
            if not path.exists():
                return None
            try:
                fields: dict[str, Any] = json.loads(path.read_text("utf-8"))
            except ValueError as exc:
                raise SpoolError(f"{path} is damaged: {exc}; remove it") from exc
        return fields

    def remove_report(self, name: BatchName, folder: Folder) -> None:
        """Remove a batch's report; of one that is done, also its file."""
        with self._mapped_errors():
            if folder == "done":
                self.path_of(name, folder).unlink(missing_ok=True)
            self._report_path(name, folder).unlink(missing_ok=True)

    def ended(self, folder: EndFolder) -> list[BatchName]:
        """Return the batches of a folder with a file or a report in it, in their order."""
        return sorted({*self._names(folder, ""), *self._names(folder, _REPORT)}, key=str)

    def size_of_ended(self, name: BatchName, folder: EndFolder) -> int:
        """Return the bytes of an ended batch: its report, and its file if that is kept."""
        paths = (self.path_of(name, folder), self._report_path(name, folder))
        with self._mapped_errors():
            return sum(path.stat().st_size for path in paths if path.exists())

    def remove_ended(self, name: BatchName, folder: EndFolder) -> bool:
        """Remove an ended batch, its file first; return False without a file.

        A file that `spool requeue` has moved away stays.
        """
        with self._mapped_errors():
            has_file = self.path_of(name, folder).exists()
            self.path_of(name, folder).unlink(missing_ok=True)
            self._report_path(name, folder).unlink(missing_ok=True)
        return has_file

    def readmit(self, name: BatchName, sequence: int) -> BatchName:
        """Move a batch of `requeue` to `incoming` under a new sequence, durably.

        Its report goes first: after a crash in between, the batch is still in `requeue`.
        """
        self.remove_report(name, "failed")
        self.sync("failed")
        new = replace(name, sequence=sequence)
        with self._mapped_errors():
            self.path_of(name, "requeue").rename(self.path_of(new, "incoming"))
        self.sync("incoming")
        self.sync("requeue")
        return new

    def reserve_sequence(self, start: int) -> int:
        """Reserve sequence numbers from `start` on, durably; return the end of the range."""
        end = start + _RESERVED_SEQUENCES
        self._replace(self.path / _SEQUENCE_FILE, str(end))
        return end

    def first_sequence(self) -> int:
        """Return a number above those of all batches so far, also of removed ones.

        Raises:
            SpoolError: If a folder cannot be read, or the file `sequence` is damaged.
        """
        names = [*self.batches("incoming"), *self.batches("failed"), *self.batches("requeue")]
        names += [*self.reports("done"), *self.reports("failed")]
        return max([self._stored_sequence(), *(name.sequence + 1 for name in names)])

    def close(self) -> None:
        """Release the directory. A second call has no effect."""
        self._lock.release()

    def _names(self, folder: Folder, suffix: str) -> list[BatchName]:
        with self._mapped_errors():
            files = [entry.name for entry in (self.path / folder).iterdir()]
        names = [parse_name(name.removesuffix(suffix)) for name in files if name.endswith(suffix)]
        return sorted((name for name in names if name), key=str)

    def _replace(self, path: Path, text: str) -> None:
        try:
            with atomic_write_text(path) as file:
                file.write(text)
        except OutputError as exc:
            raise SpoolError(f"{exc.args[0].partition(';')[0]}: {self._advice()}") from exc

    def _stored_sequence(self) -> int:
        path = self.path / _SEQUENCE_FILE
        with self._mapped_errors():
            text = path.read_text("ascii", "replace") if path.exists() else "1"
        if not _SEQUENCE.fullmatch(text):
            raise SpoolError(
                f"{path} is damaged: expected a number, found {text[:40]!r}; remove it"
            )
        return int(text)

    def _recover(self) -> None:
        """Complete what a crash interrupted."""
        unwritten = [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]
        with self._mapped_errors():
            for leftover in (*(self.path / "tmp").iterdir(), *unwritten):
                leftover.unlink(missing_ok=True)
        for name in self.batches("incoming"):  # moved back by hand, to be applied again
            self.remove_report(name, "failed")
            self.remove_report(name, "done")
        for name in self.batches("working"):
            if self._report_path(name, "done").exists():
                self._recover_done(name)
            elif self._report_path(name, "failed").exists():
                self.move([name], "working", "failed")
            else:
                self.move([name], "working", "incoming")

    def _recover_done(self, name: BatchName) -> None:
        """Keep the file of a batch that is done if it has rejected rows or a damaged report."""
        try:
            has_rejects = (self.read_report(name, "done") or {})["rejected"] != 0
        except (SpoolError, KeyError, TypeError):
            has_rejects = True
        if has_rejects:
            self.move([name], "working", "done")
        else:
            self.remove([name], "working")

    def _report_path(self, name: BatchName, folder: Folder) -> Path:
        return self.path / folder / f"{name}{_REPORT}"

    def _acquire_lock(self) -> FileLock:
        try:
            return FileLock(self.path / _LOCK_FILE, str(os.getpid()).encode())
        except FileLockedError as exc:
            pid = exc.note[:20].decode("ascii", "replace") or "of unknown number"
            raise SpoolError(
                f"the spool {self.path} is in use by process {pid}; wait until it ends, or use "
                "another directory"
            ) from exc

    def _check_open(self) -> None:
        """Refuse a worker that was left behind: another process may use the directory now."""
        if self._lock.fd < 0:
            raise SpoolError(f"the spool {self.path} is closed")

    @contextmanager
    def _mapped_errors(self, but: Collection[int] = ()) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in but:
                raise
            path = exc.filename or self.path
            raise SpoolError(f"cannot use {path}: {exc.strerror or exc}: {self._advice()}") from exc

    def _advice(self) -> str:
        return f"the spool {self.path} needs a writable directory and free disk space"


def _report_json(report: dict[str, Any], name: BatchName) -> str:
    """Return a report as text, without rejects that are not JSON: the batch has to end."""
    try:
        return json.dumps(report, indent=1)
    except (TypeError, ValueError):
        _log.exception("the report of batch %s is written without its rejects", name.id)
        return json.dumps({**report, "rejects": [], "reason": ascii(report["reason"])}, indent=1)
