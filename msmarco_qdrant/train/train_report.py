"""The report of a training, and its form on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from msmarco_qdrant.train.examples import ExampleCounts


@dataclass(frozen=True, slots=True)
class DevMeasures:
    """Quality on the dev queries during a training.

    Attributes:
        measure: "nDCG@10".
        queries: Number of dev queries with judgments.
        passages: Number of passages that were ranked for each.
        of_passages: Number of passages in the collection.
        by_step: The measure by step; 0 is the model before training.
        candidates: The measure of the order before reranking; None for a bi-encoder.
    """

    measure: str
    queries: int
    passages: int
    of_passages: int
    by_step: Mapping[int, float]
    candidates: float | None = None

    @property
    def before(self) -> float:
        """The measure of the model before training."""
        return self.by_step[0]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """Result of a training.

    Attributes:
        out: The folder of the trained model.
        model: Name of the model that was trained.
        fingerprint: The fingerprint of that model.
        settings: The settings, by name.
        examples: What it was trained on.
        trained_pairs: Pairs of query and positive that all epochs used.
        unscored_pairs: Pairs without a score of the judge, which were left out.
        steps: Number of steps.
        kept_step: The step after which the model in the folder was saved.
        dev: Quality on the dev queries; None without any.
        losses: The mean loss since the value before, by step.
        device: The device of torch.
        precision: "float32" or "bfloat16".
        seconds: Time of the process that ended the training.
        versions: Version of each library that took part.
    """

    out: Path
    model: str
    fingerprint: str
    settings: Mapping[str, Any]
    examples: ExampleCounts
    trained_pairs: int
    unscored_pairs: int
    steps: int
    kept_step: int
    dev: DevMeasures | None
    losses: Mapping[int, float]
    device: str
    precision: str
    seconds: float
    versions: Mapping[str, str]

    @property
    def gain(self) -> float | None:
        """The measure of the kept model minus that before training; None without dev queries."""
        return None if self.dev is None else self.dev.by_step[self.kept_step] - self.dev.before

    def __str__(self) -> str:
        """Return some lines for people."""
        counts = self.examples
        what = f"{self.trained_pairs:,} pairs of {counts.queries:,} queries"
        cost = f"{self.seconds:,.0f} s in {self.precision} on {self.device}"
        lines = [f"{what} in {self.steps:,} steps, {cost}"]
        left = {
            "queries without a text": counts.unknown_queries,
            "queries without a positive in the collection": counts.without_positive,
            "passages that the collection lacks": counts.missing_passages,
            "pairs without a score": self.unscored_pairs,
        }
        if any(left.values()):
            parts = [f"{count:,} {name}" for name, count in left.items() if count]
            lines.append(f"left out: {', '.join(parts)}")
        if self.dev is not None:
            after = self.dev.by_step[self.kept_step]
            lines.append(
                f"{self.dev.measure} on {self.dev.queries:,} dev queries: {self.dev.before:.4f} "
                f"before, {after:.4f} after step {self.kept_step:,}, which is kept"
            )
            if self.dev.candidates is not None:
                lines.append(f"their order before reranking has {self.dev.candidates:.4f}")
            if after <= self.dev.before:
                lines.append("the trained model is not better on the dev queries than before")
        return "\n".join([*lines, f"the model is in {self.out}"])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without the folder."""
        values = asdict(self)
        del values["out"]
        values["losses"] = sorted(self.losses.items())
        if self.dev is not None:
            values["dev"]["by_step"] = sorted(self.dev.by_step.items())
        return values

    @classmethod
    def from_json(cls, out: Path, values: Mapping[str, Any]) -> TrainReport:
        """Return the report of a folder from the values of `to_json`."""
        known = {one.name: values[one.name] for one in fields(cls) if one.name != "out"}
        known["examples"] = ExampleCounts(**known["examples"])
        known["losses"] = dict(known["losses"])
        if known["dev"] is not None:
            dev = dict(known["dev"])
            known["dev"] = DevMeasures(**{**dev, "by_step": dict(dev["by_step"])})
        return cls(out=out, **known)
