"""`kill -9` of a migration at any moment, then the same command: as if it had never been killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from msmarco_qdrant.core.collection_types import Bm25Settings, HnswSettings
from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.runner import migrate_collection
from msmarco_qdrant.migrate.status import unlock_migrations
from msmarco_qdrant.stores import Store, open_store
from msmarco_qdrant.stores.payload import point_id, sort_tokens
from msmarco_qdrant.testing import HashingEncoder
from tests.kill.test_ingest_kill import run_killed, run_whole
from tests.loopback import LoopbackServer, Slow

Stalled: TypeAlias = tuple[LoopbackServer, "subprocess.Popen[bytes]"]
ENCODER = HashingEncoder(256)
SOAK_SEEDS = 50
COUNT = 4000  # with 256 floats each, enough for a graph that takes a moment
OPERATIONS = {
    "0001_threshold": "SetOptimizers(indexing_threshold_kb=100)",
    "0002_graph": "SetHnsw(m=24)",
    "0003_texts": "SetBm25(avg_len=4)",
    "0004_copy": "SetStorage(quantization='turbo4')",
    "0005_index": "AddPayloadIndex('n', 'integer')",
}


def passages(count: int) -> Sequence[Passage]:
    """Short texts of unequal lengths."""
    return [
        Passage(str(number), " ".join([f"w{number % 97}", *["x"] * (number % 5)]), {"n": number})
        for number in range(count)
    ]


def write_migrations(folder: Path, operations: dict[str, str]) -> Path:
    """A folder of migrations, an operation each."""
    folder.mkdir()
    for name, operation in operations.items():
        (folder / f"{name}.py").write_text(
            "from msmarco_qdrant.operations import *\n"
            f"DESCRIPTION = {name!r}\nOPERATION = {operation}\n"
        )
    return folder


def check_sparse(store: Store, count: int, settings: Bm25Settings) -> None:
    """Every sparse vector is the one that these settings make."""
    bm25, changed = Bm25Encoder(settings), store.admin_collection("msmarco")
    found = changed.sparse_vectors([point_id(one.pid) for one in passages(count)])
    for one in passages(count):
        expected = bm25.encode_passage(one.text)
        ordered = sort_tokens(expected.indices, expected.values)
        assert ordered.indices == found[point_id(one.pid)].indices
        assert pytest.approx(ordered.values, rel=1e-6) == found[point_id(one.pid)].values


def check_killed(folder: Path, seed: int) -> None:
    """Kill all migrations twice, run them, and check every setting."""
    rng, place = random.Random(seed), folder / "store"
    folder = write_migrations(folder / "changes", OPERATIONS)
    ingest_passages(passages(COUNT), place, encoder=ENCODER, optimize=False)
    command = [sys.executable, "-m", "msmarco_qdrant", "migrate", "up"]
    command += ["--store", str(place), "--dir", str(folder)]
    for _ in range(2):
        run_killed(command, rng.uniform(0.5, 4.0))
    run_whole(command)
    with closing(open_store(place)) as store:
        info, metadata = store.collection("msmarco").info(), store.metadata("msmarco")
        assert ("0001_create_passages", "0002_payload_indexes", *OPERATIONS) == metadata.migrations
        assert (HnswSettings(24, 256), "turbo4") == (info.spec.hnsw, info.spec.storage.quantization)
        assert {"seq": "integer", "meta.n": "integer"} == info.spec.payload_indexes
        assert (COUNT, 2 * COUNT) == (info.points, info.indexed)
        assert Bm25Settings(avg_len=4.0) == metadata.bm25
        check_sparse(store, COUNT, metadata.bm25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_every_setting_survives_being_killed(tmp_path: Path, seed: int) -> None:
    """On Edge, twice at shares of its usual time that a seed decides, wherever that may be."""
    check_killed(tmp_path, seed)


@pytest.mark.soak
def test_soak_kills(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fifty histories from a random seed on."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    for seed in range(first, first + SOAK_SEEDS):
        check_killed(tmp_path_factory.mktemp("soak"), seed)


@contextmanager
def stalled_rewrite(folder: Path, request: int) -> Iterator[tuple[Stalled, Store, Path]]:
    """A migration of BM25 whose process waits for the answer to a request, counted from 1."""
    changes = write_migrations(folder / "changes", {"0001_texts": "SetBm25(avg_len=4)"})
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ingest_passages(passages(50), store, encoder=ENCODER, optimize=False)
        server.faults.use(
            lambda rpc, number: (
                Slow(600, drop_if_cancelled=True)
                if (rpc, number) == ("Points.UpdateVectors", request)
                else None
            )
        )
        command = [sys.executable, "-m", "msmarco_qdrant", "migrate", "up"]
        with subprocess.Popen(
            [*command, "--store", server.url, "--dir", str(changes)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MSMARCO_QDRANT_BATCH_POINTS": "10"},
        ) as process:
            server.requests.wait_for("UpdateVectors", request, timeout_s=60)
            yield (server, process), store, changes


@pytest.mark.slow
def test_a_killed_rewrite_goes_on_with_what_is_left(tmp_path: Path) -> None:
    """On a server, during BM25: its lock is removed by hand, and nothing is written twice."""
    with stalled_rewrite(tmp_path, 3) as ((server, process), store, changes):
        process.kill()
        process.wait()
        server.faults.use(None)
        server.settle()
        server.requests.clear()
        assert Bm25Settings() == store.metadata("msmarco").bm25
        holder = store.migration_locks.holder("msmarco")
        assert holder is not None
        assert process.pid == holder.pid
        unlock_migrations(store, "msmarco", holder.token)
        assert 1 == len(migrate_collection(store, "msmarco", directory=changes))
        written = [len(request.points) for request in server.requests.of("UpdateVectors")]
        assert 30 == sum(written)
        check_sparse(store, 50, Bm25Settings(avg_len=4.0))


@pytest.mark.slow
def test_sigterm_releases_the_lock(tmp_path: Path) -> None:
    """A container that is stopped during a migration leaves nothing to unlock."""
    with stalled_rewrite(tmp_path, 1) as ((server, process), store, changes):
        assert store.migration_locks.holder("msmarco") is not None
        process.terminate()
        assert 143 == process.wait(60)
        server.faults.use(None)
        assert store.migration_locks.holder("msmarco") is None
        assert 1 == len(migrate_collection(store, "msmarco", directory=changes))
        check_sparse(store, 50, Bm25Settings(avg_len=4.0))
