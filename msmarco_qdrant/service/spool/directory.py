"""The directory of a spool: its files, and nothing of what is known about them in memory.

::

    spool/
      .lock           held by the process that uses the spool
      sequence        numbers below this one may have been given to a batch
      tmp/            what is not accepted yet; emptied at each start
      incoming/       accepted batches
      working/        the batch that is being applied
      done/           reports of batches that were, and the batches of which rows were rejected
      failed/         batches that cannot be, each with its report

A batch is one file, `<sequence>-<id>.<form>`, and stands in one folder; its report is a file of the
same name with `.json` behind it. It ends when its report appears; what a crash leaves to do after
that is done at the next start.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from msmarco_qdrant.errors import OutputError, SpoolError
from msmarco_qdrant.runtime.atomic_file import replacing_text, sync_directory
from msmarco_qdrant.runtime.file_lock import FileLock, FileLockedError

_log = logging.getLogger(__name__)

Folder: TypeAlias = Literal["incoming", "working", "done", "failed"]

_FOLDERS = ("tmp", "incoming", "working", "done", "failed")
_LOCK_FILE = ".lock"
_SEQUENCE_FILE = "sequence"
_SEQUENCES_AT_ONCE = 10_000
_REPORT = ".json"
_OF_THE_FILE = (errno.EXDEV, errno.ENOENT, errno.EACCES, errno.EPERM)

OPERATIONS = "ops.jsonl"
FORMS = (OPERATIONS, "tsv", "tsv.gz", "jsonl", "jsonl.gz", "ndjson", "ndjson.gz", "parquet")
_SEQUENCE = re.compile(r"[0-9]{1,15}")
_NAME = re.compile(rf"([0-9]{{16}})-([0-9a-f]{{32}})\.({'|'.join(map(re.escape, FORMS))})")


@dataclass(frozen=True, slots=True)
class BatchName:
    """The name of a batch's file.

    Attributes:
        sequence: Its place in the order of all batches.
        id: 32 hexadecimal digits.
        form: What is in it, one of `FORMS`: the end of its name.
    """

    sequence: int
    id: str
    form: str

    def __str__(self) -> str:
        return f"{self.sequence:016}-{self.id}.{self.form}"


def parsed_name(name: str) -> BatchName | None:
    """The parts of a batch's file name, None for any other."""
    found = _NAME.fullmatch(name)
    return BatchName(int(found[1]), found[2], found[3]) if found else None


def form_of(name: str) -> str | None:
    """Which of `FORMS` a file's name ends in, None if in none of them."""
    lower = name.lower()
    return next((form for form in FORMS if lower.endswith(f".{form}")), None)


