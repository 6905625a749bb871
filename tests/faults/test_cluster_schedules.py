"""Random falls of a cluster's nodes under every command that writes, run again as users would.

In the end all nodes are up and every command was run to success. Then each replica holds the same
passages, nothing acknowledged is lost, and nothing that was removed is left on any node.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from msmarco_qdrant.collection.passages import delete_passages
from msmarco_qdrant.core.encoder_types import EncoderInfo
from msmarco_qdrant.core.records import Passage, PrunePolicy
from msmarco_qdrant.errors import MsmarcoQdrantError, StoreInUseError
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.migrate.runner import migrate_collection
from msmarco_qdrant.migrate.status import unlock_migrations
from msmarco_qdrant.reembed.api import reembed_collection
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.service.spool.directory import BatchName
from msmarco_qdrant.service.spool.queue import Batch
from msmarco_qdrant.service.worker.apply import BatchAttempt, BatchWriter
from msmarco_qdrant.stores import Connection, Store, open_store
from msmarco_qdrant.testing import HashingEncoder
from tests.loopback import Fault, LoopbackCluster, LostAnswer

SLOW_SEEDS = [range(8), range(8, 16)]
SOAK_SCHEDULES = 500
PIDS = 30
AT_ONCE = Connection(timeout_s=5, retry_s=0, batch_points=8, in_flight=1)
ATTEMPTS_UNDER_FALLS = 2
SHAPES = ((2, 2, 1), (3, 2, 3), (3, 3, 1))
"""Nodes, replicas and shards."""

WRITES = frozenset({"Points.Upsert", "Points.Delete", "Points.UpdateBatch", "Points.UpdateVectors"})
Command = Callable[[Store], None]


class Falls:
    """Takes nodes away and brings them back, before calls that the seed chooses.

    Args:
        cluster: The cluster.
        entry: The node that the commands talk to; it falls less often than the others.
        seed: What everything follows from.
        share: Share of the calls before which something happens; three times that of writes.
    """

    def __init__(self, cluster: LoopbackCluster, entry: int, seed: int, share: float) -> None:
        self._cluster = cluster
        self._entry = entry
        self._others = [node for node in range(len(cluster.nodes)) if node != entry]
        self._seed = seed
        self._share = share
        self.count = 0
        self._away = False

    def __call__(self, rpc: str, number: int) -> Fault | None:
        """Change a node, or lose the answer to a call."""
        rng = random.Random(f"{self._seed} {rpc} {number}")
        if rng.random() >= self._share * (3 if rpc in WRITES else 1):
            return None
        self.count += 1
        node = self._entry if rng.random() < 0.1 else rng.choice(self._others)
        kind = rng.randrange(6)
        if self._away:
            self._cluster.bring_back()
        elif kind == 0:
            return LostAnswer(grpc.StatusCode.UNAVAILABLE)
        elif kind == 1:
            self._cluster.lose_answers(node)
        else:
            self._cluster.take_away(node)
        self._away = not self._away
        return None

    def begin(self) -> None:
        """Let nodes fall from now on."""
        for node in self._cluster.nodes:
            node.faults.use(self)

    def end(self) -> None:
        """Bring every node back, for good."""
        for node in self._cluster.nodes:
            node.faults.clear()
        self._cluster.settle()
        self._cluster.bring_back()
        self._away = False


@dataclass
class History:
    """What was done to a collection, and what it has to hold.

    Attributes:
        rng: What everything follows from.
        folder: For batches and migrations.
        expected: Text and meta of each passage.
        dimension: That of the model.
        removed: Pids that were removed, and not written since.
    """

    rng: random.Random
    folder: Path
    expected: dict[str, tuple[str, object]] = field(default_factory=dict)
    dimension: int = 8
    removed: set[str] = field(default_factory=set)
    written: int = 0

    @property
    def encoder(self) -> HashingEncoder:
        """The collection's."""
        return HashingEncoder(self.dimension, batch_size=16)

    def passages(self, share: float) -> Sequence[Passage]:
        """Some new or changed passages, and some as they are."""
        found = []
        for number in range(PIDS):
            pid = str(number) if number % 3 else f"p{number}"
            if self.rng.random() >= share:
                continue
            text, meta = self.expected.get(pid, ("", None))
            if not text or self.rng.random() < 0.3:
                self.written += 1
                text, meta = f"passage{number} w{self.written} of many", {"n": number}
            elif self.rng.random() < 0.2:
                self.written += 1
                meta = {"n": self.written}
            found.append(Passage(pid, text, meta if isinstance(meta, dict) else {}))
        return found

    def put(self, passages: Sequence[Passage]) -> None:
        """They are written."""
        self.expected |= {one.pid: (one.text, one.meta) for one in passages}
        self.removed -= {one.pid for one in passages}

    def take(self, pids: Sequence[str]) -> None:
        """They are removed."""
        for pid in pids:
            self.expected.pop(pid, None)
        self.removed |= set(pids)

    # ---- commands; each returns what is run, and what is true after it ----------------------

    def ingest(self) -> tuple[Command, Callable[[], None]]:
        """Ingest some passages."""
        passages, encoder = self.passages(0.7), self.encoder

        def run(store: Store) -> None:
            ingest_passages(passages, store, encoder=encoder, window=16)

        return run, lambda: self.put(passages)

    def prune(self) -> tuple[Command, Callable[[], None]]:
        """Ingest most passages, and remove the others."""
        passages, encoder = self.passages(0.8) or [Passage("1", "passage")], self.encoder

        def run(store: Store) -> None:
            policy = PrunePolicy(max_share=1)
            ingest_passages(passages, store, encoder=encoder, window=16, prune=policy)

        def after() -> None:
            self.put(passages)
            self.take([*(self.expected.keys() - {one.pid for one in passages})])

        return run, after

    def delete(self) -> tuple[Command, Callable[[], None]]:
        """Remove some passages."""
        pids = [pid for pid in sorted(self.expected) if self.rng.random() < 0.3]
        return lambda store: _ignore(delete_passages(store, pids)), lambda: self.take(pids)

    def batch(self) -> tuple[Command, Callable[[], None]]:
        """Let the sidecar's worker apply a batch that writes and removes."""
        passages = self.passages(0.4)
        pids = [one for one in sorted(self.expected) if self.rng.random() < 0.2]
        pids = [pid for pid in pids if pid not in {one.pid for one in passages}]
        rows: list[dict[str, Any]] = [
            {"op": "write", "pid": one.pid, "text": one.text, "meta": one.meta} for one in passages
        ]
        rows += [{"op": "delete", "pid": pid} for pid in pids]
        path = self.folder / f"{self.rng.randrange(10**9)}.ops.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        batch = Batch(BatchName(1, "0" * 32, "ops.jsonl"), path, 0, 0.0)
        encoder, attempts = self.encoder, list[BatchAttempt]()

        def run(store: Store) -> None:
            if not rows:
                return
            writer = BatchWriter(store, "msmarco", encoder, _encoder_of)
            if not attempts:
                attempts.append(BatchAttempt(batch, writer, lambda _count: None, lambda: None))
            attempts[0]()

        def after() -> None:
            self.put(passages)
            self.take(pids)

        return run, after

    def reembed(self) -> tuple[Command, Callable[[], None]]:
        """Change the model."""
        dimension = 8 if self.dimension != 8 else 12
        encoder = HashingEncoder(dimension, batch_size=16)

        def run(store: Store) -> None:
            reembed_collection(
                store,
                encoder=encoder,
                load_old=lambda info: HashingEncoder(info.dimension),
                allow_worse=True,
            )

        def after() -> None:
            self.dimension = dimension

        return run, after

    def migrate(self) -> tuple[Command, Callable[[], None]]:
        """Change the BM25 settings: every sparse vector is computed again."""
        number, length = len([*self.folder.glob("*.py")]) + 1, self.rng.randrange(5, 60)
        (self.folder / f"{9000 + number}_bm25_{number}.py").write_text(
            "from msmarco_qdrant.operations import SetBm25\n\n"
            f'DESCRIPTION = "another length"\nOPERATION = SetBm25(avg_len={length})\n'
        )

        def run(store: Store) -> None:
            migrate_collection(store, "msmarco", directory=self.folder)

        return run, lambda: None


