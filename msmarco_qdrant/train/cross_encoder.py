"""Train a cross-encoder on positives and hard negatives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.runtime.progress import ProgressDisplay, with_display
from msmarco_qdrant.train.examples import ExampleSet
from msmarco_qdrant.train.finish import WorkFolder, train_in_folder
from msmarco_qdrant.train.inputs import (
    TrainingData,
    TrainingSource,
    check_dev,
    one_device,
    read_examples,
    require_train_extra,
)
from msmarco_qdrant.train.recipe import Recipe, train_recipe
from msmarco_qdrant.train.settings import TrainingPrecision, TrainSettings
from msmarco_qdrant.train.train_report import TrainReport

if TYPE_CHECKING:
    from msmarco_qdrant.encoding.trainable_pairs import TrainablePairs
    from msmarco_qdrant.evaluation.records import Qrels
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.train.pair_dev import PairDevSet

_log = logging.getLogger(__name__)

LOSS = "binary-cross-entropy"
"""The loss of cross-encoders, as reports name it."""

_OF_BI_ENCODERS = ("loss", "scale")  # settings without a meaning here


@suggest_keywords
def train_cross_encoder(  # noqa: PLR0913  # all but five have defaults
    model: str | PathLike[str],
    client: SearchClient,
    queries: Iterable[Query],
    examples: TrainingSource,
    out: str | PathLike[str],
    *,
    epochs: float = 1.0,
    batch_size: int = 16,
    learning_rate: float = 2e-5,
    warmup: float = 0.1,
    max_positives: int = 16,
    negatives: int = 4,
    seed: int = 0,
    dev_queries: Collection[Query] | None = None,
    dev_qrels: Qrels | None = None,
    dev_depth: int = 100,
    eval_steps: int | None = None,
    checkpoint_steps: int | None = None,
    tenant: str | None = None,
    device: str | None = None,
    precision: TrainingPrecision | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    progress: bool = False,
) -> TrainReport:
    """Train a cross-encoder, and save it as a folder of sentence-transformers.

    The loss is binary cross-entropy: 1 for a positive, 0 for a negative. Run the same call again to
    resume a stopped training: it continues from its last checkpoint. On a CPU, the weights are
    those of a training that was never stopped.

    Args:
        model: The model to train: a directory, a name of the catalog, or a hub id. A bi-encoder or
            a bare transformer gets a new head.
        client: A client of the collection with the passages.
        queries: The training queries.
        examples: A file of mined or chosen negatives, or `MinedQuery` values.
        out: The folder to write: a new one, or that of the same training.
        epochs: Number of epochs; 0.5 for half of one.
        batch_size: Positives of a batch, each with its negatives.
        learning_rate: The highest learning rate; it falls linearly to 0.
        warmup: Share of the steps in which the learning rate rises.
        max_positives: Positives of a query in one epoch, drawn at random if it has more.
        negatives: Negatives of each positive, drawn at random.
        seed: Decides every random choice, and the weights of a new head.
        dev_queries: Queries to measure nDCG@10 on during the training; the best model is kept.
            Do not report figures on these queries: they chose the model.
        dev_qrels: Their judgments.
        dev_depth: Number of the client's best hits to rerank for each of them.
        eval_steps: Steps between two measures; None for a tenth of all.
        checkpoint_steps: Steps between two checkpoints; None for a tenth of all.
        tenant: Only this tenant's passages, which a collection with a tenant field requires.
        device: "cpu", "cuda" or "cuda:1"; None for the best one.
        precision: "float32" or "bfloat16"; None for the fastest of the device.
        on_progress: Called with the positives that were trained, and their number.
        progress: Also show the progress.

    Returns:
        The counts, the measures and the settings; they are in the folder, too, as `report.json`
        and in its model card.

    Raises:
        UsageError: For an invalid or conflicting argument, for queries, negatives or judgments that
            do not match each other or the collection, or for a folder of another training.
        ModelNotFoundError: If the model cannot be loaded, or returns several scores.
        EncodingError: If the training fails, for example without enough memory.
        OutputError: If the folder cannot be written, or another process uses it.
        MissingExtraError: Without the extra `train`.
    """
    settings = TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        max_positives=max_positives,
        negatives=negatives,
        seed=seed,
        eval_steps=eval_steps,
        checkpoint_steps=checkpoint_steps,
        precision=precision,
    )
    if not negatives:
        raise UsageError("negatives must be 1 or more for a cross-encoder, got 0")
    check_dev(dev_queries, dev_qrels, eval_steps)
    _check_depth(dev_depth)
    require_train_extra("training")
    collected = read_examples(queries, examples)
    data = TrainingData(client, tenant, collected, dev_queries or (), dev_qrels or {})
    with ExitStack() as stack:
        if progress:
            display = ProgressDisplay("positives")
            on_progress = with_display(stack, display, display.show_of, on_progress)
        return _train(model, one_device(device), data, dev_depth, settings, Path(out), on_progress)


def _train(
    model: str | PathLike[str],
    device: str | None,
    data: TrainingData,
    dev_depth: int,
    settings: TrainSettings,
    out: Path,
    on_progress: Callable[[int, int], None] | None,
) -> TrainReport:
    from msmarco_qdrant.encoding.trainable_pairs import load_trainable_pairs

    loaded = load_trainable_pairs(model, device, seed=settings.seed)
    make_recipe = partial(_make_recipe, loaded, data, dev_depth, settings)

    def train(work: WorkFolder) -> tuple[TrainReport, Path, str]:
        from msmarco_qdrant.train.pair_card import pair_model_card

        report, folder = train_recipe(data, settings, work, make_recipe, on_progress)
        _warn_if_worse(report)
        return report, folder, pair_model_card(report, loaded)

    return train_in_folder(out, _describe(loaded, data, dev_depth, settings), train)


def _make_recipe(
    loaded: TrainablePairs,
    data: TrainingData,
    dev_depth: int,
    settings: TrainSettings,
    examples: ExampleSet,
) -> Recipe:
    """Return the loss of cross-encoders, with the examples' negatives and the dev queries.

    Raises:
        UsageError: If the examples have no negatives.
    """
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    from msmarco_qdrant.train.pair_collator import PairCollator

    if not examples.counts.negatives:
        raise UsageError(
            f"a cross-encoder needs negatives, got none for {examples.counts.queries:,} queries: "
            "pass a file of mined negatives"
        )
    dev = _dev_set(data, dev_depth)
    return Recipe(
        model=loaded.model,
        name=loaded.name,
        fingerprint=loaded.fingerprint,
        loss=BinaryCrossEntropyLoss(loaded.model),
        collator=lambda plan: PairCollator(
            examples, plan, negatives=settings.negatives, seed=settings.seed
        ),
        dev=dev,
        settings={
            "loss": LOSS,
            **_settings(settings),
            "dev_depth": None if dev is None else dev_depth,
            "collection": data.client.collection,
        },
    )


def _dev_set(data: TrainingData, depth: int) -> PairDevSet | None:
    from msmarco_qdrant.train.pair_dev import build_pair_dev_set

    if not data.dev_queries:
        return None
    return build_pair_dev_set(
        data.client, data.dev_queries, data.dev_qrels, depth, tenant=data.tenant
    )


def _warn_if_worse(report: TrainReport) -> None:
    """Warn if the client's own order is better than that of the kept model."""
    dev = report.dev
    if dev is None or dev.candidates is None:
        return
    kept = dev.by_step[report.kept_step]
    if kept < dev.candidates:
        _log.warning(
            "reranking by the trained model has %s %.4f on the dev queries, the order before it "
            "%.4f: train longer, on more queries or from a cross-encoder, and do not rerank or "
            "judge with this model",
            *(dev.measure, kept, dev.candidates),
        )


def _describe(
    loaded: TrainablePairs, data: TrainingData, dev_depth: int, settings: TrainSettings
) -> dict[str, Any]:
    """Return what decides about the result, for the folder."""
    return {
        "kind": "cross-encoder",
        "model": loaded.fingerprint,
        **_settings(settings),
        "dev_depth": dev_depth,
        **data.describe(),
    }


def _settings(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings of a cross-encoder."""
    return {name: value for name, value in asdict(settings).items() if name not in _OF_BI_ENCODERS}


def _check_depth(depth: object) -> None:
    is_integer = isinstance(depth, int) and not isinstance(depth, bool)
    if not is_integer or not 2 <= int(depth) <= 10_000:  # type: ignore[call-overload]
        raise UsageError(f"dev_depth must be an integer of 2 to 10,000, got {depth!r}")
