"""Training a bi-encoder: what it keeps, what it chooses, what it refuses, and that it resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant.core.encoder_types import Prompts
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.trainable import load_trainable_for
from msmarco_qdrant.errors import EncodingError, ModelNotFoundError, OutputError, UsageError
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.train import MinedQuery, TrainReport, train_bi_encoder, write_negatives
from msmarco_qdrant.train.inputs import TrainingSource
from msmarco_qdrant.train.out_folder import OutFolder
from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe
from tests.train.training import (
    DEV,
    DEV_QRELS,
    MINED,
    POSITIVES,
    QUICK,
    SCORES,
    TRAIN,
    weights,
)

MODEL = Recipe(similarity="cosine", prompts={"query": "how ", "document": "the "})


@pytest.fixture(scope="module")
def trained(
    tiny: Tiny, client: SearchClient, tmp_path_factory: pytest.TempPathFactory
) -> TrainReport:
    """A training with everything that the default run needs to look at."""
    return train_bi_encoder(
        tiny(MODEL),
        client,
        TRAIN,
        MINED,
        tmp_path_factory.mktemp("trained") / "model",
        epochs=3,
        dev_queries=DEV,
        dev_qrels=DEV_QRELS,
        **QUICK,
    )


def test_training_raises_the_measure_and_keeps_the_best_step(trained: TrainReport) -> None:
    """The kept step has the highest measure of all, which is above that before training."""
    assert trained.dev is not None
    measures = dict(trained.dev.by_step)
    assert measures.pop(0) == trained.dev.before
    assert measures[trained.kept_step] == max(measures.values())
    assert trained.gain is not None
    assert trained.gain > 0
    assert trained.steps == max(measures) == 18
    assert (trained.dev.queries, trained.dev.passages) == (10, 90)


@pytest.mark.parametrize("error", [OSError("mine"), RuntimeError("mine")])
def test_an_error_of_the_callers_function_is_not_one_of_the_training(
    error: Exception, tiny: Tiny, client: SearchClient, tmp_path: Path
) -> None:
    """It is raised as it is; errors of these types are otherwise mapped."""

    def fail(_done: int, _total: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        train_bi_encoder(
            tiny(MODEL), client, TRAIN[:20], MINED, tmp_path / "out", on_progress=fail, **QUICK
        )
    assert error is caught.value


def test_trained_model_keeps_prompts_similarity_and_length(
    trained: TrainReport, tiny: Tiny
) -> None:
    """The folder is a model as before, but for its weights."""
    before, after = load_encoder(tiny(MODEL)).info, load_encoder(trained.out).info
    assert after.fingerprint != before.fingerprint
    assert trained.fingerprint == before.fingerprint
    for name in ("prompts", "similarity", "max_seq_length", "dimension", "pooling", "assumed"):
        assert getattr(after, name) == getattr(before, name)
    assert after.prompts == Prompts("how ", "the ")


def test_collection_s_own_model_keeps_the_prompts_of_the_ingest(tiny: Tiny) -> None:
    """They are in the collection's metadata, and in none of the model's files."""
    directory, prompts = tiny(MODEL), Prompts("question: ", "answer: ")
    stored = load_encoder(directory, prompts=prompts).info
    _, info = load_trainable_for(stored, directory, "cpu")
    assert (info.prompts, info.fingerprint) == (prompts, stored.fingerprint)
    other = load_encoder(tiny(replace(MODEL, seed=9)), prompts=prompts).info
    _, info = load_trainable_for(other, directory, "cpu")
    assert info.prompts == Prompts("how ", "the ")


def test_model_card_has_recipe_counts_figures_and_versions(trained: TrainReport) -> None:
    """A reader of the folder alone sees how the model was made."""
    card = (trained.out / "README.md").read_text()
    assert trained.dev is not None
    for expected in (
        "library_name: sentence-transformers",
        "| learning rate | 0.001 |",
        "| seed | 0 |",
        "| queries | 30 |",
        "| pairs of query and positive | 60 |",
        f"| {trained.kept_step} | {trained.dev.by_step[trained.kept_step]:.4f} |",
        "| torch | ",
        trained.fingerprint,
    ):
        assert expected in card


def test_folder_holds_no_files_of_the_training(trained: TrainReport) -> None:
    """Checkpoints and texts of passages are gone; the report is there."""
    assert not (trained.out / "work").exists()
    stored = json.loads((trained.out / "report.json").read_text())
    assert TrainReport.from_json(trained.out, stored) == trained


def test_same_call_again_returns_the_report(
    trained: TrainReport, tiny: Tiny, client: SearchClient
) -> None:
    """A finished training is not repeated."""
    again = train_bi_encoder(
        tiny(MODEL),
        client,
        TRAIN,
        MINED,
        trained.out,
        epochs=3,
        dev_queries=DEV,
        dev_qrels=DEV_QRELS,
        **QUICK,
    )
    assert again == trained


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 2}, "epochs 3, got 2"),
        ({"seed": 1}, "seed 0, got 1"),
        ({"dev_qrels": {"dq1": {"1": 1}}}, "dev qrels"),
    ],
)
def test_folder_of_another_training_is_refused(
    trained: TrainReport, tiny: Tiny, client: SearchClient, change: dict[str, Any], named: str
) -> None:
    """The message names the first setting that differs."""
    options = {"epochs": 3, "dev_queries": DEV, "dev_qrels": DEV_QRELS, **QUICK, **change}
    with pytest.raises(UsageError, match=named):
        train_bi_encoder(tiny(MODEL), client, TRAIN, MINED, trained.out, **options)


@pytest.mark.slow
def test_seed_decides_the_weights(tiny: Tiny, client: SearchClient, tmp_path: Path) -> None:
    """The same seed gives the same bytes, also from a file; another seed gives others."""
    file = tmp_path / "negatives.jsonl.gz"
    write_negatives(file, MINED)
    outs = [tmp_path / name for name in ("first", "again", "other")]
    sources: list[TrainingSource] = [MINED, file, MINED]
    for out, seed, source in zip(outs, (5, 5, 6), sources, strict=True):
        train_bi_encoder(tiny(MODEL), client, TRAIN, source, out, seed=seed, **QUICK)
    assert weights(outs[0]) == weights(outs[1]) != weights(outs[2])


@pytest.mark.parametrize(
    ("similarity", "source", "options"),
    [
        pytest.param("dot", POSITIVES, {}, marks=pytest.mark.slow),
        ("cosine", MINED, {"loss": "margin-mse", "scores": SCORES}),
        pytest.param(
            "dot",
            MINED,
            {"loss": "kl", "scores": SCORES, "negatives": 20, "epochs": 0.5},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_losses_fall(
    tiny: Tiny, client: SearchClient, tmp_path: Path, similarity: Any, source: Any, options: Any
) -> None:
    """Each loss trains a model of either similarity, from positives alone as well."""
    settings = {"epochs": 3, "scale": 5.0, **QUICK, **options}
    model = tiny(Recipe(similarity=similarity))
    report = train_bi_encoder(model, client, TRAIN, source, tmp_path / "out", **settings)
    first, *_, last = report.losses.values()
    assert last < first
    assert report.kept_step == report.steps
    assert report.dev is None is report.gain


def test_what_is_unknown_is_counted(tiny: Tiny, client: SearchClient, tmp_path: Path) -> None:
    """Queries without a text and passages that the collection lacks are left out, and said."""
    mined = [*MINED[:10], MinedQuery("gone", ("1",), {}), MinedQuery("q20", ("lacking",), {})]
    report = train_bi_encoder(tiny(MODEL), client, TRAIN, mined, tmp_path / "out", **QUICK)
    counts = report.examples
    assert (counts.queries, counts.unknown_queries, counts.without_positive) == (10, 1, 1)
    assert counts.missing_passages == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "mse"}, "loss must be contrastive, margin-mse, kl, got 'mse'"),
        ({"loss": "kl"}, "the loss kl needs the scores of a judge"),
        ({"scores": SCORES}, "the loss contrastive uses no scores"),
        ({"loss": "kl", "scores": SCORES, "negatives": 0}, "negatives must be 1 or more"),
        ({"loss": "kl", "scores": {"q1": {}}}, "none of the 30 training queries has scores"),
        ({"epochs": 0}, "epochs must be a number above 0, at most 1000, got 0"),
        ({"epochs": float("nan")}, "epochs must be a number above 0"),
        ({"batch_size": 1}, "batch_size must be an integer of 2 to 65,536, got 1"),
        ({"batch_size": True}, "batch_size must be an integer"),
        ({"learning_rate": "1e-5"}, "learning_rate must be a number"),
        ({"warmup": 1.5}, "warmup must be a number 0 or more, at most 1, got 1.5"),
        ({"seed": -1}, "seed must be an integer of 0 to"),
        ({"precision": "int8"}, "precision must be float32, bfloat16, got 'int8'"),
        ({"device": "cpu,cuda:7"}, "device must be cpu or GPUs, not both"),
        ({"device": "cuda:7"}, "the device cuda:7 does not exist"),
        ({"dev_queries": DEV}, "got no dev_qrels"),
        ({"eval_steps": 5}, "eval_steps needs dev queries"),
        ({"dev_queries": DEV, "dev_qrels": {"x": {"1": 1}}}, "none of the 10 queries has judg"),
        ({"queries": DEV}, "none of the 30 training queries has a text"),
        ({"examples": {}}, "training needs queries with positives, got none"),
        ({"examples": [MINED[0], MINED[0]]}, "got the qid 'q0' twice"),
        ({"examples": {"q1": ("lacking",)}}, "has none of the pids"),
        ({"examples": {"q1": ()}}, "none of the 1 training queries has a positive"),
    ],
)
def test_bad_input_is_refused(
    tiny: Tiny, client: SearchClient, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Each message has the rule and the value."""
    options = {"queries": TRAIN, "examples": MINED, **QUICK, **change}
    with pytest.raises(UsageError, match=message):
        train_bi_encoder(tiny(MODEL), client, out=tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("failure", "mapped", "message"),
    [
        (OSError(28, "No space left"), OutputError, "No space left: run it again to resume"),
        (RuntimeError("device lost"), EncodingError, "failed: device lost: run it again to resume"),
    ],
)
def test_failed_training_resumes(
    tiny: Tiny,
    client: SearchClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    mapped: type[Exception],
    message: str,
) -> None:
    """A full disk or a lost device is an error of this package; the same call goes on."""

    def fail(*_args: object) -> None:
        raise failure

    def train() -> TrainReport:
        return train_bi_encoder(tiny(MODEL), client, TRAIN, MINED[:2], tmp_path / "out", **QUICK)

    with monkeypatch.context() as patched:
        patched.setattr("msmarco_qdrant.train.trainer.save_model", fail)
        with pytest.raises(mapped, match=message):
            train()
    report = train()
    assert (report.steps, report.kept_step) == (1, 1)
    (report.out / "work").mkdir()  # as a kill after the report leaves it
    assert train() == report
    assert not (report.out / "work").exists()


def test_folder_in_use_is_refused(tiny: Tiny, client: SearchClient, tmp_path: Path) -> None:
    """Two processes never write one folder."""
    report = train_bi_encoder(tiny(MODEL), client, TRAIN, MINED[:2], tmp_path / "out", **QUICK)
    settings = json.loads((report.out / "settings.json").read_text())["settings"]
    with (
        OutFolder(report.out, "train", settings),
        pytest.raises(OutputError, match="is in use by process"),
    ):
        train_bi_encoder(tiny(MODEL), client, TRAIN, MINED[:2], tmp_path / "out", **QUICK)


def test_cross_encoder_is_refused(client: SearchClient, tmp_path: Path) -> None:
    """A model of another kind, and one that does not exist."""
    with pytest.raises(UsageError, match="is a cross-encoder"):
        train_bi_encoder("ms-marco-MiniLM-L6-v2", client, TRAIN, MINED, tmp_path / "a", **QUICK)
    with pytest.raises(ModelNotFoundError, match="no model directory"):
        train_bi_encoder("./no-such", client, TRAIN, MINED, tmp_path / "b", **QUICK)