def _ignore(_result: object) -> None:
    """Nothing is done with it."""


def _encoder_of(_name: str, info: EncoderInfo) -> HashingEncoder:
    """The encoder of a collection."""
    return HashingEncoder(info.dimension, batch_size=16)


def run_to_success(falls: Falls, command: Command, store: Store) -> int:
    """Run a command under falls, and again, as users would; returns how often it failed."""
    failed = 0
    for _ in range(ATTEMPTS_UNDER_FALLS):
        falls.begin()
        try:
            command(store)
        except MsmarcoQdrantError:
            failed += 1
            falls.end()  # nobody tries again before the cluster is well
        else:
            falls.end()
            return failed
    try:
        command(store)
    except StoreInUseError:  # a migration that failed could not release its lock
        unlock(store)
        command(store)
    return failed


def unlock(store: Store) -> None:
    """Release the lock of a run that has ended, as its error advises."""
    holder = store.migration_locks.holder("msmarco")
    assert holder is not None
    unlock_migrations(store, "msmarco", holder.token)


def one_history(seed: int, folder: Path) -> tuple[int, int]:
    """What one seed says; returns the falls and the failed runs."""
    rng = random.Random(seed)
    nodes, replication, shards = rng.choice(SHAPES)
    factor = rng.choice([1, 2, 2])
    history = History(rng, folder)
    cluster = LoopbackCluster(
        nodes, replication=replication, shards=shards, write_consistency_factor=factor
    )
    with cluster, ExitStack() as opened:
        stores = [
            opened.enter_context(open_store(one.url, connection=AT_ONCE)) for one in cluster.nodes
        ]
        entry = rng.randrange(nodes)
        store, falls = stores[entry], Falls(cluster, entry, seed, rng.choice([0.03, 0.06, 0.1]))
        first, after = history.ingest()
        first(store)
        after()
        chosen = [history.ingest, history.batch, history.delete, history.prune]
        chosen.append(rng.choice([history.reembed, history.migrate]))
        rng.shuffle(chosen)
        failed = 0
        for make in chosen:
            command, after = make()
            failed += run_to_success(falls, command, store)
            after()
        assert_settled(cluster, history, stores)
        return falls.count, failed


