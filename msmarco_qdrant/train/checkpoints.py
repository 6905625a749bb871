"""Checkpoints and models of a training in a folder: only complete ones are used.

The trainer writes a checkpoint file by file. A mark, written last and removed first, distinguishes
a complete one from what a killed process left.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from msmarco_qdrant.runtime.atomic_file import sync_directory, sync_file

_MARK = "complete"
_NAME = re.compile(r"checkpoint-([0-9]+)")


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        path: The folder, which may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint; delete incomplete ones."""
        complete = self._complete()
        for found in self._all():
            if found not in complete:
                shutil.rmtree(found)
        return complete[-1] if complete else None

    def complete(self, step: int) -> None:
        """Mark the checkpoint of a step as complete, and delete older ones."""
        written = self.path / f"checkpoint-{step}"
        _sync_folder(written)
        (written / _MARK).touch()
        sync_directory(written)
        for found in self._all():
            if found != written:
                (found / _MARK).unlink(missing_ok=True)
                shutil.rmtree(found)

    def _complete(self) -> list[Path]:
        return [found for found in self._all() if (found / _MARK).is_file()]

    def _all(self) -> list[Path]:
        """Return the folders of checkpoints by step."""
        if not self.path.is_dir():
            return []
        named = ((_NAME.fullmatch(found.name), found) for found in self.path.iterdir())
        return [found for _, found in sorted((int(m[1]), found) for m, found in named if m)]


def save_model(model: Any, path: Path) -> None:
    """Save a model under a name that exists only when it is complete.

    Args:
        model: A model of sentence-transformers.
        path: Its folder; an earlier one is replaced.

    Raises:
        OSError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(str(temporary), create_model_card=False)
    _sync_folder(temporary)
    temporary.replace(path)
    sync_directory(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the files of a folder and of its folders to disk, so that a power failure keeps them.

    Raises:
        OSError: If one cannot be flushed.
    """
    for found in folder.rglob("*"):
        if found.is_dir():
            sync_directory(found)
        else:
            with found.open("rb") as opened:
                sync_file(opened.fileno())
    sync_directory(folder)


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])
