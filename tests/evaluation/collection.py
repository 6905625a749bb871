"""A small collection whose rankings are known by hand, for several tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msmarco_qdrant.core.records import Passage, Query
from msmarco_qdrant.evaluation import Qrels
from msmarco_qdrant.testing import HashingEncoder

PASSAGES = [
    Passage("a", "castle"),
    Passage("b", "castle garden"),
    Passage("c", "river"),
    Passage("d", "river bridge"),
    Passage("e", "tower"),
    Passage("f", "market street"),
    Passage("g", "bridge bridge bridge market harbor"),
]
# Cosine: q1 a b, q2 c d, q3 g (0.90) d (0.71); shared words: q3 d (1/2) g (1/3).
QUERIES = [
    Query("q1", "castle"),
    Query("q2", "river"),
    Query("q3", "bridge"),
    Query("q4", "street"),
]
QRELS: Qrels = {"q1": {"b": 1}, "q2": {"c": 1}, "q3": {"d": 1}}


class ListeningEncoder(HashingEncoder):
    """An encoder without chance matches that remembers what was asked, batch by batch."""

    def __init__(self) -> None:
        super().__init__(4096)
        self.asked: list[list[str]] = []

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Remember and encode."""
        self.asked.append(list(queries))
        return super().encode_queries(queries)
