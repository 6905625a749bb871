"""A collection that a tiny model learns in seconds: queries are in other words than passages.

Each passage is two words, each query their two translations. The model with random weights knows
none; after a training on some pairs it ranks the others.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.ingest.api import ingest_passages
from tests.encoding.tiny_models import WORDS, Recipe, save_tiny

_LONG = [word for word in dict.fromkeys(WORDS) if len(word) > 3]
_PAIRS = [*combinations(range(16), 2)]
PASSAGES = [Passage(str(n), f"{_LONG[i]} {_LONG[j]}") for n, (i, j) in enumerate(_PAIRS)]
QUERIES = [Query(f"q{n}", f"{_LONG[16 + i]} {_LONG[16 + j]}") for n, (i, j) in enumerate(_PAIRS)]
QRELS = {query.qid: {query.qid[1:]: 1} for query in QUERIES}
FLOAT32: dict[str, Any] = {"precision": "float32", "device": "cpu"}
TRAINING: dict[str, Any] = {
    "batch_size": 16,
    "epochs": 10,
    "learning_rate": 3e-3,
    "negatives": 2,
    "eval_steps": 1000,
    "checkpoint_steps": 1000,
}


def make_collection(folder: Path, store: str = "store", collection: str = "things") -> Path:
    """Make a model and a store with the collection; return the model's folder."""
    model = save_tiny(folder / "model", Recipe(similarity="cosine"))
    ingest_passages(
        PASSAGES,
        folder / store,
        collection=collection,
        model=model,
        encoder_options=FLOAT32,
        bm25={"avg_len": 2.0},
    )
    return model
