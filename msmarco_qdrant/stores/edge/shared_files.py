"""Files of a shard for other processes that search it, until somebody writes to it.

A call of Edge holds the GIL, so one process searches with one core. Other processes cannot load the
shard of a locked directory, but a folder with its files: hard links where a search changes nothing,
else copies, as for an index build (see `optimize_child`). A write changes linked files, too. So it
waits until the other processes have ended.

A folder that a killed process leaves is removed when the shard is loaded next.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msmarco_qdrant.stores.edge.index_build import SHARED, require_free_space, unlinked_bytes
from msmarco_qdrant.stores.edge.optimize_child import copy_or_link
from msmarco_qdrant.stores.error_mapping import map_error

_ACTION = "sharing files with other processes"
_SEGMENTS, _CONFIG = "segments", "edge_config.json"


class SharedFiles:
    """The folders with files of one shard. Thread-safe.

    Args:
        shard: The shard's directory.
    """

    def __init__(self, shard: Path) -> None:
        self._shard = shard
        self._lock = threading.Lock()
        self._users: dict[Path, Callable[[], None]] = {}

    @property
    def is_used(self) -> bool:
        """True if other processes may search some of the folders."""
        with self._lock:
            return bool(self._users)

    def add(self, on_change: Callable[[], None]) -> Path:
        """Make a folder. The shard must be flushed, and not be written to during the call.

        Args:
            on_change: Called once by `end`.

        Raises:
            StoreUnavailableError: If disk space or another resource is missing.
        """
        parent = self._shard / SHARED
        with _map_errors(self._shard):
            parent.mkdir(exist_ok=True)
            folder = _copy(self._shard, parent)
        with self._lock:
            self._users[folder] = on_change
        return folder

    def remove(self, folder: Path) -> None:
        """Remove a folder that no process uses any more."""
        with self._lock:
            self._users.pop(folder, None)
        _remove(folder)

    def end(self) -> None:
        """End the use of all folders, before a write."""
        with self._lock:
            users = [*self._users.values()]
            self._users.clear()
        for end in users:
            end()


def link_shared(folder: Path) -> Path:
    """Return another folder with the same files, for one process: the engine locks it.

    It lies in the folder, and is removed with it.

    Raises:
        StoreUnavailableError: If disk space or another resource is missing.
    """
    with _map_errors(folder):
        return _copy(folder, folder)


@contextmanager
def _map_errors(place: Path) -> Iterator[None]:
    """Raise the store's errors for those of the operating system."""
    try:
        yield
    except OSError as exc:
        raise map_error(exc, _ACTION, str(place)) from exc


def _copy(source: Path, parent: Path) -> Path:
    """Copy or link the files of a shard to a new folder."""
    require_free_space(source, _ACTION, unlinked_bytes(source / _SEGMENTS))
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        shutil.copyfile(source / _CONFIG, folder / _CONFIG)
        shutil.copytree(source / _SEGMENTS, folder / _SEGMENTS, copy_function=copy_or_link)
    except BaseException:
        _remove(folder)
        raise
    return folder


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # remains only take disk space
