"""Passages into vectors on disk: files, rejects, and resuming."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msmarco_qdrant.core.encoder_types import EncodedBatch
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.reports import EncodeProgress, EncodeReport
from msmarco_qdrant.encode import api as encode_module
from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.encode.feed import Feed, Layout
from msmarco_qdrant.encode.run import EncodeRun
from msmarco_qdrant.encoding import Tokenized
from msmarco_qdrant.errors import (
    EncodeStoppedError,
    EncodingError,
    OutputError,
    SourceError,
    UsageError,
    WorkerError,
)
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.runtime.subprocesses import SubprocessIterator
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources import corpus as corpus_module
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.rejects import NO_VECTOR_REASON, RejectCount
from msmarco_qdrant.sources.shard_file import (
    MANIFEST,
    Manifest,
    VectorType,
    read_footer,
    read_manifest,
    shard_path,
    shard_paths,
)
from msmarco_qdrant.sources.vector_shards import VectorShards
from msmarco_qdrant.testing import HashingEncoder, HashingTokenizer
from tests.engines import new_store
from tests.vectors import table_of, vectors_of

ROWS = [
    Passage(str(number), f"passage {number} tells of word{number} and word{number * 7}")
    for number in range(40)
]
Feeder: TypeAlias = SubprocessIterator[Any]
LIMIT = 256  # bytes of a line, and so of a chunk: five rows or six


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows make several chunks."""
    monkeypatch.setattr(corpus_module, "CHUNK_BYTES", LIMIT)
    monkeypatch.setattr(corpus_module, "CHUNK_ROWS", 6)


def tsv_of(rows: Sequence[Passage]) -> str:
    """Rows as lines."""
    return "".join(f"{row.pid}\t{row.text}\n" for row in rows)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of forty passages."""
    path = tmp_path / "passages.tsv"
    path.write_text(tsv_of(ROWS))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where vectors go."""
    return tmp_path / "vectors"


def encode(
    source: Path | list[Path],
    folder: Path,
    encoder: HashingEncoder | None = None,
    shard_chunks: int = 1,
    **options: Any,
) -> EncodeReport:
    """Encode files in shards of one small chunk each."""
    rows, encoder = Corpus(source, max_line_bytes=LIMIT), encoder or HashingEncoder()
    return encode_corpus(rows, folder, encoder=encoder, shard_chunks=shard_chunks, **options)


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def counts(report: EncodeReport) -> tuple[int, int, int, int, int]:
    """Read, encoded, found, rejected and shards."""
    return report.read, report.encoded, report.found, report.rejected, report.shards


def table_on_disk(folder: Path) -> pa.Table:
    """All shards, one after the other."""
    return pa.concat_tables(
        [pq.read_table(path).replace_schema_metadata(None) for path in shard_paths(folder)]
    )


def pids_on_disk(folder: Path) -> list[str]:
    """The pids of all shards in order."""
    pids: list[str] = table_on_disk(folder)["pid"].to_pylist()
    return pids


class Stopping(HashingEncoder):
    """An encoder that fails at the nth call."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Encode, or fail."""
        self._left -= 1
        if self._left <= 0:
            raise EncodingError("out of memory")
        yield from super().encode_passages(passages)


