"""Inbox: a directory whose files become batches, in the order of their names.

A writer uses a name that is ignored (`.name`, `name.tmp`, `name.part`) until the file is complete,
and then renames it. A name may be used again once its file is removed. A file on another file
system is renamed to `.<id>.<form>.taken` while it is copied.
"""

from __future__ import annotations

import logging
import stat
from os import PathLike
from pathlib import Path

from msmarco_qdrant.errors import SourceError, SpoolError
from msmarco_qdrant.service.spool.directory import FORMS, form_of
from msmarco_qdrant.service.spool.files import CLAIMED, claimed_id
from msmarco_qdrant.service.spool.spool import Spool
from msmarco_qdrant.service.spool.sweeper import Sweeper

_log = logging.getLogger(__name__)

_UNFINISHED = (".tmp", ".part")


class Inbox:
    """Moves files into a spool: `sweep` once, or `start` a thread that sweeps periodically.

    A file that was being copied when a process ended comes first in the next sweep. It was not
    accepted before, so batches by HTTP may precede it.

    Args:
        directory: The inbox; made if missing.
        spool: The spool.
        interval_s: Seconds between two sweeps.

    Raises:
        SourceError: If the directory cannot be made.
    """

    def __init__(
        self, directory: str | PathLike[str], spool: Spool, *, interval_s: float = 1.0
    ) -> None:
        self._directory = Path(directory).expanduser()
        self._spool = spool
        self._sweeper = Sweeper(self.sweep, "inbox", interval_s=interval_s)
        self._warned: set[str] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError as exc:
            raise SourceError(f"the inbox must be a directory, got {directory}") from exc
        except OSError as exc:
            raise SourceError(f"the inbox {directory} cannot be made: {exc.strerror}") from exc

    def start(self) -> None:
        """Start the thread, which sweeps at once."""
        self._sweeper.start()

    def stop(self) -> None:
        """Stop the thread; return once the current file is accepted."""
        self._sweeper.stop()

    def sweep(self) -> int:
        """Move every complete file into the spool, by name, until the spool is full.

        Returns:
            Number of files moved. Any other file is logged once, and retried by the next sweep.
        """
        try:
            names = sorted(entry.name for entry in self._directory.iterdir())
            names.sort(key=lambda name: not claimed_id(name))  # claimed files come first
        except OSError as exc:
            self._warn_once("", f"the inbox {self._directory} cannot be read: {exc.strerror}")
            return 0
        self._warned &= {"", *map(_warning_key, names)}
        moved = 0
        try:
            for name in filter(self._is_complete, names):
                if self._sweeper.is_stopping:
                    break
                moved += self._move(name)
        except SpoolError as exc:  # the spool or its disk is full
            self._warn_once("", f"the inbox waits: {exc}")
        else:
            self._warned.discard("")
        return moved

    def _is_complete(self, name: str) -> bool:
        """Return True for a complete file of a known form."""
        if claimed_id(name):  # only a complete file is claimed
            return True
        if name.startswith(".") or name.endswith(_UNFINISHED):
            return False
        try:
            mode = (self._directory / name).lstat().st_mode
        except OSError:  # it was removed
            return False
        problem = ""
        if not stat.S_ISREG(mode):
            problem = "it is not a regular file"
        elif form_of(name) is None:
            problem = f"its name must end in .{', .'.join(FORMS)}"
        if problem:
            self._warn_once(name, f"{name} stays in the inbox: {problem}")
        return not problem

    def _move(self, name: str) -> bool:
        """Move a file into the spool; return False if it cannot be moved.

        Raises:
            SpoolError: If the spool is full or its disk fails.
        """
        try:
            batch = self._spool.accept_file(self._directory / name)
        except SourceError as exc:
            self._warn_once(name, f"{name} stays in the inbox: {exc}")
            return False
        fields = {"batch": batch, "state": "accepted", "file": name}
        _log.info("%s of the inbox is batch %s", name, batch, extra={"fields": fields})
        return True

    def _warn_once(self, name: str, message: str) -> None:
        """Warn, unless an earlier sweep warned of the same file."""
        if _warning_key(name) not in self._warned:
            self._warned.add(_warning_key(name))
            _log.warning("%s", message, extra={"fields": {"file": name}} if name else None)


def _warning_key(name: str) -> str:
    """Return the key of a warning; claimed files share one."""
    return CLAIMED if claimed_id(name) else name
