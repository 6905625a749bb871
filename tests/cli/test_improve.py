"""The command `improve`: what it refuses, in the words of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command

CLICKED = ("--clicks", "clicks.tsv", "--out", "out")
NEEDED = ("--queries", "queries.tsv", "--qrels", "qrels.txt", "--out", "out")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries and judgments in the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("queries.tsv").write_text("".join(f"q{n}\titem {n}\n" for n in range(100)))
    Path("pairs.tsv").write_text("".join(f"q{n}\t{n}\n" for n in range(100)))
    Path("clicks.tsv").write_text("".join(f"item {n}\t{n}\t3\n" for n in range(100)))
    Path("empty.tsv").touch()
    Path("qrels.txt").write_text("".join(f"q{n} 0 {n} 1\n" for n in range(100)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (NEEDED[2:], "pass --queries FILE and --qrels FILE, or --clicks FILE"),
        ((*NEEDED, "--clicks", "clicks.tsv"), "pass --queries FILE and --qrels FILE, or --clicks"),
        ((*NEEDED, "--min-count", "2"), "--min-count"),
        ((*NEEDED, "--apply", "--tenant", "me"), "pass either --apply or --tenant"),
        ((*CLICKED, "--min-count", "9"), "pass a lower"),
        ((*NEEDED[:2], "--qrels", "empty.tsv", "--out", "out"), "empty.tsv"),
        (NEEDED[:4], "Missing option '--out'"),
        ((*NEEDED, "--test-queries", "queries.tsv"), "pass --test-queries with --test-qrels"),
        ((*NEEDED, "--rounds", "0"), "--rounds"),
        ((*NEEDED, "--epochs", "0"), "--epochs"),
        ((*NEEDED, "--learning-rate", "2"), "--learning-rate"),
        ((*NEEDED, "--test-share", "0.9"), "--test-share"),
        ((*NEEDED, "--out", "queries.tsv"), "--out"),
        (("--queries", "qrels.txt", "--qrels", "queries.tsv", "--out", "out"), "qrels.txt"),
        (("--queries", "absent.tsv", *NEEDED[2:]), "absent.tsv"),
        (NEEDED, "no store at"),
    ],
)
def test_what_is_refused_before_a_store_is_opened(words: tuple[str, ...], message: str) -> None:
    """With the option; no folder is made."""
    done = command("improve", *words)
    assert done.status in {1, 2}
    assert message in done.err
    assert not Path("out").exists()


def test_model_that_cannot_be_loaded_is_named() -> None:
    """A collection of an encoder without a folder has nothing to train."""
    passages = [(str(n), f"item {n}") for n in range(100)]
    ingest_passages(passages, "qdrant_data", collection="msmarco", encoder=HashingEncoder())
    done = command("improve", *NEEDED, "--json")
    assert done.status == 1
    assert json.loads(done.out)["error"]["type"] == "ModelNotFoundError"
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "words", [("--queries", "queries.tsv", "--qrels", "pairs.tsv", "--out", "out"), CLICKED]
)
def test_pairs_and_clicks_are_read(words: tuple[str, ...]) -> None:
    """As far as the model, which cannot be loaded."""
    passages = [(str(n), f"item {n}") for n in range(100)]
    ingest_passages(passages, "qdrant_data", collection="msmarco", encoder=HashingEncoder())
    assert "ModelNotFoundError" in command("improve", *words, "--json").out
