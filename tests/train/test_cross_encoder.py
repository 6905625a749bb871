"""Training a cross-encoder: pairs, head, measure, what it refuses, and that it resumes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmarco_qdrant.encoding import load_encoder, load_reranker
from msmarco_qdrant.errors import ModelNotFoundError, UsageError
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.train import MinedQuery, TrainReport, train_cross_encoder
from msmarco_qdrant.train.batches import plan_training
from msmarco_qdrant.train.examples import build_examples, collect_queries
from msmarco_qdrant.train.pair_collator import PairCollator
from msmarco_qdrant.train.texts import PassageTexts
from tests.encoding.conftest import Tiny, TinyPairs, tiny_pairs
from tests.encoding.tiny_cross_encoders import PairRecipe
from tests.encoding.tiny_models import Recipe
from tests.train.training import DEV, DEV_QRELS, MINED, QUICK, TEXTS, TRAIN, weights

__all__ = ["tiny_pairs"]

MODEL = PairRecipe()
ONE = {**QUICK, "epochs": 0.5}
MEASURED: dict[str, Any] = {
    "dev_queries": DEV,
    "dev_qrels": DEV_QRELS,
    "dev_depth": 20,
    "eval_steps": 3,
    **QUICK,
}


@pytest.fixture(scope="module")
def trained(
    tiny_pairs: TinyPairs, client: SearchClient, tmp_path_factory: pytest.TempPathFactory
) -> TrainReport:
    """A training with everything that the default run needs to look at."""
    out = tmp_path_factory.mktemp("trained") / "model"
    return train_cross_encoder(tiny_pairs(MODEL), client, TRAIN, MINED, out, **MEASURED)


def test_the_best_step_is_kept_and_reranks_as_measured(
    trained: TrainReport, client: SearchClient
) -> None:
    """The saved model is loaded as a reranker; its measure is that of the report."""
    dev = trained.dev
    assert dev is not None
    assert dev.by_step[trained.kept_step] == max(
        value for step, value in dev.by_step.items() if step
    )
    assert (10, 20, 90) == (dev.queries, dev.passages, dev.of_passages)
    reranker = load_reranker(trained.out, device="cpu")
    gains = []
    for query in DEV:
        hits = client.search(query.text, limit=20, mode="bm25")
        scores = reranker.scores([(query.text, hit.text) for hit in hits])
        pids = [hits[place].pid for place in np.argsort(-scores, kind="stable")[:10]]
        relevant = next(iter(DEV_QRELS[query.qid]))
        gains.append(1 / np.log2(pids.index(relevant) + 2) if relevant in pids else 0.0)
    assert dev.by_step[trained.kept_step] == pytest.approx(np.mean(gains))


def test_report_and_card_say_how_it_was_made(trained: TrainReport) -> None:
    """Also the order that it reranked."""
    card = (trained.out / "README.md").read_text()
    assert trained.dev is not None
    assert "binary-cross-entropy" == trained.settings["loss"]
    for expected in (
        "pipeline_tag: text-ranking",
        "| learning rate | 0.001 |",
        "after reranking the best 20 of 90 passages",
        f"| before reranking | {trained.dev.candidates:.4f} |",
        f"| {trained.kept_step} | {trained.dev.by_step[trained.kept_step]:.4f} |",
    ):
        assert expected in card
    assert not (trained.out / "work").exists()


def test_the_same_call_again_returns_the_report(
    trained: TrainReport, tiny_pairs: TinyPairs, client: SearchClient
) -> None:
    """Another one needs another folder."""
    model = tiny_pairs(MODEL)
    assert trained == train_cross_encoder(model, client, TRAIN, MINED, trained.out, **MEASURED)
    other = {**MEASURED, "dev_depth": 30}
    with pytest.raises(UsageError, match="dev_depth 20, got 30"):
        train_cross_encoder(model, client, TRAIN, MINED, trained.out, **other)


@pytest.mark.slow
def test_a_stopped_training_ends_with_the_same_weights(
    tiny_pairs: TinyPairs, client: SearchClient, tmp_path: Path
) -> None:
    """Stopped twice; the measures are the same, too."""
    options = {**MEASURED, "checkpoint_steps": 1}
    arguments = (tiny_pairs(MODEL), client, TRAIN, MINED)

    def stop_after(limit: int) -> None:
        def stop(done: int, _total: int) -> None:
            if done >= limit:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_cross_encoder(*arguments, tmp_path / "stopped", on_progress=stop, **options)

    whole = train_cross_encoder(*arguments, tmp_path / "whole", **options)
    stop_after(20)
    stop_after(40)
    report = train_cross_encoder(*arguments, tmp_path / "stopped", **options)
    assert weights(whole.out) == weights(report.out)
    assert whole.dev == report.dev


def test_each_positive_comes_with_its_own_negatives(client: SearchClient, tmp_path: Path) -> None:
    """Labeled 1 and 0, from the query's candidates, the same ones for the same seed."""
    collected = collect_queries(MINED, {query.qid: query.text for query in TRAIN})
    examples = build_examples(collected, PassageTexts(client).get, tmp_path / "passages")
    every = np.ones(len(examples.positives.values), bool)
    plan = plan_training(examples, every, epochs=1, batch_size=8, max_positives=2, seed=3)
    collator = PairCollator(examples, plan, negatives=4, seed=3)
    rows = [{"example": number} for number in range(8)]
    batch, again = collator(rows), collator(rows)
    assert batch["passage"] == again["passage"]
    assert [1.0, 0.0, 0.0, 0.0, 0.0] * 8 == batch["label"].tolist()
    pids = {text: pid for pid, text in TEXTS.items()}
    mined = {query.text: one for query, one in zip(TRAIN, MINED, strict=True)}
    for query, passage, label in zip(
        batch["query"], batch["passage"], batch["label"].tolist(), strict=True
    ):
        known = mined[query]
        assert pids[passage] in (known.positives if label else known.negatives["dense"])
    few = PairCollator(examples, plan, negatives=50, seed=3)([{"example": 0}])
    assert len(few["label"]) == 1 + len(mined[few["query"][0]].negatives["dense"])