class Meeting(HashingEncoder):
    """An encoder that begins a shard only together with another one."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self._barrier = barrier

    def encode_passages(self, passages: Tokenized) -> Iterator[EncodedBatch]:
        """Wait for the other one, then encode."""
        self._barrier.wait()
        yield from super().encode_passages(passages)


# ---- what is written -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_passage_is_on_disk_with_its_vector(
    tmp_path: Path,
    folder: Path,
    passages: Sequence[Passage],
    encoder: HashingEncoder,
    dtype: VectorType,
) -> None:
    """Pid, text, meta and digests in the source's order, and the encoder's numbers."""
    path = tmp_path / "passages.jsonl"
    rows = [{"pid": row.pid, "text": row.text, **row.meta} for row in passages]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = encode(path, folder, encoder, dtype=dtype)
    found = table_on_disk(folder)
    assert table_of(passages).to_pydict() == found.drop_columns(["vector"]).to_pydict()
    vectors = np.array(found["vector"].combine_chunks().flatten()).reshape(5, 64)
    assert dtype == vectors.dtype
    np.testing.assert_array_equal(vectors_of(passages, encoder).astype(dtype), vectors)
    assert (5, 5, 0, 0, len(shard_paths(folder))) == counts(report)
    assert sum(len(row.text.split()) for row in passages) == report.tokens


def test_with_many_cores_two_shards_are_encoded_at_once(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no core waits for the last batches of a shard; the order on disk is the source's."""
    monkeypatch.setattr(encode_module, "usable_cores", lambda: 8)
    encode(source, folder, Meeting(threading.Barrier(2, timeout=60)), shard_chunks=2)
    assert 4 == len(shard_paths(folder))
    assert [row.pid for row in ROWS] == pids_on_disk(folder)


def test_shards_cover_the_source_in_order(source: Path, folder: Path) -> None:
    """Each says which rows it covers; the manifest adds them up; nothing else is there."""
    encoder = HashingEncoder()
    report = encode(source, folder, encoder, shard_chunks=2)
    assert [row.pid for row in ROWS] == pids_on_disk(folder)
    headers = [read_footer(path).header for path in shard_paths(folder)]
    assert len(headers) > 3
    assert list(range(len(headers))) == [header.number for header in headers]
    assert {(2, 0, "float16")} == {(head.full, head.rejected, head.dtype) for head in headers}
    assert 40 == sum(header.rows for header in headers)
    assert {encoder.info} == {header.encoder for header in headers}
    expected = Manifest(len(headers), 40, 0, encoder.info.fingerprint, "float16")
    assert expected == read_manifest(folder)
    assert {path.name for path in [*shard_paths(folder), folder / MANIFEST]} == set(
        content_of(folder)
    )
    assert (40, 40, 0, 0, len(headers)) == counts(report)


def test_progress_after_each_shard(source: Path, folder: Path, tmp_path: Path) -> None:
    """It grows to the whole of the source; an iterable has no fraction."""
    seen: list[EncodeProgress] = []
    report = encode(source, folder, on_progress=seen.append)
    assert list(range(1, report.shards + 1)) == [progress.report.shards for progress in seen]
    assert sorted(progress.done for progress in seen) == [progress.done for progress in seen]
    fractions = [progress.fraction or 0.0 for progress in seen]
    assert sorted(fractions) == fractions
    assert (40, 1.0) == (seen[-1].done, fractions[-1])
    seen.clear()
    encode_corpus(ROWS, tmp_path / "rows", encoder=HashingEncoder(), on_progress=seen.append)
    assert [(18, None), (36, None), (40, None)] == [(item.done, item.fraction) for item in seen]


def test_the_form_of_a_source_does_not_matter(tmp_path: Path, source: Path) -> None:
    """TSV, JSON lines, Parquet, gzip, several files, and passages made in Python."""
    packed = tmp_path / "passages.tsv.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    lines = tmp_path / "passages.jsonl"
    lines.write_text("".join(json.dumps({"pid": r.pid, "text": r.text}) + "\n" for r in ROWS))
    columns = tmp_path / "passages.parquet"
    pq.write_table(
        pa.table({"pid": [r.pid for r in ROWS], "text": [r.text for r in ROWS]}), columns
    )
    first, second = tmp_path / "first.tsv", tmp_path / "second.tsv"
    first.write_text(tsv_of(ROWS[:13]))
    second.write_text(tsv_of(ROWS[13:]))
    encode(source, tmp_path / "tsv")
    expected = table_on_disk(tmp_path / "tsv").to_pydict()
    sources: list[Path | list[Path]] = [packed, lines, columns, [first, second]]
    for number, other in enumerate(sources):
        folder = tmp_path / str(number)
        assert 40 == encode(other, folder).encoded
        assert expected == table_on_disk(folder).to_pydict()
        again = encode(other, folder)
        assert (0, 40) == (again.encoded, again.found)
    assert content_of(tmp_path / "tsv") == content_of(tmp_path / "0")
    encoder = HashingEncoder()
    report = encode_corpus(iter(ROWS), tmp_path / "rows", encoder=encoder, shard_chunks=2)
    assert (40, 40, 0, 0, 4) == counts(report)
    assert expected == table_on_disk(tmp_path / "rows").to_pydict()


