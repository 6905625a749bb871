"""`encode`, as a person or a script meets it, with the packaged model on the sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from msmarco_qdrant.cli.quickstart import sample_passages
from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.errors import ModelNotFoundError
from msmarco_qdrant.sources.shard_file import read_manifest, shard_paths
from tests.cli.runner import Outcome, command

MODEL = "all-MiniLM-L6-v2"
PASSAGES = 12


@pytest.fixture(scope="module")
def model() -> str:
    """The packaged model, or a visible skip."""
    try:
        load_encoder(MODEL, device="cpu")
    except ModelNotFoundError as exc:
        pytest.skip(f"no packaged model: {exc}")
    return MODEL


@pytest.fixture
def sample() -> Iterator[str]:
    """All passages of the sample."""
    with sample_passages() as path:
        yield str(path)


@pytest.fixture
def few(tmp_path: Path, sample: str) -> Path:
    """Some passages of the sample."""
    path = tmp_path / "few.tsv"
    lines = Path(sample).read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:PASSAGES]), "utf-8")
    return path


def encode(*arguments: str | Path, out: str = "vectors") -> Outcome:
    """Run the command on the CPU."""
    options = ["--out", out, "--model", MODEL, "--device", "cpu"]
    return command("encode", *map(str, arguments), *options)


def test_the_sample_is_encoded_loaded_and_searched(
    sample: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line of what was done; the second run finds all of it; then `ingest` and `search`."""
    done = encode(sample)

    numbers = r"[\d.,]+"
    assert 0 == done.status
    assert re.fullmatch(
        rf"300 read: 300 encoded, 0 rejected; 1 files; {numbers} s, {numbers} passages/s, after "
        rf"{numbers} s of startup\n",
        done.out,
    )
    assert "encoding into vectors\n" in done.err
    assert f"{model} runs by " in caplog.text
    assert {"vectors"} == {path.name for path in Path().iterdir()}
    assert 300 == sum(pq.read_metadata(path).num_rows for path in shard_paths(Path("vectors")))

    again = encode(sample)
    assert 0 == again.status
    assert again.out.startswith("300 read: 0 encoded (300 already encoded), 0 rejected; 1 files; ")

    loaded = command("ingest", "--vectors", "vectors", "--store", "store")
    assert 0 == loaded.status
    assert loaded.out.startswith("300 read: 300 written, 0 unchanged, 0 rejected; ")

    unchanged = command("ingest", sample, "--store", "store", "--json")
    assert 300 == json.loads(unchanged.out)["unchanged"]

    question = "who sank the unsinkable ship that hit an iceberg"
    found = command("search", question, "--store", "store", "--limit", "1", "--json")
    assert ["3"] == [hit["pid"] for hit in json.loads(found.out)]


def test_the_report_comes_as_json(few: Path, model: str) -> None:
    """One document with the counts."""
    assert model == MODEL
    done = command(
        *("encode", str(few), "--out", "vectors", "--model", model, "--device", "cpu"),
        *("--dtype", "float32", "--workers", "1", "--json"),
    )

    assert 0 == done.status
    report = json.loads(done.out)
    expected = {"read": PASSAGES, "encoded": PASSAGES, "found": 0, "rejected": 0, "shards": 1}
    assert expected == {name: report[name] for name in expected}
    assert report["tokens"] > PASSAGES
    manifest = read_manifest(Path("vectors"))
    assert manifest is not None
    assert "float32" == manifest.dtype


def test_rejects_are_status_3(few: Path, model: str) -> None:
    """They stand in a file, which the message names; --allow-rejects makes it 0."""
    assert model == MODEL
    with few.open("a", encoding="utf-8") as file:
        file.write("no tab\n1\ta pid that was there\n")

    done = encode(few, "--rejects", "rejects.jsonl")

    assert 3 == done.status
    assert done.out.startswith(f"{PASSAGES + 2} read: {PASSAGES} encoded, 2 rejected; 1 files; ")
    assert "rejected rows: 2, written to rejects.jsonl\n" in done.err
    assert f"the first: {few}, line {PASSAGES + 1}: no tab" in done.err
    told = [json.loads(line) for line in Path("rejects.jsonl").read_text("utf-8").splitlines()]
    assert [(PASSAGES + 1, "no tab"), (PASSAGES + 2, "1\ta pid that was there")] == [
        (entry["line"], entry["raw"]) for entry in told
    ]

    allowed = encode(few, "--allow-rejects", out="other")
    assert 0 == allowed.status
    assert "rejected rows: 2" in allowed.err

    again = encode(few, "--rejects", "again.jsonl")
    assert 3 == again.status
    assert "rejected rows of earlier runs: 2\n" in again.err
    assert not Path("again.jsonl").exists()


def test_a_changed_source_is_status_1(few: Path, model: str) -> None:
    """One line that names the file and says what to do."""
    assert model == MODEL
    encode(few)
    few.write_text("1\tanother text\n", "utf-8")

    done = encode(few)

    assert (1, "") == (done.status, done.out)
    assert (
        "Error: vectors/00000.parquet was encoded from other rows than this source has" in done.err
    )
    assert "Pass another directory, or delete this file" in done.err


# ---- without a model -------------------------------------------------------------------------


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
def test_what_cannot_be_meant_is_status_2(arguments: list[str], message: str) -> None:
    """With the way out, and nothing created."""
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
def test_a_device_that_is_not_there_is_told(
    few: Path, model: str, device: str, message: str
) -> None:
    """Before anything is created."""
    done = command("encode", str(few), "--out", "v", "--model", model, "--device", device)

    assert (2, "") == (done.status, done.out)
    assert message in done.err
    assert [] == list(Path().iterdir())


def test_a_source_that_is_not_there_is_status_1() -> None:
    """Before a model is loaded."""
    done = command("encode", "nowhere.tsv", "--out", "vectors")

    assert (1, "") == (done.status, done.out)
    assert "Error: no such file: nowhere.tsv" in done.err
    assert [] == list(Path().iterdir())
