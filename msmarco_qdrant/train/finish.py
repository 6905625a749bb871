"""A training's folder: filled once, by moving the model with its report and card into it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msmarco_qdrant.runtime.atomic_file import atomic_write_text, sync_directory
from msmarco_qdrant.train.out_folder import OutFolder, read_json
from msmarco_qdrant.train.train_report import TrainReport

_log = logging.getLogger(__name__)

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


def train_in_folder(
    out: Path,
    settings: Mapping[str, Any],
    train: Callable[[WorkFolder], tuple[TrainReport, Path, str]],
) -> TrainReport:
    """Train into a folder, unless that is done; return the report.

    Args:
        out: The folder.
        settings: What decides about the result; see `OutFolder`.
        train: Trains; returns the report, the folder of the model, and its model card.
    """
    with OutFolder(out, "train", settings) as folder:
        if (stored := folder.read_json(REPORT)) is not None:
            _log.info("the model in %s is trained already", out)
            remove_work(folder.path)
            return TrainReport.from_json(out, stored)
        report, model, card = train(WorkFolder(folder.path / _WORK))
        finish(model, folder.path, report, card)
    return report


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
