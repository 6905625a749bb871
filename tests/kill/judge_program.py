"""Judge in forks that kill themselves after so many calls of the judge; see test_judge_kill.

For each fork a line is printed: how it ended, and the number of complete parts.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msmarco_qdrant.testing import WordOverlapReranker
from msmarco_qdrant.train import JudgeReport, judge_negatives, judge_parts
from tests.forks import exit_status
from tests.train.small_collection import QRELS, QUERIES, mined, open_client

TRAIN, DEV = QUERIES[:40], QUERIES[40:]


class Killing(WordOverlapReranker):
    """Ends the process by SIGKILL at its last call; a negative number is never reached."""

    def __init__(self, calls: int = -1) -> None:
        super().__init__()
        self._calls = calls

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Score pairs."""
        self._calls -= 1
        if not self._calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scores(pairs)


def run(store: Path, out: Path, judge: WordOverlapReranker) -> JudgeReport:
    """Judge in parts of 100 pairs."""
    judge_parts.split_parts.__defaults__ = (100,)
    with open_client(store) as client:
        return judge_negatives(
            judge, client, TRAIN, mined(client, TRAIN), out, dev_queries=DEV, dev_qrels=QRELS
        )


if __name__ == "__main__":
    # once, not in each fork
    import pandas as pd  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import qdrant_client  # noqa: F401
    import qdrant_edge  # noqa: F401
    import scipy.stats  # noqa: F401

    store, out = map(Path, sys.argv[1:3])
    for calls in map(int, sys.argv[3:]):
        status = exit_status(partial(run, store, out, Killing(calls)))
        print(status, len([*(out / "parts").glob("*.parquet")]))
