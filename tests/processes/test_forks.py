"""Forks of a process that has searched: each ends in time, with an answer or an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from msmarco_qdrant import ingest_passages, open_store
from tests.conftest import ROOT
from tests.encoding.tiny_models import Recipe, save_tiny
from tests.loopback import LoopbackServer
from tests.processes.programs import PASSAGES

FORKS = [pytest.param(6, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.soak)]
CLOSED_FORKS = 4
"""One after the other: one process at a time has a directory."""
LIMIT_S = 400.0

# What children find: dense and BM25 search with the parent's client, and then with one of their
# own, half of them with a model and half by BM25 only.
OUTCOMES = {
    "edge": ("StoreInUseError of the parent", "StoreInUseError of the parent"),
    "closed": ("EncodingError", "2"),
    "server": ("EncodingError", "2"),
    "memory": ("EncodingError", "2"),
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


@pytest.fixture(scope="module", params=FORKS)
def forks(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """For each engine, what became of the forks of one process that searched all of them."""
    folder, count = tmp_path_factory.mktemp("stores"), request.param
    with LoopbackServer(adjacent=True) as server:
        stores = {
            "edge": f"{folder / 'edge'} {count}",
            "closed": f"{folder / 'closed'} {CLOSED_FORKS} closed",
            "memory": f":memory: {count}",
            "server": f"{server.rest_url} {count}",
        }
        printed = json.loads(run("forks", str(model), *stores.values()))
    return {
        engine: {**printed[store], "count": int(store.split()[1])}
        for engine, store in stores.items()
    }


@pytest.mark.parametrize("engine", OUTCOMES)
def test_c1_forks_of_a_process_that_has_searched(engine: str, forks: dict[str, Any]) -> None:
    """None hangs, not even when it ends as scripts do, and the parent's store is whole."""
    by_model, by_words = OUTCOMES[engine]
    half = forks[engine]["count"] // 2
    refused = "EncodingError StoreError"
    expected = {f"{refused}, model {by_model}": half, f"{refused}, words {by_words}": half}
    assert expected == forks[engine]["outcomes"]
    assert ["2"] * (3 if engine == "closed" else 6) == forks[engine]["parent"]


# ---- start methods -----------------------------------------------------------------------------

ANSWER = "[['2', '2', '2']]"
REFUSED = "EncodingError a model cannot run in a process that was forked after its parent used"
POOLS = {
    "imported, fork Pool": ANSWER,
    "imported, fork Executor": ANSWER,
    "open, fork Pool": REFUSED,
    "open, fork Executor": REFUSED,
    "searched, fork Pool": REFUSED,
    "searched, fork Executor": REFUSED,
    "searched, spawn Pool": ANSWER,
    "searched, forkserver Executor": ANSWER,
}


@pytest.mark.slow
def test_c1_pools_answer_or_refuse(filled: LoopbackServer) -> None:
    """`multiprocessing` and `concurrent.futures`, with a parent that has or has not searched.

    It takes 34 s of processor time, as three processes import the libraries.
    """
    found = dict(line.split(": ", 1) for line in run("pools", filled.rest_url).splitlines())
    assert POOLS == {name: text[: len(POOLS[name])] for name, text in found.items()}
