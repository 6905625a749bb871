"""Train a bi-encoder on mined negatives, or on positives alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.records import Query
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.runtime.progress import ProgressDisplay, with_display
from msmarco_qdrant.train.examples import CollectedQueries, ExampleSet
from msmarco_qdrant.train.finish import WorkFolder, train_in_folder
from msmarco_qdrant.train.inputs import (
    TrainingData,
    TrainingSource,
    check_dev,
    one_device,
    read_examples,
    require_train_extra,
)
from msmarco_qdrant.train.judged import JudgedScores
from msmarco_qdrant.train.out_folder import digest_of
from msmarco_qdrant.train.recipe import Recipe, train_recipe
from msmarco_qdrant.train.settings import Loss, TrainingPrecision, TrainSettings
from msmarco_qdrant.train.train_report import TrainReport

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from msmarco_qdrant.core.encoder_types import EncoderInfo
    from msmarco_qdrant.evaluation.records import Qrels
    from msmarco_qdrant.search.client import SearchClient
    from msmarco_qdrant.train.dev_measure import DevSet
    from msmarco_qdrant.train.score_lookup import ScoreLookup

JudgeScores: TypeAlias = "str | PathLike[str] | Mapping[str, Mapping[str, float]]"
"""A file or folder of a judge's scores, or the score of each pid by qid."""

_COSINE_SCALE, _DOT_SCALE = 20.0, 1.0  # those of the library
_TOKENS_ON_CPU, _TOKENS_ON_GPU = 4096, 65_536


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """Everything that a training reads but its settings."""

    data: TrainingData
    scores: ScoreLookup | None = None
    scores_digest: str | None = None


@suggest_keywords
def train_bi_encoder(  # noqa: PLR0913  # all but five have defaults
    model: str | PathLike[str],
    client: SearchClient,
    queries: Iterable[Query],
    examples: TrainingSource,
    out: str | PathLike[str],
    *,
    loss: Loss = "contrastive",
    scores: JudgeScores | None = None,
    epochs: float = 1.0,
    batch_size: int = 128,
    learning_rate: float = 2e-5,
    warmup: float = 0.1,
    scale: float | None = None,
    max_positives: int = 16,
    negatives: int = 4,
    seed: int = 0,
    dev_queries: Collection[Query] | None = None,
    dev_qrels: Qrels | None = None,
    eval_steps: int | None = None,
    checkpoint_steps: int | None = None,
    tenant: str | None = None,
    device: str | None = None,
    precision: TrainingPrecision | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    progress: bool = False,
) -> TrainReport:
    """Train a bi-encoder, and save it as a folder of sentence-transformers.

    The model keeps its prompts, its similarity and its maximum length; the collection's own model
    those of the collection. Run the same call again to
    resume a stopped training: it continues from its last checkpoint. On a CPU, the weights are
    those of a training that was never stopped.

    Args:
        model: The model to train: a directory, a name of the catalog, or a hub id.
        client: A client of the collection with the passages; it needs no encoder.
        queries: The training queries.
        examples: A file of mined negatives, `MinedQuery` values, or the positives of each query.
            Without negatives, those of the other queries of a batch are the only ones.
        out: The folder to write: a new one, or that of the same training.
        loss: "contrastive": the positive against all other passages of the batch, without known
            positives of the query. "margin-mse" and "kl": the scores of a judge.
        scores: The judge's scores, as a file or by qid and pid, for "margin-mse" and "kl".
        epochs: Number of epochs; 0.5 for half of one.
        batch_size: Queries of a batch.
        learning_rate: The highest learning rate; it falls linearly to 0.
        warmup: Share of the steps in which the learning rate rises.
        scale: Factor of the similarity before the loss; None for 20 (cosine) or 1 (dot).
        max_positives: Positives of a query in one epoch, drawn at random if it has more.
        negatives: Negatives of each query and positive, drawn at random.
        seed: Decides every random choice.
        dev_queries: Queries to measure nDCG@10 on during the training; the best model is kept.
            Do not report figures on these queries: they chose the model.
        dev_qrels: Their judgments.
        eval_steps: Steps between two measures; None for a tenth of all.
        checkpoint_steps: Steps between two checkpoints; None for a tenth of all.
        tenant: Only this tenant's passages, which a collection with a tenant field requires.
        device: "cpu", "cuda" or "cuda:1"; None for the best one.
        precision: "float32" or "bfloat16"; None for the fastest of the device.
        on_progress: Called with the pairs of query and positive that were trained, and their
            number.
        progress: Also show the progress.

    Returns:
        The counts, the measures and the settings; they are in the folder, too, as `report.json`
        and in its model card.

    Raises:
        UsageError: For an invalid or conflicting argument, for queries, positives or judgments
            that do not match each other or the collection, or for a folder of another training.
        ModelNotFoundError: If the model cannot be loaded.
        EncodingError: If the training fails, for example without enough memory.
        OutputError: If the folder cannot be written, or another process uses it.
        MissingExtraError: Without the extra `train`.
    """
    settings = TrainSettings(
        loss=loss,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        scale=scale,
        max_positives=max_positives,
        negatives=negatives,
        seed=seed,
        eval_steps=eval_steps,
        checkpoint_steps=checkpoint_steps,
        precision=precision,
    )
    _check_scores(settings, has_scores=scores is not None)
    check_dev(dev_queries, dev_qrels, eval_steps)
    require_train_extra("training")
    with ExitStack() as stack:
        collected = read_examples(queries, examples)
        data = TrainingData(client, tenant, collected, dev_queries or (), dev_qrels or {})
        inputs = _with_scores(stack, data, scores)
        if progress:
            display = ProgressDisplay("pairs")
            on_progress = with_display(stack, display, display.show_of, on_progress)
        return _train(model, one_device(device), inputs, settings, Path(out), on_progress)


