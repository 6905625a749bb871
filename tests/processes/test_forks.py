"""Fifty forks of a process that has searched: each ends in time, with an answer or an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest

from msmarco_qdrant import ingest_passages, open_store
from tests.conftest import ROOT
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.loopback import LoopbackServer
from tests.processes.programs import PASSAGES

FORKS = 50
LIMIT_S = 400.0

# Of each use, the outcomes on each store; the parent's client is asked for "dense" and "bm25".
OUTCOMES = {
    "edge": {
        "use_the_parents": "EncodingError StoreError",
        "open_again": "StoreInUseError",
        "search_by_words": "StoreInUseError",
    },
    "edge, closed": {
        "use_the_parents": "EncodingError StoreError",
        "open_again": "EncodingError",
        "search_by_words": "2",
    },
    "server": {
        "use_the_parents": "EncodingError StoreError",
        "open_again": "EncodingError",
        "search_by_words": "2",
    },
    "memory": {
        "use_the_parents": "EncodingError StoreError",
        "open_again": "EncodingError",
        "search_by_words": "2",
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's directory."""
    return save_tiny(tmp_path_factory.mktemp("processes") / "model", Recipe())


@pytest.fixture(scope="module")
def filled(model: Path) -> Iterator[LoopbackServer]:
    """A server with passages."""
    with LoopbackServer(adjacent=True) as server:
        with closing(open_store(server.rest_url)) as store:
            ingest_passages(PASSAGES, store, model=model)
        yield server


def run(*arguments: str) -> str:
    """Run a program of `programs` in a session of its own, of which nothing is left."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.processes.programs", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 0 == process.returncode, err
    return out


@pytest.mark.slow
@pytest.mark.parametrize("engine", OUTCOMES)
def test_c1_fifty_forks_of_a_process_that_has_searched(
    engine: str, model: Path, tmp_path: Path
) -> None:
    """None hangs, a quarter of them ends as scripts do, and the parent's store is whole."""
    with LoopbackServer(adjacent=True) if engine == "server" else nullcontext() as server:
        dsn = {"memory": ":memory:"}.get(engine, str(tmp_path / "store"))
        dsn = dsn if server is None else server.rest_url
        closes = "closed" if "closed" in engine else "open"
        count = 8 if closes == "closed" else FORKS  # these run one after the other
        printed = json.loads(run("forks", dsn, str(model), str(count), closes))
    assert count == sum(printed["outcomes"].values())
    uses = {f"{use}: {outcome}" for use, outcome in OUTCOMES[engine].items()}
    assert {*uses, "leave: left"} == {*printed["outcomes"]}
    assert ["2"] * (3 if closes == "closed" else 6) == printed["parent"]


# ---- start methods -----------------------------------------------------------------------------

ANSWER = "[['2', '2', '2']]"
REFUSED = "EncodingError a model cannot run in a process that was forked after its parent used"
POOLS = [
    ("imported", "fork", ANSWER),
    ("searched", "fork", REFUSED),
    ("open", "fork", REFUSED),
    ("searched", "spawn", ANSWER),
    ("searched", "forkserver", ANSWER),
]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "method", "expected"), POOLS)
def test_c1_pools_answer_or_refuse(
    how: str, method: str, expected: str, filled: LoopbackServer
) -> None:
    """`multiprocessing` and `concurrent.futures`, with a parent that has or has not searched."""
    pool, executor = run("pools", filled.rest_url, how, method).splitlines()
    assert pool.startswith(f"Pool {expected}")
    assert executor.startswith(f"Executor {expected}")
