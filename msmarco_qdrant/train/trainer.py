"""The trainer of sentence-transformers over batches that are known beforehand.

It decides optimizer, learning rate, precision and checkpoints; this module gives it the batches,
keeps the model that is best on dev queries, and resumes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from torch import nn
from torch.utils.data import BatchSampler
from transformers import PrinterCallback

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.hub import quiet_hub
from msmarco_qdrant.encoding.pretrained import hidden_progress
from msmarco_qdrant.errors import EncodingError, OutputError
from msmarco_qdrant.train.checkpoints import Checkpoints, save_model, step_of
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.trainer_callbacks import (
    Folder,
    KeepBest,
    Kept,
    MarkCheckpoints,
    ProgressError,
    ShowProgress,
    StopAtNan,
)

_log = logging.getLogger(__name__)

EXAMPLE = "example"
"""The column of the trainer's data set: the number of an example."""

_PARTS = 10  # of a training without other settings: between two measures or checkpoints


class Batches(Protocol):
    """The numbers of the examples of each batch, in order."""

    def __len__(self) -> int:
        """Return the number of batches."""
        ...

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TrainingParts:
    """Model, loss and batches of a training.

    Attributes:
        model: The model, in float32.
        loss: Its loss.
        collator: Makes input of numbers of examples.
        batches: The examples of each step.
        examples: Number of examples.
        measure: Returns the quality of the model; None to keep the last state.
    """

    model: Any
    loss: nn.Module
    collator: Any
    batches: Batches
    examples: int
    measure: Callable[[Any], float] | None = None


@dataclass(slots=True)
class Outcome:
    """Result of a training.

    Attributes:
        model: Folder of the kept model, without a model card.
        steps: Number of steps.
        kept_step: The step after which the kept model was saved.
        measures: The measure by step; 0 is the model before training.
        losses: The mean loss since the value before, by step.
        precision: "float32" or "bfloat16".
        device: The device of torch.
        seconds: Time of this process.
        resumed_from: The step of the checkpoint that it began with, 0 without one.
    """

    model: Path
    steps: int
    kept_step: int
    measures: dict[int, float]
    losses: dict[int, float]
    precision: str
    device: str
    seconds: float
    resumed_from: int


class _KnownBatches(BatchSampler):
    """Batches in their order, as the library's trainer wants them."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_epoch(self, _epoch: int) -> None:
        """Do nothing: all epochs are one for the library."""


class _KnownBatchesTrainer:
    """Takes the batches as they are, and writes neither model cards nor pickled arguments."""

    model: Any
    args: Any
    batches: Batches

    def get_batch_sampler(self, *_args: Any, **_options: Any) -> BatchSampler:
        return _KnownBatches(self.batches)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        pass

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        self.model.save_pretrained(output_dir or self.args.output_dir, create_model_card=False)


class _BiEncoderTrainer(_KnownBatchesTrainer, SentenceTransformerTrainer):
    pass


class _CrossEncoderTrainer(_KnownBatchesTrainer, CrossEncoderTrainer):
    pass


def run_training(
    parts: TrainingParts,
    settings: TrainSettings,
    folder: Folder,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Train, from the newest checkpoint in a folder if it has one.

    The same parts and settings give the same weights on a CPU, also if the training was stopped
    and resumed.

    Args:
        parts: Model, loss, batches and measure.
        settings: The settings.
        folder: The folder for checkpoints and the best model.
        on_progress: Called with the examples done and their number.

    Raises:
        EncodingError: If the forward or backward pass fails, for example without enough memory;
            or if the gradient is not finite.
        OutputError: If a checkpoint or a model cannot be written.
    """
    started = time.monotonic()
    checkpoints = Checkpoints(folder.path / "checkpoints")
    newest = checkpoints.newest()
    steps = len(parts.batches)
    arguments = _arguments(settings, steps, checkpoints.path, parts.model)
    kept = Kept()
    trainer = _make_trainer(parts, arguments)
    trainer.add_callback(MarkCheckpoints(checkpoints))
    trainer.add_callback(StopAtNan())
    if parts.measure is not None:
        every = settings.eval_steps or _part_of(steps)
        trainer.add_callback(KeepBest(parts.measure, every, folder, kept))
    if on_progress is not None:
        trainer.add_callback(ShowProgress(on_progress, parts.examples))
    if newest is not None:
        _log.info("training resumes after step %d of %d", step_of(newest), steps)
    with _mapped_errors(settings):
        trainer.train(resume_from_checkpoint=str(newest) if newest is not None else None)
        if kept.step is None:
            save_model(parts.model, folder.path / f"model-{steps}")
    last = steps if kept.step is None else kept.step
    return Outcome(
        model=folder.path / f"model-{last}",
        steps=steps,
        kept_step=last,
        measures=kept.measures,
        losses={one["step"]: one["loss"] for one in trainer.state.log_history if "loss" in one},
        precision="bfloat16" if arguments.bf16 else "float32",
        device=str(parts.model.device),
        seconds=time.monotonic() - started,
        resumed_from=step_of(newest) if newest is not None else 0,
    )


def _make_trainer(parts: TrainingParts, arguments: Any) -> Any:
    from datasets import Dataset
    from datasets.table import InMemoryTable

    is_cross = isinstance(parts.model, CrossEncoder)
    trainer = (_CrossEncoderTrainer if is_cross else _BiEncoderTrainer)(
        model=parts.model,
        args=arguments,
        # not `from_dict`, whose fingerprint pickles modules, which fails outside sys.prefix
        train_dataset=Dataset(
            InMemoryTable.from_pydict({EXAMPLE: range(parts.examples)}), fingerprint=EXAMPLE
        ),
        loss=parts.loss,
        data_collator=parts.collator,
    )
    trainer.batches = parts.batches
    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    return trainer


def _arguments(settings: TrainSettings, steps: int, path: Path, model: Any) -> Any:
    device = model.device
    on_cpu = device.type == "cpu"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    is_cross = isinstance(model, CrossEncoder)
    arguments = (
        CrossEncoderTrainingArguments if is_cross else SentenceTransformerTrainingArguments
    )(
        output_dir=str(path),
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup * steps),
        lr_scheduler_type="linear",
        weight_decay=0.0,
        seed=settings.seed,
        bf16=_uses_bfloat16(settings, device),
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps or _part_of(steps),
        logging_strategy="steps",
        logging_steps=_part_of(steps),
        report_to="none",
        disable_tqdm=True,
    )
    _ = arguments.device  # the library counts GPUs here, and would split batches between them
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001  # it has no public option
    return arguments


def _part_of(steps: int) -> int:
    return max(1, -(-steps // _PARTS))


def _uses_bfloat16(settings: TrainSettings, device: torch.device) -> bool:
    if settings.precision is not None:
        return settings.precision == "bfloat16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


@contextmanager
def _mapped_errors(settings: TrainSettings) -> Iterator[None]:
    try:
        with quiet_hub(), hidden_progress():
            yield
    except ProgressError as exc:
        if exc.__cause__ is not None:
            raise exc.__cause__ from None
        raise
    except torch.OutOfMemoryError as exc:
        raise EncodingError(
            f"the device has too little memory to train: {str(exc).splitlines()[0]} Use a smaller "
            f"batch_size than {settings.batch_size}, or a device with more memory"
        ) from exc
    except RuntimeError as exc:
        raise EncodingError(
            f"the training failed: {first_line(exc)}: run it again to resume from the last "
            "checkpoint"
        ) from exc
    except OSError as exc:
        raise OutputError(
            f"cannot write the training's files: {exc}: run it again to resume from the last "
            "checkpoint"
        ) from exc