@pytest.mark.parametrize("content", ["", "\n\n\n"])
def test_an_empty_source_makes_a_folder_without_a_passage(
    tmp_path: Path, folder: Path, content: str
) -> None:
    """It is complete; a run again finds it so, and to load it says that it holds nothing."""
    source = tmp_path / "empty.tsv"
    source.write_text(content)
    shards = 1 if content else 0
    for _ in range(2):
        assert (0, 0, 0, 0, shards) == counts(encode(source, folder))
        manifest = read_manifest(folder)
        assert manifest is not None
        assert (shards, 0) == (manifest.shards, manifest.passages)
    if not content:
        with pytest.raises(SourceError, match="holds no shards: its source was empty"):
            VectorShards(folder)


@pytest.mark.slow
@pytest.mark.parametrize("as_iterable", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_processes_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_iterable: bool
) -> None:
    """As a thread does, with the same rejects; and they go on where that stopped."""
    monkeypatch.undo()  # theirs is the usual size
    rows = [Passage(str(number % 9000), f"{'word ' * 50}{number}") for number in range(10_000)]
    rows[7777] = Passage("bad", "???")
    path = tmp_path / "many.tsv"
    path.write_text(tsv_of(rows) + "no tab\n")
    source = rows if as_iterable else path
    rejects: dict[int, list[Reject]] = {0: [], 2: []}
    for workers, found in rejects.items():
        encode_corpus(
            source,
            tmp_path / str(workers),
            encoder=HashingEncoder(),
            shard_chunks=1,
            workers=workers,
            on_reject=found.append,
        )
    assert 1001 + (not as_iterable) == len(rejects[0])
    assert rejects[0] == rejects[2]
    expected = content_of(tmp_path / "0")
    assert len(expected) > 3
    assert expected == content_of(tmp_path / "2")
    shard_path(tmp_path / "2", 1).unlink()
    encode_corpus(source, tmp_path / "2", encoder=HashingEncoder(), workers=2)
    assert expected == content_of(tmp_path / "2")


# ---- rejects ---------------------------------------------------------------------------------


def test_rejects_have_file_line_and_row(tmp_path: Path, folder: Path) -> None:
    """The other rows are written; a second run does not report them again."""
    source = tmp_path / "mixed.tsv"
    bad = [b"no tab", b"2\t\xff\xfe", b"3\t ", b"4\t" + b"x" * 300, b"5\t???", b"1\tagain"]
    source.write_bytes(b"\n".join([b"1\tlondon", *bad, b"6\tparis"]))
    rejects: list[Reject] = []
    report = encode(source, folder, on_reject=rejects.append)
    assert ["1", "6"] == pids_on_disk(folder)
    assert (8, 2, 0, 6, report.shards) == counts(report)
    by_line = {reject.line: reject for reject in rejects}
    assert [2, 3, 4, 5, 6, 7] == sorted(by_line)
    assert bad == [by_line[line].raw for line in sorted(by_line)]
    assert {str(source)} == {reject.source for reject in rejects}
    reasons = [by_line[line].reason for line in sorted(by_line)]
    words = [
        "no tab",
        "not UTF-8",
        "empty",
        "at most 256 bytes, got 302",
        NO_VECTOR_REASON,
        "pid '1' was read before",
    ]
    assert words == [word for word, reason in zip(words, reasons, strict=True) if word in reason]
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (2, 6) == (manifest.passages, manifest.rejected)
    again = encode(source, folder, on_reject=rejects.append)
    assert (8, 0, 2, 6) == counts(again)[:4]
    assert 6 == len(rejects)


