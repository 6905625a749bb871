"""The inbox: a directory whose files become batches, in the order of their names.

Whoever writes a file there gives it a name that is passed over (`.name`, `name.tmp`, `name.part`)
until it is whole, and then renames it. A name may be used again once its file has gone. One from
another file system is renamed here while it is copied, to `.<id>.<form>.taken`.
"""

from __future__ import annotations

import logging
import stat
import threading
from os import PathLike
from pathlib import Path

from msmarco_qdrant.errors import SourceError, SpoolError
from msmarco_qdrant.service.spool.directory import FORMS, form_of
from msmarco_qdrant.service.spool.files import CLAIMED, claimed
from msmarco_qdrant.service.spool.spool import Spool

_log = logging.getLogger(__name__)

_UNFINISHED = (".tmp", ".part")


class Inbox:
    """Moves files into a spool; `sweep` once, or `start` a thread that does it now and then.

    A file that was on its way in when a process ended is the first of the next one's first sweep.
    What comes in by other doors meanwhile may be before it: it was not accepted yet.

    Args:
        directory: Where to look; it is made if there is none.
        spool: Where the files go.
        interval_s: How long to wait before the next look.

    Raises:
        SourceError: If it cannot be made.
    """

    def __init__(
        self, directory: str | PathLike[str], spool: Spool, *, interval_s: float = 1.0
    ) -> None:
        self._directory = Path(directory).expanduser()
        self._spool = spool
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._told: set[str] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError as exc:
            raise SourceError(f"{directory} cannot be an inbox: it is no directory") from exc
        except OSError as exc:
            raise SourceError(f"{directory} cannot be an inbox: {exc.strerror}") from exc

    def start(self) -> None:
        """Look now, and from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when the file in hand is in."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def sweep(self) -> int:
        """Move every whole file in, in the order of their names, while there is room.

        Returns:
            How many were moved. What cannot be is told in the log, once, and tried again.
        """
        try:
            names = sorted((entry.name for entry in self._directory.iterdir()), key=_turn)
        except OSError as exc:
            self._tell("", f"the inbox {self._directory} cannot be read: {exc.strerror}")
            return 0
        self._told &= {"", *map(_key, names)}
        moved = 0
        try:
            for name in filter(self._is_whole, names):
                if self._stopping.is_set():
                    break
                moved += self._move(name)
        except SpoolError as exc:  # it is full, or its disk is
            self._tell("", f"the inbox waits: {exc}")
        else:
            self._told.discard("")
        return moved

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.sweep()
            except Exception:  # noqa: BLE001  # it is told; one file must not end the inbox
                _log.exception("the inbox met with a fault of this program, and goes on")
            self._stopping.wait(self._interval_s)

    def _is_whole(self, name: str) -> bool:
        """Whether it is a file for us."""
        if claimed(name):  # it was whole before it was renamed so
            return True
        if name.startswith(".") or name.endswith(_UNFINISHED):
            return False
        try:
            mode = (self._directory / name).lstat().st_mode
        except OSError:  # it has gone
            return False
        if not stat.S_ISREG(mode):
            self._tell(name, f"{name} in the inbox is no plain file, and stays there")
            return False
        if form_of(name) is None:
            forms = ", .".join(FORMS)
            self._tell(name, f"{name} in the inbox is of no known form (.{forms}), and stays there")
            return False
        return True

    def _move(self, name: str) -> bool:
        """Move a file in; whether it is.

        Raises:
            SpoolError: If the spool takes no more.
        """
        try:
            batch = self._spool.accept_file(self._directory / name)
        except SourceError as exc:
            self._tell(name, f"a file of the inbox stays there: {exc}")
            return False
        fields = {"batch": batch, "state": "accepted", "file": name}
        _log.info("%s of the inbox is batch %s", name, batch, extra={"fields": fields})
        return True

    def _tell(self, name: str, message: str) -> None:
        """Warn once of what stays the same from sweep to sweep."""
        if _key(name) not in self._told:
            self._told.add(_key(name))
            _log.warning("%s", message, extra={"fields": {"file": name}} if name else None)


def _turn(name: str) -> tuple[bool, str]:
    """When a file's turn is: first that of one that was on its way in."""
    return not claimed(name), name


def _key(name: str) -> str:
    """What is told once of files that are alike."""
    return CLAIMED if claimed(name) else name
