"""An ingest or encode on Ray ends as one by one process, also when it loses workers; with Ray."""

from __future__ import annotations

import json
import os
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import IngestProgress
from msmarco_qdrant.distributed import encode_dataset, ingest_dataset
from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.errors import (
    EncodeStoppedError,
    IngestStoppedError,
    OutputError,
    PruneRefusedError,
    SourceError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources import chunk_extents as extents_module
from msmarco_qdrant.sources import corpus as corpus_module
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import Connection, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.conftest import ROOT
from tests.loopback import LoopbackServer

ray = pytest.importorskip("ray", reason="needs the extra ray: make integrations")
pytestmark = pytest.mark.usefixtures("cluster")

ONE_CPU: dict[str, Any] = {
    "workers": 2,
    "cpus_per_worker": 0.5,
    "gpus_per_worker": 0,
    "split_bytes": 4000,
}


def write_lines(path: Path, count: int = 600) -> Path:
    """Passages, some repeated, and some lines that are none."""
    others = {3: "no tab", 5: "7\tagain", 7: "x{}\t...", 11: ""}
    lines = [others.get(n % 13, "{}\tpassage number {}").format(n, n) for n in range(count)]
    path.write_text("\n".join(lines))
    return path


def points(url: str) -> dict[Any, Any]:
    """The payloads of all points, without what differs between two runs."""
    fields = ("pid", "text", "meta", "text_digest", "meta_digest")
    return dict(open_store(url).collection("msmarco").scan(fields))


def test_prune_removes_what_the_source_lacks(server: LoopbackServer, tmp_path: Path) -> None:
    """As in one process: within the policy, and not what another client wrote since."""
    with LoopbackServer() as other:
        for url, ingest in (
            (other.url, partial(ingest_passages, encoder=HashingEncoder())),
            (server.url, partial(ingest_dataset, make_encoder=HashingEncoder, **ONE_CPU)),
        ):
            rows = [f"{n}\tpassage {n}" for n in range(300)]
            lines = tmp_path / "passages.tsv"
            lines.write_text("\n".join([*rows, "u\tu"]))
            ingest(lines, url, prune=True)
            lines.write_text("\n".join(rows[100:]))
            with pytest.raises(PruneRefusedError, match="lacks 101 of 301 passages"):
                ingest(lines, url, prune=True)
            assert 301 == len(points(url))
            assert 101 == ingest(lines, url, prune=0.5).pruned
        assert points(other.url) == points(server.url)


def test_it_ends_as_an_ingest_by_one_process(server: LoopbackServer, tmp_path: Path) -> None:
    """Points, rejects with their lines, and counts; a second run finds everything unchanged."""
    source = write_lines(tmp_path / "passages.tsv")
    expected: list[Reject] = []
    with LoopbackServer() as other:
        report = ingest_passages(
            source, other.url, encoder=HashingEncoder(), on_reject=expected.append
        )
        stored = points(other.url)
    for counts in ((report.written, 0), (0, report.written)):
        rejects: list[Reject] = []
        seen: list[IngestProgress] = []
        found = ingest_dataset(
            source,
            server.url,
            make_encoder=HashingEncoder,
            on_reject=rejects.append,
            on_progress=seen.append,
            **ONE_CPU,
        )

        assert counts == (found.written, found.unchanged)
        assert (report.read, report.rejected) == (found.read, found.rejected)
        assert sorted(map(repr, expected)) == sorted(map(repr, rejects))
        assert stored == points(server.url)
        assert 1.0 == seen[-1].fraction or "index" == seen[-1].stage


def test_vectors_are_ingested_without_a_model(server: LoopbackServer, tmp_path: Path) -> None:
    """The folder is one that `encode` wrote; its passages are those of an ingest."""
    source = write_lines(tmp_path / "passages.tsv", 200)
    encode_corpus(source, tmp_path / "vectors", encoder=HashingEncoder(), workers=0)

    report = ingest_dataset(VectorShards(tmp_path / "vectors"), server.url, **ONE_CPU)

    assert (report.written, report.encoded) == (len(points(server.url)), 0)


class CountingEncoder(HashingEncoder):
    """An encoder that writes down how many passages it gets at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def encode_passages(self, passages: Any) -> Any:
        """Encode a window."""
        with self._path.open("a") as file:
            file.write(f"{len(passages)}\n")
        return super().encode_passages(passages)


@pytest.mark.parametrize(("window", "sizes"), [(None, [2048, 52]), (1500, [1500, 600])])
def test_a_window_without_a_gpu_is_small(
    server: LoopbackServer, tmp_path: Path, window: int | None, sizes: list[int]
) -> None:
    """So that a worker's memory does not grow with its part of the source."""
    source, path = tmp_path / "passages.tsv", tmp_path / "sizes"
    source.write_text("".join(f"{n}\tpassage {n}\n" for n in range(2100)))
    make = partial(CountingEncoder, path)
    options = {**ONE_CPU, "workers": 1, "split_bytes": 10**6, "window": window}
    ingest_dataset(source, server.url, make_encoder=make, optimize=False, **options)

    assert sizes == [*map(int, path.read_text().split())]


class FailingEncoder(HashingEncoder):
    """An encoder of the caller that cannot encode."""

    def encode_passages(self, passages: Any) -> Any:  # noqa: ARG002
        """Raise."""
        raise ValueError("the user's own error")


@pytest.mark.parametrize(
    ("lines", "options", "error", "message"),
    [
        ("\tone\n\ttwo\n", {}, SourceError, "none of its 2 rows is a passage"),
        ("\tone\n", {}, SourceError, "the source has no passage: its only row was rejected"),
        ("1\tone\n", {"cpus_per_worker": 9}, UsageError, "no node of the cluster has 9"),
        ("1\tone\n", {"make_encoder": FailingEncoder}, ValueError, "the user's own error"),
    ],
)
def test_a_failure_creates_no_collection(
    server: LoopbackServer,
    tmp_path: Path,
    lines: str,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """The error is that of an ingest by one process."""
    path = tmp_path / "a.tsv"
    path.write_text(lines)
    with pytest.raises(error, match=message):
        ingest_dataset(
            path, server.url, **{**ONE_CPU, "make_encoder": HashingEncoder, "workers": 1, **options}
        )

    assert [] == [*open_store(server.url).physical_names()]


def test_an_empty_source_creates_nothing(server: LoopbackServer, tmp_path: Path) -> None:
    """As in an ingest by one process, it is not an error."""
    path = tmp_path / "a.tsv"
    path.write_text("")
    report = ingest_dataset(path, server.url, make_encoder=HashingEncoder, **ONE_CPU)

    assert (0, []) == (report.read, [*open_store(server.url).physical_names()])


def test_a_lost_server_ends_it_and_the_same_call_resumes(
    server: LoopbackServer, tmp_path: Path
) -> None:
    """The error says how to go on, and the second call writes the rest."""
    source = write_lines(tmp_path / "passages.tsv")
    connection = Connection(retry_s=0.2, timeout_s=2)

    def stop(progress: IngestProgress) -> None:
        if progress.report.written and not stopped:
            stopped.append(True)
            server.stop()

    stopped: list[bool] = []
    with pytest.raises(IngestStoppedError, match="the same ingest resumes there"):
        ingest_dataset(
            source,
            server.url,
            make_encoder=HashingEncoder,
            connection=connection,
            on_progress=stop,
            **ONE_CPU,
        )
    server.start()
    report = ingest_dataset(source, server.url, make_encoder=HashingEncoder, **ONE_CPU)

    assert len(points(server.url)) == report.written + report.unchanged


class DyingEncoder(HashingEncoder):
    """An encoder whose first warm-up ends the process, as one without memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._began = folder / "began"

    def warm_up(self) -> None:
        """End the process once."""
        if not self._began.exists():
            self._began.touch()
            os._exit(1)


def test_a_worker_that_dies_before_it_is_ready_is_replaced(
    server: LoopbackServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The ingest ends as without its loss, and a warning names it."""
    source = write_lines(tmp_path / "passages.tsv", 60)
    report = ingest_dataset(
        source,
        server.url,
        make_encoder=partial(DyingEncoder, tmp_path),
        **{**ONE_CPU, "workers": 1},
    )

    assert (tmp_path / "began").exists()
    assert "a worker has not started, so another one will: it was lost" in caplog.text
    assert len(points(server.url)) == report.written


@pytest.mark.parametrize(
    ("source", "url", "options", "message"),
    [
        ("a.tsv", "./folder", {}, "needs the URL of a server"),
        ("a.tsv", ":memory:", {}, "needs the URL of a server"),
        ("a.tsv", "http://localhost", {"address": "ray://localhost:1"}, "ray job submit"),
        ("a.tsv", "http://localhost", {"address": "a.tsv"}, "auto, local or HOST:PORT"),
        (
            "a.tsv",
            "http://localhost",
            {"workers": 0},
            "workers must be an integer of 1 or more, got 0",
        ),
        ("a.tsv", "http://localhost", {"workers": "2"}, "of 1 or more, got '2'"),
        ("a.tsv", "http://localhost", {"split_bytes": 1e6}, "split_bytes must be an integer"),
        ("a.tsv", "http://localhost", {"cpus_per_worker": 0}, "must be more than 0, and whole"),
        ("a.tsv", "http://localhost", {"cpus_per_worker": 1.5}, "whole above 1, got 1.5"),
        ("a.tsv", "http://localhost", {"gpus_per_worker": -1}, "must be 0 or more, and whole"),
        ("a.tsv", "http://localhost", {"gpus_per_worker": float("nan")}, "got nan"),
        ("-", "http://localhost", {}, "standard input or a pipe"),
        ([("1", "one")], "http://localhost", {}, "pass it to ingest_passages"),
        ("a.tsv", "http://localhost", {"model": "m"}, "either model=... or make_encoder"),
        (
            "a.tsv",
            "http://localhost",
            {"prompts": {"query": "q", "passage": "p"}},
            "prompts need a model to load",
        ),
    ],
)
def test_invalid_arguments_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Any,
    url: str,
    options: dict[str, Any],
    message: str,
) -> None:
    """Each in one line, before anything is read or started."""
    monkeypatch.chdir(tmp_path)
    write_lines(Path("a.tsv"))
    with pytest.raises(UsageError, match=message):
        ingest_dataset(source, url, make_encoder=HashingEncoder, **options)


def test_the_page_ray_md_is_right(server: LoopbackServer, tmp_path: Path) -> None:
    """Its program and its command run, with this server and cluster in place of theirs."""
    page = (ROOT / "docs" / "ray.md").read_text()
    source = write_lines(tmp_path / "collection.tsv", 30)
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    command = re.search(r"\$ msmarco-qdrant (.*)", page)
    assert program is not None
    assert command is not None
    places = {"collection.tsv": str(source), "http://qdrant:6333": server.url}
    code = program[1].replace("address=", "make_encoder=HashingEncoder, workers=1, address=")
    words = shlex.split(command[1])
    for old, new in places.items():
        code = code.replace(old, new)
        words = [new if word == old else word for word in words]
    named: dict[str, Any] = {"HashingEncoder": HashingEncoder}
    exec(code, named)  # noqa: S102  # a program of our own docs

    assert len(points(server.url)) == named["report"].written
    result = CliRunner().invoke(cli, [*words, "--ray-workers", "1", "--ray-cpus", "2"])
    assert "no node of the cluster has 2 processors" in result.output


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_a_dataset_of_ray_is_a_source(server: LoopbackServer) -> None:
    """Blocks are ingested in their order: the first occurrence of a pid wins."""
    import pyarrow as pa

    rows = [{"id": str(n % 40), "body": f"text {n}" if n % 7 else None} for n in range(60)]
    dataset = ray.data.from_arrow([pa.Table.from_pylist(rows[n : n + 15]) for n in (0, 15, 30, 45)])
    expected: list[Reject] = []
    with LoopbackServer() as other:
        table = pa.Table.from_pylist(rows)
        ingest_passages(table, other.url, encoder=HashingEncoder(), on_reject=expected.append)
        stored = points(other.url)
    rejects: list[Reject] = []
    ingest_dataset(
        dataset, server.url, make_encoder=HashingEncoder, on_reject=rejects.append, **ONE_CPU
    )

    assert stored == points(server.url)
    assert sorted(map(repr, expected)) == sorted(map(repr, rejects))


def test_tenants_have_shards_of_their_own(server: LoopbackServer, tmp_path: Path) -> None:
    """Several workers create them; a passage without a tenant is rejected where it is."""
    rows = [{"id": str(n), "text": f"text {n}", "customer": f"c{n % 7}"} for n in range(200)]
    del rows[5]["customer"]
    source = tmp_path / "a.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    sharding = {"shard_key": "customer"}
    reports, rejects = [], list[Reject]()
    with LoopbackServer() as other:
        for url, ingest in (
            (other.url, partial(ingest_passages, encoder=HashingEncoder())),
            (server.url, partial(ingest_dataset, make_encoder=HashingEncoder, **ONE_CPU)),
        ):
            reports.append(ingest(source, url, sharding=sharding, on_reject=rejects.append))
        assert points(other.url) == points(server.url)
    assert [199, 199] == [report.written for report in reports]
    assert rejects[0] == rejects[1]
    assert rejects[0].line == 6


# ---- encode ----------------------------------------------------------------------------------


ENCODE: dict[str, Any] = {
    "workers": 2,
    "cpus_per_worker": 0.5,
    "gpus_per_worker": 0,
    "shard_chunks": 2,
}


class LostEncoder(HashingEncoder):
    """An encoder whose first batch ends the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._began = folder / "began"

    def encode_passages(self, passages: Any) -> Any:
        """End the process once."""
        if not self._began.exists():
            self._began.touch()
            os._exit(1)
        return super().encode_passages(passages)


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of each file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_encode_writes_the_files_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it loses a worker; a second run finds a missing file, and refuses another source."""
    for module in (corpus_module, extents_module):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    source = write_lines(tmp_path / "passages.tsv")
    corpus = Corpus(source, max_line_bytes=500)
    expected: list[Reject] = []
    encode_corpus(
        corpus,
        tmp_path / "one",
        encoder=HashingEncoder(),
        workers=0,
        shard_chunks=2,
        on_reject=expected.append,
    )
    written, rejects = files_of(tmp_path / "one"), list[Reject]()
    report = encode_dataset(
        corpus,
        tmp_path / "ray",
        make_encoder=partial(LostEncoder, tmp_path),
        on_reject=rejects.append,
        **{**ENCODE, "gpus_per_worker": 0.5},  # so tasks prepare the chunks
    )

    assert (tmp_path / "began").exists()
    assert written == files_of(tmp_path / "ray")
    assert expected == rejects
    assert len(written) - 1 == report.shards
    (tmp_path / "ray" / "00001.parquet").unlink()
    again = encode_dataset(corpus, tmp_path / "ray", make_encoder=HashingEncoder, **ENCODE)
    assert written == files_of(tmp_path / "ray")
    assert (report.read, report.encoded) == (again.read, again.found + again.encoded)
    assert 0 < again.encoded < again.found
    (tmp_path / "ray" / "00001.parquet").rename(tmp_path / "ray" / "0001.parquet")
    with pytest.raises(OutputError, match="must be named 00001"):
        encode_dataset(corpus, tmp_path / "ray", make_encoder=HashingEncoder, **ENCODE)
    (tmp_path / "ray" / "0001.parquet").rename(tmp_path / "ray" / "00001.parquet")
    source.write_text(source.read_text().replace("number 1\n", "number one\n"))
    with pytest.raises(EncodeStoppedError, match="was encoded from other rows"):
        encode_dataset(corpus, tmp_path / "ray", make_encoder=HashingEncoder, **ENCODE)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("a.tsv", {"workers": 0}, "workers must be an integer of 1 or more, got 0"),
        ("a.tsv", {"gpus_per_worker": -1}, "must be 0 or more, and whole"),
        ("a.tsv", {"dtype": "int8"}, "dtype must be float16 or float32, got 'int8'"),
        ("a.tsv", {"shard_chunks": 0}, "shard_chunks must be 1 or more, got 0"),
        ("a.tsv", {"model": "m"}, "either model=... or make_encoder"),
        ("a.tsv", {"address": "ray://localhost:1"}, "ray job submit"),
        ("a.csv", {}, "decompress or convert it, or encode it without Ray"),
        ("-", {}, "standard input or a pipe"),
        ([("1", "one")], {}, "source must be files .* rows of Python to encode_corpus"),
        ("a.tsv", {"make_encoder": HashingEncoder()}, "must be a function .* got a Hashing"),
    ],
)
def test_an_encode_refuses_invalid_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Any,
    options: dict[str, Any],
    message: str,
) -> None:
    """Each in one line, before a folder is made."""
    monkeypatch.chdir(tmp_path)
    write_lines(Path("a.tsv"))
    Path("a.csv").write_text("pid,text\n1,one\n")
    with pytest.raises(UsageError, match=message):
        encode_dataset(source, "vectors", **{"make_encoder": HashingEncoder, **options})

    assert not Path("vectors").exists()
