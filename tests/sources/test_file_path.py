"""Folders of vectors and sources behind URLs, over the in-memory file system of fsspec."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.errors import (
    EncodeStoppedError,
    MissingExtraError,
    ModelMismatchError,
    OutputError,
    SourceError,
    UsageError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.file_path import (
    FilePath,
    RemotePath,
    make_folder,
    require_path_here,
    to_path,
    write_whole,
)
from msmarco_qdrant.sources.preview import preview_sources
from msmarco_qdrant.sources.shard_file import MANIFEST, read_manifest, shard_paths
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.vectors import write_folder

FOLDER = "memory://bucket/vectors"


class MeetingFiles(MemoryFileSystem):  # type: ignore[misc]
    """The file system in memory, whose Parquet files open once three of them are being opened."""

    protocol = "meeting"
    opening = threading.Barrier(3)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("meeting://")))

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        if path.endswith(".parquet"):
            self.opening.wait(60)
        return super()._open(path, *args, **options)


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    """An empty file system in memory."""
    yield
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]


class FailingFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system whose every call raises `error`."""

    protocol = "failing"
    cachable = False
    error: BaseException

    def info(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Raise."""
        raise self.error

    ls = _open = pipe_file = rm_file = info


class CutFiles(FailingFiles):
    """A file system whose files can be opened, and then not be read."""

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return a file of ten bytes."""
        return {"name": path, "size": 10, "type": "file"}

    def _open(self, path: str, *_: Any, **__: Any) -> Any:  # noqa: ARG002
        error = self.error

        class Cut(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002
                raise error

        return Cut()


def files_of(folder: FilePath) -> dict[str, bytes]:
    """The content of each file of a folder, hidden ones as well."""
    return {path.name: path.read_bytes() for path in folder.glob("*")}


# ---- paths -----------------------------------------------------------------------------------


def test_urls_and_paths_are_told_apart(tmp_path: Path) -> None:
    """A URL loses the slash at its end; one of a local file is its path."""
    path = to_path("MEMORY://bucket/a/b/")
    assert RemotePath("memory://bucket/a/b") == path
    assert ("b", "memory://bucket/a") == (path.name, str(path.parent))
    assert tmp_path == to_path(str(tmp_path)) == to_path(tmp_path.as_uri())
    assert Path("c:/vectors") == to_path("c:/vectors")
    assert Path("c://vectors") == to_path("c://vectors")


def test_urls_of_this_machine_are_paths() -> None:
    """A file's name may have any character; a host would be taken for a folder."""
    assert Path("/a b/c#d?e") == to_path("file:///a%20b/c#d?e") == to_path("local:///a b/c#d?e")
    assert Path("/a") == to_path("file://localhost/a") == require_path_here("/a")
    with pytest.raises(UsageError, match=r"must have three slashes, got file://data/x\.tsv"):
        to_path("file://data/x.tsv")


@pytest.mark.parametrize("url", ["s3:/bucket/a", Path("s3://bucket/a"), "s3://", "s3:///"])
def test_urls_that_are_not_whole(url: str | Path) -> None:
    """They would be a folder of this machine named "s3:", or fail in the library's words."""
    with pytest.raises(UsageError, match="a URL must"):
        to_path(url)


@pytest.mark.parametrize("url", ["s3://bucket/SESAME", "s3:/bucket/SESAME"])
def test_a_url_where_a_path_is_needed(url: str) -> None:
    """No folder named "s3:" is made of it."""
    with pytest.raises(UsageError, match="URL") as caught:
        require_path_here(url)
    assert "SESAME" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:SESAME@bucket/a", "must have no password"),
        ("https://host/a?signature=SESAME", "must have no password"),
        ("zip://SESAME::s3://bucket/a", "must have no password"),
        (Path("s3://key:SESAME@bucket/a"), "two slashes, got a Path: pass 's3://...'"),
    ],
)
def test_urls_with_secrets_are_refused(url: str | Path, message: str) -> None:
    """Without showing them, since a path is shown in messages, logs and rejects."""
    for read in (to_path, Corpus, preview_sources):
        with pytest.raises(UsageError, match=message) as caught:
            read(url)
        assert "SESAME" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nothing://a", UsageError, "got the unknown scheme 'nothing'"),
        ("oci://a/b", UsageError, "oci://a/b.* needs another package: Install ocifs"),
    ],
)
def test_unknown_schemes_and_missing_libraries(
    url: str, error: type[Exception], message: str
) -> None:
    """One line that says what is known, or what to install, before a model is loaded."""
    with pytest.raises(error, match=message):
        encode_corpus([("1", "one")], url, model="none")
    with pytest.raises(error, match=message):
        VectorShards(url)
    with pytest.raises(error, match=message):
        Corpus(f"{url}/a.tsv")