def test_rows_made_in_python_are_checked(folder: Path) -> None:
    """As lines are; an integer as pid becomes its digits."""
    rows: list[Passage | Reject] = [
        Passage(1, "one"),  # type: ignore[arg-type]
        Passage("2", ""),
        Passage("3", "three", {"x": float("nan")}),
        Reject("elsewhere", 7, "spoiled", b"raw", 3),
        Passage("1", "again", {"n": 1}),
        Passage("4", "!!!"),
    ]
    rejects: list[Reject] = []
    report = encode_corpus(rows, folder, encoder=HashingEncoder(), on_reject=rejects.append)
    assert ["1"] == pids_on_disk(folder)
    assert (6, 1, 0, 5, 1) == counts(report)
    assert rows[3] in rejects
    assert b'{"pid": "1", "text": "again", "meta": {"n": 1}}' in [row.raw for row in rejects]


@pytest.mark.parametrize(
    ("first", "repeated"),
    [(ROWS[0], Passage("0", "another text")), (Passage("a", "???"), Passage("a", "has words"))],
    ids=["written", "without a vector"],
)
def test_the_first_of_a_repeated_pid_wins_across_shards(
    tmp_path: Path, folder: Path, first: Passage, repeated: Passage
) -> None:
    """Also if its text has no vector, or its shard was written by an earlier run."""
    source, rejects = tmp_path / "repeats.tsv", list[Reject]()
    source.write_text(tsv_of([first, *ROWS[1:], repeated, Passage("last", "the end")]))
    encode(source, folder)
    whole = content_of(folder)
    shard_paths(folder)[-1].unlink()
    encode(source, folder, on_reject=rejects.append)
    assert whole == content_of(folder)
    reason = f"pid '{first.pid}' was read before in this run; the first one is used"
    assert [(41, reason)] == [(reject.line, reject.reason) for reject in rejects]
    written = [row.pid for row in (first, *ROWS[1:]) if row.text != "???"]
    assert [*written, "last"] == pids_on_disk(folder)


def test_a_shard_may_hold_no_passage(tmp_path: Path, folder: Path) -> None:
    """All rows that it covers were rejected; the folder is complete and can be loaded."""
    source = tmp_path / "mixed.tsv"
    source.write_text("no tab here, nor there\n" * 30 + tsv_of(ROWS[:3]))
    report = encode(source, folder)
    assert (33, 3, 0, 30) == counts(report)[:4]
    assert 0 == pq.read_metadata(shard_path(folder, 0)).num_rows
    assert 3 == len(list(VectorShards(folder)))


# ---- going on --------------------------------------------------------------------------------


@pytest.mark.parametrize("missing_shards", [[0], [3], [-1], [1, 4], [-2, -1]])
def test_only_missing_shards_are_encoded(
    source: Path, folder: Path, missing_shards: list[int]
) -> None:
    """The folder ends as it was."""
    encode(source, folder)
    whole = content_of(folder)
    paths = [shard_paths(folder)[index] for index in missing_shards]
    missing = sum(pq.read_metadata(path).num_rows for path in paths)
    for path in paths:
        path.unlink()
    with pytest.raises(SourceError, match="encode again"):
        VectorShards(folder)
    encoder = HashingEncoder()
    # Theirs is the size of a shard that counts, not what is asked for now.
    report = encode(source, folder, encoder, shard_chunks=5)
    assert missing == encoder.encoded == report.encoded
    assert (40, 40 - missing, 0) == (report.read, report.found, report.rejected)
    assert whole == content_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_encoder_that_fails_stops_the_run(
    source: Path, folder: Path, tmp_path: Path, at: int
) -> None:
    """What came before it is there, and the report tells; the same again goes on."""
    with pytest.raises(EncodeStoppedError, match="out of memory") as caught:
        encode(source, folder, Stopping(at))
    assert not (folder / MANIFEST).exists()
    kept = shard_paths(folder)
    written = sum(pq.read_metadata(path).num_rows for path in kept)
    assert (written, len(kept)) == (caught.value.report.encoded, caught.value.report.shards)
    advice = f"({written:,} passages were written; run the same encode again to resume)"
    assert (written > 0) == (advice in str(caught.value))
    encoder = HashingEncoder()
    encode(source, folder, encoder)
    assert 40 - written == encoder.encoded
    encode(source, tmp_path / "whole")
    assert content_of(tmp_path / "whole") == content_of(folder)