def assert_settled(cluster: LoopbackCluster, history: History, stores: Sequence[Store]) -> None:
    """Every replica and every node's own answer is what is expected."""
    live, physicals = stores[0].aliases()["msmarco"], stores[0].physical_names()
    for physical in (name for name in physicals if name.startswith("msmarco__")):
        assert 0 == cluster.dead(physical)
        assert cluster.is_equal(physical), physical
        shards = cluster.all_stored(physical)
        found = {
            str((record.payload or {})["pid"]): (record.payload or {})
            for first, *_ in shards
            for record in first.values()
        }
        assert set() == history.removed & found.keys()
        if physical == live:
            contents = {pid: (one["text"], one["meta"]) for pid, one in found.items()}
            assert history.expected == contents
    for store in stores:
        assert len(history.expected) == len([*store.collection("msmarco").scan(())])
    assert_found(stores[history.rng.randrange(len(stores))], history)


def assert_found(store: Store, history: History) -> None:
    """A node finds passages by their own words, so their vectors are those of their texts."""
    texts = [text for text, _ in history.expected.values()][:5]
    if texts:
        with SearchClient.open(store, encoder=history.encoder) as client:
            answers = client.search_many(texts, limit=1)
        assert [1.0] * len(texts) == pytest.approx([one[0].score for one in answers], abs=1e-5)


@pytest.fixture(autouse=True)
def _no_write_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run here has ended before the next begins."""
    monkeypatch.setattr("msmarco_qdrant.collection.replicas.IN_FLIGHT_S", 0.0)
    monkeypatch.setattr("msmarco_qdrant.stores.server.locks.SETTLE_S", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SLOW_SEEDS, ids=str)
def test_v1_falls_and_run_again_often(seeds: range, tmp_path: Path) -> None:
    """Sixteen in all; there must be falls, and runs that failed."""
    assert_histories(seeds, tmp_path)


@pytest.mark.soak
def test_v1_soak_falls(tmp_path: Path) -> None:
    """Five hundred."""
    first = 1000
    print(assert_histories(range(first, first + SOAK_SCHEDULES), tmp_path))


def assert_histories(seeds: range, folder: Path) -> Mapping[str, int]:
    """Run histories; none of them may end wrong."""
    counts, wrong = Counter[str](), list[str]()
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        try:
            falls, failed = one_history(seed, place)
        except (AssertionError, MsmarcoQdrantError) as exc:
            wrong.append(f"{seed}: {type(exc).__name__}: {str(exc).splitlines()[0][:150]}")
        else:
            counts.update(falls=falls, failed=failed)
    print(f"{len(wrong)} of {len(seeds)} schedules ended wrong")
    assert [] == wrong
    assert min(counts["falls"], counts["failed"]) > len(seeds)
    return counts
