"""Checked options and queries of an improvement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from msmarco_qdrant.core.arguments import to_settings
from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.encoding.checks import check_encoder, check_reranker
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.records import Qrels
from msmarco_qdrant.train.choose_strategy import to_strategy
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.split import Split

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.train.choose_strategy import Strategy

DEPTH = 100  # candidates per query and system
_DEFAULT_STRATEGY = "ranks:1-60"  # of a ranking that nobody has judged
_DEFAULT_JUDGED_STRATEGY = "margin:3"  # as the MS MARCO recipe of sentence-transformers
_LEARNING_RATES = (2e-5, 1e-4)  # 2e-5 is usual; NFCorpus gained most with 1e-4


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


def to_trainings(
    given: TrainSettings | Mapping[str, Any] | None, rates: Sequence[float] | None
) -> tuple[TrainSettings, ...]:
    """Return the settings with each learning rate.

    Raises:
        UsageError: If the rates are not different numbers, or are given in both places.
    """
    settings = TrainSettings() if given is None else to_settings(TrainSettings, given, "training")
    if rates is None:
        is_chosen = isinstance(given, TrainSettings) or "learning_rate" in (given or {})
        rates = [settings.learning_rate] if is_chosen else _LEARNING_RATES
    elif isinstance(given, Mapping) and "learning_rate" in given:
        raise UsageError("pass learning_rates=..., or the learning_rate of training, not both")
    if isinstance(rates, str) or not isinstance(rates, Sequence) or not rates:
        raise UsageError(f"learning_rates must be a list of one number or more, got {rates!r}")
    trainings = tuple(replace(settings, learning_rate=rate) for rate in rates)
    if len(set(rates)) < len(rates):
        raise UsageError(f"learning_rates must be different, got {rates!r}")
    return trainings


def written_strategy(given: Strategy | str | None, *, has_judge: bool) -> str:
    """Return the written form of a strategy, or of the default one.

    Raises:
        UsageError: If it is not one, or compares scores without a judge.
    """
    if given is None:
        return _DEFAULT_JUDGED_STRATEGY if has_judge else _DEFAULT_STRATEGY
    found = to_strategy(given)
    if found.needs_scores and not has_judge:
        raise UsageError(f"strategy {found} compares scores: pass judge=...")
    return str(found)


def to_modes(name: str, given: Sequence[SearchMode]) -> tuple[SearchMode, ...]:
    """Check the argument `name`, a list of modes.

    Raises:
        UsageError: If it is empty, repeats a mode or has an unknown one.
    """
    known = get_args(SearchMode)
    modes = () if isinstance(given, str) else tuple(given)
    if not modes or len(set(modes)) < len(modes) or any(mode not in known for mode in modes):
        raise UsageError(f"{name} must be different ones of {', '.join(known)}, got {given!r}")
    return modes


def check_options(options: ImproveOptions) -> None:
    """Refuse options that have no effect, or need a judge.

    Raises:
        UsageError: For such an option, or an object that is not a judge.
    """
    judge, training = options.judge, options.trainings[0]
    if judge is None:
        if options.allow_weak_judge:
            raise UsageError("allow_weak_judge has no effect without judge=...")
        if training.loss != "contrastive":
            raise UsageError(f"loss {training.loss} needs a judge's scores: pass judge=...")
    else:
        (check_encoder if hasattr(judge, "encode_passages") else check_reranker)(judge)
        if not training.negatives:
            raise UsageError("a judge has no effect with negatives=0: omit one of them")
    if options.modes[0] == "bm25":
        raise UsageError("modes must begin with dense or hybrid: bm25 does not use the model")
