"""The guide train.md: its command and its Python train a model, here a tiny one."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path

import pytest

from tests.cli.runner import command
from tests.docs.pages import blocks, page, rows
from tests.train.tiny_data import QRELS, QUERIES, make_collection

TEXT = page("train.md")


@pytest.mark.slow
def test_command_and_python_train_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both print a verdict; the folder has the files that the page lists."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("PRECISION", "float32"), ("DEVICE", "cpu")):
        monkeypatch.setenv(f"MSMARCO_QDRANT_{name}", value)
    make_collection(tmp_path, store="qdrant_data", collection="msmarco")
    Path("queries.tsv").write_text("".join(f"{one.qid}\t{one.text}\n" for one in QUERIES))
    lines = [f"{qid} 0 {pid} 1\n" for qid, of in QRELS.items() for pid in of]
    Path("qrels.txt").write_text("".join(lines))
    line = TEXT.split("```\n$ ")[1].splitlines()[0]
    words = shlex.split(line)[1:]
    done = command(*words)
    assert done.status == 0, done.err
    assert "chosen by the validation queries" in done.out
    assert "round 1: train" in done.err
    for step, _, files in rows(TEXT, "step | what it does | files in the folder"):
        for name in files.replace(", ...", "").split(", "):
            assert (step == "judge") != Path("improved", name).exists(), name
    again = json.loads(command(*words, "--json").out)
    assert again["verdict"]["reason"] in done.out
    printed = io.StringIO()
    (block,) = blocks(TEXT, "python")
    with contextlib.redirect_stdout(printed):
        exec(block, {})  # noqa: S102  # the page's own code
    assert "chosen by the validation queries" in printed.getvalue()
