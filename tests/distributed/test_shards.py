"""Shards of an encode on Ray are those of an encode by one process; without Ray."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.core.reports import EncodeReport
from msmarco_qdrant.distributed.encode_worker import (
    EncodeJob,
    EncodeSettings,
    EncodeWorker,
    prepare_extent,
)
from msmarco_qdrant.distributed.files import open_files
from msmarco_qdrant.distributed.keys import KeyChunk, KeyReader, Repeats
from msmarco_qdrant.distributed.shards import ShardPlan, plan_shards
from msmarco_qdrant.distributed.shared_folder import marked
from msmarco_qdrant.distributed.splits import CountedSplit, lines_before
from msmarco_qdrant.encode.api import encode_corpus
from msmarco_qdrant.encode.feed import Layout
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.errors import ModelMismatchError, OutputError, SourceError, UsageError
from msmarco_qdrant.sources import chunk_extents as extents_module
from msmarco_qdrant.sources import corpus as corpus_module
from msmarco_qdrant.sources.chunk_extents import chunk_extents, read_chunks
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.sources.shard_file import MANIFEST
from msmarco_qdrant.testing import HashingEncoder
from tests.distributed.test_splits import MAKERS, csv, gzipped

LIMIT = 120  # bytes of a line, and so of a chunk
SHARD_CHUNKS = 3


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows make several chunks."""
    for module in (corpus_module, extents_module):
        monkeypatch.setattr(module, "CHUNK_BYTES", LIMIT)
        monkeypatch.setattr(module, "CHUNK_ROWS", 6)


def random_lines(path: Path, seed: int) -> Path:
    """Lines that repeat pids, are rejected, have no vector, or are empty, short and long."""
    rng = random.Random(seed)
    lines = []
    for number in range(150):
        kinds = ("no tab", f"{rng.randrange(60)}\tagain {number}", f"x{number}\t...", "", "\r")
        text = "long " * rng.choice([1, 5, 20, 24, 60])
        lines.append(rng.choice(kinds) if rng.random() < 0.4 else f"{number}\t{text}{number}")
    ends = "\n" if seed % 2 else ""
    path.write_bytes(b"\xef\xbb\xbf" * (seed % 3) + ("\n".join(lines) + ends).encode())
    return path


class Encode:
    """An encode as on Ray, its tasks one after the other in this process."""

    def __init__(self, paths: Sequence[Path], folder: Path) -> None:
        folder.mkdir()
        self.files = open_files(Corpus(paths, max_line_bytes=LIMIT))
        self.reading = self.files.reading
        chunks = [chunk for file in self.files.files for chunk in chunk_extents(file, self.reading)]
        self.plans = plan_shards(chunks, SHARD_CHUNKS, {})
        keys: list[KeyChunk] = []
        self.counts = []
        for plan in self.plans:
            reader = KeyReader(plan.split, self.reading, 1)
            keys.extend(reader.chunks())
            self.counts.append(reader.count())
        self.repeats = dict(Repeats.of(keys).by_split())
        splits = [plan.split for plan in self.plans]
        self.lines = lines_before(splits, self.counts)
        self.settings = EncodeSettings(self.reading, ModelChoice.of(None, None), HashingEncoder, 1)
        self.worker = EncodeWorker(self.settings)
        self.info, self.tokenizer = self.worker.load()
        with marked(folder) as marker:
            self.worker.begin(EncodeJob(self.info, Layout(folder, SHARD_CHUNKS, "float16"), marker))

    def counted(self, plan: ShardPlan) -> CountedSplit:
        """The rows of a shard, with what was counted."""
        number = plan.split.number
        repeats = self.repeats.get(number, np.empty(0, np.uint64))
        return CountedSplit(plan.split, self.lines[number], self.counts[number].rows, repeats)

    def run(self, plan: ShardPlan, *, prepared: bool) -> tuple[list[Reject], EncodeReport]:
        """Encode a shard, its chunks prepared by another process or by the worker."""
        counted = self.counted(plan)
        assert self.tokenizer is not None
        parts = [
            prepare_extent(extent, self.reading, before, self.tokenizer)
            for extent, before in counted.extents()
        ]
        *rejects, report = self.worker.run_split(plan, counted, *(parts if prepared else ()))
        assert isinstance(report, EncodeReport)
        found = [one for some in rejects if isinstance(some, list) for one in some]
        return found, report


def shards(folder: Path) -> dict[str, bytes]:
    """The content of each shard."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_shards_and_rejects_are_those_of_one_process(
    seed: int, prepared: bool, tmp_path: Path
) -> None:
    """Byte by byte, in any order: two files of lines with Parquet between them."""
    between = MAKERS[2](tmp_path)
    paths = [random_lines(tmp_path / "a", seed), between, random_lines(tmp_path / "b", seed + 1)]
    expected: list[Reject] = []
    report = encode_corpus(
        Corpus(paths, max_line_bytes=LIMIT),
        tmp_path / "one",
        encoder=HashingEncoder(),
        shard_chunks=SHARD_CHUNKS,
        workers=0,
        on_reject=expected.append,
    )
    encode = Encode(paths, tmp_path / "ray")
    order = random.Random(seed).sample(encode.plans, len(encode.plans))
    found = {plan.split.number: encode.run(plan, prepared=prepared) for plan in order}

    assert shards(tmp_path / "one") == shards(tmp_path / "ray")
    assert expected == [one for number in sorted(found) for one in found[number][0]]
    for name in ("encoded", "rejected", "tokens", "cut"):
        assert getattr(report, name) == sum(getattr(one, name) for _, one in found.values())


@pytest.mark.parametrize("make", [make for make in MAKERS if make not in (csv, gzipped)])
def test_extents_are_the_chunks_of_a_corpus(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Each gives one chunk, with the digest of the whole file's."""
    corpus = Corpus(make(tmp_path), max_line_bytes=LIMIT)
    (file,) = open_files(corpus).files
    lines, digests = 0, []
    for extent in chunk_extents(file, corpus.reading):
        (chunk,) = read_chunks(extent, corpus.reading, lines)
        digests.append(chunk.digest())
        if extent.kind == "lines":
            lines += Path(extent.path).read_bytes()[extent.start : extent.stop].count(b"\n")

    assert digests == [chunk.digest() for chunk in corpus.chunks()]