def test_s3_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without s3fs, the message has the command that installs it."""

    def missing(scheme: str) -> None:
        raise ImportError(f"Install s3fs to access {scheme}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    sent = RemotePath("s3://bucket/a")  # by another machine, which has it
    for use in (lambda: to_path("s3://bucket/a"), sent.exists, sent.read_bytes):
        with pytest.raises(MissingExtraError, match=r"pip install 'msmarco-qdrant\[s3\]'"):
            use()


# ---- errors ----------------------------------------------------------------------------------


CALLS: dict[str, Callable[[FilePath], object]] = {
    "list": shard_paths,
    "read": read_manifest,
    "open": lambda folder: folder.open("rb"),
    "status": lambda folder: folder.exists(),
    "write": lambda folder: folder.write_bytes(b""),
    "probe": make_folder,
    "remove": lambda folder: folder.unlink(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError("Forbidden"), "access denied; check the credentials in the environment"),
        (RuntimeError("at https://me:SESAME@host/a?key=SESAME\nno"), "at https://host/a no"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_errors_of_libraries_are_mapped(
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[FilePath], object],
    error: Exception,
    message: str,
) -> None:
    """Each in one line that names the URL and shows no secret."""
    fsspec.register_implementation("failing", FailingFiles, clobber=True)
    monkeypatch.setattr(FailingFiles, "error", error, raising=False)
    with pytest.raises((OutputError, SourceError), match=f"failing://folder.*{message}") as caught:
        call(to_path("failing://folder"))
    assert "SESAME" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_bucket_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not made: its name may be a mistake."""
    fsspec.register_implementation("failing", FailingFiles, clobber=True)
    monkeypatch.setattr(FailingFiles, "error", FileNotFoundError("no bucket"), raising=False)
    with pytest.raises(OutputError, match="cannot write failing://a: no such bucket or folder"):
        make_folder(to_path("failing://a"))
    with pytest.raises(SourceError, match=r"failing://a must be a DIR .* got no folder"):
        VectorShards("failing://a")


def test_a_connection_that_breaks_while_a_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the same when a library of Parquet reads."""
    fsspec.register_implementation("cut", CutFiles, clobber=True)
    monkeypatch.setattr(FailingFiles, "error", ConnectionError("reset"), raising=False)
    with pytest.raises(SourceError, match=r"cannot read cut://a/x\.tsv: reset"):
        list(Corpus("cut://a/x.tsv"))


def test_a_file_that_was_removed_after_it_was_listed() -> None:
    """The libraries of some URLs give no number of the error, only a text."""
    path = to_path(FOLDER) / "gone.tsv"
    path.write_bytes(b"a\tone\n")
    corpus = Corpus(str(path))
    path.unlink()
    with pytest.raises(SourceError, match=f"cannot read {path}: .*gone.tsv"):
        list(corpus)


class UnsizedFiles(FailingFiles):
    """A file system that reports no sizes, as a server of HTTP that compresses what it sends."""

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return a file of an unknown size."""
        return {"name": path, "size": None, "type": "file"}


def test_a_file_of_unknown_size_is_refused() -> None:
    """With a size of 0 no part of it would be read, and nothing would be ingested."""
    fsspec.register_implementation("unsized", UnsizedFiles, clobber=True)
    with pytest.raises(
        SourceError, match=r"unsized://a/x\.tsv: its server does not report the size"
    ):
        Corpus("unsized://a/x.tsv")


def test_a_file_is_no_folder() -> None:
    """File systems list a file as its own content."""
    path = to_path(FOLDER) / "00000.parquet"
    path.write_bytes(b"x")
    assert [] == shard_paths(path)
    with pytest.raises(SourceError, match=r"00000.parquet must be a DIR .* got no folder"):
        VectorShards(str(path))
    with pytest.raises(OutputError, match=r"00000\.parquet is a file: pass a folder"):
        make_folder(path)


def test_a_file_appears_when_it_is_complete() -> None:
    """One whose writer fails leaves what was there."""
    path = to_path(FOLDER) / "file"
    with write_whole(path) as file:
        file.write(b"old")
    with suppress(ValueError), write_whole(path) as file:
        file.write(b"new")
        raise ValueError
    assert b"old" == path.read_bytes()


# ---- vectors ---------------------------------------------------------------------------------


