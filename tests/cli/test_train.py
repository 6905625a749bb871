"""The command `train`: a model from files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import load_encoder, load_reranker
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.train import write_negatives
from tests.cli.runner import command
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.train.training import MINED, TEXTS, TRAIN


class Files(NamedTuple):
    """A store filled by a tiny model, and the files of a training."""

    folder: Path
    store: str
    queries: str
    negatives: str
    qrels: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Files and a store, on disk; read only."""
    folder = tmp_path_factory.mktemp("train")
    model = load_encoder(save_tiny(folder / "tiny", Recipe()), device="cpu")
    with open_store(str(folder / "store"), create=True) as store:
        passages = [Passage(pid, text) for pid, text in TEXTS.items()]
        ingest_passages(passages, store, encoder=model, optimize=False)
    (folder / "queries.tsv").write_text("".join(f"{q.qid}\t{q.text}\n" for q in TRAIN))
    rows = [f"{one.qid} 0 {pid} 1\n" for one in MINED for pid in one.positives]
    (folder / "qrels.txt").write_text("".join(rows))
    write_negatives(folder / "negatives.jsonl.gz", MINED)
    names = ("store", "queries.tsv", "negatives.jsonl.gz", "qrels.txt")
    return Files(folder, *(str(folder / name) for name in names))


def train(files: Files, out: str, *options: str) -> tuple[str, ...]:
    """Return the words of a quick training."""
    quick = ("--batch-size", "10", "--learning-rate", "1e-3", "--device", "cpu")
    where = ("--store", files.store, "--queries", files.queries)
    return ("train", *where, "--out", str(files.folder / out), *quick, *options)


def test_collection_s_model_is_trained_on_mined_negatives(files: Files) -> None:
    """The report names the measure before and after; the same command again does nothing."""
    words = train(
        files,
        "model",
        *("--negatives", files.negatives),
        *("--dev-queries", files.queries, "--dev-qrels", files.qrels, "--epochs", "2"),
    )
    done = command(*words)
    assert done.status == 0, done.err
    first, *_, last = done.out.splitlines()
    assert first.startswith("120 pairs of 30 queries in 12 steps, ")
    assert "nDCG@10 on 30 dev queries: 0." in done.out
    assert last == f"the model is in {files.folder / 'model'}"
    assert command(*words).out == done.out
    before = load_encoder(files.folder / "tiny").info
    assert load_encoder(files.folder / "model").info.fingerprint != before.fingerprint


@pytest.mark.slow
def test_qrels_alone_train_with_the_batch_s_negatives(files: Files) -> None:
    """As JSON, the report has settings and counts."""
    done = command(*train(files, "alone", "--qrels", files.qrels, "--number", "0", "--json"))
    report = json.loads(done.out)
    assert (report["examples"]["positives"], report["examples"]["negatives"]) == (60, 0)
    assert report["settings"]["negatives"] == 0
    assert report["dev"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "pass either --negatives or --qrels"),
        (["--negatives", "x", "--qrels", "y"], "pass either --negatives or --qrels"),
        (["--negatives", "x", "--min-grade", "2"], "--min-grade needs --qrels"),
        (["--negatives", "x", "--dev-qrels", "y"], "--dev-queries and --dev-qrels together"),
        (["--negatives", "x", "--eval-steps", "2"], "--eval-steps needs --dev-queries and"),
        (["--negatives", "x", "--epochs", "0"], "Invalid value for '--epochs'"),
        (["--negatives", "x", "--loss", "kl"], "pass --scores"),
        (["--negatives", "/no/such.jsonl.gz"], "/no/such.jsonl.gz"),
    ],
)
def test_bad_options_are_refused(files: Files, options: list[str], message: str) -> None:
    """In the words of the command line, before a model is loaded."""
    if "y" in options and "--qrels" not in options:
        options = [files.qrels if one == "y" else one for one in options]
    done = command(*train(files, "refused", *options))
    assert done.status in {1, 2}
    assert message in done.err
    assert not (files.folder / "refused").exists()


def test_a_cross_encoder_is_trained_on_mined_negatives(files: Files) -> None:
    """From the collection's bi-encoder, measured by reranking that one's hits."""
    words = train(
        files,
        "reranker",
        *("--negatives", files.negatives, "--cross-encoder", "--dev-depth", "20"),
        *("--dev-queries", files.queries, "--dev-qrels", files.qrels, "--eval-steps", "6"),
    )
    done = command(*words)
    assert done.status == 0, done.err
    assert "nDCG@10 on 30 dev queries: 0." in done.out
    assert load_reranker(files.folder / "reranker", device="cpu").scores([("a", "b")]).shape == (1,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cross-encoder", "--qrels", "x"], "--cross-encoder needs --negatives"),
        (["--cross-encoder", "--negatives", "x", "--loss", "kl"], "either --loss or --cross"),
        (["--cross-encoder", "--negatives", "x", "--scale", "2"], "either --scale or --cross"),
        (["--cross-encoder", "--negatives", "x", "--number", "0"], "--number must be 1 or more"),
        (["--negatives", "x", "--dev-depth", "9"], "--dev-depth needs --cross-encoder"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    files: Files, options: list[str], message: str
) -> None:
    """Instead of being ignored."""
    (files.folder / "x").touch()
    done = command(
        *(str(files.folder / "x") if one == "x" else one for one in train(files, "no", *options))
    )
    assert done.status == 2
    assert message in done.err