@pytest.mark.parametrize("make", [csv, gzipped])
def test_a_file_that_one_process_must_read_is_refused(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    """The error says what to do."""
    files = open_files(make(tmp_path))
    with pytest.raises(UsageError, match="decompress or convert it, or encode it without Ray"):
        list(chunk_extents(files.files[0], files.reading))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1\tone\n2\ttwo\n1\tone\n", "1\tone\n2 two 1 one  \n"),
        ("1\tone\n2\ttwo\n1\tone\n", "1\tone\n2\ttwo\n1 one\n"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_an_error(
    before: str, after: str, tmp_path: Path
) -> None:
    """A row less, or a repeat that is none; no shard is written."""
    path = tmp_path / "a.tsv"
    path.write_text(before)
    encode = Encode([path], tmp_path / "ray")
    path.write_text(after)
    with pytest.raises(SourceError, match="was changed while it was read"):
        encode.run(encode.plans[0], prepared=False)

    assert {} == shards(tmp_path / "ray")


@pytest.mark.parametrize("after", ["1\tone\n2\ttwo\n1\tsix\n", "1\tone\n"])
def test_a_file_that_changes_before_its_repeats_are_read_is_an_error(
    after: str, tmp_path: Path
) -> None:
    """Its rejects would be of other rows."""
    path = tmp_path / "a.tsv"
    path.write_text("1\tone\n2\ttwo\n1\tone\n")
    encode = Encode([path], tmp_path / "ray")
    plan, tokenizer = encode.plans[0], encode.tokenizer
    assert tokenizer is not None
    part = prepare_extent(plan.split.extents[0], encode.reading, 0, tokenizer)
    path.write_text(after)
    with pytest.raises(SourceError, match="once nothing writes to it"):
        [*encode.worker.run_split(plan, encode.counted(plan), part)]

    assert {} == shards(tmp_path / "ray")


def test_a_late_worker_leaves_the_folder_complete(tmp_path: Path) -> None:
    """One that the driver has lost may write a shard again after the end."""
    encode = Encode([random_lines(tmp_path / "a", 1)], tmp_path / "ray")
    manifest = tmp_path / "ray" / MANIFEST
    manifest.write_text("complete")
    encode.run(encode.plans[0], prepared=False)

    assert 1 == len(shards(tmp_path / "ray"))
    assert "complete" == manifest.read_text()


def test_a_folder_of_another_machine_is_refused(tmp_path: Path) -> None:
    """It has the same path, and would take shards that no other machine sees."""
    encode = Encode([random_lines(tmp_path / "a", 1)], tmp_path / "ray")
    with marked(tmp_path) as marker:
        job = EncodeJob(encode.info, Layout(tmp_path, SHARD_CHUNKS, "float16"), marker)
        encode.worker.begin(job)
        (tmp_path / marker.name).rename(tmp_path / "b")
        with pytest.raises(OutputError, match="is not the folder of the machine that began"):
            encode.worker.begin(job)


def test_a_machine_without_a_source_is_named(tmp_path: Path) -> None:
    """Also by a task that prepares chunks for a worker."""
    path = random_lines(tmp_path / "a", 0)
    encode = Encode([path], tmp_path / "vectors")
    path.unlink()
    with pytest.raises(SourceError, match=r"cannot read .*This is so on .*: pass files that every"):
        encode.run(encode.plans[0], prepared=True)


def test_a_model_of_another_machine_is_refused(tmp_path: Path) -> None:
    """It has the same name and other files: its vectors would be mixed with the others."""
    encode = Encode([random_lines(tmp_path / "a", 1)], tmp_path / "ray")
    late = EncodeWorker(replace(encode.settings, make_encoder=partial(HashingEncoder, 32)))
    with marked(tmp_path) as marker:
        job = EncodeJob(encode.info, Layout(tmp_path, SHARD_CHUNKS, "float16"), marker)
        with pytest.raises(ModelMismatchError, match="than the machine that loaded it first"):
            late.begin(job)


def test_existing_shards_keep_their_chunks(tmp_path: Path) -> None:
    """Missing ones fit between them, as in an encode by one process."""
    encode = Encode([random_lines(tmp_path / "a", 1)], tmp_path / "ray")
    chunks = [part for plan in encode.plans for part in plan.split.extents]
    plans = plan_shards(chunks, 4, {1: 2})

    assert [4, 2, 4, 4] == [plan.chunks for plan in plans][:4]
    assert chunks == [part for plan in plans for part in plan.split.extents]
