"""A sidecar ended under load at any moment, again and again: what was accepted is there.

A seed says at which moment of which kind each process ends and what is sent to it, so most of a
history can be had again; how the threads and the processes take turns is not in it. What only a
power cut takes, such as a file without its fsync, no `kill -9` can show.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kill.lives import History, Tally
from tests.loopback import LoopbackServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify tells the moments")

KILLS = {
    "edge": ("applying", "start", "applying", "answered", "store", "done"),
    "server": ("request", "applying", "incoming", "tmp"),
}
SOAK_ENDS = 100  # of each engine, and of each signal
SOAK_LIVES = 20  # of a history


@contextmanager
def new_history(folder: Path, seed: int, engine: str) -> Iterator[History]:
    """One over an engine; with some seeds its inbox lies on another file system than its spool."""
    with ExitStack() as stack:
        server = stack.enter_context(LoopbackServer()) if engine == "server" else None
        memory, inbox = Path("/dev") / "shm", None
        if seed % 2 and memory.is_dir() and memory.stat().st_dev != folder.stat().st_dev:
            inbox = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
        yield History(folder, seed, server, inbox)


@pytest.mark.parametrize(("engine", "seed"), [("edge", 0), ("server", 1)])
def test_killed_and_started_again(tmp_path: Path, engine: str, seed: int) -> None:
    """Every passage of every 202 is found at the end, once; none that was deleted is back."""
    with new_history(tmp_path, seed, engine) as history:
        for kind in KILLS[engine]:
            history.live(signal.SIGKILL, kind)
        history.check()
        assert len(KILLS[engine]) == history.tally.ends.total()


@pytest.mark.parametrize(("engine", "seed"), [("edge", 3), ("server", 2)])
def test_stopped_and_started_again(tmp_path: Path, engine: str, seed: int) -> None:
    """In the middle of the load, and as soon as it listens: status 0, and nothing is lost."""
    with new_history(tmp_path, seed, engine) as history:
        history.live(signal.SIGTERM, "applying")
        history.live(signal.SIGTERM, "output")
        history.check()
        assert 1 == history.tally.ends["output"]


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["edge", "server"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_soak_ends(
    tmp_path_factory: pytest.TempPathFactory, engine: str, number: signal.Signals
) -> None:
    """A hundred ends of each kind over each engine, in histories of twenty."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\n{number.name} over {engine}: seeds from {first}")
    started, tallies = time.monotonic(), []
    for seed in range(first, first + SOAK_ENDS // SOAK_LIVES):
        with new_history(tmp_path_factory.mktemp("soak"), seed, engine) as history:
            for _ in range(SOAK_LIVES):
                history.live(number)
            history.check()
            tallies.append(history.tally)
            print(f"seed {seed}: {history.tally}")
    print(f"in all: {Tally.sum(tallies)}, in {time.monotonic() - started:.0f} s")
