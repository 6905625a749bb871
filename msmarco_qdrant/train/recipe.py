"""The order of the steps of a training, for every kind of model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msmarco_qdrant.train.batches import TrainingPlan, plan_training
from msmarco_qdrant.train.examples import ExampleSet, build_examples
from msmarco_qdrant.train.finish import WorkFolder
from msmarco_qdrant.train.inputs import TrainingData, library_versions
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.texts import PassageTexts
from msmarco_qdrant.train.train_report import DevMeasures, TrainReport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


class DevQuality(Protocol):
    """Dev queries with what is ranked for them."""

    def measure(self, model: Any) -> float:
        """Return the quality of a model."""
        ...

    def report(self, by_step: Mapping[int, float]) -> DevMeasures:
        """Return the report of the measures by step."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Recipe:
    """Contribution of a kind of model to a training.

    Attributes:
        model: The model to train, in float32.
        name: Its name, for the report.
        fingerprint: Its fingerprint.
        loss: Its loss.
        collator: Returns what makes input of a plan's numbers of examples.
        dev: The dev queries; None without any.
        settings: The settings of the report, by name.
        eligible: bool, one for each value of `examples.positives`: False to leave it out. None to
            leave out none.
        unscored_pairs: Pairs without a score of the judge.
    """

    model: Any
    name: str
    fingerprint: str
    loss: nn.Module
    collator: Callable[[TrainingPlan], Any]
    dev: DevQuality | None
    settings: Mapping[str, Any]
    eligible: NDArray[np.bool_] | None = None
    unscored_pairs: int = 0


def train_recipe(
    data: TrainingData,
    settings: TrainSettings,
    work: WorkFolder,
    make_recipe: Callable[[ExampleSet], Recipe],
    on_progress: Callable[[int, int], None] | None,
) -> tuple[TrainReport, Path]:
    """Build the examples, plan their batches and train; return the report and the model's folder.

    Args:
        data: The training queries and the collection with their passages.
        settings: The settings.
        work: The folder for texts, checkpoints and models.
        make_recipe: Returns the model with its loss, its collator and its dev queries.
        on_progress: Called with the examples done and their number.
    """
    from msmarco_qdrant.train.trainer import TrainingParts, run_training

    texts = PassageTexts(data.client, tenant=data.tenant)
    examples = build_examples(data.collected, texts.get, work.path / "passages")
    recipe = make_recipe(examples)
    plan = plan_training(
        examples,
        recipe.eligible,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        max_positives=settings.max_positives,
        seed=settings.seed,
    )
    parts = TrainingParts(
        model=recipe.model,
        loss=recipe.loss,
        collator=recipe.collator(plan),
        batches=plan,
        examples=len(plan.queries),
        measure=None if recipe.dev is None else recipe.dev.measure,
    )
    outcome = run_training(parts, settings, work, on_progress=on_progress)
    report = TrainReport(
        out=work.path.parent,
        model=recipe.name,
        fingerprint=recipe.fingerprint,
        settings=recipe.settings,
        examples=examples.counts,
        trained_pairs=len(plan.queries),
        unscored_pairs=recipe.unscored_pairs,
        steps=outcome.steps,
        kept_step=outcome.kept_step,
        dev=None if recipe.dev is None else recipe.dev.report(outcome.measures),
        losses=outcome.losses,
        device=outcome.device,
        precision=outcome.precision,
        seconds=outcome.seconds,
        versions=library_versions(),
    )
    return report, outcome.model
