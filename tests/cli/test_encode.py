"""`encode`, as a person or a script uses it: once with the packaged model, else a tiny one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.sources.shard_file import read_manifest, shard_paths
from tests.cli.runner import Outcome, command

MODEL = "all-MiniLM-L6-v2"
PASSAGES = 12


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Some passages of the sample."""
    path = tmp_path / "few.tsv"
    with sample_passages() as sample:
        lines = sample.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:PASSAGES]), "utf-8")
    return path


def encode(model: str, *arguments: str | Path, out: str = "vectors") -> Outcome:
    """Run the command on the CPU."""
    options = ["--out", out, "--model", model, "--device", "cpu"]
    return command("encode", *map(str, arguments), *options)


@pytest.mark.slow
def test_passages_are_encoded_ingested_and_searched(
    few: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second run encodes nothing; `ingest` and `search` take the vectors."""
    done = encode(MODEL, few, "--dtype", "float32", "--workers", "0")

    numbers = r"[\d.,]+"
    assert 0 == done.status
    assert re.fullmatch(
        rf"12 read: 12 encoded, 0 rejected; 1 files; {numbers} s, {numbers} passages/s, after "
        rf"{numbers} s of startup\n",
        done.out,
    )
    assert "encoding into vectors\n" in done.err
    assert f"{MODEL} runs by " in caplog.text
    assert {"vectors"} == {path.name for path in Path().iterdir()}
    assert 12 == sum(pq.read_metadata(path).num_rows for path in shard_paths(Path("vectors")))
    manifest = read_manifest(Path("vectors"))
    assert manifest is not None
    assert "float32" == manifest.dtype

    again = encode(MODEL, few, "--dtype", "float32")
    assert again.out.startswith("12 read: 0 encoded (12 already encoded), 0 rejected; 1 files; ")
    report = json.loads(encode(MODEL, few, "--dtype", "float32", "--json").out)
    expected = {"read": 12, "encoded": 0, "found": 12, "rejected": 0, "shards": 1}
    assert expected == {name: report[name] for name in expected}

    ingested = command("ingest", "--vectors", "vectors", "--store", "store")
    assert ingested.out.startswith("12 read: 12 written, 0 unchanged, 0 rejected; ")
    unchanged = command("ingest", str(few), "--store", "store", "--json")
    assert 12 == json.loads(unchanged.out)["unchanged"]
    question = "who sank the unsinkable ship that hit an iceberg"
    found = command("search", question, "--store", "store", "--limit", "1", "--json")
    assert ["3"] == [hit["pid"] for hit in json.loads(found.out)]


def test_rejects_are_status_3(few: Path, tiny: str) -> None:
    """The message names their file; with --allow-rejects the status is 0."""
    with few.open("a", encoding="utf-8") as file:
        file.write("no tab\n1\ta repeated pid\n")

    done = encode(tiny, few, "--rejects", "rejects.jsonl")

    assert 3 == done.status
    assert done.out.startswith(f"{PASSAGES + 2} read: {PASSAGES} encoded, 2 rejected; 1 files; ")
    assert "rejected rows: 2, written to rejects.jsonl\n" in done.err
    assert f"the first: {few}, line {PASSAGES + 1}: no tab" in done.err
    rejects = [json.loads(line) for line in Path("rejects.jsonl").read_text("utf-8").splitlines()]
    assert [(PASSAGES + 1, "no tab"), (PASSAGES + 2, "1\ta repeated pid")] == [
        (entry["line"], entry["raw"]) for entry in rejects
    ]

    allowed = encode(tiny, few, "--allow-rejects", out="other")
    assert 0 == allowed.status
    assert "rejected rows: 2" in allowed.err

    again = encode(tiny, few, "--rejects", "again.jsonl")
    assert 3 == again.status
    assert "rejected rows of earlier runs: 2\n" in again.err
    assert not Path("again.jsonl").exists()


@pytest.mark.slow
def test_a_changed_source_is_status_1(few: Path, tiny: str) -> None:
    """One line with the file and the next step."""
    encode(tiny, few)
    few.write_text("1\tanother text\n", "utf-8")

    done = encode(tiny, few)

    assert (1, "") == (done.status, done.out)
    assert (
        "Error: vectors/00000.parquet was encoded from other rows than this source has" in done.err
    )
    assert "Pass another directory, or delete this file" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "--out", "vectors"], "source must be files, got standard input"),
        (["few.tsv"], "Missing option '--out'"),
        (["--out", "vectors"], "Missing argument 'SOURCE...'"),
        (["few.tsv", "--out", "vectors", "--dtype", "int8"], "Invalid value for '--dtype'"),
        (["few.tsv", "--out", "vectors", "--workers", "-1"], "Invalid value for '--workers'"),
        (["few.tsv", "--out", "few.tsv"], "Invalid value for '--out'"),
        (["few.tsv", "--out", "vectors", "--rejects", "few.tsv"], "is also an input"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], message: str) -> None:
    """The message names the option, and nothing is created."""
    Path("few.tsv").write_text("1\ttext\n")

    done = command("encode", *arguments)

    assert (2, "") == (done.status, done.out)
    assert message in done.err
    assert [Path("few.tsv")] == list(Path().iterdir())


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("warp", "device must be cpu, cuda, cuda:1, ..., several separated by commas, or all"),
        ("cuda:99", "the device cuda:99 does not exist: torch finds"),
        ("cpu,cpu", "each device must be named once, got 'cpu,cpu'"),
    ],
)
def test_invalid_device_is_refused(few: Path, device: str, message: str) -> None:
    """Before anything is created."""
    done = command("encode", str(few), "--out", "v", "--model", MODEL, "--device", device)

    assert (2, "") == (done.status, done.out)
    assert message in done.err
    assert [] == list(Path().iterdir())


def test_missing_source_is_status_1() -> None:
    """Before a model is loaded."""
    done = command("encode", "nowhere.tsv", "--out", "vectors")

    assert (1, "") == (done.status, done.out)
    assert "Error: no such file: nowhere.tsv" in done.err
    assert [] == list(Path().iterdir())