def test_an_interruption_leaves_what_is_written(source: Path, folder: Path, tmp_path: Path) -> None:
    """As of Ctrl-C; an older manifest is gone with the first shard that is made anew."""
    encode(source, folder)
    for path in shard_paths(folder)[2:]:
        path.unlink()

    def interrupt(progress: EncodeProgress) -> None:
        if progress.report.shards == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(source, folder, on_progress=interrupt)
    assert 4 == len(shard_paths(folder))
    assert not (folder / MANIFEST).exists()
    with pytest.raises(SourceError, match="is not complete: 4 shards, but no manifest"):
        VectorShards(folder)
    encode(source, folder)
    encode(source, tmp_path / "whole")
    assert content_of(tmp_path / "whole") == content_of(folder)


# ---- what is refused -------------------------------------------------------------------------


def refused(source: Path, folder: Path, **options: Any) -> str:
    """The message of a run that is refused, and leaves all as it was."""
    before = content_of(folder)
    encoder = HashingEncoder()
    with pytest.raises(EncodeStoppedError) as caught:
        encode(source, folder, **{"encoder": encoder, **options})
    assert before == content_of(folder)
    assert 0 == encoder.encoded
    return str(caught.value)


def test_a_changed_source_is_refused(source: Path, folder: Path) -> None:
    """By the first shard that does not fit, and what to do."""
    encode(source, folder)
    source.write_text(tsv_of([*ROWS[:10], Passage("10", "now it is another"), *ROWS[11:]]))
    message = refused(source, folder)
    assert f"{shard_path(folder, 1)} was encoded from other rows" in message
    assert "Pass another directory, or delete this file and all later ones" in message
    for path in shard_paths(folder)[1:]:
        path.unlink()
    assert 40 == encode(source, folder).read
    assert "now it is another" in table_on_disk(folder)["text"].to_pylist()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"encoder": HashingEncoder(salt="v2")},
            ["holds vectors of costless-64 (64", "costless-64v2 (64", "pass model=costless-64, or"],
        ),
        (
            {"dtype": "float32"},
            ["holds vectors of float16, this encode writes float32", "pass dtype=float16, or"],
        ),
    ],
    ids=["model", "dtype"],
)
def test_other_vectors_are_refused(
    source: Path, folder: Path, options: dict[str, object], parts: list[str]
) -> None:
    """The error names the file, both models or types, and the next step."""
    encode(source, folder)
    message = refused(source, folder, **options)
    for part in (f"{shard_path(folder, 0)} holds", *parts):
        assert part in message


@pytest.mark.parametrize("missing", [[], [0], [0, 1]])
def test_a_shard_of_a_longer_source_is_refused(
    tmp_path: Path, source: Path, folder: Path, missing: list[int]
) -> None:
    """With or without the shards before it; the longer source itself needs only its last shard."""
    more = tmp_path / "more.tsv"
    more.write_text("more\ta passage more\n")
    encode(source, folder)
    shards = len(shard_paths(folder))
    encode([source, more], folder)
    for number in missing:
        shard_path(folder, number).unlink()
    with pytest.raises(EncodeStoppedError) as caught:
        encode(source, folder)
    beyond = shard_path(folder, shards)
    assert f"{beyond} is after the {shards} shards of this source" in str(caught.value)
    assert "Delete it, or pass another directory" in str(caught.value)
    beyond.unlink()
    encode(source, folder)
    assert 40 == len(list(VectorShards(folder)))
    encoder = HashingEncoder()
    assert (41, 1, 40, 0) == counts(encode([source, more], folder, encoder))[:4]
    assert 1 == encoder.encoded


