"""A node falls before the first write of a command; run again, every replica holds the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.runner import migrate_collection
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.service.spool.directory import BatchName
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.worker.apply import BatchAttempt, BatchWriter
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.collection.test_replicas import AT_ONCE, fail_without, some
from tests.loopback import LoopbackCluster

ENCODER = HashingEncoder(8)
Command = Callable[[], object]


@pytest.fixture
def cluster() -> Iterator[LoopbackCluster]:
    """Two replicas on three nodes, which must both take a write, with thirty passages."""
    with LoopbackCluster(3, replication=2, shards=1, write_consistency_factor=2) as made:
        ingest_passages(some(*range(30)), made.url, encoder=ENCODER)
        yield made


@pytest.fixture
def store(cluster: LoopbackCluster) -> Iterator[Store]:
    """A store on it that gives up at once."""
    with closing(open_store(cluster.url, connection=AT_ONCE)) as opened:
        yield opened


def ingest(store: Store, folder: Path) -> Command:  # noqa: ARG001
    """Ingest new passages and changed ones, texts and metas."""
    passages = [*some(*range(40, 50)), *some(4, 5, 6, text="changed"), Passage("7", "passage 7")]
    passages += [Passage("8", "passage 8", {"n": 1})]
    return lambda: ingest_passages(passages, store, encoder=ENCODER)


def batch(store: Store, folder: Path) -> Command:
    """Apply a batch of the sidecar."""
    rows: list[dict[str, str]] = [
        {"op": "write", "pid": one.pid, "text": one.text} for one in some(4, 40, 41, text="new")
    ]
    rows += [{"op": "delete", "pid": "7"}]
    path = folder / "batch.ops.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    writer = BatchWriter(store, "msmarco", ENCODER)
    leased = Batch(BatchName(1, "0" * 32, "ops.jsonl"), path, 0, 0.0)
    return BatchAttempt(leased, writer, lambda _count: None, lambda: None)


def delete(store: Store, folder: Path) -> Command:  # noqa: ARG001
    """Remove some."""
    return lambda: delete_passages(store, ["1", "2", "p3"])


def reembed(store: Store, folder: Path) -> Command:  # noqa: ARG001
    """Change the model."""
    encoder = HashingEncoder(12)
    return lambda: reembed_collection(
        store, encoder=encoder, allow_worse=True, load_old=lambda _info: ENCODER
    )


def migrate(store: Store, folder: Path) -> Command:
    """Compute every sparse vector again."""
    (folder / "0001_length.py").write_text(
        "from msmarco_qdrant.operations import SetBm25\n\n"
        'DESCRIPTION = "another length"\nOPERATION = SetBm25(avg_len=9)\n'
    )
    return lambda: migrate_collection(store, "msmarco", directory=folder)


@pytest.mark.parametrize(
    ("make", "node"),
    [
        *((make, 1) for make in (ingest, batch, delete)),
        *(pytest.param(make, 0, marks=pytest.mark.slow) for make in (ingest, batch, delete)),
        # Without node 0 they could not release their lock.
        *(pytest.param(make, 1, marks=pytest.mark.slow) for make in (reembed, migrate)),
    ],
)
def test_v1_a_command_that_failed_is_finished_by_the_next(
    cluster: LoopbackCluster,
    store: Store,
    tmp_path: Path,
    make: Callable[[Store, Path], Command],
    node: int,
) -> None:
    """Whichever of the two nodes fell; by node 0 the commands ask."""
    command = make(store, tmp_path)
    fail_without(cluster, node, command, deletes=0 if make is delete else 1)
    command()
    for physical in store.physical_names():
        assert cluster.is_equal(physical), physical


def test_v1_what_is_not_on_all_replicas_is_not_counted(
    cluster: LoopbackCluster, store: Store
) -> None:
    """The number of passages is that of the replica with the fewest."""
    fail_without(cluster, 1, lambda: ingest_passages(some(40, 41), store, encoder=ENCODER))
    assert 30 == store.collection("msmarco").info().points
    report = ingest_passages(some(40, 41, 1), store, encoder=ENCODER)
    assert (2, 1) == (report.written, report.unchanged)


def test_v1_a_dead_replica_does_not_stop_an_ingest() -> None:
    """Factor 1: it is not asked, and is copied when its node is back."""
    with LoopbackCluster(3, replication=2, shards=1) as cluster:
        ingest_passages(some(*range(9)), cluster.url, encoder=ENCODER, connection=AT_ONCE)
        cluster.take_away(1)
        report = ingest_passages(some(1, 20), cluster.url, encoder=ENCODER, connection=AT_ONCE)
        assert (1, 1) == (report.written, report.unchanged)
        assert 1 == cluster.dead("msmarco__0001")
        cluster.bring_back()
        assert cluster.is_equal("msmarco__0001")
