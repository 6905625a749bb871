"""Train a tiny model in a process that kills itself at a moment; called by test_train_kill."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from msmarco_qdrant.train import TrainReport, finish, train_bi_encoder
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
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