def test_a_shard_beyond_a_gap_is_refused(tmp_path: Path, source: Path, folder: Path) -> None:
    """Though fewer files are there than the source has shards."""
    encode(source, folder)
    next_one = shard_path(folder, len(shard_paths(folder)))
    more = [tmp_path / "more.tsv", tmp_path / "most.tsv"]
    for file in more:
        file.write_text(f"{file.name}\ta passage more\n")
    encode([source, *more], folder)
    beyond = shard_paths(folder)[-1]
    for path in [next_one, *shard_paths(folder)[:4]]:
        path.unlink()
    with pytest.raises(EncodeStoppedError) as caught:
        encode(source, folder)
    assert f"{beyond} is after the 7 shards of this source" in str(caught.value)
    assert not (folder / MANIFEST).exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"1\ttext\n"),
    ],
    ids=["cut off", "empty", "no Parquet"],
)
def test_a_damaged_shard_is_refused(
    source: Path, folder: Path, spoil: Callable[[Path], object]
) -> None:
    """With the advice that helps."""
    encode(source, folder)
    whole, path = content_of(folder), shard_path(folder, 3)
    spoil(path)
    message = refused(source, folder)
    assert f"{path} cannot be read as Parquet" in message
    assert "delete it and run the same encode again" in message
    path.unlink()
    encode(source, folder)
    assert whole == content_of(folder)


def test_a_source_that_breaks_off_stops_the_run(folder: Path) -> None:
    """What came before is there."""

    def rows() -> Iterator[Passage]:
        yield from ROWS[:24]
        raise SourceError("the connection is gone")

    with pytest.raises(EncodeStoppedError, match="the connection is gone") as caught:
        encode_corpus(rows(), folder, encoder=HashingEncoder(), shard_chunks=1)
    assert caught.value.report.shards == len(shard_paths(folder))
    encode_corpus(ROWS, folder, encoder=HashingEncoder())
    assert [row.pid for row in ROWS] == pids_on_disk(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype must be float16 or float32, got 'int8'"),
        ({"shard_chunks": 0}, "shard_chunks must be 1 or more, got 0"),
        ({"workers": -1}, "workers must be 0 or more, got -1"),
    ],
)
def test_invalid_options_are_refused(
    source: Path, folder: Path, options: dict[str, object], message: str
) -> None:
    """Before a folder is made."""
    with pytest.raises(UsageError, match=message):
        encode_corpus(source, folder, encoder=HashingEncoder(), **options)  # type: ignore[arg-type]
    assert not folder.exists()


