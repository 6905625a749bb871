"""A sidecar that is killed under load at any moment, again and again: accepted passages stay.

A seed decides at which moment of which kind each process ends and which load it gets, so most of a
history is reproducible; the order of threads and processes is not. `kill -9` cannot show what only
a power cut loses, such as a file without its fsync.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kill.history import History
from tests.loopback import LoopbackServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify reports the moments")

KINDS: Mapping[str, Sequence[Sequence[str]]] = {
    "edge": [("applying", "start"), ("answered", "store", "done")],
    "server": [("request", "applying"), ("incoming", "tmp")],
}
"""The kinds of moments of each engine, a history's together."""
SOAK_ENDS = 100  # of each engine, and of each signal
SOAK_LIVES = 20  # of a history


@contextmanager
def new_history(folder: Path, seed: int, engine: str) -> Iterator[History]:
    """A history over an engine; odd seeds put the inbox on another file system than the spool."""
    with ExitStack() as stack:
        server = stack.enter_context(LoopbackServer()) if engine == "server" else None
        memory, inbox = Path("/dev") / "shm", None
        if seed % 2 and memory.is_dir() and memory.stat().st_dev != folder.stat().st_dev:
            inbox = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
        yield History(folder, seed, server, inbox)


def run_history(folder: Path, seed: int, engine: str, kinds: Sequence[str]) -> None:
    """Kill at moments of these kinds, stop twice under load, and check what is left."""
    with new_history(folder, seed, engine) as history:
        history.live(signal.SIGTERM, "output")
        for kind in kinds:
            history.live(signal.SIGKILL, kind)
        history.live(signal.SIGTERM, "applying")
        history.check()
        assert len(kinds) + 2 == history.ends.total()
        assert 1 == history.ends["output"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "seed"), [(engine, seed) for engine in KINDS for seed in range(len(KINDS[engine]))]
)
def test_killed_at_moments_of_each_kind(tmp_path: Path, engine: str, seed: int) -> None:
    """Every passage of every 202 is found at the end, once; no deleted passage is back.

    So it is after a stop at the first line of output, and after one in the middle. A history takes
    some 20 s of processor time: five to seven processes one after the other, each under load.
    """
    run_history(tmp_path, seed + 10, engine, KINDS[engine][seed])


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["edge", "server"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_soak_ends(
    tmp_path_factory: pytest.TempPathFactory, engine: str, number: signal.Signals
) -> None:
    """A hundred ends of each kind over each engine, in histories of twenty."""
    first = random.SystemRandom().randrange(1 << 30)
    print(f"\n{number.name} over {engine}: seeds from {first}")
    for seed in range(first, first + SOAK_ENDS // SOAK_LIVES):
        with new_history(tmp_path_factory.mktemp("soak"), seed, engine) as history:
            for _ in range(SOAK_LIVES):
                history.live(number)
            history.check()
            print(f"seed {seed}: {dict(history.ends)}, {len(history.batches)} batches")
