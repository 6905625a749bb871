"""Checked options and queries of an improvement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.split import Split

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query

DEPTH = 100  # candidates per query and system
DEFAULT_STRATEGY = "ranks:1-60"  # of a ranking that nobody has judged
DEFAULT_JUDGED_STRATEGY = "margin:3"  # as the MS MARCO recipe of sentence-transformers


@dataclass(frozen=True, slots=True, kw_only=True)
class ImproveOptions:
    """Checked options of `improve_collection`.

    Attributes:
        trainings: Settings of a round's trainings, of which the best is kept; they differ by
            their learning rates. 0 negatives leave out mining, judging and choosing.
        judge: Scores candidates; None to choose without scores.
        strategy: Written form of the strategy that chooses negatives.
        measures: The first one decides.
        tenant: The tenant whose passages of the collection are used; a trial has these alone.
        modes: Modes to compare; the first one decides.
        mine_modes: Modes to mine with.
    """

    trainings: tuple[TrainSettings, ...]
    judge: Reranker | Encoder | None
    allow_weak_judge: bool
    strategy: str
    depth: int
    mine_modes: tuple[SearchMode, ...]
    modes: tuple[SearchMode, ...]
    measures: tuple[str, ...]
    tenant: str | None
    encoder_options: EncoderOptions
    progress: bool


@dataclass(frozen=True, slots=True, eq=False)
class ImproveData:
    """The queries of an improvement, with their judgments by part."""

    split: Split
    train: Qrels
    validation: Qrels
    test: Qrels
    files: Path

    def part(self, name: str) -> tuple[Sequence[Query], Qrels]:
        """Return the queries and judgments of "train", "validation" or "test"."""
        return getattr(self.split, name), getattr(self, name)

    def positives(self) -> Mapping[str, Sequence[str]]:
        """Return the relevant pids of each training query, grade 1 or more."""
        return {
            qid: [pid for pid, grade in grades.items() if grade > 0]
            for qid, grades in self.train.items()
        }
