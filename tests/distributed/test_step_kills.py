"""Steps on Ray that lose a node and a worker in their midst end as those of one process."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msmarco_qdrant.distributed import judge_on_ray, mine_on_ray, reembed_on_ray
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder, WordOverlapReranker
from msmarco_qdrant.train import judge_negatives, mine, mine_negatives
from tests.loopback import LoopbackServer
from tests.reembed.steps import V2, V3, check_holds, load_old, passages
from tests.train.small_collection import ENCODER, PASSAGES, QRELS, QUERIES, mined

pytest.importorskip("ray", reason="needs the extra ray: make integrations")

if TYPE_CHECKING:
    from tests.distributed.kills import KillCluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray, about lost nodes

TRAIN, DEV = QUERIES[:40], QUERIES[40:]
POSITIVES = {query.qid: [*QRELS[query.qid]] for query in QUERIES}
ON_RAY: dict[str, Any] = {"workers": 3, "cpus_per_worker": 1, "gpus_per_worker": 0}
_POLL_S = 0.05


def wait_for_kills(folder: Path) -> None:
    """Wait, in a worker, until the kills were done; write down that it waits."""
    (folder / f"began-{os.getpid()}").touch()
    while not (folder / "killed").exists():
        time.sleep(_POLL_S)


class WaitingEncoder(HashingEncoder):
    """An encoder that waits for the kills before it encodes passages."""

    def __init__(self, folder: Path) -> None:
        super().__init__(256, salt="v3")
        self._folder = folder

    def encode_passages(self, passages: Any) -> Any:
        """Wait, then encode."""
        wait_for_kills(self._folder)
        return super().encode_passages(passages)


class WaitingSearcher(HashingEncoder):
    """An encoder that waits for the kills before it encodes queries."""

    def __init__(self, folder: Path) -> None:
        super().__init__(dimension=6)
        self._folder = folder

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Wait, then encode."""
        wait_for_kills(self._folder)
        return super().encode_queries(queries)


class WaitingJudge(WordOverlapReranker):
    """A judge that waits for the kills before it scores candidates."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Wait, then score."""
        if pairs[0][0] in {query.text for query in TRAIN}:
            wait_for_kills(self._folder)
        return super().scores(pairs)


@pytest.fixture(scope="module")
def cluster() -> Iterator[KillCluster]:
    """Three nodes of one processor each."""
    from tests.distributed.kills import kill_cluster

    with kill_cluster() as made:
        yield made


def run_with_kills(cluster: KillCluster, folder: Path, step: Callable[[], object]) -> None:
    """Run a step in a thread; as soon as its three workers work, kill a node and another worker."""
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(step)
        while len(workers := [*folder.glob("began-*")]) < 3:
            assert not running.done(), running.result()
            time.sleep(_POLL_S)
        try:
            cluster.kill_node(random.Random(0))
            killed = False
            while not killed:  # one of them was on the lost node
                killed = kill(int(workers.pop().name.rpartition("-")[2]))
        finally:
            (folder / "killed").touch()
        running.result()


def kill(pid: int) -> bool:
    """Kill a process; False if there is none."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a complete folder but its report, which has its time."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name != "report.json"]
    return {path.name: path.read_bytes() for path in paths}


def test_a_change_of_the_model_ends_the_same(cluster: KillCluster, tmp_path: Path) -> None:
    """All points have vectors of the new model."""
    options: dict[str, Any] = {**ON_RAY, "split_points": 4, "load_old": load_old}
    with LoopbackServer() as server, closing(open_store(server.url)) as store:
        ingest_passages(passages(), store, collection="things", encoder=V2)
        options["make_encoder"] = partial(WaitingEncoder, tmp_path)
        step = partial(reembed_on_ray, server.url, "things", address=cluster.address, **options)
        run_with_kills(cluster, tmp_path, step)
        check_holds(store, passages(), V3)


@pytest.fixture
def client() -> Iterator[SearchClient]:
    """A client on a server with the small collection."""
    with LoopbackServer() as server:
        ingest_passages([*PASSAGES.items()], server.url, encoder=ENCODER)
        with SearchClient.open(server.url, encoder=ENCODER) as opened:
            yield opened


def test_mining_ends_the_same(
    cluster: KillCluster, client: SearchClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files of one process."""
    monkeypatch.setattr(mine, "QUERIES_PER_PART", 5)
    one, out = tmp_path / "one", tmp_path / "ray"
    mine_negatives(client, QUERIES, POSITIVES, one, depth=20)
    options = {"make_encoder": partial(WaitingSearcher, tmp_path), "depth": 20, **ON_RAY}
    step = partial(mine_on_ray, client.store.dsn, QUERIES, POSITIVES, out, **options)
    run_with_kills(cluster, tmp_path, partial(step, address=cluster.address))
    assert files_of(one) == files_of(out)


def test_judging_ends_the_same(
    cluster: KillCluster, client: SearchClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files of one process."""
    monkeypatch.setattr("msmarco_qdrant.train.judge_parts.split_parts.__defaults__", (100,))
    candidates = mined(client, TRAIN)
    one, out = tmp_path / "one", tmp_path / "ray"
    dev: dict[str, Any] = {"dev_queries": DEV, "dev_qrels": QRELS}
    judge_negatives(WordOverlapReranker(), client, TRAIN, candidates, one, **dev)
    options = {"make_encoder": partial(HashingEncoder, dimension=6), **dev, **ON_RAY}
    judge = partial(WaitingJudge, tmp_path)
    step = partial(judge_on_ray, judge, client.store.dsn, TRAIN, candidates, out, **options)
    run_with_kills(cluster, tmp_path, partial(step, address=cluster.address))
    assert files_of(one) == files_of(out)
