"""The options of `ingest` for a collection on a server: shards, replicas and bulk mode."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from msmarco_qdrant.collection.bulk import BulkMode
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.cli.runner import command
from tests.loopback import LoopbackServer
from tests.vectors import write_folder


@pytest.fixture
def vectors(tmp_path: Path, passages: Sequence[Passage], encoder: HashingEncoder) -> str:
    """A folder of vectors, so that no model is loaded."""
    return str(write_folder(tmp_path / "vectors", passages, encoder))


def test_a_server_gets_them_and_optimize_ends_a_bulk_mode(vectors: str) -> None:
    """`info` shows a bulk mode that was not ended; another number of shards is refused."""
    options = ("--shards", "4", "--replication", "2", "--write-consistency", "2", "--bulk")
    with LoopbackServer() as server:
        place = ("--store", server.url)
        done = command("ingest", "--vectors", vectors, *place, *options)
        assert 0 == done.status, done.err
        assert "bulk mode" not in command("info", *place).out
        done = command("ingest", "--vectors", vectors, *place, "--shards", "5")
        assert (2, "") == (done.status, done.out)
        assert "shards must be the 4 of collection 'msmarco', got 5" in done.err
        with closing(open_store(server.url)) as store:
            interrupted = BulkMode(store, "msmarco")
            interrupted.begin()
            interrupted.leave()
            assert "bulk mode   no index" in command("info", *place).out
            assert 0 == command("optimize", *place).status
            assert "bulk mode" not in command("info", *place).out
            assert {} == store.bulk_holders("msmarco")


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (("--shards", "0"), 2, "0 is not in the range x>=1"),
        (("--write-consistency", "2"), 2, "--write-consistency must be at most replication"),
        (("--shards", "2"), 1, "needs a Qdrant server for shards and replicas, got store"),
        (("--shard-key", "a"), 1, "needs a Qdrant server for shards and replicas, got store"),
        (("--shard-key", ""), 2, "--shard-key must be the name of a field of meta, got ''"),
        (("--bulk",), 1, "needs a Qdrant server for bulk mode, got store"),
    ],
)
def test_a_directory_refuses_them(
    options: Sequence[str], status: int, reason: str, vectors: str
) -> None:
    """In one line, and nothing is created."""
    done = command("ingest", "--vectors", vectors, "--store", "store", *options)
    assert (status, "") == (done.status, done.out)
    assert reason in done.err
    assert not Path("store").exists()
