"""An improvement that is killed again and again, each time in a fork, and then goes on.

Run as `python -m tests.train.improve_program FOLDER KILLS SEED`. This process opens no store and
runs no model, so that its forks may. A kill is at a change in the file system that the seed
decides. It ends with 1 if the result differs from that of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from functools import partial
from pathlib import Path

import datasets  # noqa: F401  # imported once, not in each fork
import ir_measures  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow.parquet  # noqa: F401
import qdrant_client  # noqa: F401
import qdrant_edge  # noqa: F401
import scipy.stats  # noqa: F401
import torch
from sentence_transformers import SentenceTransformerTrainer

from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.train.improve import improve_collection
from msmarco_qdrant.train.improve_tables import improve_json
from tests.forks import exit_status
from tests.kill.steps import KILLED, Steps
from tests.train.tiny_data import FLOAT32, QRELS, QUERIES, TRAINING, make_collection

_LOADED = SentenceTransformerTrainer  # once, before the forks


def main(folder: Path, kills: int, seed: int) -> None:
    """Compare a killed improvement with an undisturbed one."""
    exit_status(lambda: make_collection(folder))
    calm, killed = folder / "calm", folder / "killed"
    exit_status(lambda: _improve(folder, calm, None))
    total = json.loads((folder / "calm.json").read_text())["changes"]
    chosen = random.Random(seed)
    done = 0
    for _ in range(kills):
        last = chosen.randint(1, 2 * total // kills + 1)
        done += exit_status(partial(_improve, folder, killed, last)) == KILLED
    if exit_status(lambda: _improve(folder, killed, None)):
        sys.exit("the last run failed")
    results = [json.loads((folder / f"{name}.json").read_text()) for name in ("calm", "killed")]
    if results[0]["result"] != results[1]["result"]:
        sys.exit(f"the results differ:\n{results[0]}\n{results[1]}")
    print(json.dumps({"kills": done, "changes": total}))


def _improve(folder: Path, out: Path, last: int | None) -> None:
    torch.set_num_threads(1)
    steps = Steps(out, last)
    steps.watch()
    with SearchClient.open(
        folder / "store", collection="things", encoder_options=FLOAT32
    ) as client:
        report = improve_collection(
            client,
            QUERIES,
            QRELS,
            out,
            training={**TRAINING, "epochs": 1, "checkpoint_steps": 2, "eval_steps": 2},
            rounds=2,
            depth=10,
            encoder_options=FLOAT32,
            measures="nDCG@10",
        )
    value = improve_json(report)
    for step in value["steps"]:
        del step["seconds"], step["resumed"], step["command"]
    kept = {name: value[name] for name in ("evaluations", "verdict", "validation_before")}
    weights = [_digest(Path(one["model"]) / "model.safetensors") for one in value["rounds"]]
    result = {**kept, "weights": weights, "names": [step["name"] for step in value["steps"]]}
    saved = {"changes": steps.count, "result": result}
    out.with_suffix(".json").write_text(json.dumps(saved))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
