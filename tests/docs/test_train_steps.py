"""The steps of train.md, each as a command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from msmarco_qdrant.train import read_negatives
from tests.cli.runner import command
from tests.docs.pages import blocks, page
from tests.train.tiny_data import QRELS, QUERIES, make_collection

STEPS = page("train.md").split("\n## Step by step\n")[1]


@pytest.mark.slow
def test_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes both systems' candidates in the form that the page shows."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("PRECISION", "float32"), ("DEVICE", "cpu")):
        monkeypatch.setenv(f"MSMARCO_QDRANT_{name}", value)
    make_collection(tmp_path, store="qdrant_data", collection="msmarco")
    Path("queries.tsv").write_text("".join(f"{one.qid}\t{one.text}\n" for one in QUERIES))
    lines = [f"{qid} 0 {pid} 1\n" for qid, of in QRELS.items() for pid in of]
    Path("qrels.txt").write_text("".join(lines))
    (line,) = (one for one in STEPS.splitlines() if one.startswith("$ msmarco-qdrant mine"))
    done = command(*shlex.split(line)[2:])

    assert done.status == 0, done.err
    mined = list(read_negatives("mined"))
    assert [query.qid for query in QUERIES] == [one.qid for one in mined]
    assert ["model", "bm25"] == list(mined[0].negatives)
    shown = blocks(STEPS, "json")[0]
    Path("published.jsonl").write_text(shown)
    (published,) = read_negatives("published.jsonl")
    assert [*json.loads(shown)["neg"]] == [*published.negatives]
