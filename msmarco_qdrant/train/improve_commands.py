"""Commands that repeat the steps of an improvement, for its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.advice import command_line
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.trial import COLLECTION

if TYPE_CHECKING:
    from msmarco_qdrant.encoding import Encoder, Reranker

_NAMES = {"negatives": "number"}  # settings whose option has another name
_DEFAULTS = TrainSettings()


class StepCommands:
    """Command lines with the options of each step; in its folder, a command returns its report.

    Args:
        collection: The live collection.
        store: The location of its store.
        files: The folder with queries and judgments.
        tenant: The tenant whose passages of the live collection are used.
    """

    def __init__(self, collection: str, store: str, files: Path, tenant: str | None = None) -> None:
        self._live = {"collection": collection, "store": store}
        self._files = files
        self._tenant = [] if tenant is None else ["--tenant", tenant]

    def evaluate(
        self, trial: Path | None, modes: Sequence[SearchMode], measures: Sequence[str]
    ) -> str:
        """Measure the live collection or a trial on the test queries."""
        words = [*self._queries("test"), *_modes(modes), "--measures", " ".join(measures)]
        words += self._tenant_of(trial)
        return command_line("evaluate", *words, **self._place(trial))

    def mine(self, trial: Path | None, modes: Sequence[SearchMode], depth: int, out: Path) -> str:
        """Mine the training queries."""
        words = [*self._queries("train"), *_modes(modes), "--depth", str(depth)]
        words += self._tenant_of(trial)
        return command_line("mine", *words, "--out", str(out), **self._place(trial))

    def judge(  # the options of a command
        self,
        judge: Reranker | Encoder,
        trial: Path | None,
        mined: Path,
        out: Path,
        *,
        mode: SearchMode,
        depth: int,
        allow_weak: bool,
    ) -> str:
        """Judge mined candidates."""
        info = getattr(judge, "info", None)
        name = getattr(judge, "model", "") if info is None else info.model
        queries, qrels = part_files(self._files, "validation")
        words = ["--judge", str(name), "--queries", self._queries("train")[1]]
        words += ["--negatives", str(mined), "--dev-queries", str(queries)]
        words += ["--dev-qrels", str(qrels), "--mode", mode, "--depth", str(depth)]
        words += ["--allow-weak-judge"] if allow_weak else []
        words += self._tenant_of(trial)
        return command_line("judge", *words, "--out", str(out), **self._place(trial))

    def choose(self, mined: Path, scores: Path | None, strategy: str, seed: int, out: Path) -> str:
        """Choose all negatives that a strategy allows."""
        words = ["--negatives", str(mined), "--strategy", strategy, "--number", "0"]
        words += [] if scores is None else ["--scores", str(scores)]
        return command_line("choose", *words, "--seed", str(seed), "--out", str(out))

    def train(
        self,
        base: str,
        examples: Path | None,
        scores: Path | None,
        settings: TrainSettings,
        out: Path,
    ) -> str:
        """Train a bi-encoder."""
        queries = self._queries("train")
        data = queries if examples is None else [*queries[:2], "--negatives", str(examples)]
        data += [] if scores is None else ["--scores", str(scores)]
        dev_queries, dev_qrels = part_files(self._files, "validation")
        data += ["--dev-queries", str(dev_queries), "--dev-qrels", str(dev_qrels)]
        words = ["--model", base, *data, *_changed(settings), *self._tenant]
        return command_line("train", *words, "--out", str(out), **self._live)

    def _place(self, trial: Path | None) -> dict[str, str]:
        return self._live if trial is None else {"collection": COLLECTION, "store": str(trial)}

    def _tenant_of(self, trial: Path | None) -> list[str]:
        return self._tenant if trial is None else []

    def _queries(self, part: str) -> list[str]:
        queries, qrels = part_files(self._files, part)
        return ["--queries", str(queries), "--qrels", str(qrels)]


def part_files(folder: Path, part: str) -> tuple[Path, Path]:
    """Return the files with the queries and judgments of a part."""
    return folder / f"{part}.queries.jsonl", folder / f"{part}.qrels.tsv"


def _modes(modes: Sequence[SearchMode]) -> list[str]:
    return [word for mode in modes for word in ("--mode", mode)]


def _changed(settings: TrainSettings) -> Iterator[str]:
    """Yield the options of a training that are not the default, and the learning rate."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != getattr(_DEFAULTS, field.name) or field.name == "learning_rate":
            yield f"--{_NAMES.get(field.name, field.name).replace('_', '-')}"
            yield str(value)