def test_an_encode_behind_a_url_is_that_of_a_path(tmp_path: Path) -> None:
    """Byte by byte; it is resumed, completes what is missing, and is loaded as one."""
    passages = [(str(n), f"passage number {n}") for n in [*range(3000), 7]]
    options: dict[str, Any] = {"encoder": HashingEncoder(), "workers": 0, "shard_chunks": 1}
    report = encode_corpus(passages, tmp_path / "here", **options)
    expected = files_of(tmp_path / "here")

    assert 4 == len(expected)
    encode_corpus(passages, f"{FOLDER}/", **options)
    assert expected == files_of(to_path(FOLDER))
    (to_path(FOLDER) / "00001.parquet").unlink()
    (to_path(FOLDER) / ".00001.parquet.0badc0de.tmp").write_bytes(b"left by a killed run")
    again = encode_corpus(passages, FOLDER, **options)
    assert (1024, report.encoded - 1024) == (again.encoded, again.found)
    assert expected == files_of(to_path(FOLDER))
    with open_store(":memory:", create=True) as store:
        assert report.encoded == ingest_passages(VectorShards(FOLDER), store).written


def test_an_encode_behind_a_url_refuses_another() -> None:
    """Another model, source or type of vectors; and what is not complete is not loaded."""
    passages = [(str(n), f"passage number {n}") for n in range(1500)]
    options: dict[str, Any] = {"workers": 0, "shard_chunks": 1}
    encode_corpus(passages, FOLDER, encoder=HashingEncoder(), **options)
    before = files_of(to_path(FOLDER))
    others: list[tuple[type[Exception], Any, dict[str, Any]]] = [
        (ModelMismatchError, passages, {"encoder": HashingEncoder(dimension=32)}),
        (OutputError, passages, {"encoder": HashingEncoder(), "dtype": "float32"}),
        (OutputError, passages[1:], {"encoder": HashingEncoder()}),
    ]
    for error, source, more in others:
        with pytest.raises(EncodeStoppedError) as caught:
            encode_corpus(source, FOLDER, **options, **more)
        assert isinstance(caught.value.__cause__, error)
    assert before == files_of(to_path(FOLDER))
    half = to_path(FOLDER) / "00001.parquet"
    half.write_bytes(half.read_bytes()[:-100])
    with pytest.raises(SourceError, match=f"{FOLDER}/00001.parquet cannot be read as Parquet"):
        VectorShards(FOLDER)
    (to_path(FOLDER) / MANIFEST).unlink()
    with pytest.raises(SourceError, match=f"{FOLDER} is not complete: 2 shards"):
        VectorShards(FOLDER)


# ---- sources ---------------------------------------------------------------------------------


def test_sources_behind_urls_are_read() -> None:
    """Lines, compressed ones and Parquet; a pattern stands for the files that it matches."""
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, parquet = to_path("memory://bucket/in"), io.BytesIO()
    pq.write_table(pa.table({"pid": ["c"], "text": ["three"]}), parquet)
    (folder / "part-1.tsv").write_bytes(b"a\tone\n")
    (folder / "part-2.tsv").write_bytes(gzip.compress(b"b\ttwo\n"))
    (folder / "part-3.tsv").write_bytes(parquet.getvalue())
    (folder / "other.tsv").write_bytes(b"d\tfour\n")

    corpus = Corpus([f"{folder}/part-*.tsv", f"{folder}/other.tsv"])
    rows: list[Any] = list(corpus)
    assert ["a", "b", "c", "d"] == [row.pid for row in rows]
    assert f"{folder}/part-1.tsv" == rows[0].source
    previews = preview_sources([f"{folder}/part-*.tsv", f"{folder}/none-*"])
    assert [1, 1, 1, 0] == [preview.passages for preview in previews]
    assert f"no file matches {folder}/none-*" in str(previews[-1].error)
    (folder / "part[1].tsv").write_bytes(b"e\tfive\n")
    assert [f"{folder}/part[1].tsv"] == Corpus(f"{folder}/part[1].tsv").sources
    for pattern, message in (("none-*", "no file matches"), ("none", "no such file: mem")):
        with pytest.raises(SourceError, match=message):
            Corpus(f"{folder}/{pattern}")
    with pytest.raises(SourceError, match="is a directory: pass the files in it"):
        Corpus(str(folder))


def test_the_shards_of_a_folder_are_opened_at_once(
    tmp_path: Path, passages: Sequence[Passage]
) -> None:
    """One after the other, each would wait for its answers."""
    fsspec.register_implementation("meeting", MeetingFiles, clobber=True)
    folder = to_path(FOLDER)
    for path in write_folder(tmp_path / "vectors", passages, HashingEncoder()).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    shards = VectorShards(FOLDER.replace("memory", "meeting"))
    assert (3, 5) == (len(shards.paths), shards.size)
