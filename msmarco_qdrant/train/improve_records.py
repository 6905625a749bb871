"""Values of an improvement: frozen, slotted, without logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msmarco_qdrant.core.reports import ReembedReport
from msmarco_qdrant.evaluation.records import Evaluation


@dataclass(frozen=True, slots=True)
class ImproveStep:
    """A finished step.

    Attributes:
        round: Number of the round, from 1; 0 before the first.
        name: "before", "mine", "judge", "choose", "train", "encode" or "search".
        command: A command that does the same; empty if there is none.
        seconds: Time of the run that finished it.
        resumed: True if an earlier run began it; `seconds` lacks that run.
        figures: Counts and measures, by name.
    """

    round: int
    name: str
    command: str
    seconds: float
    resumed: bool
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ImproveRound:
    """A trained model.

    Attributes:
        number: From 1.
        model: Its folder.
        validation: The first measure of the first mode over the validation queries.
    """

    number: int
    model: str
    validation: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Comparison of a model with the collection's, by paired tests over the test queries.

    Attributes:
        round: The round with the highest measure over the validation queries.
        is_better: True if the first mode is significantly better and no other one is worse.
        reason: The comparisons in words.
        detectable: The smallest mean difference that a test over so many queries finds four times
            of five.
    """

    round: int
    is_better: bool
    reason: str
    detectable: float


@dataclass(frozen=True, slots=True)
class ImproveReport:
    """Result of `improve_collection`.

    Attributes:
        out: The folder with all files.
        collection: The collection's name.
        old_model: Its model before.
        train: Number of queries to train on; `validation` and `test` count the others.
        validation_before: The measure of the old model over the validation queries.
        steps: In their order.
        rounds: In their order.
        evaluations: Old and new models over the test queries, by mode; the old one is the baseline.
        successors: Each later round against the round before it, by mode.
        verdict: The comparison that decides.
        command: The command that switches the collection to the new model; empty if it is not
            better.
        switched: The report of the switch; None without one.
    """

    out: str
    collection: str
    old_model: str
    train: int
    validation: int
    test: int
    validation_before: float
    steps: tuple[ImproveStep, ...]
    rounds: tuple[ImproveRound, ...]
    evaluations: Mapping[str, Evaluation]
    successors: Mapping[str, tuple[Evaluation, ...]]
    verdict: Verdict
    command: str
    switched: ReembedReport | None = None

    @property
    def changed_rounds(self) -> tuple[int, ...]:
        """The rounds whose model searched other passages than the old model did."""
        return tuple(step.round for step in self.steps if step.figures.get("changed") is True)

    @property
    def model(self) -> str:
        """The folder of the chosen model."""
        return self.rounds[self.verdict.round - 1].model
