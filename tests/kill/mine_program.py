"""Mining runs that are killed at a step that a seed decides, each in a fork.

Run as `python -m tests.kill.mine_program FOLDER KILLS SEED`. This process opens no store, so that
its forks may. A step is a change of the output folder. It prints the number of kills, and ends
with 1 at the first folder that differs from that of a run nobody killed.
"""

from __future__ import annotations

import random
import shutil
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np  # noqa: F401  # imported once, not in each fork
import qdrant_client  # noqa: F401
import qdrant_edge  # noqa: F401

from msmarco_qdrant.core.json_value import to_json_value
from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.core.search_types import Fusion, SearchMode
from msmarco_qdrant.encoding import Encoder
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from msmarco_qdrant.train import mine, mine_negatives
from tests.forks import exit_status
from tests.kill.steps import KILLED, Steps

_WORDS = [f"w{number}" for number in range(50)]
_QUERIES = [Query(f"q{n}", f"{_WORDS[n % 50]} {_WORDS[n * 7 % 50]}") for n in range(40)]
_POSITIVES = {query.qid: (str(n),) for n, query in enumerate(_QUERIES)}
_FILES = ("negatives.jsonl.gz", "settings.json")


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill so many runs, in histories of one to four kills, and compare each folder at its end."""
    to_json_value(Fusion())  # imports pydantic, once
    exit_status(partial(_ingest, folder / "store"))
    exit_status(partial(_mine, folder / "store", folder / "whole"))
    expected = _files(folder / "whole")
    exit_status(partial(_count_steps, folder))
    steps, rng, out = int((folder / "steps").read_text()), random.Random(seed), folder / "out"
    done = 0
    while done < kills:
        for _ in range(rng.randint(1, 4)):
            killed = partial(_mine, folder / "store", out, rng.randint(1, steps))
            done += exit_status(killed) == KILLED
        if exit_status(partial(_mine, folder / "store", out)) or _files(out) != expected:
            sys.exit(f"another folder after {done} kills")
        shutil.rmtree(out)
    print(done)


def _ingest(store: Path) -> None:
    passages = [Passage(str(n), f"{_WORDS[n % 50]} {_WORDS[n % 31]} {n}") for n in range(150)]
    ingest_passages(passages, store, encoder=HashingEncoder(), optimize=False)


def mine_once(folder: str, encoder: Encoder, processes: int) -> None:
    """Fill the store of a folder if it is empty, and mine into `out`."""
    place = Path(folder)
    if not (place / "store").exists():
        _ingest(place / "store")
    _mine(place / "store", place / "out", encoder=encoder, processes=processes)


def _mine(
    store: Path,
    out: Path,
    last: int | None = None,
    *,
    encoder: Encoder | None = None,
    processes: int | None = None,
) -> int:
    """Mine in parts of five queries; return the number of steps."""
    mine.QUERIES_PER_PART = 5
    with closing(open_store(store)) as opened:
        client = SearchClient(opened, "msmarco", encoder or HashingEncoder())
        steps = Steps(out, last)
        steps.watch()
        modes: tuple[SearchMode, ...] = ("dense", "bm25")
        mine_negatives(client, _QUERIES, _POSITIVES, out, modes=modes, depth=8, processes=processes)
    return steps.count


def _count_steps(folder: Path) -> None:
    count = _mine(folder / "store", folder / "counted")
    (folder / "steps").write_text(str(count))


def _files(out: Path) -> dict[str, bytes]:
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if names != {*_FILES, "report.json"}:
        sys.exit(f"other files: {names}")
    return {name: (out / name).read_bytes() for name in _FILES}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
