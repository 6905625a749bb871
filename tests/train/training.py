"""A small collection, training queries, and a tiny model to train on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.ingest.api import ingest_passages
from msmarco_qdrant.search.client import SearchClient
from msmarco_qdrant.stores import open_store
from msmarco_qdrant.testing import HashingEncoder
from msmarco_qdrant.train import MinedQuery
from tests.encoding.tiny_models import WORDS

PASSAGES = 90
QUERIES = 30

_random = random.Random(0)
TEXTS = {
    str(number): f"{' '.join(_random.choices(WORDS, k=8))} {number}" for number in range(PASSAGES)
}
TRAIN = [Query(f"q{row}", " ".join(TEXTS[str(row)].split()[3:6])) for row in range(QUERIES)]
POSITIVES = {f"q{row}": (str(row), str(row + QUERIES)) for row in range(QUERIES)}
MINED = [
    MinedQuery(
        query.qid,
        POSITIVES[query.qid],
        {
            "dense": tuple(
                one for one in _random.sample([*TEXTS], 12) if one not in POSITIVES[query.qid]
            )
        },
    )
    for query in TRAIN
]
DEV = [Query(f"d{query.qid}", query.text) for query in TRAIN[:10]]
DEV_QRELS = {f"dq{row}": {str(row): 1} for row in range(10)}
SCORES = {query.qid: {pid: _random.uniform(-5, 5) for pid in TEXTS} for query in TRAIN}
QUICK: dict[str, Any] = {"batch_size": 10, "learning_rate": 1e-3, "device": "cpu"}
"""Options of a training of six steps per epoch."""


@contextmanager
def small_client(texts: dict[str, str] = TEXTS) -> Iterator[SearchClient]:
    """Open a client without a model on the collection, in memory."""
    with open_store(":memory:", create=True) as store:
        passages = [Passage(pid, text) for pid, text in texts.items()]
        ingest_passages(passages, store, encoder=HashingEncoder(), optimize=False)
        with SearchClient.open(store, bm25_only=True) as client:
            yield client


def weights(folder: Path) -> bytes:
    """Return the bytes of a model's weights."""
    return (folder / "model.safetensors").read_bytes()