class SpoolDirectory:
    """A locked spool directory. Its methods may be called from several threads.

    Args:
        path: The directory; it is made if there is none.

    Raises:
        SpoolError: If it cannot be made or written, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._usable():
            for folder in _FOLDERS:
                (path / folder).mkdir(parents=True, exist_ok=True)
            sync_directory(path)
            self._lock = self._acquire_lock()
        try:
            self._mend()
        except BaseException:
            self.close()
            raise

    def place(self, name: BatchName, folder: Folder) -> Path:
        """Where a batch's file lies in a folder."""
        return self.path / folder / str(name)

    def temporary(self, id_: str) -> Path:
        """A place for a batch that is not accepted yet."""
        return self.path / "tmp" / id_

    def names(self, folder: Folder) -> list[BatchName]:
        """The batches in a folder, in their order.

        Raises:
            SpoolError: If it cannot be read.
        """
        with self._usable():
            found = [parsed_name(entry.name) for entry in (self.path / folder).iterdir()]
        return sorted((name for name in found if name), key=str)

    def reported(self, folder: Folder) -> list[BatchName]:
        """The batches whose reports lie in a folder, in their order.

        Raises:
            SpoolError: If it cannot be read.
        """
        with self._usable():
            stems = [
                entry.name.removesuffix(_REPORT)
                for entry in (self.path / folder).iterdir()
                if entry.name.endswith(_REPORT)
            ]
        return sorted((name for stem in stems if (name := parsed_name(stem))), key=str)

    def size_and_time(self, name: BatchName, folder: Folder) -> tuple[int, float]:
        """A batch's bytes, and when it came into its folder, in seconds since 1970.

        Raises:
            SpoolError: If it is not there.
        """
        with self._usable():
            status = self.place(name, folder).stat()
        return status.st_size, status.st_ctime

    def bring_in(self, place: Path, name: BatchName) -> None:
        """Rename a file to be a batch of `incoming`; not durable before `sync`.

        Raises:
            OSError: If it is not from `tmp`, and lies on another file system (`errno.EXDEV`), has
                gone, or may not be taken from where it lies.
            SpoolError: For any other reason why it cannot.
        """
        is_ours = place.parent == self.path / "tmp"
        with self._usable(but=() if is_ours else _OF_THE_FILE):
            place.rename(self.place(name, "incoming"))

    def discard(self, place: Path) -> None:
        """Remove what did not become a batch, if it is there; else the next start does."""
        try:
            place.unlink(missing_ok=True)
        except OSError as exc:
            _log.warning("%s stays until the next start: %s", place, exc.strerror)

    def sync(self, folder: Folder) -> None:
        """Make what was renamed into or out of a folder durable.

        Raises:
            SpoolError: If the disk does not take it.
        """
        with self._usable():
            sync_directory(self.path / folder)

    def move(self, name: BatchName, source: Folder, target: Folder) -> None:
        """Move a batch, durably; one that has been moved already, or removed, is no error.

        Raises:
            SpoolError: If it cannot be moved, or the directory was closed.
        """
        self._check_ours()
        with self._usable():
            if self.place(name, source).exists():
                self.place(name, source).rename(self.place(name, target))
        self.sync(target)
        self.sync(source)

    def remove(self, name: BatchName, folder: Folder) -> None:
        """Remove a batch's file, durably; one that is not there is no error.

        Raises:
            SpoolError: If it cannot be removed, or the directory was closed.
        """
        self._check_ours()
        with self._usable():
            self.place(name, folder).unlink(missing_ok=True)
        self.sync(folder)

    def put_report(self, name: BatchName, folder: Folder, report: dict[str, Any]) -> None:
        """Write a batch's report, durably and whole; without its words if they are no JSON.

        Raises:
            SpoolError: If the disk does not take it, or the directory was closed.
        """
        self._check_ours()
        text = _as_json(report, name)
        try:
            with replacing_text(self._report(name, folder)) as file:
                file.write(text)
        except OutputError as exc:
            raise SpoolError(f"{exc.args[0].partition(';')[0]}: {self._advice()}") from exc

    def report(self, name: BatchName, folder: Folder) -> dict[str, Any] | None:
        """A batch's report, None if there is none.

        Raises:
            SpoolError: If it cannot be read, or is damaged.
        """
        place = self._report(name, folder)
        with self._usable():
            if not place.exists():
                return None
            try:
                fields: dict[str, Any] = json.loads(place.read_text("utf-8"))
            except ValueError as exc:
                raise SpoolError(f"{place} is damaged: {exc}; remove it") from exc
        return fields

    def remove_report(self, name: BatchName, folder: Folder) -> None:
        """Forget how a batch ended; of one that is done, its file goes, too.

        Raises:
            SpoolError: If it cannot be removed.
        """
        with self._usable():
            if folder == "done":
                self.place(name, folder).unlink(missing_ok=True)
            self._report(name, folder).unlink(missing_ok=True)

    def reserve_sequence(self, above: int) -> int:
        """Note durably that numbers from `above` on will be used; the number to stop before.

        Raises:
            SpoolError: If the disk does not take it.
        """
        end = above + _SEQUENCES_AT_ONCE
        try:
            with replacing_text(self.path / _SEQUENCE_FILE) as file:
                file.write(str(end))
        except OutputError as exc:
            raise SpoolError(f"{exc.args[0].partition(';')[0]}: {self._advice()}") from exc
        return end

    def first_sequence(self) -> int:
        """A number above those of all batches there have been, however many were removed.

        Raises:
            SpoolError: If a folder cannot be read, or the note of the last number is damaged.
        """
        found = [*self.names("incoming"), *self.names("failed")]
        found += [*self.reported("done"), *self.reported("failed")]
        return max([self._noted_sequence(), *(name.sequence + 1 for name in found)])

    def close(self) -> None:
        """Give the directory back. Closing twice is no error."""
        self._lock.release()

    def _noted_sequence(self) -> int:
        place = self.path / _SEQUENCE_FILE
        with self._usable():
            text = place.read_text("ascii", "replace") if place.exists() else "1"
        if not _SEQUENCE.fullmatch(text):
            raise SpoolError(
                f"{place} is damaged: expected a number, found {text[:40]!r}; remove it"
            )
        return int(text)

    def _mend(self) -> None:
        """Do what a crash has left undone."""
        unwritten = [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]
        with self._usable():
            for leftover in (*(self.path / "tmp").iterdir(), *unwritten):
                leftover.unlink(missing_ok=True)
        for name in self.names("incoming"):  # it was put back by hand, and is to be done again
            self.remove_report(name, "failed")
            self.remove_report(name, "done")
        for name in self.names("working"):
            if self._report(name, "done").exists():
                self._mend_done(name)
            elif self._report(name, "failed").exists():
                self.move(name, "working", "failed")
            else:
                self.move(name, "working", "incoming")

    def _mend_done(self, name: BatchName) -> None:
        """Keep the file of a batch that is done, unless its report tells of no rejected row."""
        try:
            is_kept = (self.report(name, "done") or {})["rejected"] != 0
        except (SpoolError, KeyError, TypeError):
            is_kept = True
        if is_kept:
            self.move(name, "working", "done")
        else:
            self.remove(name, "working")

    def _report(self, name: BatchName, folder: Folder) -> Path:
        return self.path / folder / f"{name}{_REPORT}"

    def _acquire_lock(self) -> FileLock:
        try:
            return FileLock(self.path / _LOCK_FILE, str(os.getpid()).encode())
        except FileLockedError as exc:
            pid = exc.note[:20].decode("ascii", "replace") or "of unknown number"
            raise SpoolError(
                f"the spool {self.path} is in use by process {pid}: one sidecar has one spool; "
                "wait for that one to end, or pass another directory"
            ) from exc

    def _check_ours(self) -> None:
        """A worker that was left behind must not meddle with the spool of the next process."""
        if self._lock.fd < 0:
            raise SpoolError(f"the spool {self.path} is closed")

    @contextmanager
    def _usable(self, but: Collection[int] = ()) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            if exc.errno in but:
                raise
            place = exc.filename or self.path
            raise SpoolError(
                f"cannot use {place}: {exc.strerror or exc}: {self._advice()}"
            ) from exc

    def _advice(self) -> str:
        return f"the spool {self.path} needs a directory that can be written, with room on its disk"


def _as_json(report: dict[str, Any], name: BatchName) -> str:
    """A report as text; whatever is wrong with its words, the batch has to end."""
    try:
        return json.dumps(report, indent=1)
    except (TypeError, ValueError):
        _log.exception("the report of batch %s is written without its rejects", name.id)
        return json.dumps({**report, "rejects": [], "reason": ascii(report["reason"])}, indent=1)
