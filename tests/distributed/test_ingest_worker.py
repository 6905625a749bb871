"""A worker ingests splits as one process ingests the whole; without Ray."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest

from msmarco_qdrant.core.records import Reject
from msmarco_qdrant.distributed.counting import CountedSource
from msmarco_qdrant.distributed.files import SourceFiles, open_files
from msmarco_qdrant.distributed.ingest_run import DistributedIngest
from msmarco_qdrant.distributed.ingest_worker import (
    IngestJob,
    IngestSettings,
    IngestWorker,
    SplitOutcome,
)
from msmarco_qdrant.distributed.keys import KeyChunk, KeyReader, Repeats
from msmarco_qdrant.distributed.split_files import SplitFiles
from msmarco_qdrant.distributed.splits import CountedSplit, Split, lines_before, plan_splits
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.encoding.model_choice import ModelChoice
from msmarco_qdrant.errors import SourceError, StoreUnavailableError
from msmarco_qdrant.ingest.alias_guard import resolve_alias
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.ingest.checks import CollectionStart
from msmarco_qdrant.ingest.stages import IngestTarget
from msmarco_qdrant.ingest.target import Opened
from msmarco_qdrant.sources.extents import next_line
from msmarco_qdrant.sources.rejects import RejectCount
from msmarco_qdrant.stores import DEFAULT_CONNECTION, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import LoopbackServer, Refused

ROWS = 300


def line_of(number: int) -> str:
    """A line of the source."""
    others = {3: "no tab", 5: f"{number - 3}\tagain {number}", 7: f"{number}\t...", 11: ""}
    return others.get(number % 13, f"{number}\tpassage number {number}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Passages, of which some are repeated, some have no vector, and some lines are none."""
    path = tmp_path / "passages.tsv"
    path.write_text("\n".join(line_of(number) for number in range(ROWS)))
    return path


def keys_of(splits: Sequence[Split], files: SourceFiles, kept: SplitFiles) -> list[Any]:
    """Counts of each split; the repeats are kept."""
    counts, chunks = [], []
    for split in splits:
        reader = KeyReader(split, files.reading, 3)
        chunks += [*reader.chunks()]
        counts.append(reader.count())
    for partition in range(3):
        mine: list[KeyChunk] = chunks[partition::3]
        for number, rows in Repeats.of(mine).by_split():
            kept.add_repeats(number, rows)
            kept.add_repeats(number, rows)  # as after a lost node
    return counts


class Ingest:
    """The steps of a distributed ingest, in this process."""

    def __init__(self, url: str, source: Path, folder: Path) -> None:
        self.files = open_files(str(source))
        self.splits = plan_splits(self.files.files, 500, next_line)
        self.kept = SplitFiles(folder)
        self.counted = CountedSource(self.files, self.splits, self.kept)
        self.counts = keys_of(self.splits, self.files, self.kept)
        self.before = lines_before(self.splits, self.counts)
        settings = IngestSettings(
            url=url,
            connection=replace(DEFAULT_CONNECTION, retry_s=0),
            collection="msmarco",
            reading=self.files.reading,
            window=16,
            models=ModelChoice.of(None, None),
            make_encoder=HashingEncoder,
        )
        self.worker = IngestWorker(settings)
        store = open_store(url)
        guard = resolve_alias(store, "msmarco")
        info = self.worker.load(guard.metadata.encoder)
        self.start = CollectionStart.of(guard, guard.collection)
        self.worker.begin(
            IngestJob(guard.physical, guard.metadata, info, self.start, has_vectors=False)
        )

    def counted_split(self, number: int) -> CountedSplit:
        """A split with its counts."""
        repeats, rows = self.kept.repeats(number), self.counts[number].rows
        return CountedSplit(self.splits[number], self.before[number], rows, repeats)

    def ingest(self, number: int, attempt: int = 1) -> tuple[list[Reject], SplitOutcome]:
        """Ingest a split."""
        *batches, outcome = self.worker.run_split(self.counted_split(number), attempt)
        assert isinstance(outcome, SplitOutcome)
        return [one for batch in batches if isinstance(batch, list) for one in batch], outcome


