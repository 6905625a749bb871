"""Backups and restores that are killed at a step that a seed decides, each in a fork.

Run as `python -m tests.kill.backup_program DSN FOLDER KILLS SEED`. This process opens no store, so
that its forks may. A step is a change in the file system, or a request before it is sent or after
it was answered. It prints the kills by operation, and ends with 1 at the first wrong outcome.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from msmarco_qdrant.collection.backup import backup_collection
from msmarco_qdrant.collection.backup_manifest import check_files, read_manifest
from msmarco_qdrant.collection.create import drop_collection
from msmarco_qdrant.collection.restore import restore_collection
from msmarco_qdrant.errors import SourceError, StoreError
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.server.client import ServerClient
from tests.backups import check_equal_points, description, fill, many_passages, points
from tests.forks import exit_status
from tests.kill.steps import KILLED, Steps

PASSAGES = 40
Use: TypeAlias = Callable[[Store], Any]


class StepsAndRequests(Steps):
    """Counts the requests to a server, too: before each is sent, and after it was answered."""

    def watch(self) -> None:
        """Count from now on."""
        super().watch()
        real = ServerClient.call_within

        def call_within(*args: Any, **options: Any) -> Any:
            self.step()
            try:
                return real(*args, **options)
            finally:
                self.step()

        ServerClient.call_within = call_within  # type: ignore[method-assign]  # only in this fork


class Program:
    """The stores and the backup of one run."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._dsn, self._folder = dsn, folder
        self._answer = folder / "answer"
        self._saved = folder / "saved"
        self.kills: Counter[str] = Counter()

    def run(self, kills: int, rng: random.Random) -> None:
        """Kill so many backups and restores, of both kinds in turn."""
        self._fork(lambda store: fill(store, "films", many_passages(PASSAGES), optimize=False))
        steps = [self._count(portable=portable) for portable in (False, True)]
        for number in range(kills):
            saving, loading = steps[number % 2]
            self._kill_backup(rng.randint(1, saving), portable=bool(number % 2))
            # sometimes what a second kill leaves
            self._kill_restore([rng.randint(1, loading) for _ in range(rng.randint(1, 2))])

    def _count(self, *, portable: bool) -> tuple[int, int]:
        """Count the steps of a backup and of a restore."""
        saving = self._count_steps(self._save(portable=portable))
        loading = self._count_steps(self._load)
        self._fork(lambda store: drop_collection(store, "copy"))
        shutil.rmtree(self._saved)
        return saving, loading

    # ---- backup ----------------------------------------------------------------------------

    def _save(self, *, portable: bool) -> Use:
        return lambda store: backup_collection(store, "films", self._saved, portable=portable)

    def _load(self, store: Store) -> None:
        restore_collection(store, self._saved, name="copy")

    def _kill_backup(self, step: int, *, portable: bool) -> None:
        """A directory is a whole backup or none; the same command completes it."""
        shutil.rmtree(self._saved, ignore_errors=True)
        self._kill("backup", self._save(portable=portable), step)
        if not (self._saved / "manifest.json").exists():
            with pytest.raises(SourceError):
                read_manifest(self._saved)
            self._fork(self._save(portable=portable))
        manifest = read_manifest(self._saved)
        check_files(self._saved, manifest.files)
        assert PASSAGES == manifest.passages

    # ---- restore ---------------------------------------------------------------------------

    def _kill_restore(self, kills: Sequence[int]) -> None:
        for step in kills:
            self._kill("restore", load_unless_whole(self._load), step)
            self._fork(self._check_unfinished)
        self._fork(load_unless_whole(self._load))
        self._fork(self._check_whole)

    def _check_unfinished(self, store: Store) -> None:
        """The name has every point, or there is none of that name."""
        if "copy" in store.aliases():
            assert PASSAGES == store.collection("copy").info().points
        else:
            with pytest.raises(StoreError):
                store.collection("copy")

    def _check_whole(self, store: Store) -> None:
        """All is as in the original, and nothing is left beside it; then it is dropped."""
        check_equal_points(points(store, "films"), points(store, "copy"))
        assert description(store, "films") == description(store, "copy")
        assert [store.aliases()["copy"]] == [
            name for name in store.physical_names() if name.startswith("copy__")
        ]
        assert not (Path(self._dsn) / "restoring").exists()
        drop_collection(store, "copy")

    # ---- forks -----------------------------------------------------------------------------

    def _count_steps(self, use: Use) -> int:
        self._fork(use, count=True)
        return int(json.loads(self._answer.read_text()))

    def _kill(self, operation: str, use: Use, step: int) -> None:
        status = self._start(use, step, count=False)
        if status == KILLED:
            self.kills[operation] += 1
        elif status:
            raise AssertionError(f"{operation} failed before step {step}")

    def _fork(self, use: Use, *, count: bool = False) -> None:
        if self._start(use, None, count=count):
            raise AssertionError("a step failed: see the traceback")

    def _start(self, use: Use, last: int | None, *, count: bool) -> int:
        def run() -> None:
            steps = StepsAndRequests(self._folder, last)
            with closing(open_store(self._dsn, create=True)) as store:
                steps.watch()
                use(store)
                if count:
                    self._answer.write_text(str(steps.count))

        return exit_status(run)


def load_unless_whole(load: Use) -> Use:
    """Restore again, without the lock of a killed process; past the end the name exists."""

    def use(store: Store) -> None:
        if (holder := store.migration_locks.holder("copy")) is not None:
            store.migration_locks.release("copy", holder.token)
        live = store.aliases().get("copy")
        if live is None or store.metadata(live).restoring is not None:
            load(store)

    return use


if __name__ == "__main__":
    # Imported once, for all forks: none of these starts a thread.
    import numpy as np  # noqa: F401
    import qdrant_edge  # noqa: F401

    os.fsync = lambda fd: None  # noqa: ARG005  # a kill loses nothing of the page cache
    program = Program(sys.argv[1], Path(sys.argv[2]))
    program.run(int(sys.argv[3]), random.Random(int(sys.argv[4])))
    print(json.dumps(program.kills))