def test_a_source_of_something_else_is_refused(folder: Path) -> None:
    """It names what came instead of a passage."""
    with pytest.raises(EncodeStoppedError, match=r"must yield Passage values, .*, got an int"):
        encode_corpus([1, 2], folder, encoder=HashingEncoder())  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="no such file"):
        encode_corpus(folder / "nowhere.tsv", folder, encoder=HashingEncoder())
    assert [] == list(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error(source: Path) -> None:
    """The error names it."""
    with pytest.raises(OutputError, match=r"cannot write in the directory .*passages\.tsv"):
        encode_corpus(source, source, encoder=HashingEncoder())


class Loading(HashingEncoder):
    """An encoder that does something with its feed while it is loaded."""

    def __init__(self, feeders: list[Feeder], action: Callable[[Feeder], object]) -> None:
        super().__init__()
        self._feeders, self._action = feeders, action

    def warm_up(self) -> None:
        """Do it with the only process that feeds it."""
        (feeder,) = self._feeders
        self._action(feeder)


@pytest.fixture
def feeders(monkeypatch: pytest.MonkeyPatch) -> list[Feeder]:
    """The processes that feed an encode, in the order in which they start."""
    started: list[Feeder] = []

    def start(feed: Feed) -> Feeder:
        started.append(SubprocessIterator(feed))
        return started[-1]

    monkeypatch.setattr(encode_module, "SubprocessIterator", start)
    return started


def test_the_first_shard_is_tokenized_while_the_model_is_loaded(
    source: Path, folder: Path, feeders: list[Feeder]
) -> None:
    """An encoder that waits for it while it is loaded does not wait forever."""
    encoder = Loading(feeders, SubprocessIterator.wait_for_item)
    assert 40 == encode(source, folder, encoder, workers=1).encoded


def test_a_model_that_cannot_run_leaves_no_process(
    source: Path, folder: Path, feeders: list[Feeder]
) -> None:
    """Its own error is raised, and no folder is made."""

    def refuse(feeder: Feeder) -> None:
        assert feeder._process.poll() is None
        raise UsageError("precision must be float32")

    with pytest.raises(UsageError, match="precision must be float32"):
        encode(source, folder, Loading(feeders, refuse), workers=1)
    assert feeders[0]._process.poll() is not None
    assert not folder.exists()


def test_a_feed_that_ends_while_the_model_is_loaded_is_an_error(
    source: Path, folder: Path, feeders: list[Feeder]
) -> None:
    """As one that ends before its first shard."""
    encoder = Loading(feeders, lambda feeder: feeder._process.kill())
    with pytest.raises(WorkerError, match="a subprocess ended with status -9"):
        encode(source, folder, encoder, workers=1)
    assert 0 == encoder.encoded


class OneProcessTokenizer(HashingTokenizer):
    """A tokenizer that cannot be pickled."""

    portable = property(lambda _: False)


def test_a_tokenizer_that_cannot_be_sent_stays_in_this_process(source: Path, folder: Path) -> None:
    """Worker processes are refused with the way out; by default there are none."""
    encoder = HashingEncoder()
    encoder._tokenizer = OneProcessTokenizer(encoder._tokenizer.salt)
    with pytest.raises(UsageError, match="pass workers=0"):
        encode_corpus(source, folder, encoder=encoder, workers=2)
    assert 40 == encode_corpus(source, folder, encoder=encoder).encoded


# ---- and into a store ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_encoded_is_found(
    tmp_path: Path, source: Path, folder: Path, encoder: HashingEncoder, dtype: VectorType
) -> None:
    """Loaded into a store without the encoder, each passage answers for its own words."""
    encode(source, folder, encoder, dtype=dtype)
    with new_store("memory", tmp_path) as store:
        report = ingest_passages(VectorShards(folder), store)
        assert (40, 40, 0, 0) == (report.read, report.written, report.rejected, report.encoded)
        unchanged = ingest_passages(Corpus(source), store, encoder=encoder)
        assert (40, 0) == (unchanged.unchanged, unchanged.encoded)
        with SearchClient.open(store, encoder=encoder) as client:
            answers = client.search_many([row.text for row in ROWS], limit=1)
    assert [row.pid for row in ROWS] == [answer[0].pid for answer in answers]


@pytest.mark.parametrize("at", [2, 4])
def test_an_error_counts_the_shard_that_is_being_written(folder: Path, at: int) -> None:
    """On a GPU, where a shard is written while the next one is encoded."""
    layout, encoder = Layout(folder, 1, "float32"), Stopping(at)
    folder.mkdir(exist_ok=True)
    run = EncodeRun(encoder, encoder.info, layout, None, 2, RejectCount(None), None)
    with pytest.raises(EncodingError, match="out of memory"):
        run.run(Feed(ROWS, layout, encoder.info, encoder.tokenizer, 0))
    kept = [read_footer(path).passages for path in shard_paths(folder)]
    assert (run.report().encoded, run.report().shards) == (sum(kept), len(kept))
