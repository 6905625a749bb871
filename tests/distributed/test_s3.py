"""Folders of vectors and sources on S3, over the real protocol, with Ray and without."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from msmarco_qdrant.cli.app import cli
from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeReport
from msmarco_qdrant.distributed import encode_dataset, ingest_dataset
from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.errors import (
    EncodeStoppedError,
    ModelMismatchError,
    MsmarcoQdrantError,
    OutputError,
    SourceError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources import chunk_extents as extents_module
from msmarco_qdrant.sources import corpus as corpus_module
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.file_path import FilePath, to_path
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.testing import HashingEncoder
from tests.distributed.ray_environment import ray_environment
from tests.distributed.s3_server import BUCKET, SECRET, s3_server
from tests.distributed.test_on_ray import ENCODE, ONE_CPU, points, write_lines
from tests.loopback import LoopbackServer

ray = pytest.importorskip("ray", reason="needs the extra ray: make integrations")
s3fs = pytest.importorskip("s3fs", reason="needs the extra s3: make integrations")

FOLDER = f"s3://{BUCKET}/run/vectors"
ALONE: dict[str, Any] = {"workers": 0, "shard_chunks": 2}


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    """A bucket, which this process and all that it starts find by their environment."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as variables:
        for name, value in variables.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module", autouse=True)
def cluster(bucket: None) -> Iterator[None]:  # noqa: ARG001  # its workers inherit the environment
    """A Ray cluster of one node, whatever else runs here."""
    with ray_environment():
        size = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20}
        ray.init("local", include_dashboard=False, **size)
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few lines, so that there are several shards."""
    for module in (corpus_module, extents_module):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1000)


def files_of(folder: FilePath) -> dict[str, bytes]:
    """The content of each file of a folder."""
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def empty(folder: FilePath) -> None:
    """Remove the files of a folder."""
    for path in [*folder.glob("*")]:
        path.unlink()


def write_remote(source: Path, name: str) -> str:
    """Copy a file into the bucket, and return its URL."""
    path = to_path(f"s3://{BUCKET}/in/{name}")
    path.write_bytes(source.read_bytes())
    return str(path)


@pytest.mark.slow
def test_an_encode_on_ray_writes_to_s3_what_one_process_writes_here(
    tmp_path: Path, server: LoopbackServer
) -> None:
    """From a source on S3; either resumes it, and both kinds of ingest load it."""
    source = write_lines(tmp_path / "passages.tsv")
    corpus = Corpus(write_remote(source, "passages.tsv"), max_line_bytes=500)
    rejects: list[Reject] = []
    encode_corpus(corpus, tmp_path / "here", encoder=HashingEncoder(), **ALONE)
    expected, folder = files_of(tmp_path / "here"), to_path(FOLDER)

    report = encode_dataset(
        corpus, FOLDER, make_encoder=HashingEncoder, on_reject=rejects.append, **ENCODE
    )
    assert expected == files_of(folder)
    assert report.rejected == len(rejects) > 0
    resume: list[Callable[[], EncodeReport]] = [
        lambda: encode_dataset(corpus, FOLDER, make_encoder=HashingEncoder, **ENCODE),
        lambda: encode_corpus(corpus, FOLDER, encoder=HashingEncoder(), **ALONE),
    ]
    for encode in resume:
        (folder / "00001.parquet").unlink()
        again = encode()
        assert 0 < again.encoded < again.found
        assert expected == files_of(folder)
    with LoopbackServer() as other:
        written = ingest_passages(VectorShards(FOLDER), other.url).written
        assert written == ingest_dataset(VectorShards(FOLDER), server.url, **ONE_CPU).written
        assert points(other.url) == points(server.url)
        assert report.encoded == written == len(points(server.url))
    empty(folder)


def test_shards_of_another_encode_are_refused(tmp_path: Path) -> None:
    """Another model, type or source, and a file that has been cut; nothing is changed."""
    source = write_lines(tmp_path / "passages.tsv", 100)
    corpus, folder = Corpus(source, max_line_bytes=500), to_path(FOLDER)
    encode_corpus(corpus, FOLDER, encoder=HashingEncoder(), **ALONE)
    before = files_of(folder)
    other = Corpus(write_lines(tmp_path / "other.tsv", 99), max_line_bytes=500)
    refused: list[tuple[type[Exception], Corpus, dict[str, Any]]] = [
        (ModelMismatchError, corpus, {"make_encoder": OtherEncoder}),
        (OutputError, corpus, {"dtype": "float32"}),
        (EncodeStoppedError, other, {}),
    ]
    for error, given, options in refused:
        with pytest.raises(error):
            encode_dataset(given, FOLDER, **{"make_encoder": HashingEncoder, **ENCODE, **options})
    assert before == files_of(folder)
    (folder / "00000.parquet").write_bytes(before["00000.parquet"][:-50])
    with pytest.raises(SourceError, match=f"{FOLDER}/00000.parquet cannot be read as Parquet"):
        VectorShards(FOLDER)
    empty(folder)


class OtherEncoder(HashingEncoder):
    """Another model."""

    def __init__(self) -> None:
        super().__init__(salt="other")


def test_sources_on_s3_are_split(tmp_path: Path, server: LoopbackServer) -> None:
    """Files that a pattern matches, in their order, by several workers and by one process."""
    first, second = write_lines(tmp_path / "1.tsv", 300), write_lines(tmp_path / "2.tsv", 400)
    for number, path in enumerate((first, second)):
        write_remote(path, f"part-{number}.tsv")
    pattern = f"s3://{BUCKET}/in/part-*.tsv"
    report = ingest_dataset(pattern, server.url, make_encoder=HashingEncoder, **ONE_CPU)
    with LoopbackServer() as other:
        expected = ingest_passages([first, second], other.url, encoder=HashingEncoder())
        assert points(other.url) == points(server.url)
    assert (expected.read, expected.written) == (report.read, report.written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "a.tsv", "--out", "s3://nowhere/a"], "no such bucket or folder"),
        (["ingest", "--vectors", "s3://nowhere/a"], "got no folder"),
        (["ingest", "s3://nowhere/a.tsv"], "no such file: s3://nowhere/a.tsv; check"),
        (["encode", "a.tsv", "--out", f"s3://id:{SECRET}@nowhere/a"], "must have no password"),
        (["ingest", "--vectors", f"s3://id:{SECRET}@nowhere/a"], "must have no password"),
        (["ingest", f"s3://id:{SECRET}@nowhere/a.tsv"], "must have no password"),
        (["ingest", "a.tsv", "--vectors", f"s3://id:{SECRET}@a/b"], "got both"),
    ],
)
def test_the_commands_refuse_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """A bucket that is missing, or a URL with a password, which is not shown."""
    monkeypatch.chdir(tmp_path)
    write_lines(Path("a.tsv"), 5)
    monkeypatch.setenv("MSMARCO_QDRANT_MODEL", "all-MiniLM-L6-v2")
    result = CliRunner().invoke(cli, arguments)
    assert 0 != result.exit_code
    shown = f"{result.output}{result.exception}"
    assert message in shown
    assert SECRET not in shown


def test_a_key_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of access has one line, without the key and its secret."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        for access in (
            lambda: VectorShards(FOLDER),
            lambda: Corpus(f"{FOLDER}/a.tsv"),
            lambda: encode_corpus([("1", "one")], FOLDER, encoder=HashingEncoder()),
        ):
            with pytest.raises(MsmarcoQdrantError, match=f"{FOLDER}.*: access denied") as caught:
                access()
            assert SECRET not in str(caught.value)
    s3fs.S3FileSystem.clear_instance_cache()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
