"""The command `choose`: the table, the folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msmarco_qdrant.train import MinedQuery
from msmarco_qdrant.train.negatives_file import read_negatives, write_negatives
from tests.cli.runner import command

MINED = [
    MinedQuery(f"q{number}", ("p",), {"dense": tuple(f"n{rank}" for rank in range(1, 11))})
    for number in range(3)
]


@pytest.fixture
def mined(tmp_path: Path) -> str:
    """A file of mined negatives, with scores next to it."""
    write_negatives(tmp_path / "mined.jsonl.gz", MINED)
    scores = {"p": 1.0, **{f"n{rank}": 1.0 - rank / 16 for rank in range(1, 11)}}
    (tmp_path / "scores.json").write_text(json.dumps({one.qid: scores for one in MINED}))
    return str(tmp_path / "mined.jsonl.gz")


def test_without_a_folder_a_table_is_printed(mined: str, tmp_path: Path) -> None:
    """Of common strategies or of those given, as text and as JSON."""
    done = command("choose", "--negatives", mined)
    assert (0, "") == (done.status, done.err)
    assert done.out.startswith("queries: 3; candidates: 30\n\nstrategy")
    assert "\nranks:1-60 " in done.out
    scores = str(tmp_path / "scores.json")
    words = ("--strategy", "relative:0.75", "--strategy", "top", "--scores", scores, "--json")
    relative, top = json.loads(command("choose", "--negatives", mined, *words).out)
    assert ("relative:0.75", 21, 12) == tuple(
        relative[k] for k in ("strategy", "allowed", "chosen")
    )
    assert (2.5, 1.0 - 2.5 / 16) == (top["mean_rank"], top["mean_score"])
    assert {"mined.jsonl.gz", "scores.json"} == {path.name for path in tmp_path.iterdir()}


def test_with_a_folder_the_negatives_are_written(mined: str, tmp_path: Path) -> None:
    """A second command prints the report again; with another seed it needs another folder."""
    words = ("choose", "--negatives", mined, "--number", "0", "--strategy", "ranks:2-4")
    out = tmp_path / "chosen"
    done = command(*words, "--out", str(out))
    assert (0, "") == (done.status, done.err)
    assert "ranks:2-4 allows 9 of 30 candidates (30.0%)\nnegatives: 9\n" in done.out
    assert {("n2", "n3", "n4")} == {one.negatives["chosen"] for one in read_negatives(out)}
    assert done == command(*words, "--out", str(out))
    other = command(*words, "--out", str(out), "--seed", "1")
    assert 2 == other.status
    assert "seed" in other.err
    report = json.loads((out / "report.json").read_text())
    assert report == json.loads(command(*words, "--out", str(out), "--json").out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "best"], "strategy must be rules joined by commas"),
        (["--strategy", "margin:1"], "compares scores: pass --scores FILE"),
        (
            ["--promote-above", "1"],
            "--promote-above must have scores to compare with: pass --s",
        ),
        (["--strategy", "top", "--strategy", "random", "--out", "x"], "--out needs one --strategy"),
        (["--number", "-1"], "--number"),
        (
            ["--out", "x", "--strategy", "ranks:11-12"],
            "must leave a negative or more, got none",
        ),
        (["--scores", "nowhere"], "nowhere"),
    ],
)
def test_what_is_refused(
    mined: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    """With the option and the next step."""
    monkeypatch.chdir(tmp_path)
    done = command("choose", "--negatives", mined, *words)
    assert done.status in {1, 2}
    assert message in done.err
    assert not (tmp_path / "x").exists()
