"""`kill -9` of an encode at any moment, then the same again: the folder of a run nobody killed.

A seed decides how many shards there are by then, and how long after the last; nothing that the
killed process started may be left.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from msmarco_qdrant.errors import SourceError
from msmarco_qdrant.sources.shard_file import MANIFEST, shard_paths
from msmarco_qdrant.sources.vector_shards import VectorShards

PROGRAM = Path(__file__).with_name("encode_program.py")
PASSAGES = 6000
SOAK_KILLS = 100
MARK = "ENCODE_KILL_TEST"


def write_source(path: Path) -> Path:
    """A file of several shards with rows here and there that are rejected."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(PASSAGES):
            words = " ".join(f"w{rng.randrange(5000)}" for _ in range(70))
            pid = number - 1500 if number % 1999 == 1998 else number
            file.write(f"{pid}\t{words}\n" if number % 997 else "no tab\n")
    return path


def start(source: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the program; the mark in its environment stands in that of all that it starts."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(source), str(folder)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, MARK: str(folder)},
    )


def left(folder: Path) -> list[psutil.Process]:
    """Running processes that carry the mark; one that has ended has no environment any more."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                found.append(process)
        except psutil.Error:
            continue  # ended meanwhile, or another user's
    return found


def assert_none_left(folder: Path) -> None:
    """All end by themselves, soon: they find nobody at the other end of their pipes."""
    deadline = time.monotonic() + 30
    while left(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [] == left(folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that lies in a folder but what a killed write left."""
    return {path.name: path.read_bytes() for path in [*shard_paths(folder), folder / MANIFEST]}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Path, dict[str, bytes]]:
    """Seconds, source and files of a run that nobody kills."""
    place = tmp_path_factory.mktemp("usual")
    source = write_source(place / "source.tsv")
    started = time.monotonic()
    assert 0 == start(source, place / "vectors").wait()
    return time.monotonic() - started, source, files_of(place / "vectors")


def kill_once(source: Path, folder: Path, shards: int, after_s: float) -> None:
    """Kill a run so many seconds after it has so many shards."""
    process = start(source, folder)
    while process.poll() is None and _shards_in(folder) < shards:
        time.sleep(0.005)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    assert_none_left(folder)


def _shards_in(folder: Path) -> int:
    return len(shard_paths(folder)) if folder.is_dir() else 0


def assert_honest(folder: Path, expected: dict[str, bytes]) -> None:
    """What a killed run left is a part of the whole, and says that it is no more."""
    found = shard_paths(folder) if folder.is_dir() else []
    assert [expected[path.name] for path in found] == [path.read_bytes() for path in found]
    if not (folder / MANIFEST).exists():
        with pytest.raises(SourceError):
            VectorShards(folder)


def check_history(
    folder: Path, usual: tuple[float, Path, dict[str, bytes]], seeds: Sequence[int]
) -> None:
    """Some kills, and then a run that ends in the folder of a run that nobody killed."""
    usual_s, source, expected = usual
    total = len(expected) - 1
    for seed in seeds:
        rng = random.Random(seed)
        kill_once(source, folder, rng.randrange(total), rng.random() * usual_s / total)
        assert_honest(folder, expected)
    assert 0 == start(source, folder).wait()
    assert expected == files_of(folder)
    assert_none_left(folder)


@pytest.mark.slow
def test_kill_and_run_again(tmp_path: Path, usual: tuple[float, Path, dict[str, bytes]]) -> None:
    """Three kills; the second and third may hit a run that continues."""
    check_history(tmp_path / "vectors", usual, range(3))


@pytest.mark.soak
def test_soak_kills(
    tmp_path_factory: pytest.TempPathFactory, usual: tuple[float, Path, dict[str, bytes]]
) -> None:
    """A hundred kills in histories of four, from a random seed on."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\nseeds from {first}")
    for seed in range(first, first + SOAK_KILLS, 4):
        folder = tmp_path_factory.mktemp("kill") / "vectors"
        check_history(folder, usual, range(seed, seed + 4))