def test_a_bi_encoder_gets_a_head_of_the_seed(
    tiny: Tiny, client: SearchClient, tmp_path: Path
) -> None:
    """The folder is a cross-encoder, not a bi-encoder; another seed gives other weights."""
    model = tiny(Recipe())
    outs = [tmp_path / name for name in ("first", "other")]
    for out, seed in zip(outs, (5, 6), strict=True):
        report = train_cross_encoder(model, client, TRAIN, MINED[:4], out, seed=seed, **ONE)
        assert report.dev is None
    assert weights(outs[0]) != weights(outs[1])
    assert "with a new head" in (outs[0] / "README.md").read_text()
    assert np.isfinite(load_reranker(outs[0], device="cpu").scores([("a", "b")])).all()
    with pytest.raises(ModelNotFoundError, match="cross-encoder"):
        load_encoder(outs[0])


@pytest.mark.slow
def test_the_loss_falls(tiny_pairs: TinyPairs, client: SearchClient, tmp_path: Path) -> None:
    """For each architecture that has its own tokenizer."""
    for recipe in (MODEL, PairRecipe(architecture="roberta")):
        out = tmp_path / recipe.architecture
        report = train_cross_encoder(
            tiny_pairs(recipe), client, TRAIN, MINED, out, epochs=4, **QUICK
        )
        first, *_, last = report.losses.values()
        assert last < first


def test_a_model_that_reranks_badly_is_named(
    tiny_pairs: TinyPairs,
    client: SearchClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With both figures; shared words find every passage of these queries."""
    with caplog.at_level(logging.WARNING):
        report = train_cross_encoder(
            tiny_pairs(MODEL),
            client,
            TRAIN,
            MINED[:4],
            tmp_path / "out",
            **{**MEASURED, "learning_rate": 1e-9},
        )
    assert report.dev is not None
    assert report.dev.candidates is not None
    assert report.dev.by_step[report.kept_step] < report.dev.candidates
    assert f"the order before it {report.dev.candidates:.4f}" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negatives": 0}, "negatives must be 1 or more for a cross-encoder, got 0"),
        ({"dev_depth": 1}, "dev_depth must be an integer of 2 to 10,000, got 1"),
        ({"dev_depth": True}, "dev_depth must be an integer"),
        ({"dev_queries": DEV}, "got no dev_qrels"),
        ({"batch_size": 0}, "batch_size must be an integer"),
        ({"examples": {"q1": ("1",)}}, "a cross-encoder needs negatives, got none for 1 queries"),
        ({"examples": [MinedQuery("q1", ("1",), {"d": ("gone",)})]}, "needs negatives, got none"),
        ({"queries": DEV}, "none of the 30 training queries has a text"),
        ({"model": ""}, "model must be a name, a hub id or a directory"),
        ({"model": "BM25"}, "BM25 is a baseline"),
        (
            {"dev_queries": DEV, "dev_qrels": {"dq1": {"gone": 1}}},
            "must have a relevant passage, got none for 1 queries",
        ),
    ],
)
def test_bad_input_is_refused(
    tiny_pairs: TinyPairs,
    client: SearchClient,
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    """Each message has the rule and the value."""
    options = {"model": tiny_pairs(MODEL), "queries": TRAIN, "examples": MINED, **QUICK, **change}
    with pytest.raises(UsageError, match=message):
        train_cross_encoder(client=client, out=tmp_path / "out", **options)


def test_a_model_of_several_labels_is_refused(
    tiny_pairs: TinyPairs, client: SearchClient, tmp_path: Path
) -> None:
    """It does not return one score per pair."""
    model = tiny_pairs(PairRecipe(labels=3))
    with pytest.raises(ModelNotFoundError, match="num_labels must be 1"):
        train_cross_encoder(model, client, TRAIN, MINED, tmp_path / "out", **ONE)