def points(url: str) -> dict[Any, Any]:
    """The payloads of all points, without what differs between two runs."""
    fields = ("pid", "text", "meta", "text_digest", "meta_digest")
    return dict(open_store(url).collection("msmarco").scan(fields))


def create(url: str) -> None:
    """Create the empty collection."""
    ingest_passages([], url, encoder=HashingEncoder())


@pytest.fixture
def expected(source: Path) -> tuple[dict[Any, Any], list[Reject]]:
    """Points and rejects of an ingest by one process."""
    rejects: list[Reject] = []
    with LoopbackServer() as other:
        ingest_passages(source, other.url, encoder=HashingEncoder(), on_reject=rejects.append)
        return points(other.url), rejects


def test_splits_in_any_order_end_as_an_ingest_by_one_process(
    server: LoopbackServer, source: Path, expected: tuple[Any, list[Reject]], tmp_path: Path
) -> None:
    """Points and rejects are the same, also of a split that is ingested again."""
    create(server.url)
    ingest = Ingest(server.url, source, tmp_path)
    order = np.random.default_rng(0).permutation(len(ingest.splits)).tolist()
    found = {number: ingest.ingest(number) for number in order}
    again = ingest.ingest(0, attempt=2)

    assert len(ingest.splits) > 5
    assert expected[0] == points(server.url)
    rejects = [one for number in sorted(found) for one in found[number][0]]
    assert sorted(map(repr, expected[1])) == sorted(map(repr, rejects))
    assert sorted(map(repr, found[0][0])) == sorted(map(repr, again[0]))
    assert 0 == again[1].counts.written
    assert found[0][1].counts.written == again[1].counts.unchanged
    assert len(expected[0]) == sum(outcome.counts.added for _, outcome in found.values())


def test_a_machine_without_a_source_is_named(
    server: LoopbackServer, source: Path, tmp_path: Path
) -> None:
    """The file is on the machine of the command, so the error would seem to be wrong."""
    create(server.url)
    ingest = Ingest(server.url, source, tmp_path)
    source.unlink()
    with pytest.raises(SourceError, match=f"This is so on {platform.node()}: pass files"):
        ingest.ingest(0)


def test_a_failed_split_can_be_ingested_again(
    server: LoopbackServer, source: Path, expected: tuple[Any, Any], tmp_path: Path
) -> None:
    """What its first attempt wrote is unchanged then."""
    create(server.url)
    ingest = Ingest(server.url, source, tmp_path)
    server.faults.inject(Refused(grpc.StatusCode.UNAVAILABLE), "Points.Upsert", times=1)
    with pytest.raises(StoreUnavailableError):
        ingest.ingest(0)
    for number in range(len(ingest.splits)):
        ingest.ingest(number, attempt=2)

    assert expected[0] == points(server.url)


def test_passages_that_a_lost_worker_wrote_are_passages(
    server: LoopbackServer, source: Path, tmp_path: Path
) -> None:
    """A new collection with them is not refused as one without passages."""
    create(server.url)
    ingest = Ingest(server.url, source, tmp_path)
    rejected = RejectCount(None)
    for number in range(len(ingest.splits)):
        ingest.ingest(number)  # its outcome is lost
    with open_store(server.url) as store:
        guard = resolve_alias(store, "msmarco")
        target = IngestTarget(
            guard.collection, guard.metadata.encoder, Bm25Encoder(guard.metadata.bm25), None
        )
        opened = Opened(target, guard, is_new=True)
        run = DistributedIngest(ingest.counted, opened, ingest.start, rejected, None)
        rejected.add(Reject("f", 1, "no passage", b"", 0))
        with pytest.raises(SourceError, match="the source has no passage"):
            run.check(is_new=True)
        for number in range(len(ingest.splits)):
            rejects, outcome = ingest.ingest(number, attempt=2)
            run.add_rejects(number, 2, rejects)
            run.finish(number, 2, outcome)
        run.check(is_new=True)
    assert (0, len(points(server.url))) == (run.counts.written, run.counts.stored)
    assert 0 == run.report().missing
