"""`kill -9` at any moment, then the same command: the source's passages exactly, every time.

A seed decides what was stored before, how often the command is killed and at which share of its
usual time; where exactly a kill lands is the machine's affair, and must not matter.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from msmarco_qdrant.core.records import Passage
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.sources.corpus import Corpus
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.stores.payload import point_id
from msmarco_qdrant.testing import HashingEncoder
from tests.kill.ingest_program import DIMENSION

PROGRAM = Path(__file__).with_name("ingest_program.py")
PASSAGES = 3000
SOAK_KILLS = 200


def write_source(path: Path, seed: int, *, changed: bool) -> Path:
    """A file of passages; the changed form has other texts, metas and pids here and there."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for number in range(PASSAGES):
            pid = f"p{number}" if number % 3 else str(number)
            words = " ".join(f"w{rng.randrange(5000)}" for _ in range(12))
            passage = {"pid": pid, "text": f"passage {number} {words}", "n": number}
            if changed and number % 5 == 0:
                passage["text"] = f"changed {words}"
            if changed and number % 5 == 1:
                passage["n"] = -number
            file.write(json.dumps(passage) + "\n")
    return path


def run_killed(command: Sequence[str], after_s: float) -> bool:
    """Run a command and kill it after so many seconds; whether it was still running."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def run_whole(command: Sequence[str]) -> None:
    """Run a command to its end, which must be a good one."""
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def expected_of(source: Path) -> dict[str, tuple[str, object]]:
    """Text and meta of every passage of a source."""
    rows = [row for row in Corpus(source) if isinstance(row, Passage)]
    return {row.pid: (row.text, row.meta) for row in rows}


def assert_exactly(source: Path, store: Path, collection: str) -> None:
    """The collection holds the source's passages and nothing else."""
    expected = expected_of(source)
    opened = open_store(store)
    target = opened.collection(collection)
    found = target.retrieve([point_id(pid) for pid in expected], ["pid", "text", "meta"])
    count = target.info().points
    opened.close()
    assert count == len(expected)
    assert {p["pid"]: (p["text"], p["meta"]) for p in found.values()} == expected


def assert_found(source: Path, store: Path, seed: int) -> None:
    """Some passages, by their own words, through the index that was built."""
    rng = random.Random(seed)
    chosen = rng.sample(sorted(expected_of(source).items()), 20)
    with SearchClient.open(store, encoder=HashingEncoder(DIMENSION)) as client:
        answers = client.search_many([text for _, (text, _) in chosen], limit=1)
    assert [answer[0].pid for answer in answers] == [pid for pid, _ in chosen]


def size_of(directory: Path) -> int:
    """Bytes that a directory takes on disk."""
    return sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, int]:
    """Seconds and bytes of a run that nobody kills."""
    folder = tmp_path_factory.mktemp("usual")
    source = write_source(folder / "source.jsonl", 0, changed=False)
    started = time.monotonic()
    run_whole([sys.executable, str(PROGRAM), str(source), str(folder / "store")])
    return time.monotonic() - started, size_of(folder / "store")


def one_history(folder: Path, seed: int, usual: tuple[float, int]) -> int:
    """What one seed says: some kills, then the same command; returns the kills that hit."""
    usual_s, usual_bytes = usual
    rng = random.Random(seed)
    store = folder / "store"
    if rng.random() < 0.5:
        before = write_source(folder / "before.jsonl", seed, changed=False)
        run_whole([sys.executable, str(PROGRAM), str(before), str(store)])
    source = write_source(folder / "source.jsonl", seed, changed=True)
    command = [sys.executable, str(PROGRAM), str(source), str(store)]
    hits = sum(run_killed(command, rng.random() * usual_s) for _ in range(rng.randint(1, 3)))
    run_whole(command)
    assert_exactly(source, store, "msmarco")
    assert_found(source, store, seed)
    # Replaced points lie in the segments until Edge vacuums them: twice the usual is the bound,
    # and one write-ahead log segment of 32 MiB may be open besides.
    assert size_of(store) < 2 * usual_bytes + (32 << 20)
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_and_run_again(tmp_path: Path, usual: tuple[float, int], seed: int) -> None:
    """Each history ends in exactly the passages of the source."""
    one_history(tmp_path, seed, usual)


@pytest.mark.soak
def test_soak_kills(tmp_path_factory: pytest.TempPathFactory, usual: tuple[float, int]) -> None:
    """As many histories as it takes until 200 kills have hit a running ingest."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    kills = seed = 0
    while kills < SOAK_KILLS:
        kills += one_history(tmp_path_factory.mktemp("soak"), first + seed, usual)
        seed += 1
    print(f"{kills} kills in {seed} histories, seeds {first} to {first + seed - 1}")
