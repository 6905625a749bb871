"""Callbacks of a training: its progress, its checkpoints, and the model that is best so far."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import TrainerCallback

from msmarco_qdrant.errors import EncodingError
from msmarco_qdrant.train.checkpoints import Checkpoints, save_model

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

_STATE = "measures.json"


class Folder(Protocol):
    """A folder with small JSON files that are written atomically."""

    @property
    def path(self) -> Path:
        """The folder."""
        ...

    def read_json(self, name: str) -> Any:
        """Return the content of a file; None without the file."""
        ...

    def write_json(self, name: str, value: Any) -> None:
        """Write a file."""
        ...


@dataclass(slots=True)
class Kept:
    """The best model so far."""

    measures: dict[int, float] = field(default_factory=dict)
    step: int | None = None


class ProgressError(Exception):
    """The cause is an error of the caller's function, and not one of the training."""


class ShowProgress(TrainerCallback):
    """Calls a function with the number of examples done, and of all."""

    def __init__(self, show: Callable[[int, int], None], examples: int) -> None:
        self._show = show
        self._examples = examples

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the progress."""
        share = state.global_step / max(1, state.max_steps)
        try:
            self._show(round(share * self._examples), self._examples)
        except Exception as exc:
            raise ProgressError from exc


class MarkCheckpoints(TrainerCallback):
    """Marks checkpoints as complete: a killed training may leave part of one."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark the checkpoint that was written."""
        self._checkpoints.complete(state.global_step)


class StopAtNan(TrainerCallback):
    """Ends a training that has diverged."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the gradient.

        Raises:
            EncodingError: If it is not finite.
        """
        found = (kwargs["logs"] or {}).get("grad_norm", 0.0)
        if not torch.isfinite(torch.tensor(float(found))):
            raise EncodingError(
                f"the gradient must be finite, got {found} after step {state.global_step}: use a "
                "lower learning rate, or float32"
            )


class KeepBest(TrainerCallback):
    """Measures the model at some steps, and saves it if it is the best so far."""

    def __init__(
        self, measure: Callable[[Any], float], every: int, folder: Folder, kept: Kept
    ) -> None:
        self._measure = measure
        self._every = every
        self._folder = folder
        self._kept = kept

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the measures of a stopped training; measure the model before the first step."""
        stored = self._folder.read_json(_STATE)
        if stored is not None:
            self._kept.measures.update({int(step): one for step, one in stored["measures"]})
            self._kept.step = stored["kept"]
        if state.global_step == 0 and 0 not in self._kept.measures:
            self._kept.measures[0] = self._measure(kwargs["model"])
            self._write()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the model at some steps; save the best one, and remove the others."""
        step = state.global_step
        if step % self._every and step != state.max_steps:
            return
        kept = self._kept
        found = kept.measures[step] = self._measure(kwargs["model"])
        if kept.step is None or step == kept.step or found > kept.measures[kept.step]:
            save_model(kwargs["model"], self._folder.path / f"model-{step}")
            kept.step = step
        self._write()
        for other in self._folder.path.glob("model-*"):
            if other.name != f"model-{kept.step}":
                shutil.rmtree(other)

    def _write(self) -> None:
        kept = self._kept
        self._folder.write_json(
            _STATE, {"kept": kept.step, "measures": sorted(kept.measures.items())}
        )