def _train(
    model: str | PathLike[str],
    device: str | None,
    inputs: _Inputs,
    settings: TrainSettings,
    out: Path,
    on_progress: Callable[[int, int], None] | None,
) -> TrainReport:
    from msmarco_qdrant.encoding.trainable import load_trainable_for

    loaded, info = load_trainable_for(inputs.data.client.metadata.encoder, model, device)
    make_recipe = partial(_make_recipe, loaded, info, inputs, settings)

    def train(work: WorkFolder) -> tuple[TrainReport, Path, str]:
        from msmarco_qdrant.train.model_card import model_card

        report, folder = train_recipe(inputs.data, settings, work, make_recipe, on_progress)
        return report, folder, model_card(report, info)

    return train_in_folder(out, _describe(info, inputs, settings), train)


def _make_recipe(
    loaded: SentenceTransformer,
    info: EncoderInfo,
    inputs: _Inputs,
    settings: TrainSettings,
    examples: ExampleSet,
) -> Recipe:
    """Return the loss of the settings, with the scores of the examples and the dev queries."""
    from msmarco_qdrant.train.collator import ExampleCollator
    from msmarco_qdrant.train.losses import build_loss

    judged = None if inputs.scores is None else JudgedScores(examples, inputs.scores)
    scale = settings.scale or (_COSINE_SCALE if info.similarity == "cosine" else _DOT_SCALE)
    tokens = _TOKENS_ON_CPU if loaded.device.type == "cpu" else _TOKENS_ON_GPU
    collection = inputs.data.client.collection
    return Recipe(
        model=loaded,
        name=info.model,
        fingerprint=info.fingerprint,
        loss=build_loss(loaded, settings.loss, info.similarity, scale, tokens),
        collator=lambda plan: ExampleCollator(
            *(loaded, info.prompts, examples, plan),
            negatives=settings.negatives,
            seed=settings.seed,
            scores=judged,
        ),
        dev=_dev_set(inputs.data, info),
        settings={**asdict(settings), "scale": scale, "collection": collection},
        eligible=None if judged is None else judged.eligible,
        unscored_pairs=0 if judged is None else judged.unjudged,
    )


def _dev_set(data: TrainingData, info: EncoderInfo) -> DevSet | None:
    from msmarco_qdrant.train.dev_measure import build_dev_set

    if not data.dev_queries:
        return None
    return build_dev_set(data.client, info, data.dev_queries, data.dev_qrels, tenant=data.tenant)


def _with_scores(stack: ExitStack, data: TrainingData, scores: JudgeScores | None) -> _Inputs:
    """Return the data with the scores of a judge, opened until the stack is closed."""
    if scores is None:
        return _Inputs(data)
    from msmarco_qdrant.train.score_lookup import open_scores

    opened = stack.enter_context(open_scores(scores))
    return _Inputs(data, opened, _digest_scores(data.collected, opened))


def _digest_scores(collected: CollectedQueries, scores: ScoreLookup) -> str:
    return digest_of(
        f"{pid} {score!r}"
        for qid in collected.qids
        for pid, score in sorted(scores.get(qid).items())
    )


def _describe(info: EncoderInfo, inputs: _Inputs, settings: TrainSettings) -> dict[str, Any]:
    """Return what decides about the result, for the folder."""
    return {
        "model": info.fingerprint,
        **asdict(settings),
        "scores": inputs.scores_digest,
        **inputs.data.describe(),
    }


def _check_scores(settings: TrainSettings, *, has_scores: bool) -> None:
    needs = settings.loss != "contrastive"
    if needs and not has_scores:
        raise UsageError(f"the loss {settings.loss} needs the scores of a judge: pass scores=...")
    if has_scores and not needs:
        raise UsageError(
            "the loss contrastive uses no scores: omit them, or pass loss='margin-mse'"
        )
    if needs and not settings.negatives:
        raise UsageError(f"negatives must be 1 or more for the loss {settings.loss}, got 0")
