"""Train a tiny model in forks that kill themselves, each at a moment; called by test_train_kill.

For each moment a line is printed: how the fork ended, and the number of reports that exist then.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from msmarco_qdrant.train import TrainReport, finish, train_bi_encoder
from tests.forks import exit_status
from tests.train.training import DEV, DEV_QRELS, MINED, QUICK, TRAIN, small_client

NEVER = "never"


def run(model: Path, out: Path, moment: str = NEVER) -> TrainReport:
    """Train; end the process by SIGKILL at `step:N`, or at `move:N`, before file N is moved."""
    kind, _, number = moment.partition(":")

    def at_step(pairs: int, _all: int) -> None:
        if kind == "step" and pairs == int(number) * QUICK["batch_size"]:
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "move":
        _kill_at_move(int(number))
    with small_client() as client:
        return train_bi_encoder(
            model,
            client,
            TRAIN,
            MINED,
            out,
            epochs=3,
            seed=3,
            dev_queries=DEV,
            dev_qrels=DEV_QRELS,
            on_progress=at_step,
            **{**QUICK, "learning_rate": 3e-4},
        )


def _kill_at_move(number: int) -> None:
    move = finish.move
    moved: list[Path] = []

    def killing(source: Path, target: Path) -> None:
        if len(moved) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        moved.append(target)
        move(source, target)

    finish.move = killing


if __name__ == "__main__":
    # once, not in each fork
    import datasets  # noqa: F401
    import qdrant_client  # noqa: F401
    import qdrant_edge  # noqa: F401
    import sentence_transformers  # noqa: F401

    model, out = map(Path, sys.argv[1:3])
    for moment in sys.argv[3:]:
        status = exit_status(partial(run, model, out, moment))
        print(status, len([*out.glob("report.json")]))
