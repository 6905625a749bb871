"""The end of a training: model card and report, and the model's move into the output folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from msmarco_qdrant.runtime.atomic_file import atomic_write_text, sync_directory
from msmarco_qdrant.train.out_folder import read_json
from msmarco_qdrant.train.train_report import TrainReport

REPORT = "report.json"
_WORK = "work"
_FIRST = "modules.json"  # without weights it is refused, while weights without it load otherwise


class WorkFolder:
    """The folder of a training's own files, inside the output folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)

    def read_json(self, name: str) -> Any:
        """Return the content of a file; None without the file."""
        return read_json(self.path / name)

    def write_json(self, name: str, value: Any) -> None:
        """Write a file atomically."""
        with atomic_write_text(self.path / name) as file:
            json.dump(value, file)


def finish(model: Path, out: Path, report: TrainReport, card: str) -> None:
    """Move a trained model into its folder; the report, which is last, makes it complete.

    If this is killed, the resumed training calls it again.
    """
    with atomic_write_text(model / "README.md") as file:
        file.write(card)
    with atomic_write_text(model / REPORT) as file:
        json.dump(report.to_json(), file, indent=2)
        file.write("\n")
    for found in sorted(model.iterdir(), key=_order):
        move(found, out / found.name)
    sync_directory(out)
    remove_work(out)


def remove_work(out: Path) -> None:
    """Remove the training's own files; those that a killed run left, too."""
    if (out / _WORK).exists():
        shutil.rmtree(out / _WORK)


def _order(path: Path) -> tuple[int, str]:
    """Order files: what the model needs last are its weights, and the report is behind them."""
    names = {_FIRST: -1, "model.safetensors": 1, REPORT: 2}
    return names.get(path.name, 0), path.name


def move(source: Path, target: Path) -> None:
    """Move a file, or the files of a folder one by one, over those that are there."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for inner in source.iterdir():
            move(inner, target / inner.name)
        source.rmdir()
    else:
        source.replace(target)
